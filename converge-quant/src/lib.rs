//! GGUF files and block-quantized weights.

pub mod error;

pub use error::{QuantError, Result};
