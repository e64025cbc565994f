//! Memory for what is streamed through again and again: in large pages of the system, where it has
//! them, and from the beginning of a cache line on.
//!
//! ```text
//!   weights         parts of slabs, one after the other: a slab goes when all its parts have
//!   pages of keys   pieces of one size on a shelf: given back, they are used again
//! ```
//!
//! With small pages, looking up addresses and a look-ahead that ends every 4 KB cost weights half of the
//! memory's speed; and the system is asked at the first touch of each page.

mod shelf;
mod slab;

use memmap2::{MmapMut, MmapRaw};

use shelf::Piece;
use slab::Part;

/// A cache line: the largest vector that kernels load.
const LINE: usize = 64;

/// Zeroed bytes at an address that is a multiple of 64.
pub(crate) struct Aligned {
    memory: Memory,
    len: usize,
}

enum Memory {
    Lines(Vec<Line>),
    Part(Part),
    Piece(Piece),
}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; LINE]);

impl Aligned {
    /// For what stays: packed weights.
    pub(crate) fn for_weights(len: usize) -> Self {
        let memory = Part::take(len).map(Memory::Part);
        Self::of(memory, len)
    }

    /// For what comes and goes in one size: pages of keys and values.
    pub(crate) fn for_page(len: usize) -> Self {
        let memory = Piece::take(len).map(Memory::Piece);
        Self::of(memory, len)
    }

    /// Where the system maps none, the program's own memory.
    fn of(memory: Option<Memory>, len: usize) -> Self {
        let lines = || Memory::Lines(vec![Line([0; LINE]); len.div_ceil(LINE)]);
        Self {
            memory: memory.unwrap_or_else(lines),
            len,
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        let start = match &self.memory {
            Memory::Lines(lines) => lines.as_ptr().cast(),
            Memory::Part(part) => part.start().as_ptr().cast_const(),
            Memory::Piece(piece) => piece.start().as_ptr().cast_const(),
        };
        // SAFETY: `Line` is `repr(C)` of 64 bytes without padding, and `len` is at most 64 times the
        // number of lines; a part or a piece has `len` bytes, which are this value's alone and
        // have been written: by the system, or by the shelf when it hands a place out again.
        unsafe { std::slice::from_raw_parts(start, self.len) }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        let start = match &mut self.memory {
            Memory::Lines(lines) => lines.as_mut_ptr().cast(),
            Memory::Part(part) => part.start().as_ptr(),
            Memory::Piece(piece) => piece.start().as_ptr(),
        };
        // SAFETY: as above; any bytes are a valid `Line`.
        unsafe { std::slice::from_raw_parts_mut(start, self.len) }
    }
}

/// Zeroed memory of the system's, in large pages where it has them; `None` where it has none.
fn map(len: usize) -> Option<MmapRaw> {
    let memory = MmapMut::map_anon(len).ok()?;
    // Only a wish: where the system has no large pages, small ones do.
    #[cfg(target_os = "linux")]
    let _ = memory.advise(memmap2::Advice::HugePage);
    Some(memory.into())
}

#[cfg(test)]
mod tests {
    use super::{slab::SLAB, *};

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
