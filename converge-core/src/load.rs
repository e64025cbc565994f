//! From a file to a session in one call.

use std::{path::Path, sync::Arc};

use candle_core::Device;
use converge_quant::Gguf;

use crate::{
    CoreError, Result,
    backend::candle::{CandleModel, CandleOptions, WeightMode},
    chat::ChatTemplate,
    generate::Session,
    model::Decoder,
    tokenizer::Tokenizer,
};

/// How to load a model.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Positions that the context may have; at most what the model was trained for.
    pub context: usize,
    /// How weights are held.
    pub mode: WeightMode,
    /// Where the model is computed.
    pub device: Device,
}

impl Default for LoadOptions {
    /// 4096 positions, quantized, on the CPU.
    fn default() -> Self {
        let CandleOptions {
            mode,
            context,
            device,
        } = CandleOptions::default();
        Self {
            context,
            mode,
            device,
        }
    }
}

/// Opens a GGUF file (the first one of a split set) and makes a session of it: weights, tokenizer
/// and chat template.
///
/// # Errors
/// The reader's for a file that is missing, truncated or malformed; the tokenizer's, the chat
/// template's and the model's for what is not supported;
/// [`ModelParameter`](CoreError::ModelParameter) for a context that the model does not have, or a
/// vocabulary larger than the model's embedding.
pub fn load(path: &Path, options: &LoadOptions) -> Result<Session> {
    let gguf = Gguf::open(path)?;
    // What is small and may be refused comes before the weights.
    let tokenizer = Tokenizer::from_gguf(gguf.metadata())?;
    let chat = ChatTemplate::from_gguf(gguf.metadata())?;
    let options = CandleOptions {
        mode: options.mode,
        context: options.context,
        device: options.device.clone(),
    };
    let decoder = CandleModel::load(&gguf, &options)?.decoder();
    if tokenizer.vocab() > decoder.vocab() {
        return Err(CoreError::ModelParameter {
            key: "tokenizer.ggml.tokens".to_owned(),
            found: format!("{} tokens", tokenizer.vocab()),
            expected: format!("at most {}, the rows of the embedding", decoder.vocab()),
        });
    }
    Ok(Session::new(
        Box::new(decoder),
        Arc::new(tokenizer),
        Arc::new(chat),
    ))
}
