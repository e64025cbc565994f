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
    /// What is being read, for errors.
    pub(crate) at: At,
    /// The key or the tensor it belongs to.
    pub(crate) name: String,
}

/// The kind of field being read: a [`Field`] without its name, so that nothing is copied until an
/// error asks for it.
#[derive(Clone, Copy)]
pub(crate) enum At {
    Magic,
    Version,
    TensorCount,
    MetadataCount,
    Key(u64),
    Value,
    TensorName(u64),
    TensorShape,
    TensorType,
    TensorOffset,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(source: &'a Source, limits: &'a Limits) -> Self {
        Self {
            source,
            limits,
            position: 0,
            window: Vec::new(),
            window_start: 0,
            at: At::Magic,
            name: String::new(),
        }
    }

    pub(crate) fn limits(&self) -> &'a Limits {
        self.limits
    }

    /// Offset in the file of the next byte.
    #[inline]
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Bytes from here to the end of the file.
    #[inline]
    pub(crate) fn left(&self) -> u64 {
        self.source.len().saturating_sub(self.position)
    }

    fn field(&self) -> Field {
        let name = || self.name.clone();
        match self.at {
            At::Magic => Field::Magic,
            At::Version => Field::Version,
            At::TensorCount => Field::TensorCount,
            At::MetadataCount => Field::MetadataCount,
            At::Key(index) => Field::Key { index },
            At::Value => Field::Value { key: name() },
            At::TensorName(index) => Field::TensorName { index },
            At::TensorShape => Field::TensorShape { tensor: name() },
            At::TensorType => Field::TensorType { tensor: name() },
            At::TensorOffset => Field::TensorOffset { tensor: name() },
        }
    }

    /// An error about the current field.
    #[cold]
    pub(crate) fn fail(&self, offset: u64, fault: Fault) -> QuantError {
        QuantError::Malformed {
            path: self.source.path().to_owned(),
            offset,
            field: self.field(),
            fault,
        }
    }

    /// An error about the current field if `found` is more than `allowed`.
    #[inline]
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
    #[inline]
    pub(crate) fn check(&self, offset: u64, count: u64, each: u64) -> Result<()> {
        let left = self.left();
        let needed = count.saturating_mul(each);
        if needed > left {
            return Err(self.fail(offset, Fault::Truncated { needed, left }));
        }
        let end = self.position.saturating_add(needed);
        self.limit(offset, "header_bytes", self.limits.header_bytes, end)
    }

    /// The most bytes that can still follow: those in the file and in the limit.
    pub(crate) fn most(&self) -> u64 {
        let allowed = self.limits.header_bytes.saturating_sub(self.position);
        self.left().min(allowed)
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

    /// The next `count` bytes if the window holds them all.
    #[inline]
    fn in_window(&self, count: usize) -> Option<&[u8]> {
        let at = usize::try_from(self.position.checked_sub(self.window_start)?).ok()?;
        self.window.get(at..at.checked_add(count)?)
    }

    /// Some bytes from the current position on: at least one, which `check` has found there.
    fn buffered(&mut self) -> Result<&[u8]> {
        let inside = self
            .position
            .checked_sub(self.window_start)
            .filter(|&at| at < self.window.len() as u64);
        let at = match inside {
            Some(at) => at as usize,
            None => {
                // What is in the window needs no further check: it is in the file and in the limit.
                let count = self.most().min(WINDOW as u64) as usize;
                self.window.resize(count, 0);
                self.source.read_exact_at(&mut self.window, self.position)?;
                self.window_start = self.position;
                0
            }
        };
        Ok(&self.window[at..])
    }

    /// The next number.
    #[inline]
    pub(crate) fn number<T: Number>(&mut self) -> Result<T> {
        if let Some(raw) = self.in_window(T::BYTES) {
            let number = T::from_le(raw);
            self.position += T::BYTES as u64;
            return Ok(number);
        }
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
    #[inline]
    pub(crate) fn string_len(&mut self) -> Result<u64> {
        let offset = self.position;
        let len = self.number()?;
        self.check(offset, len, 1)?;
        Ok(len)
    }

    /// Appends a string of `len` bytes, which must be UTF-8, to `text`.
    #[inline]
    pub(crate) fn text(
        &mut self,
        len: u64,
        scratch: &mut Vec<u8>,
        text: &mut String,
    ) -> Result<()> {
        let offset = self.position;
        self.check(offset, len, 1)?;
        let out_of_memory = || self.fail(offset, Fault::OutOfMemory { bytes: len });
        let len = usize::try_from(len).map_err(|_| out_of_memory())?;
        text.try_reserve(len).map_err(|_| out_of_memory())?;
        let in_window = self.in_window(len).is_some();
        if !in_window {
            scratch.clear();
            scratch
                .try_reserve_exact(len)
                .map_err(|_| out_of_memory())?;
            scratch.resize(len, 0);
            self.fill(scratch)?;
        }
        let raw = match self.in_window(len) {
            Some(raw) if in_window => raw,
            _ => scratch,
        };
        let valid = std::str::from_utf8(raw).map_err(|error| {
            let valid_bytes = error.valid_up_to() as u64;
            self.fail(offset, Fault::NotUtf8 { valid_bytes })
        })?;
        text.push_str(valid);
        self.position = offset + len as u64;
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
