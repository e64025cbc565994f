//! SentencePiece's BPE: characters, joined pair by pair as long as what comes out is a token, the
//! token with the highest score first.

use std::collections::HashMap;

use super::{
    fallback::Bytes,
    merge::{Merge, NO_TOKEN, Scratch, Symbol},
};
use crate::TokenId;

/// How SentencePiece writes a space.
pub(super) const SPACE: char = '▁';

/// The tables of a SentencePiece model.
#[derive(Debug)]
pub(super) struct Spm {
    /// Every token that text can become, and the rank of its score.
    pub(super) pieces: HashMap<Box<str>, Merge>,
    /// The length of the longest of them, in bytes: it bounds the work per character.
    pub(super) longest: usize,
    pub(super) bytes: Bytes,
    /// For characters of which some byte has no token.
    pub(super) unknown: Option<TokenId>,
    /// A space is put before a text.
    pub(super) space_prefix: bool,
    /// Runs of spaces count as one, those at the beginning and the end as none.
    pub(super) squeezes_spaces: bool,
}

/// The rank of a score: the higher the score, the lower.
pub(super) fn rank(score: f32) -> u32 {
    // The bits of floats are ordered as the floats are, once the negative ones are turned over.
    let bits = (score + 0.0).to_bits();
    match score.is_sign_negative() && bits != 0 {
        true => bits,
        false => !(bits | 1 << 31),
    }
}

impl Spm {
    /// Whether there are tokens for the character.
    pub(super) fn can_encode(&self, c: char) -> bool {
        let plain = if c == SPACE { ' ' } else { c };
        self.pieces.contains_key(&*plain.encode_utf8(&mut [0; 4])) || self.bytes.can_encode(plain)
    }

    /// Appends the tokens of a text; `prefixed` says whether it begins one, so that a space may
    /// belong before it.
    pub(super) fn encode(
        &self,
        text: &str,
        prefixed: bool,
        scratch: &mut Scratch,
        tokens: &mut Vec<TokenId>,
    ) {
        let text = self.normalized(text, prefixed);
        scratch.clear();
        for c in text.chars() {
            let piece = self.pieces.get(&*c.encode_utf8(&mut [0; 4]));
            scratch.push(piece.map_or(NO_TOKEN, |piece| piece.token), c.len_utf8());
        }
        scratch.merge(|left, right| {
            let joined = bytes(&text, left.start, right.end)?;
            (joined.len() <= self.longest)
                .then(|| self.pieces.get(joined).copied())
                .flatten()
        });
        for symbol in scratch.symbols() {
            match symbol.token {
                NO_TOKEN => self.fall_back(&text, symbol, tokens),
                token => tokens.push(token),
            }
        }
    }

    fn fall_back(&self, text: &str, symbol: &Symbol, tokens: &mut Vec<TokenId>) {
        let bytes = bytes(text, symbol.start, symbol.end).unwrap_or_default();
        match bytes.bytes().all(|byte| self.bytes.token(byte).is_some()) {
            true => tokens.extend(bytes.bytes().filter_map(|byte| self.bytes.token(byte))),
            false => tokens.extend(self.unknown),
        }
    }

    fn normalized(&self, text: &str, prefixed: bool) -> String {
        let mut normal = String::with_capacity(text.len() + 1);
        if prefixed && self.space_prefix {
            normal.push(' ');
        }
        if self.squeezes_spaces {
            let mut words = text.split([' ', SPACE]).filter(|word| !word.is_empty());
            normal.extend(words.next());
            words.for_each(|word| normal.extend([" ", word]));
        } else {
            // The tokens here have spaces for it.
            normal.extend(text.chars().map(|c| if c == SPACE { ' ' } else { c }));
        }
        normal
    }
}

fn bytes(text: &str, start: u32, end: u32) -> Option<&str> {
    text.get(start as usize..end as usize)
}

#[cfg(test)]
mod tests {
    use super::rank;

    #[test]
    fn the_higher_the_score_the_lower_the_rank() {
        let scores = [
            f32::MAX,
            1.5,
            1.0,
            1e-40,
            0.0,
            -1e-40,
            -1.0,
            -1.5,
            -1e9,
            f32::MIN,
        ];
        assert!(scores.map(rank).is_sorted_by(|a, b| a < b));
        assert_eq!(rank(-0.0), rank(0.0));
    }
}
