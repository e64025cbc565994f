//! BPE: a word's bytes or characters, merged pair by pair in the order of the merges' ranks.

use std::collections::HashMap;

use super::{
    fallback::Bytes,
    merge::{Merge, NO_TOKEN, Scratch},
};
use crate::TokenId;

/// The tables of a BPE.
#[derive(Debug)]
pub(super) struct Bpe {
    /// The token of each byte, where there is one.
    pub(super) bytes: Bytes,
    /// The token of each character, where words begin as characters instead of bytes; those without
    /// one are bytes in the end.
    pub(super) chars: Option<HashMap<char, TokenId>>,
    /// Two neighbours to the merge that joins them.
    pub(super) merges: HashMap<(TokenId, TokenId), Merge>,
    /// Words that become one token whatever the merges say; empty where the merges decide.
    pub(super) whole: HashMap<Box<[u8]>, TokenId>,
}

impl Bpe {
    /// Whether there are tokens for the character.
    pub(super) fn can_encode(&self, c: char) -> bool {
        let known = |chars: &HashMap<char, TokenId>| chars.contains_key(&c);
        self.chars.as_ref().is_some_and(known) || self.bytes.can_encode(c)
    }

    /// Appends the tokens of a word. A byte without a token is left out: the caller sees to it
    /// that there is none. The word is shorter than `u32::MAX` bytes.
    pub(super) fn encode(&self, word: &str, scratch: &mut Scratch, tokens: &mut Vec<TokenId>) {
        if let Some(&token) = self.whole.get(word.as_bytes()) {
            tokens.push(token);
            return;
        }
        scratch.clear();
        match &self.chars {
            None => {
                for token in word.bytes().filter_map(|byte| self.bytes.token(byte)) {
                    scratch.push(token, 1);
                }
            }
            Some(chars) => {
                for c in word.chars() {
                    scratch.push(chars.get(&c).copied().unwrap_or(NO_TOKEN), c.len_utf8());
                }
            }
        }
        scratch.merge(|left, right| self.merges.get(&(left.token, right.token)).copied());
        for symbol in scratch.symbols() {
            match symbol.token {
                NO_TOKEN => {
                    let bytes = word
                        .as_bytes()
                        .get(symbol.start as usize..symbol.end as usize);
                    let bytes = bytes.unwrap_or_default().iter();
                    tokens.extend(bytes.filter_map(|&byte| self.bytes.token(byte)));
                }
                token => tokens.push(token),
            }
        }
    }
}
