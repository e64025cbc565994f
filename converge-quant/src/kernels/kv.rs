//! Keys and values of past positions: how they are stored.
//!
//! Positions lie in pages of 256, anchored at position 0. Numbers are rounded once, when they are
//! written, and always read as they are stored.

use half::{f16, slice::HalfFloatSliceExt as _};

use super::matmul::fits;
use crate::{
    QuantError, Result,
    format::{Encode as _, q8_0::BlockQ8_0},
    memory::Aligned,
    simd::{LANES, Simd},
};

/// Positions of a page.
pub const PAGE: usize = 256;

/// Elements of a head that share a scale, where there is one.
const GROUP: usize = 32;

/// How keys and values are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum KvType {
    /// Half precision: 2 bytes a number.
    #[default]
    F16,
    /// Signed bytes with a scale for each 32 elements of a head, as GGUF's Q8_0 has them: 1.06
    /// bytes a number.
    Q8_0,
}

/// Sizes of one layer's attention: such as pages of keys and values can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    heads: usize,
    kv_heads: usize,
    size: usize,
    stored: KvType,
}

impl Heads {
    /// `heads` query heads that share `kv_heads` heads of keys and values, each of `size` elements,
    /// which are stored in half precision.
    ///
    /// # Errors
    /// [`QuantError::Heads`] where one is 0, `heads` is no multiple of `kv_heads`, or no memory
    /// could hold a page of them.
    pub fn new(heads: usize, kv_heads: usize, size: usize) -> Result<Self> {
        let row = heads.checked_mul(size);
        let page = size
            .checked_next_multiple_of(LANES)
            .and_then(|padded| padded.checked_mul(2 * PAGE * size_of::<u16>()))
            .and_then(|bytes| bytes.checked_mul(kv_heads));
        let fits =
            |len: Option<usize>| len.is_some_and(|len| 0 < len && len <= isize::MAX as usize);
        if fits(row) && fits(page) && heads.is_multiple_of(kv_heads) {
            return Ok(Self {
                heads,
                kv_heads,
                size,
                stored: KvType::F16,
            });
        }
        Err(QuantError::Heads {
            heads,
            kv_heads,
            size,
        })
    }

    /// The same heads, stored in this way.
    #[must_use]
    pub fn stored_as(self, stored: KvType) -> Self {
        Self { stored, ..self }
    }

    /// How keys and values are stored.
    #[must_use]
    pub fn stored(&self) -> KvType {
        self.stored
    }

    /// Query heads.
    #[must_use]
    pub fn heads(&self) -> usize {
        self.heads
    }

    /// Heads of keys and values.
    #[must_use]
    pub fn kv_heads(&self) -> usize {
        self.kv_heads
    }

    /// Elements of a head.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// Numbers of a position's queries.
    #[must_use]
    pub fn row(&self) -> usize {
        self.heads * self.size
    }

    /// Numbers of a position's keys, and of its values.
    #[must_use]
    pub fn kv_row(&self) -> usize {
        self.kv_heads * self.size
    }

    /// Elements of a head's values in whole vectors.
    pub(super) fn padded(&self) -> usize {
        self.size.next_multiple_of(LANES)
    }

    /// Bytes of a head's keys in a page, and of its values.
    pub(super) fn parts(&self) -> (usize, usize) {
        match self.stored {
            KvType::F16 => self.parts_of::<Halves>(),
            KvType::Q8_0 => self.parts_of::<Q8>(),
        }
    }

    fn parts_of<T: Stored>(&self) -> (usize, usize) {
        let blocks = PAGE / LANES;
        (blocks * T::keys(self.size), PAGE * T::values(self.padded()))
    }

    /// Bytes of a page of one layer.
    #[must_use]
    pub fn page_bytes(&self) -> usize {
        let (keys, values) = self.parts();
        self.kv_heads * (keys + values)
    }
}

/// Keys and values of 256 positions of one layer.
///
/// ```text
///   head 0   keys     16 positions: [element 0 of each][element 1 …] …, the next 16, …
///            values   position 0: [element 0, 1, …], position 1, …
///   head 1   …
/// ```
///
/// As Q8_0 there are scales before each 32 elements: one of each of the 16 positions in keys, one in
/// values.
pub struct KvPage {
    heads: Heads,
    bytes: Aligned,
}

impl KvPage {
    /// A page of zeros.
    #[must_use]
    pub fn new(heads: Heads) -> Self {
        Self {
            heads,
            bytes: Aligned::for_page(heads.page_bytes()),
        }
    }

    /// Its bytes as they lie in memory, to be kept elsewhere.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.bytes()
    }

    /// Its bytes, to be filled with those that [`as_bytes`](Self::as_bytes) gave of a page of the same
    /// heads.
    #[must_use]
    pub fn as_bytes_mut(&mut self) -> &mut [u8] {
        self.bytes.bytes_mut()
    }

    /// Its bytes, if it is a page of such heads.
    pub(super) fn of(&self, heads: Heads) -> Result<&[u8]> {
        fits("heads of a page", heads.kv_heads, self.heads.kv_heads)?;
        fits("elements of a page's heads", heads.size, self.heads.size)?;
        let bytes = self.bytes.bytes();
        fits("bytes of a page", heads.page_bytes(), bytes.len())?;
        Ok(bytes)
    }

    /// Rounds keys and values of the position `slot` (below [`PAGE`]) and keeps them:
    /// `kv_heads · size` numbers each.
    ///
    /// # Errors
    /// [`QuantError::OperandLength`] for other lengths, or a slot past the page's end.
    pub fn write(&mut self, slot: usize, keys: &[f32], values: &[f32]) -> Result<()> {
        let heads = self.heads;
        fits("keys", heads.kv_row(), keys.len())?;
        fits("values", keys.len(), values.len())?;
        fits("slot of the page", slot % PAGE, slot)?;
        match heads.stored {
            KvType::F16 => self.write_as::<Halves>(slot, keys, values),
            KvType::Q8_0 => self.write_as::<Q8>(slot, keys, values),
        }
        Ok(())
    }

    fn write_as<T: Stored>(&mut self, slot: usize, keys: &[f32], values: &[f32]) {
        let (size, padded) = (self.heads.size, self.heads.padded());
        let (key_len, value_len) = self.heads.parts_of::<T>();
        let pairs = keys.chunks_exact(size).zip(values.chunks_exact(size));
        let pages = self.bytes.bytes_mut().chunks_exact_mut(key_len + value_len);
        for (page, (key, value)) in pages.zip(pairs) {
            let (key_page, value_page) = page.split_at_mut(key_len);
            let block = &mut key_page[slot / LANES * T::keys(size)..][..T::keys(size)];
            T::write_key(key, slot % LANES, block);
            let row = &mut value_page[slot * T::values(padded)..][..T::values(padded)];
            T::write_value(value, row);
        }
    }
}

impl Clone for KvPage {
    fn clone(&self) -> Self {
        let mut page = Self::new(self.heads);
        page.as_bytes_mut().copy_from_slice(self.as_bytes());
        page
    }
}

impl std::fmt::Debug for KvPage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KvPage")
            .field("heads", &self.heads)
            .finish_non_exhaustive()
    }
}

/// A way to store keys and values.
pub(super) trait Stored {
    /// Elements that share a scale, where there is one.
    const GROUP: usize = GROUP;
    /// Vectors of sixteen elements in a cache line.
    const IN_LINE: usize;

    /// Bytes of the first `elements` of sixteen keys.
    fn keys(elements: usize) -> usize;
    /// Bytes of the first `elements` of a value: those of a head with whole vectors.
    fn values(elements: usize) -> usize;

    /// Puts a key into the lane of a block.
    fn write_key(key: &[f32], lane: usize, block: &mut [u8]);
    /// Puts a value into its row.
    fn write_value(value: &[f32], row: &mut [u8]);

    /// The scales of a group's sixteen keys.
    ///
    /// # Safety
    /// A group of a block of keys starts at `group`.
    unsafe fn key_scales<S: Simd>(simd: S, group: *const u8) -> S::F;
    /// Element `i` of a group, of sixteen keys.
    ///
    /// # Safety
    /// As above, and the group has more than `i` elements.
    unsafe fn load_keys<S: Simd>(simd: S, group: *const u8, i: usize, scales: S::F) -> S::F;
    /// Sixteen elements of a value from `first` on, a multiple of 16.
    ///
    /// # Safety
    /// A value of at least `first + 16` elements starts at `row`.
    unsafe fn load_values<S: Simd>(simd: S, row: *const u8, first: usize) -> S::F;
}

/// [`KvType::F16`].
pub(super) struct Halves;

impl Halves {
    /// At most sixteen numbers rounded: together, which is faster than one by one.
    fn halves(numbers: &[f32]) -> [f16; LANES] {
        let mut halves = [f16::ZERO; LANES];
        halves[..numbers.len()].convert_from_f32_slice(numbers);
        halves
    }
}

impl Stored for Halves {
    const IN_LINE: usize = 2;

    fn keys(elements: usize) -> usize {
        elements * LANES * size_of::<u16>()
    }

    fn values(elements: usize) -> usize {
        elements * size_of::<u16>()
    }

    fn write_key(key: &[f32], lane: usize, block: &mut [u8]) {
        let (places, _) = block.as_chunks_mut::<2>();
        for (places, key) in places.chunks_mut(LANES * LANES).zip(key.chunks(LANES)) {
            let places = places.iter_mut().skip(lane).step_by(LANES);
            places
                .zip(Self::halves(key))
                .for_each(|(place, x)| *place = x.to_ne_bytes());
        }
    }

    fn write_value(value: &[f32], row: &mut [u8]) {
        let (places, _) = row.as_chunks_mut::<2>();
        for (places, value) in places.chunks_mut(LANES).zip(value.chunks(LANES)) {
            let places = places.iter_mut().zip(Self::halves(value)).take(value.len());
            places.for_each(|(place, x)| *place = x.to_ne_bytes());
        }
    }

    #[inline(always)]
    unsafe fn key_scales<S: Simd>(simd: S, _: *const u8) -> S::F {
        simd.splat(1.0)
    }

    #[inline(always)]
    unsafe fn load_keys<S: Simd>(simd: S, group: *const u8, i: usize, _: S::F) -> S::F {
        // SAFETY: the group has sixteen halves for each element.
        unsafe { simd.load_f16(group.add(Self::keys(i)).cast()) }
    }

    #[inline(always)]
    unsafe fn load_values<S: Simd>(simd: S, row: *const u8, first: usize) -> S::F {
        // SAFETY: sixteen halves follow.
        unsafe { simd.load_f16(row.add(Self::values(first)).cast()) }
    }
}

/// [`KvType::Q8_0`].
pub(super) struct Q8;

impl Q8 {
    const SCALE: usize = size_of::<f16>();

    /// A head in blocks, the last one filled up with zeros.
    fn blocks(numbers: &[f32]) -> impl Iterator<Item = BlockQ8_0> {
        numbers.chunks(GROUP).map(|group| {
            let mut whole = [0.0; GROUP];
            whole[..group.len()].copy_from_slice(group);
            BlockQ8_0::encode(&whole)
        })
    }
}

impl Stored for Q8 {
    const IN_LINE: usize = 4;

    fn keys(elements: usize) -> usize {
        LANES * Self::values(elements)
    }

    fn values(elements: usize) -> usize {
        elements.div_ceil(GROUP) * Self::SCALE + elements
    }

    fn write_key(key: &[f32], lane: usize, block: &mut [u8]) {
        let groups = block.chunks_mut(Self::keys(GROUP));
        for (group, key) in groups.zip(Self::blocks(key)) {
            let (scales, elements) = group.split_at_mut(LANES * Self::SCALE);
            scales.as_chunks_mut::<2>().0[lane] = key.d.to_ne_bytes();
            let places = elements.iter_mut().skip(lane).step_by(LANES);
            for (place, x) in places.zip(key.qs) {
                *place = x.cast_unsigned();
            }
        }
    }

    fn write_value(value: &[f32], row: &mut [u8]) {
        let groups = row.chunks_mut(Self::values(GROUP));
        for (group, value) in groups.zip(Self::blocks(value)) {
            let (scale, elements) = group.split_at_mut(Self::SCALE);
            scale.copy_from_slice(&value.d.to_ne_bytes());
            for (place, x) in elements.iter_mut().zip(value.qs) {
                *place = x.cast_unsigned();
            }
        }
    }

    #[inline(always)]
    unsafe fn key_scales<S: Simd>(simd: S, group: *const u8) -> S::F {
        // SAFETY: a group begins with its sixteen scales.
        unsafe { simd.load_f16(group.cast()) }
    }

    #[inline(always)]
    unsafe fn load_keys<S: Simd>(simd: S, group: *const u8, i: usize, scales: S::F) -> S::F {
        // SAFETY: after the scales there are sixteen bytes for each element.
        let keys = unsafe { simd.load_i8(group.add(LANES * (Self::SCALE + i))) };
        // Exact: 8 bits times 11 fit the 24 of a float.
        simd.mul(keys, scales)
    }

    #[inline(always)]
    unsafe fn load_values<S: Simd>(simd: S, row: *const u8, first: usize) -> S::F {
        // SAFETY: the scale of the group comes before its elements, sixteen of which follow.
        unsafe {
            let group = row.add(Self::values(first / GROUP * GROUP));
            let scale = simd.splat_f16(group.cast());
            let values = simd.load_i8(group.add(Self::SCALE + first % GROUP));
            simd.mul(values, scale)
        }
    }
}
