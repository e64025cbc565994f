//! Chat templates: from messages to the text, and the tokens, that a model was trained on.
//!
//! A template is a Jinja2 program out of a model file. It runs as Transformers runs it (the
//! conformance test holds it against Jinja2's own output), and as what it is: a foreign program.
//! Time, memory, output and recursion are limited by [`ChatLimits`]. A [`Conversation`] takes no more
//! of it than what each turn adds.

#[cfg(test)]
mod bomb_tests;
mod context;
mod conversation;
mod encode;
mod engine;
mod error;
mod gguf;
mod guard;
mod json;
mod measure;
mod message;
mod methods;
mod next;
mod source;
#[cfg(test)]
mod tests;

use jiff::civil::DateTime;
use serde_json::{Map, Value as Json};

pub use conversation::{Asked, Compacted, Conversation, Difference, Turn};
pub use error::ChatError;
pub use gguf::Fallback;
pub use message::{Message, Role, ToolCall, ToolDef};

use crate::Result;

/// What a template may use up. The defaults are far above what real templates need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatLimits {
    /// Size of the template's source in bytes.
    pub source_bytes: usize,
    /// Work of a rendering: about one unit an instruction, and one for 64 bytes made or read, so
    /// that it bounds memory as well as time.
    pub fuel: u64,
    /// Work added for each byte of the messages and tools.
    pub fuel_per_byte: u64,
    /// Size of the rendered text in bytes.
    pub output_bytes: usize,
}

impl Default for ChatLimits {
    fn default() -> Self {
        Self {
            source_bytes: 256 << 10,
            fuel: 1_000_000,
            fuel_per_byte: 4,
            output_bytes: 64 << 20,
        }
    }
}

/// What a rendering needs besides the messages.
#[derive(Clone, Debug)]
pub struct RenderOptions<'a> {
    /// Tools that the model may call; none is `tools = None` to the template.
    pub tools: &'a [ToolDef],
    /// Whether the text ends with the opening of the assistant's turn.
    pub add_generation_prompt: bool,
    /// Variables of the template itself, such as `enable_thinking`.
    pub extra: Map<String, Json>,
    /// The clock of `strftime_now`; the current time (UTC) where absent. A run that must be
    /// repeatable gives it.
    pub now: Option<DateTime>,
}

impl Default for RenderOptions<'_> {
    fn default() -> Self {
        Self {
            tools: &[],
            add_generation_prompt: true,
            extra: Map::new(),
            now: None,
        }
    }
}

impl<'a> RenderOptions<'a> {
    /// The defaults (the text ends with the opening of the assistant's turn) with these tools.
    pub fn with_tools(tools: &'a [ToolDef]) -> Self {
        Self {
            tools,
            ..Self::default()
        }
    }
}

/// A model's chat template, compiled.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    source: String,
    engine: engine::Engine,
    bos: String,
    eos: String,
    fallback: Option<Fallback>,
}

impl ChatTemplate {
    /// Compiles `template`; `bos` and `eos` are the texts of the model's tokens that begin and end
    /// a text, empty where it has none.
    ///
    /// # Errors
    /// [`ChatError::TemplateSyntax`], or a limit on the source.
    pub fn from_source(
        template: &str,
        bos: impl Into<String>,
        eos: impl Into<String>,
    ) -> Result<Self> {
        Self::from_source_with(template, bos, eos, &ChatLimits::default())
    }

    /// [`from_source`](Self::from_source) with limits of one's own.
    ///
    /// # Errors
    /// As [`from_source`](Self::from_source).
    pub fn from_source_with(
        template: &str,
        bos: impl Into<String>,
        eos: impl Into<String>,
        limits: &ChatLimits,
    ) -> Result<Self> {
        Ok(Self {
            source: template.to_owned(),
            engine: engine::Engine::compile(template, limits.clone())?,
            bos: bos.into(),
            eos: eos.into(),
            fallback: None,
        })
    }

    /// The template's source.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The text of the prompt.
    ///
    /// Tokenizing this text with control tokens parsed lets data forge them:
    /// [`encode`](Self::encode) is the safe way to tokens.
    ///
    /// # Errors
    /// [`ChatError`]: the template refuses the conversation, fails, or exceeds a limit.
    pub fn render(&self, messages: &[Message], options: &RenderOptions<'_>) -> Result<String> {
        Ok(self.render_mapped(messages, options, &mut str::to_owned)?)
    }

    fn render_mapped(
        &self,
        messages: &[Message],
        options: &RenderOptions<'_>,
        map: context::Map<'_>,
    ) -> Result<String, ChatError> {
        let mut data = 0usize;
        let mut variables = context::variables(messages, options, &mut |text| {
            let mapped = map(text);
            data = data.saturating_add(mapped.len() + 16);
            mapped
        })?;
        for (name, token) in [("bos_token", &self.bos), ("eos_token", &self.eos)] {
            variables.push((name.into(), minijinja::Value::from(token.as_str())));
        }
        let now = options.now.unwrap_or_else(|| {
            jiff::Timestamp::now()
                .to_zoned(jiff::tz::TimeZone::UTC)
                .datetime()
        });
        self.engine.render(variables, data, now)
    }
}
