//! The KV cache: keys and values of past positions, in pages that sequences share.
//!
//! ```text
//!   Arena    the bytes that all caches of a model may take together
//!     │ pages of 256 positions, anchored at absolute ones
//!     ▼
//!   KvCache  one sequence: layer 0  [page 0][page 1][page 2 …
//!     │                    layer 1  [page 0][page 1][page 2 …
//!     │ clones share every page; who writes to a shared page copies it first
//!     ▼
//!   PrefixIndex   caches of earlier sequences, found by their tokens
//!   Store         a folder of snapshots: beginnings that outlive the process
//! ```
//!
//! A page is never changed while it is shared, so a fork costs no copy, and what one sequence does
//! no other can see. Where memory runs out, layers that see a window give up the pages that it has
//! passed. Keys and values are functions of the tokens before them, to the bit: whoever has
//! the same beginning may take up the same pages.

mod arena;
mod prefix;
mod snapshot;
mod store;

use std::sync::Arc;

use converge_quant::kernels::{KvPage, PAGE};

pub use arena::Arena;
use arena::Page;
pub use converge_quant::folder::Entry as StoreEntry;
pub(crate) use prefix::{PrefixIndex, common};
pub use snapshot::{SnapshotError, Transcript};
pub use store::Store;

use crate::{CoreError, Result};

/// A page that several caches may hold.
#[derive(Clone, Debug)]
pub(crate) struct SharedPage(Arc<Page>);

impl AsRef<KvPage> for SharedPage {
    fn as_ref(&self) -> &KvPage {
        &self.0.page
    }
}

impl SharedPage {
    /// The page, where nobody else holds it.
    pub(crate) fn get_mut(&mut self) -> Option<&mut KvPage> {
        Arc::get_mut(&mut self.0).map(|page| &mut page.page)
    }
}

/// Positions before the window of a layer that are kept when others have to go: a draft or the end of
/// an answer may be taken back.
const SLACK: usize = PAGE;

/// The pages of one layer.
#[derive(Clone, Debug, Default)]
struct LayerPages {
    /// Pages at the beginning that are given up: no window reaches them.
    gone: usize,
    pages: Vec<SharedPage>,
}

/// Keys and values of one sequence. Clones share all pages.
#[derive(Clone, Debug)]
pub struct KvCache {
    arena: Arc<Arena>,
    layers: Vec<LayerPages>,
    len: usize,
}

impl KvCache {
    /// A cache without positions.
    pub fn new(arena: &Arc<Arena>) -> Self {
        Self {
            arena: Arc::clone(arena),
            layers: vec![LayerPages::default(); arena.layers()],
            len: 0,
        }
    }

    /// What its pages are counted by.
    pub fn arena(&self) -> &Arc<Arena> {
        &self.arena
    }

    /// Positions that it holds.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds no position.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of its pages, shared ones included.
    pub fn bytes(&self) -> usize {
        self.pages().count() * self.arena.page_bytes()
    }

    /// How many of its first `len` positions it can go back to: all of them, or none where
    /// windows have passed what would be seen from there.
    pub fn reach(&self, len: usize) -> usize {
        let windows = self.arena.windows().iter();
        let needs = self.layers.iter().zip(windows).map(|(layer, window)| {
            let window = window.unwrap_or(0).saturating_sub(1);
            if layer.gone > 0 {
                layer.gone * PAGE + window
            } else {
                0
            }
        });
        match needs.max().unwrap_or(0) <= len {
            true => len.min(self.len),
            false => 0,
        }
    }

    /// Forgets every position from `len` on, and all others too where it cannot
    /// [go back](Self::reach) to those.
    pub fn truncate(&mut self, len: usize) {
        let len = self.reach(len);
        // One page stays for what comes next.
        self.cut(len, len.div_ceil(PAGE) + 1);
    }

    /// Keeps `len` positions and pages up to number `end`.
    fn cut(&mut self, len: usize, end: usize) {
        self.len = len;
        for layer in &mut self.layers {
            if len == 0 {
                layer.gone = 0;
            }
            layer.pages.truncate(end.saturating_sub(layer.gone));
        }
    }

    /// Goes on from the first `len` positions of a cache of the same model; `false`, and nothing
    /// changed, for one of another model or that does not [reach](Self::reach) there.
    pub fn take_up(&mut self, other: &Self, len: usize) -> bool {
        if !Arc::ptr_eq(&self.arena, &other.arena) || other.reach(len) != len {
            return false;
        }
        self.clone_from(other);
        self.cut(len, len.div_ceil(PAGE));
        true
    }

    /// Gives up pages that no window will reach again, unless more than some positions are taken
    /// back; `false` where there are none.
    fn shed(&mut self) -> bool {
        let mut any = false;
        let windows = self.arena.windows().iter();
        for (layer, window) in self.layers.iter_mut().zip(windows) {
            let Some(window) = window else { continue };
            let unseen = (self.len + 1).saturating_sub(window.saturating_add(SLACK));
            let more = (unseen / PAGE).saturating_sub(layer.gone);
            let more = more.min(layer.pages.len());
            layer.pages.drain(..more);
            layer.gone += more;
            any |= more > 0;
        }
        any
    }

    /// Makes room for `n` more positions: pages that are this cache's alone. Where there is none, it
    /// gives up what no window reaches.
    ///
    /// # Errors
    /// [`CacheFull`](CoreError::CacheFull) where the arena has no room for them; what follows from the
    /// cache is what it was.
    pub(crate) fn reserve(&mut self, n: usize) -> Result<()> {
        match self.reserve_pages(n) {
            Err(CoreError::CacheFull { .. }) if self.shed() => self.reserve_pages(n),
            other => other,
        }
    }

    fn reserve_pages(&mut self, n: usize) -> Result<()> {
        let first = self.len / PAGE;
        let end = self.len.saturating_add(n).div_ceil(PAGE);
        let shared = |page: &mut SharedPage| page.get_mut().is_none();
        let mut needed = 0;
        for LayerPages { gone, pages } in &mut self.layers {
            needed += end.saturating_sub(first.max(*gone + pages.len()));
            let written = first.saturating_sub(*gone)..end.saturating_sub(*gone);
            let own = pages.iter_mut().take(written.end).skip(written.start);
            needed += own.filter_map(|page| shared(page).then_some(())).count();
        }
        if needed == 0 {
            return Ok(());
        }
        let mut grant = Arena::grant(&self.arena, needed)?;
        for LayerPages { gone, pages } in &mut self.layers {
            let written = first.saturating_sub(*gone)..end.saturating_sub(*gone);
            for page in pages.iter_mut().take(written.end).skip(written.start) {
                if shared(page)
                    && let Some(copy) = grant.page(page.as_ref().clone())
                {
                    *page = SharedPage(Arc::new(copy));
                }
            }
            while pages.len() < written.end {
                match grant.page(KvPage::new(self.arena.heads())) {
                    Some(page) => pages.push(SharedPage(Arc::new(page))),
                    None => break,
                }
            }
        }
        Ok(())
    }

    /// The pages of a layer, and the position that the first one begins with.
    pub(crate) fn layer(&self, layer: usize) -> (&[SharedPage], usize) {
        let layer = self.layers.get(layer);
        layer.map_or((&[], 0), |layer| (&layer.pages, layer.gone * PAGE))
    }

    /// Writes keys and values of the position `len() + ahead` into a layer, for which room was
    /// [reserved](Self::reserve).
    pub(crate) fn write(
        &mut self,
        layer: usize,
        ahead: usize,
        key: &[f32],
        value: &[f32],
    ) -> Result<()> {
        let position = self.len + ahead;
        let page = self
            .layers
            .get_mut(layer)
            .and_then(|LayerPages { gone, pages }| {
                pages.get_mut((position / PAGE).checked_sub(*gone)?)
            })
            .and_then(SharedPage::get_mut)
            .ok_or(CoreError::NoPage { position })?;
        Ok(page.write(position % PAGE, key, value)?)
    }

    /// Counts `n` positions that every layer has been given.
    pub(crate) fn grow(&mut self, n: usize) {
        self.len += n;
    }

    fn pages(&self) -> impl Iterator<Item = &SharedPage> {
        self.layers.iter().flat_map(|layer| &layer.pages)
    }
}

#[cfg(test)]
mod tests;
