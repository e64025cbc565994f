//! Generation held to a grammar: JSON Schema, Rust types, regular expressions, Lark, or calls of tools.
//!
//! A [`Grammar`] is compiled before generation, or refused; a [`Constraint`] follows one
//! generation. Everything fails closed: what the compiler does not support is an error, and so is
//! a parser that fails or a state that allows no token. There is no path from an error to
//! unconstrained text.
//!
//! JSON comes without whitespace unless the schema says otherwise (`"x-guidance"`: `item_separator`,
//! `key_separator`, `whitespace_flexible`), because small models like to wander off into blanks.
//! A string schema with `"x-substring"` is held to a quote of a text: see [`substring`].

mod closing;
mod ending;
mod env;
mod error;
mod mask;
pub mod substring;
mod tools;

use std::{fmt, sync::Arc};

use llguidance::{
    Matcher,
    api::{StopReason, TopLevelGrammar},
};
use schemars::JsonSchema;
use serde_json::{Value, json};

pub(crate) use closing::Closing;
pub use env::TokenEnv;
pub use error::ConstrainError;
pub use mask::Mask;
pub use tools::CallFormat;

use self::ending::Endings;
use crate::{CoreError, Result, TokenId, chat::ToolDef};

/// A compiled grammar for one vocabulary. Clones share it.
#[derive(Clone)]
pub struct Grammar {
    compiled: Arc<Matcher>,
    vocab: usize,
    endings: Arc<Endings>,
}

impl fmt::Debug for Grammar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grammar")
            .field("vocab", &self.vocab)
            .finish_non_exhaustive()
    }
}

impl Grammar {
    /// Compiles a JSON Schema (the part of draft 2020-12 that llguidance holds exactly), with the
    /// extensions `"x-guidance"` and `"x-substring"`. Properties come in the schema's order.
    ///
    /// # Errors
    /// [`ConstrainError::Schema`] for a schema that is malformed, unsupported or unsatisfiable,
    /// [`ConstrainError::Substring`], [`ConstrainError::TooComplex`].
    pub fn json_schema(env: &TokenEnv, schema: &Value) -> Result<Self> {
        check_depth(schema)?;
        let grammar = match substring::to_lark(schema)? {
            Some(lark) => TopLevelGrammar::from_lark(lark),
            None => TopLevelGrammar::from_json_schema(compact(schema)),
        };
        Self::compile(env, grammar, |reason| ConstrainError::Schema { reason })
    }

    /// Compiles the schema of a Rust type.
    ///
    /// # Errors
    /// As [`json_schema`](Self::json_schema).
    pub fn of<T: JsonSchema>(env: &TokenEnv) -> Result<Self> {
        Self::json_schema(env, schemars::schema_for!(T).as_value())
    }

    /// Compiles a grammar in llguidance's variant of Lark: rules, terminals with regular
    /// expressions, `%json { schema }`, and `%regex { "substring_words": text }` with its
    /// relatives `substring_chars` and `substring_chunks`.
    ///
    /// # Errors
    /// [`ConstrainError::Lark`], [`ConstrainError::TooComplex`].
    pub fn lark(env: &TokenEnv, lark: &str) -> Result<Self> {
        check_nesting(lark)?;
        Self::compile(env, TopLevelGrammar::from_lark(lark.to_owned()), |reason| {
            ConstrainError::Lark { reason }
        })
    }

    /// Compiles a regular expression that the whole text must match: Rust's syntax without
    /// look-around and boundaries; `^` and `$` at its ends change nothing.
    ///
    /// # Errors
    /// [`ConstrainError::Regex`] for one that is malformed, unsupported or matches nothing,
    /// [`ConstrainError::TooComplex`].
    pub fn regex(env: &TokenEnv, regex: &str) -> Result<Self> {
        check_regex_nesting(regex)?;
        let error = |reason| ConstrainError::Regex { reason };
        // The translation into Lark would read these as a comment, and as less than what they are.
        let backslashes = regex.len() - regex.trim_end_matches('\\').len();
        if regex.is_empty() || backslashes % 2 == 1 {
            return Err(error("it is empty, or ends in a backslash".to_owned()).into());
        }
        // To the compiler a look-ahead, which would let the text go on after a match.
        if regex.contains("<stop>") {
            return Err(error("no group can be named `stop`".to_owned()).into());
        }
        Self::compile(env, TopLevelGrammar::from_regex(regex), error)
    }

    /// Compiles the grammar of an answer that is text, or one call of one of these tools after any
    /// text: as soon as the text holds the beginning of a call, the rest is that call, with
    /// arguments by the tool's schema, and the generation ends after it.
    ///
    /// # Errors
    /// [`ConstrainError::Tools`] for no tools, two of one name, or a format that no grammar holds;
    /// [`ConstrainError::Schema`] for parameters, [`ConstrainError::TooComplex`].
    pub fn tools_or_text(env: &TokenEnv, tools: &[ToolDef], format: &CallFormat) -> Result<Self> {
        let lark = tools::to_lark(env, tools, format)?;
        Self::compile(env, TopLevelGrammar::from_lark(lark), |reason| {
            ConstrainError::Schema { reason }
        })
    }

    fn compile(
        env: &TokenEnv,
        grammar: TopLevelGrammar,
        error: impl Fn(String) -> ConstrainError,
    ) -> Result<Self> {
        let parser = env.factory().create_parser(grammar).map_err(|e| {
            let reason = words(&format!("{e:#}"));
            // llguidance has no error types: limits are known by their words.
            if ["too large", "too big", "too complex", "fuel", "limit"]
                .iter()
                .any(|w| reason.contains(w))
            {
                ConstrainError::TooComplex { reason }
            } else {
                error(reason)
            }
        })?;
        let mut compiled = Matcher::new(Ok(parser));
        // What can never produce a token must be refused now, not in mid-generation.
        let mut probe = compiled.deep_clone();
        if let Err(e) = probe.compute_mask_or_eos() {
            return Err(error(words(&e.to_string())).into());
        }
        if let Some(reason) = compiled.get_error() {
            return Err(error(words(&reason)).into());
        }
        let warnings = compiled.grammar_warnings();
        if !warnings.is_empty() {
            // A warning means that the grammar is looser than what was asked for.
            return Err(error(warnings.join("; ")).into());
        }
        Ok(Self {
            compiled: Arc::new(compiled),
            vocab: env.vocab(),
            endings: env.endings(),
        })
    }

    /// A constraint at the beginning of the grammar.
    pub fn start(&self) -> Constraint {
        // Lexer states of its own: the limits then count this generation alone, and its course
        // does not depend on what ran before.
        Constraint {
            matcher: self.compiled.deep_clone(),
            vocab: self.vocab,
            endings: Arc::clone(&self.endings),
        }
    }

    /// Size of the vocabulary it was compiled for.
    pub fn vocab(&self) -> usize {
        self.vocab
    }
}

/// Deepest nesting of a JSON Schema, as deep as serde_json reads a text. The compiler is recursive:
/// deeper ones could exhaust the stack.
const MAX_DEPTH: usize = 128;

fn too_deep() -> ConstrainError {
    let reason = format!("nesting deeper than {MAX_DEPTH}");
    ConstrainError::TooComplex { reason }
}

fn check_depth(schema: &Value) -> Result<()> {
    let mut open = vec![(schema, 0)];
    while let Some((value, depth)) = open.pop() {
        if depth > MAX_DEPTH {
            return Err(too_deep().into());
        }
        match value {
            Value::Array(list) => open.extend(list.iter().map(|v| (v, depth + 1))),
            Value::Object(map) => open.extend(map.values().map(|v| (v, depth + 1))),
            _ => {}
        }
    }
    Ok(())
}

/// Brackets of a Lark text, those of its regular expressions included; string literals, which may
/// hold data, and comments are left out.
fn check_nesting(lark: &str) -> Result<()> {
    #[derive(PartialEq)]
    enum In {
        Rules,
        String,
        Regex,
        Comment,
    }
    let (mut depth, mut place) = (Depth(0), In::Rules);
    let mut chars = lark.chars().peekable();
    while let Some(c) = chars.next() {
        place = match (place, c) {
            (In::Comment, '\n') => In::Rules,
            (In::Comment, _) => In::Comment,
            (place, '\\') => {
                chars.next();
                place
            }
            (In::String, '"') => In::Rules,
            (In::String, _) => In::String,
            (In::Rules, '"') => In::String,
            (In::Rules, '/') if chars.peek() == Some(&'/') => In::Comment,
            (In::Rules, '/') => In::Regex,
            (In::Regex, '/') => In::Rules,
            (place, c) => {
                depth.count(c)?;
                place
            }
        };
    }
    Ok(())
}

/// Brackets of a regular expression.
fn check_regex_nesting(regex: &str) -> Result<()> {
    let mut depth = Depth(0);
    let mut chars = regex.chars();
    while let Some(c) = chars.next() {
        if c == '\\' {
            chars.next();
        } else {
            depth.count(c)?;
        }
    }
    Ok(())
}

/// Open brackets, at most [`MAX_DEPTH`].
struct Depth(usize);

impl Depth {
    fn count(&mut self, c: char) -> Result<()> {
        match c {
            '(' | '[' | '{' => self.0 += 1,
            ')' | ']' | '}' => self.0 = self.0.saturating_sub(1),
            _ => {}
        }
        match self.0 > MAX_DEPTH {
            true => Err(too_deep().into()),
            false => Ok(()),
        }
    }
}

/// [`spaced`] without any space.
fn compact(schema: &Value) -> Value {
    spaced(schema, ",", ":")
}

/// Puts a style into a schema that names none of its own: nothing between the parts of JSON but
/// these separators.
fn spaced(schema: &Value, item_separator: &str, key_separator: &str) -> Value {
    let mut schema = schema.clone();
    if schema == Value::Bool(true) {
        schema = json!({});
    }
    if let Some(object) = schema.as_object_mut() {
        object.entry("x-guidance").or_insert_with(|| {
            json!({
                "item_separator": item_separator,
                "key_separator": key_separator,
                "whitespace_flexible": false,
            })
        });
    }
    schema
}

/// The first part of the engine's message, without its dump of state.
fn words(message: &str) -> String {
    let end = message.find("\n<").unwrap_or(message.len());
    message.get(..end).unwrap_or(message).trim().to_owned()
}

/// One generation's way through a [`Grammar`]. A clone goes its own way from here.
#[derive(Clone)]
pub struct Constraint {
    matcher: Matcher,
    vocab: usize,
    endings: Arc<Endings>,
}

impl fmt::Debug for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Constraint")
            .field("done", &self.is_done())
            .finish_non_exhaustive()
    }
}

impl Constraint {
    /// The tokens that may come next; end tokens are among them where the text may end.
    ///
    /// # Errors
    /// [`ConstrainError::Failed`] where there is none, [`ConstrainError::TooComplex`] where finding
    /// them exceeds the limits. The constraint is of no use after that.
    pub fn mask(&mut self) -> Result<Mask> {
        let set = match self.matcher.compute_mask() {
            Ok(set) => set,
            Err(e) => return Err(self.failure(&e.to_string()).into()),
        };
        if set.is_zero() {
            return Err(self.failure("no token continues the text").into());
        }
        Ok(Mask::from_set(set, self.vocab))
    }

    /// Goes on by a token.
    ///
    /// # Errors
    /// [`ConstrainError::Refused`] where the grammar does not allow it,
    /// [`ConstrainError::TooComplex`]; the constraint is of no use after that.
    pub fn commit(&mut self, token: TokenId) -> Result<()> {
        let Err(e) = self.matcher.consume_token(token) else {
            return Ok(());
        };
        Err(match self.failure(&e.to_string()) {
            ConstrainError::Failed { reason } => ConstrainError::Refused { token, reason },
            other => other,
        }
        .into())
    }

    /// Tokens that the grammar leaves no choice about, as the tokenizer would cut them; empty where
    /// there is a choice. They are not committed yet.
    ///
    /// # Errors
    /// [`ConstrainError::Failed`], [`ConstrainError::TooComplex`].
    pub fn forced(&mut self) -> Result<Vec<TokenId>> {
        if self.is_done() {
            return Ok(Vec::new());
        }
        let tokens = self.matcher.compute_ff_tokens();
        match self.matcher.get_error() {
            Some(e) => Err(self.failure(&e).into()),
            None => Ok(tokens),
        }
    }

    /// Tokens that spell what the grammar leaves no choice about, as the tokenizer would cut it. Where
    /// [`forced`](Self::forced) is empty this is a guess: the text that is forced may also come as
    /// other tokens, or as the beginning of a longer one.
    ///
    /// # Errors
    /// As [`forced`](Self::forced).
    pub fn likely(&mut self) -> Result<Vec<TokenId>> {
        if self.is_done() {
            return Ok(Vec::new());
        }
        let bytes = self.matcher.compute_ff_bytes();
        match self.matcher.get_error() {
            Some(e) => return Err(self.failure(&e).into()),
            None if bytes.is_empty() => return Ok(Vec::new()),
            None => {}
        }
        let env = self.matcher.tok_env();
        let env = env.map_err(|e| CoreError::from(self.failure(&e.to_string())))?;
        Ok(env.tokenize_bytes(&bytes))
    }

    /// How many of `tokens` the grammar allows here, one after the other. Commits none.
    ///
    /// # Errors
    /// As [`mask`](Self::mask).
    pub fn allowed_prefix(&mut self, tokens: &[TokenId]) -> Result<usize> {
        self.matcher
            .validate_tokens(tokens)
            .map_err(|e| self.failure(&e.to_string()).into())
    }

    /// Whether the text may end here.
    ///
    /// # Errors
    /// As [`mask`](Self::mask).
    pub fn is_accepting(&mut self) -> Result<bool> {
        if self.is_done() {
            return Ok(true);
        }
        self.matcher
            .is_accepting()
            .map_err(|e| self.failure(&e.to_string()).into())
    }

    /// Whether the text is complete and nothing can follow it.
    pub fn is_done(&self) -> bool {
        matches!(
            self.matcher.stop_reason(),
            StopReason::EndOfSentence | StopReason::NoExtension
        )
    }

    fn failure(&self, message: &str) -> ConstrainError {
        let reason = words(message);
        match self.matcher.stop_reason() {
            StopReason::LexerTooComplex | StopReason::ParserTooComplex => {
                ConstrainError::TooComplex { reason }
            }
            _ if reason.contains("limit") || reason.contains("fuel") => {
                ConstrainError::TooComplex { reason }
            }
            _ => ConstrainError::Failed { reason },
        }
    }
}

#[cfg(test)]
mod language_tests;
#[cfg(test)]
mod tests;
