//! Data with guards in it: a character that keeps text from reading like a special token.
//!
//! A special token in a rendered prompt is meant only where the template wrote it. So before the
//! template runs, a character that occurs nowhere is put into every data string wherever the
//! string, alone or with the text around it, might read like a special token; the tokenizer looks
//! for special tokens first and deletes the guards from the text between them afterwards.

use std::collections::{HashMap, HashSet};

use super::ChatError;
use crate::TokenId;

/// How the special tokens of a vocabulary are written, for data to be held against.
pub(super) struct Specials {
    ids: HashSet<TokenId>,
    /// Texts in ASCII lower case (a template may change case), by their first byte.
    by_first: HashMap<u8, Vec<String>>,
    /// Proper prefixes and suffixes of the texts, and the longest of either in bytes.
    prefixes: HashSet<String>,
    suffixes: HashSet<String>,
    longest: usize,
}

impl Specials {
    /// Of tokens and their texts; those of a single character cannot be guarded and are left out.
    pub(super) fn new<'a>(specials: impl IntoIterator<Item = (TokenId, &'a str)>) -> Self {
        let mut this = Self {
            ids: HashSet::new(),
            by_first: HashMap::new(),
            prefixes: HashSet::new(),
            suffixes: HashSet::new(),
            longest: 0,
        };
        for (id, text) in specials {
            this.ids.insert(id);
            let text = text.to_ascii_lowercase();
            for (at, _) in text.char_indices().skip(1) {
                this.prefixes.insert(text[..at].to_owned());
                this.suffixes.insert(text[at..].to_owned());
            }
            this.longest = this.longest.max(text.len());
            if let Some(&first) = text.as_bytes().first()
                && text.chars().nth(1).is_some()
            {
                this.by_first.entry(first).or_default().push(text);
            }
        }
        this
    }

    /// Whether the token is one of these.
    pub(super) fn contains(&self, id: TokenId) -> bool {
        self.ids.contains(&id)
    }

    /// `text` with guards inside everything that reads like a special token, and where it begins
    /// with the end of one or ends with the beginning of one.
    pub(super) fn guard(&self, text: &str, guard: char) -> String {
        let lower = text.to_ascii_lowercase();
        let mut places = Vec::new();
        for (at, c) in lower.char_indices() {
            let Some(candidates) = self.by_first.get(&lower.as_bytes()[at]) else {
                continue;
            };
            let rest = &lower[at..];
            if candidates.iter().any(|special| rest.starts_with(special)) {
                places.push(at + c.len_utf8());
            }
        }
        // Edges as they are, and as they are once a template has stripped the text.
        let start = lower.len() - lower.trim_start().len();
        let end = lower.trim_end().len().max(start);
        for (start, end) in [(0, lower.len()), (start, end)] {
            let core = &lower[start..end];
            let begins = core
                .char_indices()
                .map(|(at, _)| at)
                .skip(1)
                .chain([core.len()])
                .take_while(|&at| at < self.longest)
                .any(|at| self.suffixes.contains(&core[..at]));
            if begins {
                places.push(start);
            }
            let ends = core
                .char_indices()
                .rev()
                .map(|(at, _)| at)
                .take_while(|&at| core.len() - at < self.longest)
                .any(|at| self.prefixes.contains(&core[at..]));
            if ends {
                places.push(end);
            }
        }
        places.sort_unstable();
        places.dedup();
        insert(text, &places, guard)
    }
}

/// `text` with guards around and between all its characters but the whitespace at its edges.
pub(super) fn guard_all(text: &str, guard: char) -> String {
    let start = text.len() - text.trim_start().len();
    let end = text.trim_end().len();
    if start >= end {
        return text.to_owned();
    }
    let places: Vec<usize> = text[start..end]
        .char_indices()
        .map(|(at, _)| start + at)
        .chain([end])
        .collect();
    insert(text, &places, guard)
}

/// Whether a text is a plain word, as names and the types of a JSON Schema are: templates compare
/// those, and guards would keep them from being recognized.
pub(super) fn is_word(text: &str) -> bool {
    text.bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}

/// Whether a word, or a piece of it that a template might cut out, is in one of these texts (in
/// lower case).
pub(super) fn is_part(word: &str, texts: &[String]) -> bool {
    let word = word.to_ascii_lowercase();
    let inside = |piece: &str| texts.iter().any(|text| text.contains(piece));
    inside(&word)
        || word
            .split(['_', '-', '.'])
            .any(|piece| piece.len() > 1 && inside(piece))
}

/// A private-use character that occurs neither in `data` nor in `template`, also not as the
/// escape of it that JSON would write.
pub(super) fn choose(data: &[String], template: &str) -> Result<char, ChatError> {
    let mut used: HashSet<u32> = HashSet::new();
    for text in data.iter().map(String::as_str).chain([template]) {
        used.extend(text.chars().map(u32::from).filter(|c| *c >= 0xe000));
        for (at, _) in text.match_indices("\\u") {
            let digits = text.get(at + 2..at + 6).unwrap_or_default();
            used.extend(u32::from_str_radix(digits, 16));
        }
    }
    let escaped = |c: char| {
        let mut units = [0; 2];
        let unit = c.encode_utf16(&mut units).last().copied();
        used.contains(&unit.unwrap_or_default().into())
    };
    ('\u{e000}'..='\u{f8ff}')
        .chain('\u{f0000}'..='\u{ffffd}')
        .chain('\u{100000}'..='\u{10fffd}')
        .find(|&c| !used.contains(&c.into()) && !escaped(c))
        .ok_or(ChatError::NoGuard)
}

/// The character as JSON escapes it, in lower case.
pub(super) fn escape(c: char) -> String {
    c.encode_utf16(&mut [0; 2])
        .iter()
        .map(|unit| format!("\\u{unit:04x}"))
        .collect()
}

/// `text` with `guard` at these bytes, which ascend.
fn insert(text: &str, places: &[usize], guard: char) -> String {
    let mut out = String::with_capacity(text.len() + places.len() * guard.len_utf8());
    let mut from = 0;
    for &at in places {
        out.push_str(&text[from..at]);
        out.push(guard);
        from = at;
    }
    out.push_str(&text[from..]);
    out
}
