//! A template's source before it is compiled.
//!
//! The engine bounds work and memory by fuel, but a value may hold another one many times over
//! (or hold itself), and printing or comparing such a value is not bounded by what it cost to
//! make. So every place where a template builds or keeps a container is led through a filter that
//! looks at the whole value: `[…]`, `{…}` and `(…)` become `([…]|__bounded)`, what `{% set %}`
//! assigns goes through it, and the operands of `*` through one that refuses containers.
//! Expressions in one tag are limited in length, because the engine recurses over them.
//!
//! `{% generation %}`, which marks what a model wrote for training, renders its body in a scope of
//! its own: it becomes `{% with %}`.

use super::{ChatError, ChatLimits};

/// The filter for containers.
pub(super) const BOUNDED: &str = "__bounded";
/// The filter for what a namespace keeps: it may keep no namespace, which could be itself.
pub(super) const KEPT: &str = "__kept";
/// The filter for operands of `*`.
pub(super) const SCALAR: &str = "__scalar";

/// Tokens in one tag; the longest of real templates have 600.
const TAG_TOKENS: usize = 4096;
/// `elif` tags in a template, each nested in the one before; real templates have up to 30.
const ELIFS: usize = 1000;

/// Words of the language after which an expression begins.
const KEYWORDS: [&str; 10] = [
    "in", "not", "and", "or", "if", "else", "elif", "is", "with", "set",
];

/// Checks the limits and rewrites what must be.
pub(super) fn prepare(template: &str, limits: &ChatLimits) -> Result<String, ChatError> {
    if template.len() > limits.source_bytes {
        return Err(ChatError::SourceTooLarge {
            bytes: template.len(),
            limit: limits.source_bytes,
        });
    }
    let mut rewriter = Rewriter {
        source: template,
        at: 0,
        out: String::with_capacity(template.len() * 5 / 4),
        elifs: 0,
    };
    rewriter.run()?;
    Ok(rewriter.out)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Space,
    /// A string or number.
    Literal,
    Word,
    Operator,
}

/// What came before, as far as it tells a literal from a subscript or call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    Operand,
    Operator,
}

struct Rewriter<'a> {
    source: &'a str,
    at: usize,
    out: String,
    elifs: usize,
}

impl<'a> Rewriter<'a> {
    fn rest(&self) -> &'a str {
        self.source.get(self.at..).unwrap_or_default()
    }

    /// Takes over `len` bytes as they are.
    fn copy(&mut self, len: usize) -> &'a str {
        let text = self.rest().get(..len).unwrap_or(self.rest());
        self.out.push_str(text);
        self.at += text.len();
        text
    }

    fn too_complex(&self, what: &'static str, limit: usize) -> ChatError {
        let before = self.source.get(..self.at).unwrap_or_default();
        ChatError::SourceTooComplex {
            what,
            line: before.matches('\n').count() + 1,
            limit,
        }
    }

    fn run(&mut self) -> Result<(), ChatError> {
        while let Some(at) = self.rest().find('{') {
            self.copy(at);
            match self.rest().as_bytes().get(1) {
                Some(b'#') => {
                    let end = self.rest().find("#}").map_or(self.rest().len(), |e| e + 2);
                    self.copy(end);
                }
                Some(b'{') => self.tag("}}")?,
                Some(b'%') => self.tag("%}")?,
                _ => {
                    self.copy(1);
                }
            }
        }
        self.copy(self.rest().len());
        Ok(())
    }

    /// One tag, from its opening to its end.
    fn tag(&mut self, end: &str) -> Result<(), ChatError> {
        self.copy(2);
        if self.rest().starts_with(['-', '+']) {
            self.copy(1);
        }
        let mut name = "";
        if end == "%}" {
            name = self.name();
            match name {
                "elif" => {
                    self.elifs += 1;
                    if self.elifs > ELIFS {
                        return Err(self.too_complex("`elif` tags", ELIFS));
                    }
                }
                "raw" => {
                    self.raw();
                    return Ok(());
                }
                _ => {}
            }
        }
        // Whether containers are rewritten: not in the targets of `for` and `set`.
        let mut active = !matches!(name, "for" | "set");
        // The filter for what `set` assigns, once its `=` is passed.
        let mut assigned = None;
        let mut target_is_attribute = false;
        let mut before = match name {
            // `{% call(x) f() %}` has parameters after its name.
            "call" | "macro" => Before::Operand,
            _ => Before::Operator,
        };
        // Open brackets, and whether each was wrapped.
        let mut open: Vec<bool> = Vec::new();
        // Depths at which the right operand of a `*` is being read; whether it has begun.
        let mut factors: Vec<(usize, bool)> = Vec::new();
        let mut tokens = 0;
        while !self.rest().is_empty() {
            if open.is_empty() {
                let marked = self.rest().starts_with(['-', '+']);
                let here = self.rest().get(usize::from(marked)..).unwrap_or_default();
                if here.starts_with(end) {
                    self.close_factors(&mut factors, 0);
                    if let Some(filter) = assigned {
                        self.out.push_str(")|");
                        self.out.push_str(filter);
                    }
                    self.copy(usize::from(marked) + end.len());
                    return Ok(());
                }
            }
            let (kind, len) = token(self.rest());
            if kind == Kind::Space {
                self.copy(len);
                continue;
            }
            tokens += 1;
            if tokens > TAG_TOKENS {
                return Err(self.too_complex("tokens in one tag", TAG_TOKENS));
            }
            let text = self.rest().get(..len).unwrap_or_default();
            let after_dot = self.out.ends_with('.') || self.out.ends_with('|');
            let keyword = kind == Kind::Word && !after_dot && KEYWORDS.contains(&text);
            let opens = matches!(text, "(" | "[" | "{");
            let closes = matches!(text, ")" | "]" | "}");

            // Does this end the right operand of a `*`?
            let ends_factor = closes
                || keyword
                || (kind == Kind::Operator
                    && !matches!(text, "." | "|")
                    && !(opens && before == Before::Operand));
            if ends_factor {
                let depth = open.len();
                self.close_factors(&mut factors, depth);
            }
            if let Some((_, begun)) = factors.last_mut()
                && (kind != Kind::Operator || opens)
            {
                *begun = true;
            }

            if opens {
                let wrap = active && before == Before::Operator;
                if wrap {
                    self.out.push('(');
                }
                open.push(wrap);
                self.copy(len);
                before = Before::Operator;
            } else if closes {
                self.copy(len);
                if open.pop() == Some(true) {
                    self.out.push('|');
                    self.out.push_str(BOUNDED);
                    self.out.push(')');
                }
                before = Before::Operand;
            } else if text == "*" && before == Before::Operand {
                self.out.push('|');
                self.out.push_str(SCALAR);
                self.copy(len);
                factors.push((open.len(), false));
                before = Before::Operator;
            } else if text == "=" && name == "set" && open.is_empty() && assigned.is_none() {
                self.copy(len);
                self.out.push('(');
                assigned = Some(if target_is_attribute { KEPT } else { BOUNDED });
                active = true;
                before = Before::Operator;
            } else {
                if name == "for" && keyword && text == "in" && open.is_empty() {
                    active = true;
                }
                target_is_attribute |= text == "." && assigned.is_none();
                self.copy(len);
                before = match kind {
                    Kind::Literal => Before::Operand,
                    Kind::Word if !keyword => Before::Operand,
                    _ => Before::Operator,
                };
            }
        }
        Ok(())
    }

    /// Ends right operands of `*` that lie at `depth` or deeper and have begun.
    fn close_factors(&mut self, factors: &mut Vec<(usize, bool)>, depth: usize) {
        while factors
            .pop_if(|(at, begun)| *begun && *at >= depth)
            .is_some()
        {
            self.out.push('|');
            self.out.push_str(SCALAR);
            // What follows may be a word.
            self.out.push(' ');
        }
    }

    /// The name of a block tag, taken over (or its replacement).
    fn name(&mut self) -> &'a str {
        let rest = self.rest();
        let space = rest.len() - rest.trim_start().len();
        self.copy(space);
        let (kind, len) = token(self.rest());
        if kind != Kind::Word {
            return "";
        }
        let name = self.rest().get(..len).unwrap_or_default();
        match name {
            "generation" | "endgeneration" => {
                let with = if name == "generation" {
                    "with"
                } else {
                    "endwith"
                };
                self.out.push_str(with);
                self.at += len;
            }
            _ => {
                self.copy(len);
            }
        }
        name
    }

    /// The text of a raw block, to the end of its last tag.
    fn raw(&mut self) {
        let mut rest = self.rest();
        while let Some(at) = rest.find("{%") {
            rest = rest.get(at + 2..).unwrap_or_default();
            let tag = rest.trim_start_matches(['-', '+']).trim_start();
            if let Some(tag) = tag.strip_prefix("endraw") {
                let end = tag.find("%}").map_or(tag.len(), |end| end + 2);
                self.copy(self.rest().len() - tag.len() + end);
                return;
            }
        }
        self.copy(self.rest().len());
    }
}

/// The first token of a text that is not empty: its kind and length.
fn token(text: &str) -> (Kind, usize) {
    let first = text.chars().next().unwrap_or(' ');
    let run = |is: fn(char) -> bool| text.find(|c| !is(c)).unwrap_or(text.len());
    if first.is_ascii_whitespace() {
        (Kind::Space, run(|c| c.is_ascii_whitespace()))
    } else if first == '\'' || first == '"' {
        let mut escaped = false;
        let end = text.char_indices().skip(1).find(|&(_, c)| {
            let ends = c == first && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        (Kind::Literal, end.map_or(text.len(), |(at, _)| at + 1))
    } else if first.is_ascii_digit() {
        (
            Kind::Literal,
            run(|c| c.is_ascii_alphanumeric() || c == '_'),
        )
    } else if first == '_' || first.is_alphabetic() {
        (Kind::Word, run(|c| c.is_alphanumeric() || c == '_'))
    } else {
        let two = ["//", "**", "==", "!=", ">=", "<="];
        let double = two.iter().any(|two| text.starts_with(two));
        (Kind::Operator, if double { 2 } else { first.len_utf8() })
    }
}
