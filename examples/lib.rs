//! What the example programs share: models that come by themselves, argument parsing, printing.
//!
//! Each program is a file `NAME.rs` beside this one and runs with
//! `cargo run --release --example NAME`; the folders are modules of this library.

pub mod cli;
pub mod engine;
pub mod llama;
pub mod models;
