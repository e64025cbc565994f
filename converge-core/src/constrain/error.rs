use thiserror::Error;

use crate::TokenId;

/// Why a constraint could not be compiled or kept. Every one of these ends the generation: a
/// constraint is never dropped silently.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConstrainError {
    /// The JSON Schema is malformed, cannot be satisfied, or uses what the compiler lacks.
    #[error("the JSON schema cannot be held by a grammar: {reason}")]
    Schema {
        /// The compiler's words.
        reason: String,
    },
    /// The Lark grammar is malformed.
    #[error("the Lark grammar does not compile: {reason}")]
    Lark {
        /// The compiler's words.
        reason: String,
    },
    /// The regular expression is malformed, or uses what the compiler lacks.
    #[error("the regular expression cannot be held by a grammar: {reason}")]
    Regex {
        /// The compiler's words.
        reason: String,
    },
    /// A tool, or the format of calls, is none that a grammar can be made of.
    #[error("the tools cannot be held by a grammar: {name:?}: {problem}")]
    Tools {
        /// The tool; empty where it is about all of them.
        name: String,
        /// What is in the way.
        problem: &'static str,
    },
    /// An `x-substring` stands where the compiler cannot expand the schema around it.
    #[error("x-substring at {path}: {problem}")]
    Substring {
        /// JSON pointer into the schema.
        path: String,
        /// What is in the way.
        problem: &'static str,
    },
    /// The grammar, or the ambiguity of a state, exceeds the limits.
    #[error("the grammar exceeds its limits: {reason}")]
    TooComplex {
        /// Which limit.
        reason: String,
    },
    /// The text was to be complete within a budget, and no completion that short was found.
    #[error("{budget} tokens are less than the {least} of the shortest completion found")]
    Budget {
        /// Tokens of the shortest completion found.
        least: usize,
        /// Tokens that may be generated.
        budget: usize,
    },
    /// The grammar does not allow this token here.
    #[error("the grammar does not allow token {token} here: {reason}")]
    Refused {
        /// The token.
        token: TokenId,
        /// The parser's words.
        reason: String,
    },
    /// The parser failed, or no token of the vocabulary continues the text.
    #[error("the constraint failed: {reason}")]
    Failed {
        /// The parser's words.
        reason: String,
    },
    /// The vocabulary is beyond what the token trie can hold.
    #[error("the vocabulary cannot be indexed for grammars: {what} is {found}, limit {limit}")]
    Vocabulary {
        /// What is out of bounds.
        what: &'static str,
        /// Its value.
        found: usize,
        /// The largest value allowed.
        limit: usize,
    },
    /// The vocabulary has no end token: a grammar could never be left.
    #[error("the vocabulary has no end-of-text token, which grammars need")]
    NoEndToken,
}
