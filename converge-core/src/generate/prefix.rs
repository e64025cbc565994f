//! What sessions have computed before, found again by its tokens.
//!
//! The calls of an agent come from a few templates: each goes on from the beginning of an earlier
//! one, seldom from the one just before. Pages of the KV cache are shared and never changed while
//! they are shared, so what is kept here costs nothing but its memory, and that is bounded.

use std::{collections::HashSet, sync::Arc};

use crate::{TokenId, model::KvPages};

/// Sequences of tokens with their keys and values.
#[derive(Debug)]
pub(super) struct PrefixIndex {
    entries: Vec<Entry>,
    /// The most bytes that pages may take.
    limit: usize,
    /// Counts uses, to tell which is the least recent.
    clock: u64,
}

#[derive(Debug)]
struct Entry {
    tokens: Vec<TokenId>,
    pages: KvPages,
    used: u64,
}

impl PrefixIndex {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            entries: Vec::new(),
            limit,
            clock: 0,
        }
    }

    /// Keeps the keys and values of `tokens`. What they begin with needs no entry of its own; the
    /// least recently used ones go where there are too many bytes.
    pub(super) fn insert(&mut self, tokens: &[TokenId], pages: KvPages) {
        self.clock += 1;
        let used = self.clock;
        if let Some(known) = self
            .entries
            .iter_mut()
            .find(|known| known.tokens.starts_with(tokens))
        {
            known.used = used;
            return;
        }
        self.entries
            .retain(|known| !tokens.starts_with(&known.tokens));
        self.entries.push(Entry {
            tokens: tokens.to_vec(),
            pages,
            used,
        });
        while self.bytes() > self.limit {
            let oldest = (0..self.entries.len()).min_by_key(|&i| self.entries[i].used);
            match oldest {
                Some(oldest) => self.entries.swap_remove(oldest),
                None => return,
            };
        }
    }

    /// The keys and values of the longest beginning that `prompt` has in common with an entry, and
    /// how many tokens it has.
    pub(super) fn longest(&mut self, prompt: &[TokenId]) -> Option<(usize, KvPages)> {
        self.clock += 1;
        let best = self
            .entries
            .iter_mut()
            .map(|entry| (common(&entry.tokens, prompt), entry))
            .max_by_key(|(common, _)| *common)?;
        let (len, entry) = best;
        entry.used = self.clock;
        Some((len, entry.pages.clone()))
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }

    /// Bytes of all pages, each counted once.
    fn bytes(&self) -> usize {
        let mut seen = HashSet::new();
        let pages = self.entries.iter().flat_map(|entry| entry.pages.iter());
        pages
            .filter(|page| seen.insert(Arc::as_ptr(page)))
            .map(|page| page.bytes())
            .sum()
    }
}

/// How many tokens two sequences have in common at their beginning.
pub(super) fn common(a: &[TokenId], b: &[TokenId]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use converge_quant::kernels::{Heads, KvPage};

    use super::*;

    const HEADS: Heads = Heads {
        heads: 1,
        kv_heads: 1,
        size: 16,
    };

    fn pages(n: usize) -> KvPages {
        let new = || Arc::new(KvPage::new(HEADS));
        KvPages::new(1, vec![(0..n).map(|_| new()).collect()])
    }

    #[test]
    fn the_longest_beginning_is_found() {
        let mut index = PrefixIndex::new(usize::MAX);
        assert!(index.longest(&[1]).is_none());
        index.insert(&[1, 2, 3], pages(1));
        index.insert(&[1, 2, 4, 5], pages(1));
        assert_eq!(index.longest(&[1, 2, 4, 9]).unwrap().0, 3);
        assert_eq!(index.longest(&[1, 2, 3, 4]).unwrap().0, 3);
        assert_eq!(index.longest(&[7]).unwrap().0, 0);
        // What begins another is that other.
        index.insert(&[1, 2], pages(1));
        assert_eq!(index.entries.len(), 2);
        index.insert(&[1, 2, 3, 4], pages(1));
        assert_eq!(index.entries.len(), 2);
    }

    #[test]
    fn the_least_recently_used_go_first_and_shared_pages_count_once() {
        let two = 2 * HEADS.page_bytes();
        let mut index = PrefixIndex::new(two);
        let shared = pages(1);
        index.insert(&[1], shared.clone());
        index.insert(&[2], shared);
        index.insert(&[3], pages(1));
        assert_eq!((index.entries.len(), index.bytes()), (3, two));
        assert_eq!(index.longest(&[1]).unwrap().0, 1);
        index.insert(&[4], pages(1));
        // The pages of the second are those of the first, so the third had to go as well.
        assert!(index.bytes() <= two);
        assert_eq!(index.longest(&[1]).unwrap().0, 1);
        assert_eq!(index.longest(&[3]).unwrap().0, 0);
        index.insert(&[5], pages(3));
        assert!(index.entries.is_empty(), "{index:?}");
    }
}
