//! Finding special tokens in text.

use std::ops::Range;

use crate::TokenId;

/// The longest special token that is supported, in bytes: it bounds the work per byte of text.
pub(super) const MAX_SPECIAL: usize = 256;

/// A special token in a text, at the bytes `start..end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hit {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) token: TokenId,
}

/// A set of texts, in the order of their bytes.
#[derive(Debug)]
pub(super) struct Matcher {
    texts: Vec<(Box<str>, TokenId)>,
    /// The range of `texts` with a given first byte.
    first: Vec<Range<usize>>,
}

impl Matcher {
    /// A matcher for texts of which none is empty, none longer than [`MAX_SPECIAL`].
    pub(super) fn new<'a>(texts: impl IntoIterator<Item = (TokenId, &'a str)>) -> Self {
        let mut texts: Vec<(Box<str>, TokenId)> = texts
            .into_iter()
            .map(|(token, text)| (text.into(), token))
            .collect();
        texts.sort_unstable();
        let first = (0..=u8::MAX)
            .map(|byte| narrow(&texts, 0..texts.len(), 0, byte))
            .collect();
        Self { texts, first }
    }

    /// The leftmost match, and the longest of those.
    pub(super) fn find(&self, text: &str) -> Option<Hit> {
        let bytes = text.as_bytes();
        bytes.iter().enumerate().find_map(|(start, &byte)| {
            let range = self
                .first
                .get(byte as usize)
                .filter(|range| !range.is_empty())?;
            let (len, token) = self.longest(range.clone(), bytes.get(start..)?)?;
            Some(Hit {
                start,
                end: start + len,
                token,
            })
        })
    }

    /// The longest text with which `bytes` begin; those of `range` agree in the first byte.
    fn longest(&self, mut range: Range<usize>, bytes: &[u8]) -> Option<(usize, TokenId)> {
        let mut best = None;
        for len in 1.. {
            // A text that ends here comes before those that go on.
            match self.texts.get(range.start) {
                Some((text, token)) if text.len() == len => best = Some((len, *token)),
                _ => {}
            }
            let Some(&byte) = bytes.get(len) else { break };
            range = narrow(&self.texts, range, len, byte);
            if range.is_empty() {
                break;
            }
        }
        best
    }
}

/// Of texts that agree in their first `at` bytes those that go on with `byte`.
fn narrow(texts: &[(Box<str>, TokenId)], range: Range<usize>, at: usize, byte: u8) -> Range<usize> {
    let within = texts.get(range.clone()).unwrap_or_default();
    // A text that ends at `at` is less than any byte.
    let before = within.partition_point(|(text, _)| text.as_bytes().get(at) < Some(&byte));
    let upto = within.partition_point(|(text, _)| text.as_bytes().get(at) <= Some(&byte));
    range.start + before..range.start + upto
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftmost_then_longest() {
        let matcher = Matcher::new([(1, "<a>"), (2, "<a><b>"), (3, "b"), (4, "<"), (5, "é")]);
        let find = |text| {
            matcher
                .find(text)
                .map(|hit| (hit.start, hit.end, hit.token))
        };
        assert_eq!(find("x<a><b>"), Some((1, 7, 2)));
        assert_eq!(find("x<a><"), Some((1, 4, 1)));
        assert_eq!(find("<ab"), Some((0, 1, 4)));
        assert_eq!(find("è é"), Some((3, 5, 5)));
        assert_eq!(find("xyz"), None);
        assert_eq!(find(""), None);
        assert_eq!(Matcher::new([]).find("xyz"), None);
    }
}
