//! `Generate`: the trait through which everything above speaks to a model.

mod batch;
mod cancel;
mod draft;
mod log_probs;
mod request;
mod run;
mod session;
mod stop;

pub use batch::{Batch, Finished};
pub use cancel::Cancel;
pub use draft::{Checked, Draft, Place};
pub use log_probs::{log_prob, top_log_probs};
pub use request::{Event, Generation, Request, StopReason, TokenLogProbs, Usage};
pub use session::Session;

use serde_json::Value;

use crate::{
    Result, TokenId,
    chat::ChatTemplate,
    constrain::{Grammar, TokenEnv},
    tokenizer::Tokenizer,
};

/// Something that generates text: a plain [`Session`], or one that speculates.
pub trait Generate: Send {
    /// The model's tokenizer.
    fn tokenizer(&self) -> &Tokenizer;

    /// The model's chat template.
    fn chat(&self) -> &ChatTemplate;

    /// The most tokens that prompt and answer may have together.
    fn context(&self) -> usize;

    /// Whether the exactness contract holds: the same tokens whatever the batch and the cache.
    fn exact(&self) -> bool;

    /// The vocabulary as grammars need it; made on first use, then shared.
    ///
    /// # Errors
    /// A [`ConstrainError`](crate::constrain::ConstrainError) for a vocabulary that cannot be
    /// indexed.
    fn token_env(&self) -> Result<TokenEnv>;

    /// Compiles a JSON Schema for this model: see [`Grammar::json_schema`].
    ///
    /// # Errors
    /// As [`Grammar::json_schema`] and [`token_env`](Self::token_env).
    fn compile(&self, schema: &Value) -> Result<Grammar> {
        Grammar::json_schema(&self.token_env()?, schema)
    }

    /// Generates, telling of each step as it happens. A request that is cancelled returns what was
    /// generated so far.
    ///
    /// # Errors
    /// Before anything is computed: [`EmptyPrompt`](crate::CoreError::EmptyPrompt),
    /// [`ContextOverflow`](crate::CoreError::ContextOverflow) for a prompt that leaves no room for
    /// a token, [`TokenOutOfRange`](crate::CoreError::TokenOutOfRange),
    /// [`EmptyStopString`](crate::CoreError::EmptyStopString),
    /// [`ForeignGrammar`](crate::CoreError::ForeignGrammar), and sampling options out of range.
    /// Later: logits that are no numbers, a grammar that fails, and the backend's own. After any
    /// of them the next request runs as if this one had not been.
    fn generate(
        &mut self,
        request: &Request,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<Generation>;

    /// The log-probability of each continuation after `prompt`, summed over its tokens, by the
    /// model's own distribution. The prompt is read once.
    ///
    /// # Errors
    /// As [`generate`](Self::generate), the longest continuation counting for the context;
    /// [`Cancelled`](crate::CoreError::Cancelled).
    fn score(
        &mut self,
        prompt: &[TokenId],
        continuations: &[Vec<TokenId>],
        cancel: &Cancel,
    ) -> Result<Vec<f32>>;
}

#[cfg(test)]
mod draft_tests;
#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod operation_tests;
#[cfg(feature = "candle")]
#[cfg(test)]
mod share_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod toy;
