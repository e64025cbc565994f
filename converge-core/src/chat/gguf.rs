//! The template of a model file.

use converge_quant::gguf::{Metadata, Strings};

use super::{ChatError, ChatTemplate};
use crate::Result;

/// ChatML, the format that `<|im_start|>` and `<|im_end|>` stand for, without a system message of
/// its own.
const CHATML: &str = "\
{% for message in messages %}\
{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}\
{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

impl ChatTemplate {
    /// The template of a model file: `tokenizer.chat_template`.
    ///
    /// A file without one gets ChatML if `<|im_start|>` and `<|im_end|>` are in its vocabulary.
    ///
    /// # Errors
    /// [`ChatError::NoTemplate`], a template that does not compile, or metadata of another type.
    pub fn from_gguf(metadata: &Metadata) -> Result<Self> {
        let tokens: Option<&Strings> = metadata.find("tokenizer.ggml.tokens")?;
        let text = |key| -> Result<String> {
            let id: Option<u32> = metadata.find(key)?;
            let token = id.and_then(|id| tokens?.get(id as usize));
            Ok(token.unwrap_or_default().to_owned())
        };
        let bos = text("tokenizer.ggml.bos_token_id")?;
        let eos = text("tokenizer.ggml.eos_token_id")?;
        let template: Option<&str> = metadata.find("tokenizer.chat_template")?;
        let template = match template {
            Some(template) => template,
            None => {
                let has = |token| tokens.is_some_and(|tokens| tokens.iter().any(|t| t == token));
                if !has("<|im_start|>") || !has("<|im_end|>") {
                    return Err(ChatError::NoTemplate.into());
                }
                CHATML
            }
        };
        Self::from_source(template, bos, eos)
    }
}
