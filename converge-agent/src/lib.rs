//! An autonomous agent as a library: plan, execute, observe, refine over private files.

#![forbid(unsafe_code)]

pub mod error;
pub mod policy;
pub mod tool;

pub use error::{AgentError, Result};
