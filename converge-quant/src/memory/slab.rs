//! Memory that is handed out in parts, one after the other: matrices are mostly smaller than a large
//! page.

use std::{
    ptr::NonNull,
    sync::{Arc, Mutex, PoisonError},
};

use memmap2::MmapMut;

use super::{LINE, map};

/// Bytes that are asked of the system at a time.
pub(super) const SLAB: usize = 64 << 20;

struct Slab {
    /// Where its memory begins. Only parts look at what is there.
    start: NonNull<u8>,
    used: usize,
    memory: MmapMut,
}

// SAFETY: `start` points into `memory`, which moves with it and may be used from any thread.
unsafe impl Send for Slab {}

/// A part of a slab, which nobody else has.
pub(super) struct Part {
    start: NonNull<u8>,
    /// The slab is given back when its last part goes.
    _slab: Arc<Mutex<Slab>>,
}

// SAFETY: a part is the only way to its bytes, which lie in memory that `_slab` keeps; they may be read
// and written from any thread, as those of a `Vec` may.
unsafe impl Send for Part {}
// SAFETY: as above; a shared part only reads.
unsafe impl Sync for Part {}

/// The slab that has room left.
static CURRENT: Mutex<Option<Arc<Mutex<Slab>>>> = Mutex::new(None);

impl Part {
    /// Zeroed bytes at the beginning of a cache line; `None` where the system has no memory to map.
    pub(super) fn take(len: usize) -> Option<Self> {
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slab) = &*current
            && let Some(part) = Self::of(slab, len)
        {
            return Some(part);
        }
        let mut memory = map(len.max(SLAB))?;
        let start = NonNull::new(memory.as_mut_ptr())?;
        let slab = Arc::new(Mutex::new(Slab {
            start,
            used: 0,
            memory,
        }));
        let part = Self::of(&slab, len)?;
        // What is left of the slab before was never touched, and takes no memory.
        *current = Some(slab);
        Some(part)
    }

    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// The next bytes of a slab, where it has so many.
    fn of(slab: &Arc<Mutex<Slab>>, len: usize) -> Option<Self> {
        let mut locked = slab.lock().unwrap_or_else(PoisonError::into_inner);
        let at = locked.used;
        if at > locked.memory.len() || len > locked.memory.len() - at {
            return None;
        }
        locked.used = at.checked_add(len.checked_next_multiple_of(LINE)?)?;
        Some(Self {
            // SAFETY: `at + len` is at most the length of the mapping that begins at `start`.
            start: unsafe { locked.start.add(at) },
            _slab: Arc::clone(slab),
        })
    }
}
