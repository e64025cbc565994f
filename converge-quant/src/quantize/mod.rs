//! Quantizes a model: each tensor in the type that a recipe gives it, into a new GGUF file.
//!
//! ```text
//! Source (a GGUF file, …)          Recipe (Q4_K_M, …)
//!    │ names, shapes, metadata        │
//!    └───────────────┬────────────────┘
//!                    ▼
//!                  plan           the type of every tensor, known before the first is read
//!                    ▼
//!   rows ─ decode ─ encode ─┐     in parallel, some megabytes at a time
//!   rows ─ decode ─ encode ─┼─→ gguf::Writer
//!   rows ─ decode ─ encode ─┘
//! ```
//!
//! Types are chosen, and the tensors ordered, as llama.cpp's `llama-quantize` does without an
//! importance matrix; the encoders are those of [`format`](mod@crate::format). The result does not
//! depend on the number of threads.

mod recipe;
mod source;

use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use rayon::prelude::*;

use crate::gguf::{Metadata, TensorSpec, Writer};
use crate::{GgmlType, QuantError, Result, format};

pub use recipe::Recipe;
pub use source::Source;

/// Numbers that one thread decodes and encodes at a time.
const CHUNK: usize = 64 * 1024;

/// Chunks whose bytes are kept until they are written, for each thread.
const CHUNKS: usize = 8;

/// How to quantize.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which tensor gets which type.
    pub recipe: Recipe,
    /// Takes tensors that are quantized already, too, whose errors then add up. Without it they
    /// are an error, unless they have the right type.
    pub requantize: bool,
    /// What the new file says of the model, where it is not what the source says. The keys that
    /// tell how it is quantized are set in any case.
    pub metadata: Option<Metadata>,
}

impl Options {
    /// A recipe, for a source that is not quantized.
    #[must_use]
    pub fn new(recipe: Recipe) -> Self {
        Self {
            recipe,
            requantize: false,
            metadata: None,
        }
    }
}

/// What becomes of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The tensor's name.
    pub name: String,
    /// Its shape, slowest dimension first.
    pub shape: Vec<usize>,
    /// Its type in the source.
    pub from: GgmlType,
    /// Its type in the new file.
    pub to: GgmlType,
    /// The type the recipe meant for it, where its rows are no whole blocks of that.
    pub instead_of: Option<GgmlType>,
    /// Its place in the source.
    index: usize,
}

impl Planned {
    fn spec(&self) -> TensorSpec {
        TensorSpec {
            name: self.name.clone(),
            ggml_type: self.to,
            shape: self.shape.clone(),
        }
    }
}

/// How far the work is.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// The tensor in work.
    pub tensor: &'a Planned,
    /// Which one it is, from 0.
    pub index: usize,
    /// How many there are.
    pub tensors: usize,
    /// Numbers written so far, of all tensors.
    pub done: u64,
    /// Numbers in all.
    pub total: u64,
}

/// What was done.
#[derive(Clone, Debug)]
pub struct Report {
    /// The tensors in the order of the new file.
    pub tensors: Vec<Planned>,
    /// Bytes of the tensors in the source.
    pub from_bytes: u64,
    /// Bytes of the new file.
    pub file_bytes: u64,
    /// How long it took.
    pub time: Duration,
}

/// What would be done: the tensors in the order of the new file, with their types.
///
/// # Errors
/// - [`QuantError::UnsupportedType`]: a tensor that has to be decoded cannot be.
/// - [`QuantError::Requantize`]: one is quantized already, and `options` do not take that.
/// - [`QuantError::MissingKey`] and the like: metadata that the recipe looks at.
pub fn plan(source: &dyn Source, options: &Options) -> Result<Vec<Planned>> {
    let tensors = source.tensors();
    let planned = options.recipe.plan(source.metadata(), &tensors)?;
    for tensor in planned.iter().filter(|tensor| tensor.from != tensor.to) {
        if !tensor.from.is_supported() {
            return Err(QuantError::UnsupportedType {
                tensor: tensor.name.clone(),
                found: tensor.from,
            });
        }
        if tensor.from.block_len() > 1 && !options.requantize {
            return Err(QuantError::Requantize {
                tensor: tensor.name.clone(),
                found: tensor.from,
            });
        }
    }
    Ok(planned)
}

/// Quantizes `source` into the file `to`, in parallel on rayon's threads.
///
/// Next to the source's header some megabytes a thread are needed, whatever the model's size. The
/// file appears at its name when it is complete, and not at all after an error. `on_progress` is
/// called now and then on this thread and can stop the work.
///
/// # Errors
/// Those of [`plan`], of the source, of [`format::encode`] (told of the tensor) and of
/// [`Writer`]; [`QuantError::Cancelled`] if `on_progress` breaks.
pub fn quantize(
    source: &dyn Source,
    options: &Options,
    to: impl AsRef<Path>,
    mut on_progress: impl FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<Report> {
    let start = Instant::now();
    let tensors = plan(source, options)?;
    let specs: Vec<TensorSpec> = tensors.iter().map(Planned::spec).collect();
    let metadata = options.metadata.as_ref().unwrap_or(source.metadata());
    let metadata = options.recipe.label(metadata.clone());
    let mut writer = Writer::create(to, &metadata, &specs)?;
    let file_bytes = writer.file_bytes();
    let total = specs.iter().map(|spec| spec.elements() as u64).sum();

    let mut done = 0;
    let batch = CHUNKS * rayon::current_num_threads();
    // While the threads make a batch, the one before it is written.
    let mut ready: Vec<Vec<u8>> = Vec::new();
    for (index, (tensor, spec)) in tensors.iter().zip(&specs).enumerate() {
        let rows = (CHUNK / spec.cols().max(1)).max(1);
        let chunks: Vec<usize> = (0..spec.rows()).step_by(rows).collect();
        for starts in chunks.chunks(batch) {
            let progress = Progress {
                tensor,
                index,
                tensors: tensors.len(),
                done,
                total,
            };
            if on_progress(progress).is_break() {
                return Err(QuantError::Cancelled);
            }
            let encode = || {
                let chunk = |room: &mut Room, &first: &usize| {
                    let last = spec.rows().min(first + rows);
                    chunk(source, tensor, first..last, spec.cols(), room)
                };
                let encoded = starts.par_iter().map_init(Room::default, chunk);
                encoded.collect::<Result<Vec<_>>>()
            };
            let (written, encoded) = rayon::join(|| write(&mut writer, &ready), encode);
            written?;
            ready = encoded?;
            let last = starts.last().map_or(0, |first| first + rows);
            let first = starts.first().copied().unwrap_or(0);
            done += ((spec.rows().min(last) - first) * spec.cols()) as u64;
        }
    }
    write(&mut writer, &ready)?;
    writer.finish()?;
    let from_bytes = |tensor: &Planned| {
        let elements = tensor.spec().elements();
        tensor.from.bytes_of(elements).unwrap_or(0) as u64
    };
    Ok(Report {
        from_bytes: tensors.iter().map(from_bytes).sum(),
        tensors,
        file_bytes,
        time: start.elapsed(),
    })
}

fn write(writer: &mut Writer, chunks: &[Vec<u8>]) -> Result<()> {
    chunks.iter().try_for_each(|bytes| writer.write(bytes))
}

/// What a thread needs for a chunk and uses again for the next.
#[derive(Default)]
struct Room {
    stored: Vec<u8>,
    numbers: Vec<f32>,
}

/// Some rows of a tensor, in their new type.
fn chunk(
    source: &dyn Source,
    tensor: &Planned,
    rows: std::ops::Range<usize>,
    cols: usize,
    room: &mut Room,
) -> Result<Vec<u8>> {
    let Room { stored, numbers } = room;
    let first = rows.start;
    let count = rows.len() * cols;
    source.read_rows(tensor.index, rows, stored)?;
    if tensor.from == tensor.to {
        return Ok(std::mem::take(stored));
    }
    numbers.resize(count, 0.0);
    format::decode(tensor.from, stored, numbers)?;
    let mut encoded = Vec::with_capacity(tensor.to.bytes_of(count).unwrap_or(0));
    format::encode(tensor.to, numbers, &mut encoded).map_err(|error| match error {
        QuantError::Unencodable {
            ggml_type,
            position,
            value,
        } => QuantError::UnencodableWeight {
            tensor: tensor.name.clone(),
            row: first + position / cols.max(1),
            column: position % cols.max(1),
            ggml_type,
            value,
        },
        other => other,
    })?;
    Ok(encoded)
}
