//! Memory that is handed out in parts, one after the other: matrices are mostly smaller than a large
//! page.

use std::{
    ptr::NonNull,
    sync::{Arc, Mutex, PoisonError},
};

use memmap2::MmapRaw;

use super::{LINE, map};

/// Bytes that are asked of the system at a time, at least.
pub(super) const SLAB: usize = 64 << 20;

/// Memory of the system's. Only parts look at what is there: this knows its address and length.
struct Slab {
    memory: MmapRaw,
    used: usize,
}

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
        let memory = map(len.max(SLAB))?;
        let slab = Arc::new(Mutex::new(Slab { memory, used: 0 }));
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
        // SAFETY: `at + len` is at most the length of the mapping.
        let start = NonNull::new(unsafe { locked.memory.as_mut_ptr().add(at) })?;
        Some(Self {
            start,
            _slab: Arc::clone(slab),
        })
    }
}
