//! The engines that compute a decoder.

#[cfg(feature = "candle")]
pub mod candle;
pub mod cpu;
