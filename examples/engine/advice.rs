//! What to do about a file that was read, but holds no model that can be run.

use converge_core::{CoreError, tokenizer::TokenizerError};
use converge_quant::{Gguf, QuantError};

/// For a file whose parts do not belong together.
const ANOTHER: &str = "the file is incomplete or made for another program: get it again, or give \
                       another conversion of the model";

/// Adds to the error that the model in `gguf` was refused with what to do about it.
pub fn with_advice(gguf: &Gguf, error: CoreError) -> anyhow::Error {
    match purpose(gguf).or_else(|| remedy(&error)) {
        Some(advice) => anyhow::anyhow!("{error}; {advice}"),
        None => error.into(),
    }
}

/// What the file is for, where that is not to be run: this says more than what it lacks.
fn purpose(gguf: &Gguf) -> Option<&'static str> {
    let text = |key| gguf.metadata().find::<&str>(key).ok().flatten();
    match (text("general.type"), text("general.architecture")) {
        (Some("adapter"), _) => Some(
            "the file is an adapter (LoRA), and adapters cannot be applied: give a model that it \
             was merged into",
        ),
        (Some("mmproj"), _) | (_, Some("clip")) => Some(
            "the file is the image part of a model (mmproj): give the file of its language part",
        ),
        (Some("imatrix"), _) | (_, Some("imatrix")) => {
            Some("the file holds statistics for quantizing: give the file of the model itself")
        }
        _ if gguf.tensors().is_empty() => Some(
            "the file holds a vocabulary and no weights, enough for `tokenize` only: give the file \
             of the whole model",
        ),
        _ => None,
    }
}

fn remedy(error: &CoreError) -> Option<&'static str> {
    match error {
        CoreError::UnsupportedArchitecture { .. } => Some("give a model of one of these"),
        CoreError::UnsupportedFeature { .. } => Some("give another model"),
        CoreError::Quant(QuantError::MissingKey { key }) if key.starts_with("tokenizer.") => Some(
            "the file was made without its tokenizer: convert the model again together with its \
             tokenizer's files, or give another conversion",
        ),
        CoreError::Tokenizer(
            TokenizerError::UnsupportedModel { .. } | TokenizerError::UnsupportedPre { .. },
        ) => Some("give another model, with one of these"),
        CoreError::Quant(QuantError::UnsupportedType { .. }) => {
            Some("give the model in one of these types, such as Q4_K_M")
        }
        CoreError::Tokenizer(_)
        | CoreError::TensorShape { .. }
        | CoreError::ModelParameter { .. }
        | CoreError::Quant(
            QuantError::MissingTensor { .. }
            | QuantError::MissingKey { .. }
            | QuantError::WrongType { .. }
            | QuantError::OutOfRange { .. },
        ) => Some(ANOTHER),
        _ => None,
    }
}
