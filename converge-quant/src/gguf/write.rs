//! Writes GGUF files: metadata first, then tensor after tensor.
//!
//! ```text
//! model.gguf.1234-0.partial   header │ pad │ tensor │ pad │ tensor │ pad │ …
//!         │                     ▲ read back and checked before a tensor is written
//!         └─ finish: on the disk, then renamed ──→ model.gguf
//! ```
//!
//! The file is written beside its place under another name and renamed when it is complete, so
//! that at its own name there is either what was there before or the whole new file. A writer that
//! is dropped before that, because of an error, a full disk or a change of mind, takes its partial
//! file with it.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use crate::error::{QuantError, Result};
use crate::folder::NewFile;
use crate::ggml_type::GgmlType;

use super::header::{self, MAGIC};
use super::serialize;
use super::{Gguf, Limits, Metadata, TensorInfo};

/// The version of the format that is written.
const VERSION: u32 = 3;

/// Bytes copied at a time from file to file.
const COPY: usize = 4 << 20;

/// Bytes after which those written so far are sent to the disk, while the next ones are made.
const SYNC: u64 = 64 << 20;

/// What a tensor of a file to be written will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// The name, such as `blk.0.attn_q.weight`.
    pub name: String,
    /// How its elements are stored.
    pub ggml_type: GgmlType,
    /// Elements along each dimension, slowest first, as in [`TensorInfo::shape`].
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// Elements in a row: the last dimension.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Elements in all; `usize::MAX` where they cannot be counted.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.shape
            .iter()
            .fold(1, |all, &one| all.saturating_mul(one))
    }

    /// Rows: the product of all dimensions but the last, 1 for a vector.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.elements() / self.cols().max(1)
    }

    /// Bytes, `None` if the elements are no whole blocks or too many.
    #[must_use]
    pub fn bytes(&self) -> Option<usize> {
        self.ggml_type.bytes_of(self.elements())
    }
}

impl From<&TensorInfo> for TensorSpec {
    fn from(info: &TensorInfo) -> Self {
        Self {
            name: info.name.clone(),
            ggml_type: info.ggml_type,
            shape: info.shape.clone(),
        }
    }
}

/// A GGUF file that is being written.
///
/// ```
/// use converge_quant::gguf::{Metadata, TensorSpec, Value, Writer};
/// use converge_quant::{GgmlType, Gguf};
///
/// # fn main() -> Result<(), converge_quant::QuantError> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("tiny.gguf");
/// let metadata = Metadata::from_entries([("general.architecture", Value::from("llama"))])?;
/// let tensor = TensorSpec {
///     name: "output_norm.weight".to_owned(),
///     ggml_type: GgmlType::F32,
///     shape: vec![2],
/// };
/// let mut writer = Writer::create(&path, &metadata, &[tensor])?;
/// writer.write(&1.0f32.to_le_bytes())?;
/// writer.write(&2.0f32.to_le_bytes())?;
/// writer.finish()?;
///
/// assert_eq!(Gguf::open(&path)?.tensor("output_norm.weight")?.shape, [2]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Writer {
    to: PathBuf,
    new: NewFile,
    out: BufWriter<File>,
    tensors: Vec<TensorInfo>,
    /// The tensor whose bytes come next.
    current: usize,
    /// Bytes of it that were written.
    filled: usize,
    /// Bytes written in all.
    position: u64,
    syncing: Syncing,
}

impl Writer {
    /// Begins a file with this metadata and these tensors, whose bytes must follow in this order.
    ///
    /// Tensors begin at multiples of `general.alignment`, 32 if the metadata do not say.
    ///
    /// # Errors
    /// [`QuantError::Write`] if the file cannot be written; what [`Gguf::open`] says of a file
    /// with this header, before any tensor is written: a name that occurs twice, rows that are no
    /// whole blocks, an alignment that is none, metadata beyond the default [`Limits`], …
    pub fn create(
        to: impl AsRef<Path>,
        metadata: &Metadata,
        tensors: &[TensorSpec],
    ) -> Result<Self> {
        let to = to.as_ref();
        let alignment = header::declared_alignment(metadata);
        let mut head = Vec::new();
        head.extend(MAGIC);
        head.extend(VERSION.to_le_bytes());
        head.extend((tensors.len() as u64).to_le_bytes());
        head.extend((metadata.len() as u64).to_le_bytes());
        for (key, value) in metadata.iter() {
            serialize::string(key, &mut head);
            serialize::value(value, &mut head);
        }
        let mut end = 0u64;
        for tensor in tensors {
            // A size that cannot be is refused when the header is read back.
            let offset = end.checked_next_multiple_of(alignment).unwrap_or(u64::MAX);
            end = offset.saturating_add(tensor.bytes().unwrap_or(0) as u64);
            serialize::tensor(tensor, offset, &mut head);
        }
        // One beyond the limits is refused as well.
        let start =
            (head.len() as u64).next_multiple_of(alignment.min(Limits::default().alignment));
        head.resize(usize::try_from(start).unwrap_or(head.len()), 0);

        if to.file_name().is_none() || to.is_dir() {
            return Err(QuantError::NotAFile {
                path: to.to_owned(),
            });
        }
        let needed = start.saturating_add(end);
        let failed = |source| QuantError::Write {
            path: to.to_owned(),
            needed,
            source,
        };
        let new = NewFile::create(to).map_err(failed)?;
        let mut out = BufWriter::new(new.file().try_clone().map_err(failed)?);
        out.write_all(&head).map_err(failed)?;
        out.flush().map_err(failed)?;
        // The reader is the judge of the header; it asks for the room of the tensors, too.
        out.get_ref().set_len(needed).map_err(failed)?;
        let written = Gguf::open(new.partial()).map_err(|error| error.at_path(to))?;
        Ok(Self {
            to: to.to_owned(),
            new,
            out,
            tensors: written.into_tensors(),
            current: 0,
            filled: 0,
            position: start,
            syncing: Syncing::default(),
        })
    }

    /// Bytes that the file will have.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        let last = self.tensors.iter().map(|t| t.offset + t.bytes as u64).max();
        last.unwrap_or(self.position)
    }

    /// Writes the next bytes of the current tensor: all of them or some. The tensor after it
    /// follows when it is full.
    ///
    /// # Errors
    /// [`QuantError::TensorBytes`] for more bytes than are left of it; [`QuantError::Write`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(tensor) = self.tensors.get(self.current) else {
            return Err(QuantError::TensorBytes {
                tensor: self
                    .tensors
                    .last()
                    .map_or_else(String::new, |t| t.name.clone()),
                expected: 0,
                found: bytes.len(),
            });
        };
        let left = tensor.bytes - self.filled;
        if bytes.len() > left {
            return Err(QuantError::TensorBytes {
                tensor: tensor.name.clone(),
                expected: left,
                found: bytes.len(),
            });
        }
        let pad = tensor.offset.saturating_sub(self.position);
        let position = self.position + pad + bytes.len() as u64;
        io::copy(&mut io::Read::take(io::repeat(0), pad), &mut self.out)
            .and_then(|_| self.out.write_all(bytes))
            .and_then(|()| self.syncing.at(position, self.out.get_ref()))
            .map_err(|source| self.failed(source))?;
        self.position = position;
        self.filled += bytes.len();
        if bytes.len() == left {
            self.current += 1;
            self.filled = 0;
        }
        Ok(())
    }

    /// Puts the file in its place, when it is on the disk. What was there before is replaced.
    ///
    /// # Errors
    /// [`QuantError::TensorBytes`] if bytes of a tensor are missing; [`QuantError::Write`].
    pub fn finish(mut self) -> Result<()> {
        if let Some(tensor) = self.tensors.get(self.current) {
            return Err(QuantError::TensorBytes {
                tensor: tensor.name.clone(),
                expected: tensor.bytes - self.filled,
                found: 0,
            });
        }
        let (to, needed) = (self.to.clone(), self.file_bytes());
        let done = self
            .out
            .flush()
            .and_then(|()| self.syncing.wait())
            .and_then(|()| self.new.finish());
        done.map_err(|source| QuantError::Write {
            path: to,
            needed,
            source,
        })
    }

    fn failed(&self, source: io::Error) -> QuantError {
        QuantError::Write {
            path: self.to.clone(),
            needed: self.file_bytes(),
            source,
        }
    }
}

/// Writes the tensors of `gguf` to a new file with other metadata, as stored: nothing is decoded.
///
/// The parts of a split file become one; their `split.*` keys are left out. `to` may be the file
/// itself. `on_progress` is told the bytes of tensors that were written and that there are, and
/// can stop the work.
///
/// ```no_run
/// # use std::ops::ControlFlow;
/// # fn main() -> Result<(), converge_quant::QuantError> {
/// let gguf = converge_quant::Gguf::open("model.gguf")?;
/// let mut metadata = gguf.metadata().clone();
/// metadata.set("general.name", "My own model");
/// metadata.remove("general.description");
/// converge_quant::gguf::copy(&gguf, &metadata, "named.gguf", |_, _| ControlFlow::Continue(()))?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// Those of [`Writer`] and of [`Gguf::read_rows`]; [`QuantError::Cancelled`] if `on_progress`
/// breaks. Then nothing has changed.
pub fn copy(
    gguf: &Gguf,
    metadata: &Metadata,
    to: impl AsRef<Path>,
    mut on_progress: impl FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<()> {
    let metadata = metadata.clone().without_split();
    let tensors: Vec<TensorSpec> = gguf.tensors().iter().map(TensorSpec::from).collect();
    let mut writer = Writer::create(to, &metadata, &tensors)?;
    let total = gguf.tensors().iter().map(|info| info.bytes as u64).sum();
    let mut done = 0;
    let mut buf = Vec::new();
    for info in gguf.tensors() {
        let step = (COPY / info.row_bytes().max(1)).max(1);
        let mut row = 0;
        while row < info.rows() {
            let end = info.rows().min(row + step);
            gguf.read_rows(info, row..end, &mut buf)?;
            writer.write(&buf)?;
            done += buf.len() as u64;
            if on_progress(done, total).is_break() {
                return Err(QuantError::Cancelled);
            }
            row = end;
        }
    }
    writer.finish()
}

/// Sends to the disk what was written, on a thread of its own, so that little is left at the end.
#[derive(Debug, Default)]
struct Syncing {
    /// Bytes that were written when the last one began.
    from: u64,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Syncing {
    /// Begins if enough was written since, and the last one is through.
    fn at(&mut self, position: u64, file: &File) -> io::Result<()> {
        let busy = |thread: &JoinHandle<_>| !thread.is_finished();
        if position - self.from < SYNC || self.thread.as_ref().is_some_and(busy) {
            return Ok(());
        }
        self.wait()?;
        let file = file.try_clone()?;
        let sync = thread::Builder::new().name("sync".to_owned());
        self.thread = Some(sync.spawn(move || file.sync_data())?);
        self.from = position;
        Ok(())
    }

    /// Waits for the one under way, whose error no later one repeats.
    fn wait(&mut self) -> io::Result<()> {
        let panicked = |_| Err(io::Error::other("the thread that syncs the file panicked"));
        match self.thread.take() {
            Some(thread) => thread.join().unwrap_or_else(panicked),
            None => Ok(()),
        }
    }
}
