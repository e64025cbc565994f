//! Checked sequential reading of a header.

use crate::error::{QuantError, Result};

use super::fault::{Fault, Field};
use super::limits::Limits;
use super::source::Source;

/// Bytes fetched from the file at a time.
const WINDOW: usize = 64 * 1024;

/// A plain little-endian number.
pub(crate) trait Number: Copy {
    /// Bytes it takes.
    const BYTES: usize;
    /// From exactly `BYTES` bytes.
    fn from_le(bytes: &[u8]) -> Self;
}

macro_rules! number {
    ($($ty:ty),*) => {$(
        impl Number for $ty {
            const BYTES: usize = size_of::<$ty>();
            fn from_le(bytes: &[u8]) -> Self {
                let mut raw = [0; size_of::<$ty>()];
                raw.copy_from_slice(bytes);
                Self::from_le_bytes(raw)
            }
        }
    )*};
}
number!(u8, i8, u16, i16, u32, i32, u64, i64, f32, f64);

/// Reads a header front to back; every length is held against the bytes that remain and against
/// the limits before it is used.
pub(crate) struct Cursor<'a> {
    source: &'a Source,
    limits: &'a Limits,
    position: u64,
    window: Vec<u8>,
    window_start: u64,
    /// The field being read, for errors.
    pub(crate) field: Field,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(source: &'a Source, limits: &'a Limits) -> Self {
        Self {
            source,
            limits,
            position: 0,
            window: Vec::new(),
            window_start: 0,
            field: Field::Magic,
        }
    }

    pub(crate) fn limits(&self) -> &'a Limits {
        self.limits
    }

    /// Offset in the file of the next byte.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Goes back to a place that was passed before.
    pub(crate) fn rewind(&mut self, position: u64) {
        debug_assert!(position <= self.position);
        self.position = position;
    }

    /// Bytes from here to the end of the file.
    pub(crate) fn left(&self) -> u64 {
        self.source.len().saturating_sub(self.position)
    }

    /// An error about the current field.
    pub(crate) fn fail(&self, offset: u64, fault: Fault) -> QuantError {
        QuantError::Malformed {
            path: self.source.path().to_owned(),
            offset,
            field: self.field.clone(),
            fault,
        }
    }

    /// An error about the current field if `found` is more than `allowed`.
    pub(crate) fn limit(
        &self,
        offset: u64,
        limit: &'static str,
        allowed: u64,
        found: u64,
    ) -> Result<()> {
        if found <= allowed {
            return Ok(());
        }
        Err(self.fail(
            offset,
            Fault::OverLimit {
                limit,
                allowed,
                found,
            },
        ))
    }

    /// Checks that `count` items of at least `each` bytes can follow; `offset` is where the count
    /// stands.
    pub(crate) fn check(&self, offset: u64, count: u64, each: u64) -> Result<()> {
        let left = self.left();
        let needed = count.saturating_mul(each);
        if needed > left {
            return Err(self.fail(offset, Fault::Truncated { needed, left }));
        }
        let end = self.position.saturating_add(needed);
        self.limit(offset, "header_bytes", self.limits.header_bytes, end)
    }

    /// An empty vector with room for exactly `count`.
    pub(crate) fn room<T>(&self, count: u64) -> Result<Vec<T>> {
        let bytes = count.saturating_mul(size_of::<T>() as u64);
        let mut room = Vec::new();
        usize::try_from(count)
            .ok()
            .and_then(|count| room.try_reserve_exact(count).ok())
            .ok_or_else(|| self.fail(self.position, Fault::OutOfMemory { bytes }))?;
        Ok(room)
    }

    /// Fills `out` with the next bytes.
    pub(crate) fn fill(&mut self, out: &mut [u8]) -> Result<()> {
        self.check(self.position, out.len() as u64, 1)?;
        let mut filled = 0;
        while filled < out.len() {
            let ahead = self.buffered()?;
            let count = ahead.len().min(out.len() - filled);
            out[filled..filled + count].copy_from_slice(&ahead[..count]);
            filled += count;
            self.position += count as u64;
        }
        Ok(())
    }

    /// Passes over `count` bytes.
    pub(crate) fn skip(&mut self, count: u64) -> Result<()> {
        self.check(self.position, count, 1)?;
        self.position += count;
        Ok(())
    }

    /// Some bytes from the current position on: at least one, the end of the file being ahead.
    fn buffered(&mut self) -> Result<&[u8]> {
        let inside = self
            .position
            .checked_sub(self.window_start)
            .filter(|&at| at < self.window.len() as u64);
        let at = match inside {
            Some(at) => at as usize,
            None => {
                let count = self.left().min(WINDOW as u64) as usize;
                self.window.resize(count, 0);
                self.source.read_exact_at(&mut self.window, self.position)?;
                self.window_start = self.position;
                0
            }
        };
        Ok(&self.window[at..])
    }

    /// The next number.
    pub(crate) fn number<T: Number>(&mut self) -> Result<T> {
        let mut raw = [0; 8];
        let raw = &mut raw[..T::BYTES];
        self.fill(raw)?;
        Ok(T::from_le(raw))
    }

    /// `count` numbers.
    pub(crate) fn numbers<T: Number>(&mut self, count: u64) -> Result<Vec<T>> {
        self.check(self.position, count, T::BYTES as u64)?;
        let mut numbers = self.room::<T>(count)?;
        let mut raw = [0; 4096];
        let mut left = count;
        while left > 0 {
            let now = left.min((raw.len() / T::BYTES) as u64);
            let raw = &mut raw[..now as usize * T::BYTES];
            self.fill(raw)?;
            numbers.extend(raw.chunks_exact(T::BYTES).map(T::from_le));
            left -= now;
        }
        Ok(numbers)
    }

    /// A byte that is 0 or 1.
    pub(crate) fn boolean(&mut self) -> Result<bool> {
        let offset = self.position;
        match self.number::<u8>()? {
            0 => Ok(false),
            1 => Ok(true),
            found => Err(self.fail(offset, Fault::InvalidBool { found })),
        }
    }

    /// `count` booleans.
    pub(crate) fn booleans(&mut self, count: u64) -> Result<Vec<bool>> {
        self.check(self.position, count, 1)?;
        let mut booleans = self.room(count)?;
        for _ in 0..count {
            booleans.push(self.boolean()?);
        }
        Ok(booleans)
    }

    /// The length of a string, which is known to fit in the file.
    pub(crate) fn string_len(&mut self) -> Result<u64> {
        let offset = self.position;
        let len = self.number()?;
        self.check(offset, len, 1)?;
        Ok(len)
    }

    /// Appends a string of `len` bytes, which must be UTF-8, to `text`.
    pub(crate) fn text(
        &mut self,
        len: u64,
        scratch: &mut Vec<u8>,
        text: &mut String,
    ) -> Result<()> {
        let offset = self.position;
        self.check(offset, len, 1)?;
        scratch.clear();
        let out_of_memory = || Fault::OutOfMemory { bytes: len };
        let len = usize::try_from(len).map_err(|_| self.fail(offset, out_of_memory()))?;
        if scratch.try_reserve_exact(len).is_err() || text.try_reserve(len).is_err() {
            return Err(self.fail(offset, out_of_memory()));
        }
        scratch.resize(len, 0);
        self.fill(scratch)?;
        let valid = std::str::from_utf8(scratch).map_err(|error| {
            let valid_bytes = error.valid_up_to() as u64;
            self.fail(offset, Fault::NotUtf8 { valid_bytes })
        })?;
        text.push_str(valid);
        Ok(())
    }

    /// A string of at most `allowed` bytes.
    pub(crate) fn string(&mut self, limit: &'static str, allowed: u64) -> Result<String> {
        let offset = self.position;
        let len = self.string_len()?;
        self.limit(offset, limit, allowed, len)?;
        let mut text = String::new();
        let mut scratch = Vec::new();
        self.text(len, &mut scratch, &mut text)?;
        Ok(text)
    }
}
