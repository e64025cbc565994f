//! What the benches share: probes of the machine's limits, the work that a pass over a model is,
//! and models to measure.
//!
//! ```text
//!   probe     bytes per second from memory ──────┐
//!             multiply-adds per second, raw      ├─► model::Work::limit(m): the least time that a
//!             … of a kernel's own instructions ──┘   pass over m tokens can take on this machine
//! ```
//!
//! A time alone says little on a machine that others use too: what counts is its share of the limit,
//! probed in the same run.

pub mod model;
pub mod probe;
mod times;

pub use times::Times;

/// Threads that benches compute with: `CONVERGE_THREADS`, else as many as the machine has cores.
#[must_use]
pub fn threads() -> usize {
    let asked = std::env::var("CONVERGE_THREADS").ok();
    asked
        .and_then(|text| text.parse().ok())
        .filter(|&n| n > 0)
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, Into::into))
}

/// Bytes that look random and are the same in every run (SplitMix64).
#[must_use]
pub fn noise(len: usize) -> Vec<u8> {
    let mut state = 0_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend((z ^ (z >> 31)).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Numbers spread about zero as weights and activations are, between −1 and 1.
#[must_use]
pub fn numbers(len: usize) -> Vec<f32> {
    let bytes = noise(2 * len);
    bytes
        .as_chunks::<2>()
        .0
        .iter()
        .map(|&[a, b]| (f32::from(a) + f32::from(b)) / 255.0 - 1.0)
        .collect()
}
