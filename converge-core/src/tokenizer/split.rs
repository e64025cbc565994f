//! Splitting text into the words that BPE works on.
//!
//! The published expressions end in `\s+(?!\S)|\s+`: a run of white space leaves its last character
//! to the word that follows. Lookahead would cost backtracking, so the expressions here take the
//! whole run and the code gives the last character back; what is left are true regular expressions
//! and run in linear time.

use tokenizers::utils::SysRegex;

use super::TokenizerError;

/// A way of cutting pieces of text into smaller ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// Matches are words, each beginning where the last one ended; characters at which there is
    /// none make up words between them.
    Cover { regex: &'static str, spaces: Spaces },
    /// Matches become words of their own, and so does what lies between them.
    Isolate(&'static str),
    /// Runs of digits are cut into groups of three from the right; the first group stays with what
    /// is before it.
    GroupDigits,
    /// Runs of ASCII digits are cut so that groups of three are left on the right.
    Thousands,
}

/// How a run of white space ends that was matched by the last alternative, `\s+`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spaces {
    /// Its last character goes to the word that follows.
    LeaveLast,
    /// As `LeaveLast`, but matches that end in a line end stay: an alternative of the line ends'
    /// own has matched.
    KeepLineEnds,
    /// As `KeepLineEnds`; what is not left is cut into pieces of 512, 256, … 4, 2, 1 characters.
    PowersOfTwo,
}

/// The compiled rules of a pre-tokenizer.
#[derive(Debug)]
pub(super) struct Splitter(Vec<Stage>);

#[derive(Debug)]
enum Stage {
    Cover { regex: SysRegex, spaces: Spaces },
    Isolate(SysRegex),
    GroupDigits(SysRegex),
    Thousands,
}

impl Splitter {
    /// # Errors
    /// [`TokenizerError::Splitter`].
    pub(super) fn new(pre: &str, rules: &[Rule]) -> Result<Self, TokenizerError> {
        let compile = |regex: &str| {
            SysRegex::new(regex).map_err(|source| TokenizerError::Splitter {
                pre: pre.to_owned(),
                source,
            })
        };
        rules
            .iter()
            .map(|&rule| {
                Ok(match rule {
                    Rule::Cover { regex, spaces } => Stage::Cover {
                        regex: compile(&format!(r"\A(?:{regex})"))?,
                        spaces,
                    },
                    Rule::Isolate(regex) => Stage::Isolate(compile(regex)?),
                    Rule::GroupDigits => Stage::GroupDigits(compile(r"\p{N}+")?),
                    Rule::Thousands => Stage::Thousands,
                })
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Calls `word` with the words of a text, in order; joined they are the text.
    pub(super) fn split<'t>(&self, text: &'t str, word: &mut dyn FnMut(&'t str)) {
        split(&self.0, text, word);
    }
}

fn split<'t>(stages: &[Stage], text: &'t str, word: &mut dyn FnMut(&'t str)) {
    if text.is_empty() {
        return;
    }
    let Some((stage, later)) = stages.split_first() else {
        return word(text);
    };
    let piece = &mut |piece| split(later, piece, word);
    match stage {
        Stage::Cover { regex, spaces } => cover(regex, *spaces, text, piece),
        Stage::Isolate(regex) => {
            let mut at = 0;
            for (start, end) in regex.find_iter(text) {
                piece(text.get(at..start).unwrap_or_default());
                piece(text.get(start..end).unwrap_or_default());
                at = end;
            }
            piece(text.get(at..).unwrap_or_default());
        }
        Stage::GroupDigits(runs) => {
            let mut at = 0;
            for (start, end) in runs.find_iter(text) {
                let run = text.get(start..end).unwrap_or_default();
                let digits = run.chars().count();
                // The first group has one to three digits.
                for (nth, (offset, _)) in run.char_indices().enumerate().skip(1) {
                    if (digits - nth).is_multiple_of(3) {
                        piece(text.get(at..start + offset).unwrap_or_default());
                        at = start + offset;
                    }
                }
                piece(text.get(at..end).unwrap_or_default());
                at = end;
            }
            piece(text.get(at..).unwrap_or_default());
        }
        Stage::Thousands => {
            let bytes = text.as_bytes();
            let (mut at, mut run) = (0, 0);
            while run < bytes.len() {
                let digits = bytes
                    .get(run..)
                    .unwrap_or_default()
                    .iter()
                    .take_while(|byte| byte.is_ascii_digit())
                    .count();
                for cut in (run..run + digits).filter(|cut| (run + digits - cut).is_multiple_of(3))
                {
                    piece(text.get(at..cut).unwrap_or_default());
                    at = cut;
                }
                // The byte after a run is no digit.
                run += digits + 1;
            }
            piece(text.get(at..).unwrap_or_default());
        }
    }
}

fn cover<'t>(regex: &SysRegex, spaces: Spaces, text: &'t str, piece: &mut dyn FnMut(&'t str)) {
    // What no alternative takes, up to where the next match begins.
    let (mut gap, mut at) = (0, 0);
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let Some((_, end)) = regex.find_iter(rest).next().filter(|&(_, end)| end > 0) else {
            at += rest.chars().next().map_or(1, char::len_utf8);
            continue;
        };
        let end = give_back(rest, end, spaces != Spaces::LeaveLast);
        let mut found = rest.get(..end).unwrap_or_default();
        piece(text.get(gap..at).unwrap_or_default());
        at += end;
        gap = at;
        if spaces == Spaces::PowersOfTwo
            && found.ends_with(|c: char| c.is_whitespace() && !matches!(c, '\r' | '\n'))
        {
            let mut left = found.chars().count();
            while left > 1 {
                let chars = (1 << left.ilog2()).min(512);
                let cut = found.char_indices().nth(chars);
                let (head, tail) = found.split_at(cut.map_or(found.len(), |(at, _)| at));
                piece(head);
                (found, left) = (tail, left - chars);
            }
        }
        piece(found);
    }
    piece(text.get(gap..).unwrap_or_default());
}

/// Where a match of `rest[..end]` ends once `\s+(?!\S)` has had its say. A match ends in white
/// space only where `\s+` matched, or in a line end that is to be kept.
fn give_back(rest: &str, end: usize, keep_line_ends: bool) -> usize {
    if end == rest.len() {
        return end;
    }
    let mut chars = rest.get(..end).unwrap_or_default().chars();
    match chars.next_back() {
        Some('\r' | '\n') if keep_line_ends => end,
        Some(last) if last.is_whitespace() && chars.next_back().is_some() => end - last.len_utf8(),
        _ => end,
    }
}
