use thiserror::Error;

/// What can go wrong between messages and the text or tokens of a prompt.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ChatError {
    /// The template is larger than [`ChatLimits::source_bytes`](crate::chat::ChatLimits).
    #[error("the chat template has {bytes} bytes, the limit is {limit}")]
    SourceTooLarge {
        /// Size of the template.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The template has more of something than a template needs.
    #[error("the chat template has too many {what} (line {line}), the limit is {limit}")]
    SourceTooComplex {
        /// What there is too much of.
        what: &'static str,
        /// Line of the template, from 1.
        line: usize,
        /// The limit.
        limit: usize,
    },
    /// The template is not valid Jinja.
    #[error("syntax error in the chat template, line {line}: {message}")]
    TemplateSyntax {
        /// What the parser expected and found.
        message: String,
        /// Line of the template, from 1; 0 where unknown.
        line: usize,
    },
    /// The template refused the conversation by calling `raise_exception`.
    #[error("the chat template refuses this conversation (line {line}): {message}")]
    TemplateError {
        /// The template's own words.
        message: String,
        /// Line of the template, from 1; 0 where unknown.
        line: usize,
    },
    /// The template does something that fails: an unknown method, an undefined value.
    #[error("the chat template fails in line {line}: {message}")]
    Render {
        /// The class of the failure.
        kind: minijinja::ErrorKind,
        /// What failed.
        message: String,
        /// Line of the template, from 1; 0 where unknown.
        line: usize,
    },
    /// The template works longer, or builds more, than rendering ever needs.
    #[error("the chat template used up its budget of {fuel} units of work (line {line})")]
    OutOfFuel {
        /// The budget of this rendering.
        fuel: u64,
        /// Line of the template, from 1; 0 where unknown.
        line: usize,
    },
    /// The rendered prompt is larger than [`ChatLimits::output_bytes`](crate::chat::ChatLimits).
    #[error("the rendered prompt exceeds {limit} bytes")]
    OutputTooLarge {
        /// The limit.
        limit: usize,
    },
    /// A value (tool arguments, a JSON Schema, or one that the template built) is nested too deep.
    #[error("a value is nested deeper than {limit} levels")]
    TooDeep {
        /// The limit.
        limit: usize,
    },
    /// The thread that renders templates could not be started.
    #[error("cannot start the thread that renders the chat template: {source}")]
    Thread {
        /// What the system said.
        source: std::io::Error,
    },
    /// The template engine panicked on this template.
    #[error("the template engine failed on this template")]
    Engine,
    /// The data holds every private-use character, so none is left to guard it with.
    #[error("the messages hold every private-use character of Unicode: no guard is left")]
    NoGuard,
}
