//! The GGUF reader, on files built byte by byte and on broken ones, and the writer.

#![cfg(test)] // so that the lints know the helpers for tests, too

mod builder;
mod fuzz;
mod limits;
mod malformed;
mod memory;
mod metadata;
mod split;
mod tensors;
mod time;
mod write;
