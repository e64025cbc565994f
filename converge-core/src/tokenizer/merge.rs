//! Joining neighbours pair by pair, the best first: what BPE and SentencePiece do.

use std::{cmp::Reverse, collections::BinaryHeap};

use crate::TokenId;

/// A joint of two neighbours: the lower its rank, the earlier it is done.
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
pub(super) struct Symbol {
    /// [`NO_TOKEN`] if no token stands for the piece, `GONE` once it was merged into its left
    /// neighbour.
    pub(super) token: TokenId,
    /// Its bytes in the word.
    pub(super) start: u32,
    pub(super) end: u32,
    prev: u32,
    next: u32,
}

/// The token of a piece that is none; vocabularies are smaller.
pub(super) const NO_TOKEN: TokenId = TokenId::MAX - 1;
/// The token of a symbol that is no more.
const GONE: TokenId = TokenId::MAX;
/// No neighbour; words are shorter than that.
const NONE: u32 = u32::MAX;

/// A merge that could be done. Ordered by rank, then from the left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    rank: u32,
    at: u32,
    left: TokenId,
    right: TokenId,
    token: TokenId,
}

impl Scratch {
    /// Forgets the last word.
    pub(super) fn clear(&mut self) {
        self.symbols.clear();
        self.queue.clear();
    }

    /// Appends a piece of `bytes` bytes to the word.
    pub(super) fn push(&mut self, token: TokenId, bytes: usize) {
        let at = self.symbols.len() as u32;
        let start = self.symbols.last().map_or(0, |last| last.end);
        self.symbols.push(Symbol {
            token,
            start,
            end: start + bytes as u32,
            prev: at.checked_sub(1).unwrap_or(NONE),
            next: at + 1,
        });
    }

    /// Merges until nothing is left to merge. `pair` says what two neighbours become.
    pub(super) fn merge(&mut self, pair: impl Fn(&Symbol, &Symbol) -> Option<Merge>) {
        let Self { symbols, queue } = self;
        if let Some(last) = symbols.last_mut() {
            last.next = NONE;
        }
        let candidate = |at: u32, left: &Symbol, right: &Symbol| {
            let Merge { rank, token } = pair(left, right)?;
            Some(Reverse(Candidate {
                rank,
                at,
                left: left.token,
                right: right.token,
                token,
            }))
        };
        let pairs = (0..).zip(symbols.windows(2));
        queue.extend(pairs.filter_map(|(at, pair)| candidate(at, &pair[0], &pair[1])));
        let get = |symbols: &[Symbol], at: u32| symbols.get(at as usize).copied();
        while let Some(Reverse(merge)) = queue.pop() {
            // Unless one of the two has been merged with another meanwhile.
            let Some(left) = get(symbols, merge.at).filter(|left| left.token == merge.left) else {
                continue;
            };
            let Some(right) = get(symbols, left.next).filter(|next| next.token == merge.right)
            else {
                continue;
            };
            let merged = Symbol {
                token: merge.token,
                end: right.end,
                next: right.next,
                ..left
            };
            symbols[merge.at as usize] = merged;
            symbols[left.next as usize].token = GONE;
            if let Some(after) = symbols.get_mut(right.next as usize) {
                after.prev = merge.at;
                queue.extend(candidate(merge.at, &merged, after));
            }
            if let Some(before) = get(symbols, left.prev) {
                queue.extend(candidate(left.prev, &before, &merged));
            }
        }
    }

    /// What the word has become.
    pub(super) fn symbols(&self) -> impl Iterator<Item = &Symbol> {
        self.symbols.iter().filter(|symbol| symbol.token != GONE)
    }
}
