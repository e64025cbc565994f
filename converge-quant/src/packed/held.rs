//! Where tiles are: in memory of their own, or in a file that is mapped.

use std::{fs::File, io, ops::Range, sync::Arc};

use memmap2::Mmap;

use crate::memory::Aligned;

/// The bytes of a matrix's tiles, from an address on that is a multiple of 64.
pub(super) enum Held {
    Owned(Aligned),
    Mapped(Mapped),
}

impl Held {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Owned(aligned) => aligned.bytes(),
            Self::Mapped(mapped) => mapped.bytes(),
        }
    }
}

/// A part of a mapped file.
pub(super) struct Mapped {
    map: Arc<Mmap>,
    part: Range<usize>,
}

impl Mapped {
    /// Bytes that begin at a cache line; `None` for a part that the file does not have, or that
    /// begins elsewhere.
    pub(super) fn new(map: &Arc<Mmap>, part: Range<usize>) -> Option<Self> {
        let begins = map.get(part.clone())?.as_ptr().addr();
        begins.is_multiple_of(64).then(|| Self {
            map: Arc::clone(map),
            part,
        })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.map[self.part.clone()]
    }
}

/// Maps a whole file, to be read only.
///
/// What is mapped is what the file has at any moment: to be called for files only that are replaced,
/// never changed, by all programs that know of them. A file that is cut short while it is mapped
/// ends the process; callers tell so.
pub(super) fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: the mapping is private to this module's readers and read only. That nobody changes
    // or truncates the file is the contract of the mode that the caller chose by name
    // (`PackedMode::Map`): files of a store are written beside their place and renamed, never
    // written in place.
    unsafe { Mmap::map(file) }
}
