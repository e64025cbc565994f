//! GGUF files and block-quantized weights.

pub mod error;
pub mod format;
mod ggml_type;
pub mod gguf;

pub use error::{QuantError, Result};
pub use ggml_type::GgmlType;
pub use gguf::{Gguf, Limits, Metadata, TensorInfo};
