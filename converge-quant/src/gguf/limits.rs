//! How much a file may ask for.

/// Bounds on what the header of a file may hold, checked before anything is allocated.
///
/// The defaults leave room for every published model and keep the memory that opening takes below
/// 64 MB, whatever the file says. Raise a single one with
/// `Limits { header_bytes: 1 << 30, ..Limits::default() }`.
///
/// The memory an opened header takes is at most about `header_bytes` plus 256 bytes a tensor,
/// 128 bytes a metadata entry and 64 bytes a nested array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes before the tensor data of a part: metadata and tensor descriptions.
    /// Default 32 MiB; a vocabulary of 262,144 tokens with as many merges takes about 10.
    pub header_bytes: u64,
    /// Metadata entries in a part. Default 16,384; models have under a hundred.
    pub metadata_entries: u64,
    /// Tensors in the whole set of parts. Default 65,536.
    pub tensors: u64,
    /// Bytes in a metadata key. Default 65,535, as the specification says.
    pub key_bytes: u64,
    /// Bytes in a tensor's name. Default 256; the specification says 64.
    pub name_bytes: u64,
    /// How deep arrays may nest: 1 is an array of plain values. Default 4, never more than 64.
    pub array_depth: u32,
    /// Arrays inside arrays in a part, in total. Default 65,536.
    pub nested_arrays: u64,
    /// Dimensions of a tensor. Default 4, as in ggml.
    pub dimensions: u32,
    /// The largest `general.alignment`, in bytes. Default 2 MiB, a huge page.
    pub alignment: u64,
    /// Parts of a split file. Default 512; each keeps a file open.
    pub parts: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes: 32 << 20,
            metadata_entries: 16_384,
            tensors: 65_536,
            key_bytes: 65_535,
            name_bytes: 256,
            array_depth: 4,
            nested_arrays: 65_536,
            dimensions: 4,
            alignment: 2 << 20,
            parts: 512,
        }
    }
}
