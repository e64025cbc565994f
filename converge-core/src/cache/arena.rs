//! What all caches of a model may take together.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use converge_quant::kernels::{Heads, KvPage, PAGE};

use super::SLACK;
use crate::{CoreError, Result};

/// Counts the pages of all KV caches of one loaded model, and bounds them.
#[derive(Debug)]
pub struct Arena {
    /// Tells the weights from others, also in another process.
    model: [u8; 32],
    heads: Heads,
    /// What each layer sees.
    windows: Vec<Option<usize>>,
    /// The most pages.
    limit: usize,
    used: AtomicUsize,
    /// The most pages that there were at once.
    peak: AtomicUsize,
}

/// A page with its place in the count.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) page: KvPage,
    arena: Arc<Arena>,
}

impl Drop for Page {
    fn drop(&mut self) {
        self.arena.used.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Leave to make so many pages.
#[derive(Debug)]
pub(super) struct Grant<'a> {
    arena: &'a Arc<Arena>,
    left: usize,
}

impl Grant<'_> {
    /// Counts a page; `None` where the grant is used up.
    pub(super) fn page(&mut self, page: KvPage) -> Option<Page> {
        self.left = self.left.checked_sub(1)?;
        Some(Page {
            page,
            arena: Arc::clone(self.arena),
        })
    }
}

impl Drop for Grant<'_> {
    fn drop(&mut self) {
        self.arena.used.fetch_sub(self.left, Ordering::Relaxed);
    }
}

impl Arena {
    /// For caches of at most so many bytes together, with a layer for each of `windows`: how many
    /// positions it sees, `None` for all. `model` is a hash of the weights: what others computed is of
    /// no use to them.
    pub fn new(model: [u8; 32], heads: Heads, windows: Vec<Option<usize>>, bytes: usize) -> Self {
        Self {
            model,
            heads,
            windows,
            limit: bytes / heads.page_bytes().max(1),
            used: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
        }
    }

    /// Bytes that one cache of `context` positions needs, the chunks of its prompt included.
    pub(crate) fn full(heads: Heads, windows: &[Option<usize>], context: usize) -> usize {
        let positions = |window: &Option<usize>| {
            let window = window.unwrap_or(context);
            context.min(window.saturating_add(SLACK + 2 * PAGE))
        };
        let pages = windows
            .iter()
            .map(|window| positions(window).div_ceil(PAGE));
        pages.sum::<usize>().saturating_mul(heads.page_bytes())
    }

    /// The hash of the weights.
    pub fn model(&self) -> &[u8; 32] {
        &self.model
    }

    /// Sizes of a layer's attention.
    pub fn heads(&self) -> Heads {
        self.heads
    }

    /// Layers of a cache.
    pub fn layers(&self) -> usize {
        self.windows.len()
    }

    /// How many positions each layer sees; `None` for all.
    pub fn windows(&self) -> &[Option<usize>] {
        &self.windows
    }

    /// Bytes of a page of one layer.
    pub fn page_bytes(&self) -> usize {
        self.heads.page_bytes()
    }

    /// Bytes of the pages that there are now, each counted once. The system may see more for a while:
    /// memory of pages that are gone is kept together with that of pages that are not.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed) * self.page_bytes()
    }

    /// The most bytes of pages that there were at once.
    pub fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed) * self.page_bytes()
    }

    /// The most bytes that there may be.
    pub fn limit(&self) -> usize {
        self.limit * self.page_bytes()
    }

    /// Leave to make `pages` pages.
    pub(super) fn grant(arena: &Arc<Self>, pages: usize) -> Result<Grant<'_>> {
        let more = |used: usize| used.checked_add(pages).filter(|&sum| sum <= arena.limit);
        let order = Ordering::Relaxed;
        match arena.used.fetch_update(order, order, more) {
            Ok(used) => {
                arena.peak.fetch_max(used + pages, order);
                Ok(Grant { arena, left: pages })
            }
            Err(used) => Err(CoreError::CacheFull {
                needed: pages.saturating_mul(arena.page_bytes()),
                used: used * arena.page_bytes(),
                limit: arena.limit(),
            }),
        }
    }
}
