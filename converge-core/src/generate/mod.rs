//! `Generate`: the trait through which everything above speaks to a model.

mod cancel;

pub use cancel::Cancel;
