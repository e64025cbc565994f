//! GGUF files and block-quantized weights.

pub mod error;
pub mod format;
mod ggml_type;

pub use error::{QuantError, Result};
pub use ggml_type::GgmlType;
