//! Bytes that begin at a cache line, in large pages where they are many.

use memmap2::MmapMut;

/// From so many bytes on, memory is asked of the system page by page: large pages spare the machine
/// most of its look-ups of addresses, and its look-ahead does not end every 4 KB.
const LARGE: usize = 4 << 20;

/// A cache line: the largest vector that kernels load.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Zeroed bytes at an address that is a multiple of 64.
pub(crate) struct Aligned {
    memory: Memory,
    len: usize,
}

enum Memory {
    Lines(Vec<Line>),
    Pages(MmapMut),
}

impl Default for Aligned {
    fn default() -> Self {
        Self::empty()
    }
}

impl Aligned {
    pub(crate) const fn empty() -> Self {
        Self {
            memory: Memory::Lines(Vec::new()),
            len: 0,
        }
    }

    pub(crate) fn zeroed(len: usize) -> Self {
        let pages = match len >= LARGE {
            true => MmapMut::map_anon(len).ok(),
            false => None,
        };
        let memory = match pages {
            Some(pages) => {
                // Only a wish: where the system has no large pages, small ones do.
                #[cfg(target_os = "linux")]
                let _ = pages.advise(memmap2::Advice::HugePage);
                Memory::Pages(pages)
            }
            None => Memory::Lines(vec![Line([0; 64]); len.div_ceil(64)]),
        };
        Self { memory, len }
    }

    /// Makes it so long; what is in it is unspecified.
    pub(crate) fn resize(&mut self, len: usize) {
        match &mut self.memory {
            Memory::Lines(lines) => {
                lines.resize(len.div_ceil(64), Line([0; 64]));
                self.len = len;
            }
            Memory::Pages(_) => *self = Self::zeroed(len),
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.memory {
            // SAFETY: `Line` is `repr(C)` of 64 bytes without padding, and `len` is at most 64
            // times the number of lines.
            Memory::Lines(lines) => unsafe {
                std::slice::from_raw_parts(lines.as_ptr().cast(), self.len)
            },
            Memory::Pages(pages) => &pages[..self.len],
        }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.memory {
            // SAFETY: as above; any bytes are a valid `Line`.
            Memory::Lines(lines) => unsafe {
                std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), self.len)
            },
            Memory::Pages(pages) => &mut pages[..self.len],
        }
    }
}
