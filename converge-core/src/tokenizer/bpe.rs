//! Byte-level BPE: a word's bytes, merged pair by pair in the order of the merges' ranks.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
};

use crate::TokenId;

/// The tables of a byte-level BPE.
#[derive(Debug)]
pub(super) struct Bpe {
    /// The token of each byte, where there is one.
    pub(super) bytes: [Option<TokenId>; 256],
    /// Two neighbours to the merge that joins them.
    pub(super) merges: HashMap<(TokenId, TokenId), Merge>,
    /// Words that become one token whatever the merges say; empty where the merges decide.
    pub(super) whole: HashMap<Box<[u8]>, TokenId>,
}

/// A merge: the lower its rank, the earlier it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Merge {
    pub(super) rank: u32,
    pub(super) token: TokenId,
}

/// Memory for the work on a word, to be used again for the next.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    symbols: Vec<Symbol>,
    queue: BinaryHeap<Reverse<Candidate>>,
}

/// A piece of the word, linked to its neighbours.
#[derive(Clone, Copy, Debug)]
struct Symbol {
    /// `GONE` once it was merged into its left neighbour.
    token: TokenId,
    prev: u32,
    next: u32,
}

/// No neighbour; vocabularies and words are shorter than that.
const NONE: u32 = u32::MAX;
/// The token of a symbol that is no more.
const GONE: TokenId = TokenId::MAX;

/// A merge that could be done. Ordered by rank, then from the left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    rank: u32,
    at: u32,
    left: TokenId,
    right: TokenId,
    token: TokenId,
}

impl Bpe {
    /// Whether every byte of the character has a token.
    pub(super) fn can_encode(&self, c: char) -> bool {
        c.encode_utf8(&mut [0; 4])
            .bytes()
            .all(|byte| self.has(byte))
    }

    fn has(&self, byte: u8) -> bool {
        self.bytes.get(byte as usize).is_some_and(Option::is_some)
    }

    /// The first character with a byte that has no token, and its offset.
    pub(super) fn unencodable(&self, text: &str) -> Option<(usize, char)> {
        let at = text.bytes().position(|byte| !self.has(byte))?;
        let start = text.floor_char_boundary(at);
        text.get(start..)?.chars().next().map(|c| (start, c))
    }

    /// Appends the tokens of a word. A byte without a token is left out: the caller sees to it
    /// that there is none. The word is shorter than `u32::MAX` bytes.
    pub(super) fn encode(&self, word: &str, scratch: &mut Scratch, tokens: &mut Vec<TokenId>) {
        if let Some(&token) = self.whole.get(word.as_bytes()) {
            tokens.push(token);
            return;
        }
        let Scratch { symbols, queue } = scratch;
        symbols.clear();
        queue.clear();
        let known = word
            .bytes()
            .filter_map(|b| self.bytes.get(b as usize).copied().flatten());
        symbols.extend((0..).zip(known).map(|(at, token): (u32, _)| Symbol {
            token,
            prev: at.checked_sub(1).unwrap_or(NONE),
            next: at + 1,
        }));
        if let Some(last) = symbols.last_mut() {
            last.next = NONE;
        }
        queue.extend(
            (0..)
                .zip(symbols.windows(2))
                .filter_map(|(at, pair)| self.candidate(at, pair[0].token, pair[1].token))
                .map(Reverse),
        );
        while let Some(Reverse(next)) = queue.pop() {
            self.apply(next, symbols, queue);
        }
        tokens.extend(
            symbols
                .iter()
                .map(|symbol| symbol.token)
                .filter(|&token| token != GONE),
        );
    }

    fn candidate(&self, at: u32, left: TokenId, right: TokenId) -> Option<Candidate> {
        let &Merge { rank, token } = self.merges.get(&(left, right))?;
        Some(Candidate {
            rank,
            at,
            left,
            right,
            token,
        })
    }

    /// Does a merge, unless one of its two has been merged with another meanwhile.
    fn apply(
        &self,
        merge: Candidate,
        symbols: &mut [Symbol],
        queue: &mut BinaryHeap<Reverse<Candidate>>,
    ) {
        let get = |symbols: &[Symbol], at: u32| symbols.get(at as usize).copied();
        let Some(left) = get(symbols, merge.at).filter(|left| left.token == merge.left) else {
            return;
        };
        let Some(right) = get(symbols, left.next).filter(|right| right.token == merge.right) else {
            return;
        };
        let merged = Symbol {
            token: merge.token,
            prev: left.prev,
            next: right.next,
        };
        symbols[merge.at as usize] = merged;
        symbols[left.next as usize].token = GONE;
        if let Some(after) = symbols.get_mut(right.next as usize) {
            after.prev = merge.at;
            queue.extend(
                self.candidate(merge.at, merged.token, after.token)
                    .map(Reverse),
            );
        }
        if let Some(before) = get(symbols, left.prev) {
            queue.extend(
                self.candidate(left.prev, before.token, merged.token)
                    .map(Reverse),
            );
        }
    }
}
