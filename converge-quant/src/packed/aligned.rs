//! Bytes that begin at a cache line; those of weights in large pages.

use std::{
    ptr::NonNull,
    sync::{Arc, Mutex, PoisonError},
};

use memmap2::MmapMut;

/// A cache line: the largest vector that kernels load.
const LINE: usize = 64;

/// Bytes that are asked of the system at a time.
const SLAB: usize = 64 << 20;

/// Zeroed bytes at an address that is a multiple of 64.
pub(crate) struct Aligned {
    memory: Memory,
    len: usize,
}

enum Memory {
    Lines(Vec<Line>),
    Part(Part),
}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; LINE]);

impl Aligned {
    /// For what is streamed through again and again: with small pages, looking up addresses and a
    /// look-ahead that ends every 4 KB cost half of the memory's speed.
    pub(crate) fn for_weights(len: usize) -> Self {
        let memory = match Part::take(len) {
            Some(part) => Memory::Part(part),
            None => Memory::Lines(vec![Line([0; LINE]); len.div_ceil(LINE)]),
        };
        Self { memory, len }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        let start = match &self.memory {
            Memory::Lines(lines) => lines.as_ptr().cast(),
            Memory::Part(part) => part.start.as_ptr().cast_const(),
        };
        // SAFETY: `Line` is `repr(C)` of 64 bytes without padding, and `len` is at most 64 times the
        // number of lines; a part has `len` bytes, which are this value's alone and were written by
        // the system.
        unsafe { std::slice::from_raw_parts(start, self.len) }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        let start = match &mut self.memory {
            Memory::Lines(lines) => lines.as_mut_ptr().cast(),
            Memory::Part(part) => part.start.as_ptr(),
        };
        // SAFETY: as above; any bytes are a valid `Line`.
        unsafe { std::slice::from_raw_parts_mut(start, self.len) }
    }
}

/// Memory of the system's, in large pages where it has them, that is handed out in parts: matrices are
/// mostly smaller than such a page.
struct Slab {
    /// Where its memory begins. Only parts look at what is there.
    start: NonNull<u8>,
    used: usize,
    memory: MmapMut,
}

// SAFETY: `start` points into `memory`, which moves with it and may be used from any thread.
unsafe impl Send for Slab {}

/// A part of a slab, which nobody else has.
struct Part {
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
    fn take(len: usize) -> Option<Self> {
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slab) = &*current
            && let Some(part) = Self::of(slab, len)
        {
            return Some(part);
        }
        let mut memory = MmapMut::map_anon(len.max(SLAB)).ok()?;
        // Only a wish: where the system has no large pages, small ones do.
        #[cfg(target_os = "linux")]
        let _ = memory.advise(memmap2::Advice::HugePage);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_zeroed_aligned_and_their_owners_alone() {
        let lens = [1, 63, 64, 65, 4096, 1 << 20, SLAB - 64, SLAB, SLAB + 1, 100];
        let mut all: Vec<Aligned> = lens.map(Aligned::for_weights).into();
        for (i, part) in all.iter_mut().enumerate() {
            assert_eq!(part.bytes().as_ptr().addr() % LINE, 0);
            assert!(part.bytes().iter().all(|byte| *byte == 0));
            part.bytes_mut().fill(i as u8 + 1);
        }
        for ((i, part), len) in all.iter().enumerate().zip(lens) {
            assert_eq!(part.bytes().len(), len);
            assert!(part.bytes().iter().all(|byte| *byte == i as u8 + 1));
        }
    }
}
