//! What a decoder computes, on slices: safe, checked for shapes, the same bits on every machine.
//!
//! ```text
//!   rows of f32 ──► Activations ──┐
//!                   8 bits, a     │
//!                   scale for 16  ├─► matmul ──► rows of f32
//!   Packed weights ───────────────┘
//! ```
//!
//! Of a weight row and a token the result depends on nothing else: integers inside a block, then one
//! fixed sequence of fused multiply-adds over the blocks in ascending order. How many tokens a call
//! has, how many threads, and which instructions run change nothing.

mod activations;
mod ahead;
mod attention;
mod float;
#[cfg(test)]
mod fused_tests;
mod kv;
mod math;
mod matmul;
mod rope;
#[cfg(test)]
mod tests;
mod vector;

pub use activations::Activations;
pub use attention::{View, attention};
pub use kv::{Heads, KvPage, KvType, PAGE};
pub use matmul::{matmul, matmul_add, matmul_tiles, matmul_together};
pub use rope::{Pairs, Turns, rotate};
pub use vector::{
    Activation, add_bias, add_scaled, gate, rms_norm, rms_norm_in_place, scale_and_bound,
};
