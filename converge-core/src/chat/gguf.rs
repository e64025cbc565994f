//! The template of a model file, or what stands in for it.

use converge_quant::gguf::{Metadata, Strings};

use super::ChatTemplate;
use crate::Result;

/// What stands in for the template that a model file does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fallback {
    /// ChatML, the format that `<|im_start|>` and `<|im_end|>` stand for, without a system message
    /// of its own: for a vocabulary with these tokens.
    ChatMl,
    /// The messages' texts with an empty line between them, for the model to go on from the last:
    /// a file without a template and without those tokens holds a model that continues texts.
    Plain,
}

const CHATML: &str = "\
{% for message in messages %}\
{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}\
{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

const PLAIN: &str = "\
{% for message in messages %}\
{{ message.content }}{% if not loop.last %}{{ '\\n\\n' }}{% endif %}\
{% endfor %}";

impl Fallback {
    fn source(self) -> &'static str {
        match self {
            Self::ChatMl => CHATML,
            Self::Plain => PLAIN,
        }
    }
}

impl ChatTemplate {
    /// The template of a model file: `tokenizer.chat_template`, or a [`Fallback`].
    ///
    /// # Errors
    /// A template that does not compile, or metadata of another type.
    pub fn from_gguf(metadata: &Metadata) -> Result<Self> {
        let tokens: Option<&Strings> = metadata.find("tokenizer.ggml.tokens")?;
        let text = |key| -> Result<String> {
            let id: Option<u32> = metadata.find(key)?;
            let token = id.and_then(|id| tokens?.get(id as usize));
            Ok(token.unwrap_or_default().to_owned())
        };
        let eos = text("tokenizer.ggml.eos_token_id")?;
        let bos = text("tokenizer.ggml.bos_token_id")?;
        if let Some(template) = metadata.find::<&str>("tokenizer.chat_template")? {
            return Self::from_source(template, bos, eos);
        }
        let has = |token| tokens.is_some_and(|tokens| tokens.iter().any(|t| t == token));
        let fallback = match has("<|im_start|>") && has("<|im_end|>") {
            true => Fallback::ChatMl,
            false => Fallback::Plain,
        };
        let template = Self::from_source(fallback.source(), bos, eos)?;
        Ok(Self {
            fallback: Some(fallback),
            ..template
        })
    }

    /// What stands in for the template that the model file does not have; `None` where it has one.
    pub fn fallback(&self) -> Option<Fallback> {
        self.fallback
    }
}
