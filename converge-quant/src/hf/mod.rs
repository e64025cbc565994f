//! Models as Hugging Face publishes them (feature `safetensors`): a folder with `config.json`,
//! `tokenizer.json` and weights in `.safetensors`, read as a [`Source`] to quantize.
//!
//! ```text
//! config.json ───────────────┐
//! tokenizer.json             ├─→ Metadata, with the keys of a GGUF file
//! tokenizer_config.json ─────┘
//! model*.safetensors ──────────→ tensors, under their GGUF names, in the order of rows that GGUF has
//! ```
//!
//! Names, keys and permutations are those of llama.cpp's `convert_hf_to_gguf.py`. Only the header
//! of the weights is read at first; rows are fetched when they are asked for.

mod config;
mod fault;
mod json;
mod names;
mod tokenizer;
mod weights;

use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::gguf::{Metadata, TensorSpec};
use crate::quantize::Source;
use crate::{GgmlType, QuantError, Result, format};

pub use fault::FolderFault;

use config::Config;
use json::Json;
use weights::{Stored, Weights};

/// A folder of a model of the architectures `llama` and `qwen2`.
///
/// ```no_run
/// use std::ops::ControlFlow;
/// use converge_quant::hf::Folder;
/// use converge_quant::quantize::{Options, Recipe, quantize};
///
/// # fn main() -> Result<(), converge_quant::QuantError> {
/// let folder = Folder::open("Qwen2.5-Coder-0.5B-Instruct")?;
/// let options = Options::new(Recipe::Q4KM);
/// quantize(&folder, &options, "model-q4_k_m.gguf", |_| ControlFlow::Continue(()))?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    metadata: Metadata,
    weights: Weights,
    tensors: Vec<Tensor>,
}

/// A tensor of the new file, and where its numbers are.
#[derive(Debug)]
struct Tensor {
    spec: TensorSpec,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// In the weights; rows of so many heads may have to be reordered.
    Stored {
        stored: Stored,
        heads: Option<usize>,
    },
    /// Worked out from the configuration.
    Made(Vec<f32>),
}

impl Folder {
    /// Reads configuration and tokenizer, and the headers of the weights.
    ///
    /// # Errors
    /// [`QuantError::Io`] if a file is missing or cannot be read, [`QuantError::Folder`] with the
    /// file and the field if something in it is missing, wrong or of a kind that is not converted.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let config = Config::read(&Json::read(&path.join("config.json"))?)?;
        let weights = Weights::open(path)?;
        let mut tensors = Vec::new();
        let mut vocab = 0;
        for (name, stored) in weights.tensors() {
            if names::is_left_out(name) || config.tied && name == "lm_head.weight" {
                continue;
            }
            let new = names::gguf(name).ok_or_else(|| QuantError::Folder {
                path: weights.path(stored).to_owned(),
                field: name.to_owned(),
                fault: FolderFault::UnknownTensor {
                    architecture: config.architecture,
                },
            })?;
            if new == "token_embd.weight" {
                vocab = stored.shape.first().copied().unwrap_or(0);
            }
            let heads = config.permuted_heads(&new);
            let spec = TensorSpec {
                name: new,
                // Vectors are small and matter much.
                ggml_type: match stored.shape.len() {
                    0 | 1 => GgmlType::F32,
                    _ => stored.ggml_type,
                },
                shape: stored.shape.clone(),
            };
            if let Some(heads) = heads {
                let rows = stored.shape.first().copied().unwrap_or(0);
                if !rows.is_multiple_of(2 * heads) {
                    return Err(QuantError::Folder {
                        path: weights.path(stored).to_owned(),
                        field: name.to_owned(),
                        fault: FolderFault::Unsupported {
                            found: format!("{rows} rows"),
                            supported: format!("a multiple of twice the {heads} heads"),
                        },
                    });
                }
            }
            let stored = stored.clone();
            let place = Place::Stored { stored, heads };
            tensors.push(Tensor { spec, place });
        }
        if let Some(factors) = &config.rope_factors {
            tensors.push(Tensor {
                spec: TensorSpec {
                    name: "rope_freqs.weight".to_owned(),
                    ggml_type: GgmlType::F32,
                    shape: vec![factors.len()],
                },
                place: Place::Made(factors.clone()),
            });
        }
        let mut metadata = Metadata::default();
        config.describe(path, vocab, &mut metadata);
        tokenizer::describe(path, vocab, &config, &mut metadata)?;
        Ok(Self {
            path: path.to_owned(),
            metadata,
            weights,
            tensors,
        })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the weights.
    #[must_use]
    pub fn weight_bytes(&self) -> u64 {
        self.weights.bytes()
    }
}

impl Source for Folder {
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn tensors(&self) -> Vec<TensorSpec> {
        self.tensors.iter().map(|one| one.spec.clone()).collect()
    }

    fn read_rows(&self, tensor: usize, rows: Range<usize>, buf: &mut Vec<u8>) -> Result<()> {
        let missing = || QuantError::MissingTensor {
            path: self.path.clone(),
            name: format!("number {tensor}"),
        };
        let Tensor { spec, place } = self.tensors.get(tensor).ok_or_else(missing)?;
        if rows.start > rows.end || rows.end > spec.rows() {
            return Err(QuantError::RowRange {
                tensor: spec.name.clone(),
                start: rows.start,
                end: rows.end,
                rows: spec.rows(),
            });
        }
        let (stored, heads) = match place {
            Place::Stored { stored, heads } => (stored, *heads),
            Place::Made(numbers) => {
                let all = &numbers[..rows.len() * numbers.len()];
                buf.clear();
                return format::encode(GgmlType::F32, all, buf);
            }
        };
        let cols = spec.cols();
        if spec.shape.len() > 1 {
            return match heads {
                None => self.weights.read(stored, rows, cols, buf),
                Some(heads) => {
                    buf.clear();
                    let mut row = Vec::new();
                    for to in rows {
                        let from = unpermuted(to, spec.rows() / heads);
                        self.weights.read(stored, from..from + 1, cols, &mut row)?;
                        buf.extend(&row);
                    }
                    Ok(())
                }
            };
        }
        self.weights.read(stored, rows.clone(), cols, buf)?;
        let mut numbers = vec![0.0; rows.len() * cols];
        format::decode(stored.ggml_type, buf, &mut numbers)?;
        if let (Some(heads), false) = (heads, numbers.is_empty()) {
            let size = cols / heads;
            numbers = (0..cols).map(|to| numbers[unpermuted(to, size)]).collect();
        }
        buf.clear();
        format::encode(GgmlType::F32, &numbers, buf)
    }
}

/// Which row of a published matrix of queries or keys is row `to` of the GGUF one.
///
/// Published are the halves of a head one after the other; in GGUF, rows that are rotated together
/// are neighbours.
fn unpermuted(to: usize, head_size: usize) -> usize {
    let (head, within) = (to / head_size.max(1), to % head_size.max(1));
    head * head_size + within % 2 * (head_size / 2) + within / 2
}
