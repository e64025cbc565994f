//! SentencePiece's unigram model: of all ways to cut a text into tokens the likeliest one.

use std::collections::HashMap;

use super::{charsmap::Charsmap, spm::SPACE};
use crate::TokenId;

/// How much less likely than the unlikeliest token a character is that is no token.
const UNKNOWN_PENALTY: f32 = 10.0;

/// A token that text can become, and the logarithm of its probability.
#[derive(Clone, Copy, Debug)]
struct Piece {
    token: TokenId,
    score: f64,
}

/// The tables of a unigram model.
#[derive(Debug)]
pub(super) struct Unigram {
    /// The tokens as a trie: from a node and a byte to the next node. The root is 0.
    children: HashMap<(u32, u8), u32>,
    /// The token that ends at a node.
    pieces: Vec<Option<Piece>>,
    /// For characters that are no token.
    unknown: Piece,
    pub(super) charsmap: Option<Charsmap>,
    /// A space is put before a text.
    pub(super) space_prefix: bool,
    /// Runs of spaces count as one, those at the beginning and the end as none.
    pub(super) squeezes_spaces: bool,
}

/// The best way to a place in the text.
#[derive(Clone, Copy)]
struct Best {
    score: f64,
    /// Where its last token begins.
    start: usize,
    token: TokenId,
}

impl Unigram {
    /// The tables of these tokens with their scores.
    pub(super) fn new<'a>(
        tokens: impl Iterator<Item = (&'a str, TokenId, f32)>,
        unknown: TokenId,
    ) -> Self {
        let mut children = HashMap::new();
        let mut pieces = vec![None];
        let mut least = f32::INFINITY;
        for (text, token, score) in tokens {
            let mut node = 0u32;
            for byte in text.bytes() {
                node = *children.entry((node, byte)).or_insert_with(|| {
                    pieces.push(None);
                    (pieces.len() - 1) as u32
                });
            }
            least = least.min(score);
            let score = f64::from(score);
            if let Some(piece) = pieces.get_mut(node as usize) {
                *piece = Some(Piece { token, score });
            }
        }
        let least = if least.is_finite() { least } else { 0.0 };
        let unknown = Piece {
            token: unknown,
            score: f64::from(least - UNKNOWN_PENALTY),
        };
        Self {
            children,
            pieces,
            unknown,
            charsmap: None,
            space_prefix: false,
            squeezes_spaces: false,
        }
    }

    /// Appends the tokens of a text; `begins` says whether it begins one, so that a space may
    /// belong before it. Unknown characters in a row become one token.
    pub(super) fn encode(&self, text: &str, begins: bool, tokens: &mut Vec<TokenId>) {
        let text = self.normalized(text, begins);
        let nowhere = Best {
            score: f64::NEG_INFINITY,
            start: 0,
            token: self.unknown.token,
        };
        let mut best = vec![nowhere; text.len() + 1];
        if let Some(first) = best.first_mut() {
            first.score = 0.0;
        }
        for (start, c) in text.char_indices() {
            let here = best.get(start).map_or(f64::NEG_INFINITY, |best| best.score);
            let mut offer = |end: usize, piece: Piece| {
                let score = here + piece.score;
                if let Some(best) = best.get_mut(end).filter(|best| score > best.score) {
                    *best = Best {
                        score,
                        start,
                        token: piece.token,
                    };
                }
            };
            let (mut node, mut known) = (0, false);
            for (end, byte) in (start + 1..).zip(text.as_bytes().iter().skip(start)) {
                let Some(&child) = self.children.get(&(node, *byte)) else {
                    break;
                };
                node = child;
                if let Some(piece) = self.pieces.get(node as usize).copied().flatten() {
                    known |= end == start + c.len_utf8();
                    offer(end, piece);
                }
            }
            if !known {
                offer(start + c.len_utf8(), self.unknown);
            }
        }
        let from = tokens.len();
        let mut end = text.len();
        while let Some(last) = best.get(end).filter(|_| end > 0) {
            let again = tokens.get(from..).and_then(<[TokenId]>::last) == Some(&last.token);
            if !(again && last.token == self.unknown.token) {
                tokens.push(last.token);
            }
            end = last.start;
        }
        if let Some(new) = tokens.get_mut(from..) {
            new.reverse();
        }
    }

    /// The text with its characters mapped and its spaces as the model has them.
    fn normalized(&self, text: &str, begins: bool) -> String {
        let mut normal = String::with_capacity(text.len() + 1);
        let mut prefix = begins && self.space_prefix;
        // Where a text goes on, a word does.
        let mut in_word = !begins;
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let mapped = self.charsmap.as_ref().and_then(|map| map.replace(rest));
            let (now, after) = match mapped {
                Some((now, len)) => (now, rest.get(len..)),
                None => {
                    let (one, after) = rest.split_at(c.len_utf8());
                    (one, Some(after))
                }
            };
            for c in now.chars() {
                if c == ' ' {
                    in_word = false;
                    if !self.squeezes_spaces {
                        normal.push(' ');
                    }
                    continue;
                }
                if !in_word {
                    in_word = true;
                    if prefix || self.squeezes_spaces {
                        normal.push(' ');
                        prefix = false;
                    }
                }
                // The tokens here have spaces for it.
                normal.push(if c == SPACE { ' ' } else { c });
            }
            rest = after.unwrap_or_default();
        }
        normal
    }
}
