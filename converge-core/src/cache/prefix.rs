//! What sessions have computed before, found again by its tokens.
//!
//! The calls of an agent come from a few templates: each goes on from the beginning of an earlier
//! one, seldom from the one just before. Pages of the KV cache are shared and never changed while
//! they are shared, so what is kept here costs nothing but its memory; where that runs out, the least
//! recently used goes first.

use super::KvCache;
use crate::TokenId;

/// Sequences of tokens with their keys and values.
#[derive(Debug, Default)]
pub(crate) struct PrefixIndex {
    entries: Vec<Entry>,
    /// Counts uses, to tell which is the least recent.
    clock: u64,
}

#[derive(Debug)]
struct Entry {
    tokens: Vec<TokenId>,
    cache: KvCache,
    used: u64,
    pinned: bool,
}

impl PrefixIndex {
    /// Keeps the keys and values of `tokens`. What they begin with needs no entry of its own.
    pub(crate) fn insert(&mut self, tokens: &[TokenId], cache: &KvCache, pinned: bool) {
        self.clock += 1;
        let used = self.clock;
        let longer = |known: &&mut Entry| known.tokens.starts_with(tokens);
        if let Some(known) = self.entries.iter_mut().find(longer) {
            known.used = used;
            known.pinned |= pinned;
            return;
        }
        self.entries
            .retain(|known| known.pinned || !tokens.starts_with(&known.tokens));
        self.entries.push(Entry {
            tokens: tokens.to_vec(),
            cache: cache.clone(),
            used,
            pinned,
        });
    }

    /// The keys and values of the longest beginning that `prompt` has in common with an entry and that
    /// it reaches, and how many tokens it has.
    pub(crate) fn longest(&mut self, prompt: &[TokenId]) -> Option<(usize, KvCache)> {
        self.clock += 1;
        let best = self
            .entries
            .iter_mut()
            .map(|entry| (entry.cache.reach(common(&entry.tokens, prompt)), entry))
            .max_by_key(|(common, _)| *common)?;
        let (len, entry) = best;
        if len > 0 {
            entry.used = self.clock;
        }
        Some((len, entry.cache.clone()))
    }

    /// Drops the least recently used entry that is not pinned; `false` where there is none.
    pub(crate) fn evict(&mut self) -> bool {
        let unpinned = self.entries.iter().enumerate().filter(|(_, e)| !e.pinned);
        let oldest = unpinned.min_by_key(|(_, e)| e.used).map(|(i, _)| i);
        oldest.map(|i| self.entries.swap_remove(i)).is_some()
    }

    /// Lets go of what was pinned.
    pub(crate) fn unpin(&mut self) {
        self.entries.iter_mut().for_each(|e| e.pinned = false);
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

/// How many tokens two sequences have in common at their beginning.
pub(crate) fn common(a: &[TokenId], b: &[TokenId]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
