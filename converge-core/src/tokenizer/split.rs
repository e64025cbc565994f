//! Splitting text into the words that BPE works on: what `tokenizer.ggml.pre` names.
//!
//! The published expressions end in `\s+(?!\S)|\s+`: a run of white space leaves its last character
//! to the word that follows. Lookahead would cost backtracking, so the expressions here take the
//! whole run and the code gives the last character back; what is left is a true regular expression
//! and runs in linear time.

use tokenizers::utils::SysRegex;

use super::TokenizerError;

/// The values of `tokenizer.ggml.pre` that are supported. A file without the key has `default`.
pub const SUPPORTED_PRE: &[&str] = &[
    "qwen2",
    "deepseek-r1-qwen",
    "smollm",
    "starcoder",
    "llama-bpe",
    "llama3",
    "llama-v3",
    "gpt-2",
    "default",
];

/// What a name of [`SUPPORTED_PRE`] means beside the splitting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pre {
    name: &'static str,
    stages: &'static [Rule],
    /// A word that is a token becomes that token, whatever the merges say.
    pub(super) ignores_merges: bool,
    /// Whether a text begins with BOS where the file does not say.
    pub(super) adds_bos: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// Matches cover the text; a run of white space that another word follows loses its last
    /// character to that word. With `keep_line_ends` not if that is a line end: then an
    /// alternative of the line ends' own has matched.
    Cover {
        regex: &'static str,
        keep_line_ends: bool,
    },
    /// Matches become words of their own, and so does what lies between them.
    Isolate(&'static str),
}

/// The rule of GPT-2's own (its source, `encoder.py`), without the lookahead.
const GPT2: Rule = Rule::Cover {
    regex: r"\A(?:'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+)",
    keep_line_ends: false,
};

/// Llama 3's, without the lookahead: the contractions in either case, digits by threes.
const LLAMA3: Rule = Rule::Cover {
    regex: r"\A(?:(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+)",
    keep_line_ends: true,
};

/// Qwen2's: Llama 3's with single digits.
const QWEN2: Rule = Rule::Cover {
    regex: r"\A(?:(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+)",
    keep_line_ends: true,
};

impl Pre {
    /// # Errors
    /// [`TokenizerError::UnsupportedPre`].
    pub(super) fn named(found: &str) -> Result<Self, TokenizerError> {
        let plain = |name, stages| Self {
            name,
            stages,
            ignores_merges: false,
            adds_bos: false,
        };
        Ok(match found {
            "qwen2" | "deepseek-r1-qwen" => plain("qwen2", &[QWEN2]),
            "smollm" | "starcoder" => plain("smollm", &[Rule::Isolate(r"\p{N}"), GPT2]),
            "llama-bpe" | "llama3" | "llama-v3" => Self {
                ignores_merges: true,
                adds_bos: true,
                ..plain("llama-bpe", &[LLAMA3])
            },
            "gpt-2" => plain("gpt-2", &[GPT2]),
            "default" => plain(
                "default",
                &[
                    Rule::Isolate(r"[\p{P}\$\+<=>\^~\|]+"),
                    GPT2,
                    Rule::Isolate(r"\p{N}+"),
                    Rule::Isolate(r"[0-9][0-9][0-9]"),
                ],
            ),
            _ => {
                let (found, supported) = (found.to_owned(), SUPPORTED_PRE);
                return Err(TokenizerError::UnsupportedPre { found, supported });
            }
        })
    }
}

/// The compiled rules of a pre-tokenizer.
#[derive(Debug)]
pub(super) struct Splitter(Vec<Stage>);

#[derive(Debug)]
enum Stage {
    Cover {
        regex: SysRegex,
        keep_line_ends: bool,
    },
    Isolate(SysRegex),
}

impl Splitter {
    /// # Errors
    /// [`TokenizerError::Splitter`].
    pub(super) fn new(pre: &Pre) -> Result<Self, TokenizerError> {
        let compile = |regex| {
            SysRegex::new(regex).map_err(|source| TokenizerError::Splitter {
                pre: pre.name,
                source,
            })
        };
        pre.stages
            .iter()
            .map(|&rule| match rule {
                Rule::Cover {
                    regex,
                    keep_line_ends,
                } => compile(regex).map(|regex| Stage::Cover {
                    regex,
                    keep_line_ends,
                }),
                Rule::Isolate(regex) => compile(regex).map(Stage::Isolate),
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Calls `word` with the words of a text, in order; joined they are the text.
    pub(super) fn split<'t>(&self, text: &'t str, word: &mut dyn FnMut(&'t str)) {
        split(&self.0, text, word);
    }
}

fn split<'t>(stages: &[Stage], text: &'t str, word: &mut dyn FnMut(&'t str)) {
    if text.is_empty() {
        return;
    }
    let Some((stage, later)) = stages.split_first() else {
        return word(text);
    };
    match stage {
        Stage::Cover {
            regex,
            keep_line_ends,
        } => {
            let mut rest = text;
            while !rest.is_empty() {
                let end = match regex.find_iter(rest).next() {
                    Some((_, end)) if end > 0 => give_back(rest, end, *keep_line_ends),
                    // Cannot be: some alternative takes any character.
                    _ => rest.chars().next().map_or(rest.len(), char::len_utf8),
                };
                let (head, tail) = rest.split_at_checked(end).unwrap_or((rest, ""));
                split(later, head, word);
                rest = tail;
            }
        }
        Stage::Isolate(regex) => {
            let mut at = 0;
            for (start, end) in regex.find_iter(text) {
                split(later, text.get(at..start).unwrap_or_default(), word);
                split(later, text.get(start..end).unwrap_or_default(), word);
                at = end;
            }
            split(later, text.get(at..).unwrap_or_default(), word);
        }
    }
}

/// Where a match of `rest[..end]` ends once `\s+(?!\S)` has had its say. A match ends in white
/// space only where `\s+` matched, or in a line end that is to be kept.
fn give_back(rest: &str, end: usize, keep_line_ends: bool) -> usize {
    if end == rest.len() {
        return end;
    }
    let mut chars = rest.get(..end).unwrap_or_default().chars();
    match chars.next_back() {
        Some('\r' | '\n') if keep_line_ends => end,
        Some(last) if last.is_whitespace() && chars.next_back().is_some() => end - last.len_utf8(),
        _ => end,
    }
}
