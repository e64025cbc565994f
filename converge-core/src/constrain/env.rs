//! The vocabulary as the grammar engine needs it: a trie of token bytes and the tokenizer.

use std::{fmt, sync::Arc};

use llguidance::{ParserFactory, api::ParserLimits, earley::SlicedBiasComputer};
use toktrie::{InferenceCapabilities, TokEnv, TokRxInfo, TokTrie, TokenizerEnv};

use super::{ConstrainError, ending::Endings};
use crate::{CoreError, Result, TokenId, tokenizer::Tokenizer};

/// Longest token, in bytes: the trie stores 10 bits of depth.
const MAX_TOKEN_BYTES: usize = 1000;
/// Most trie nodes: 22 bits of subtree size.
const MAX_TRIE_NODES: usize = (1 << 22) - 1;
/// Most tokens: 24 bits of id, one value of which means none.
const MAX_TOKENS: usize = (1 << 24) - 1;

/// A vocabulary prepared for grammars. Made once per model; clones share it.
#[derive(Clone)]
pub struct TokenEnv {
    factory: Arc<ParserFactory>,
    /// Control tokens as they are written, the longest first.
    controls: Arc<[(String, TokenId)]>,
    /// Tokens that end a text.
    ends: Arc<[TokenId]>,
    endings: Arc<Endings>,
}

impl fmt::Debug for TokenEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenEnv")
            .field("vocab", &self.vocab())
            .finish()
    }
}

impl TokenEnv {
    /// Indexes a vocabulary: the bytes of each token by id (empty for control tokens and others
    /// that no text holds), the tokens that end a text, and the function that tokenizes text
    /// without recognising control tokens.
    ///
    /// # Errors
    /// [`ConstrainError::Vocabulary`] for tokens too many or too long,
    /// [`ConstrainError::NoEndToken`], [`TokenOutOfRange`](CoreError::TokenOutOfRange) for an end
    /// token outside the vocabulary.
    pub fn new(
        mut tokens: Vec<Vec<u8>>,
        end: &[TokenId],
        encode: impl Fn(&str) -> Vec<TokenId> + Send + Sync + 'static,
    ) -> Result<Self> {
        let limit = |what, found, limit| {
            if found <= limit {
                return Ok(());
            }
            Err(CoreError::from(ConstrainError::Vocabulary {
                what,
                found,
                limit,
            }))
        };
        let longest = tokens.iter().map(Vec::len).max().unwrap_or(0);
        limit("number of tokens", tokens.len(), MAX_TOKENS)?;
        limit("longest token in bytes", longest, MAX_TOKEN_BYTES)?;
        limit(
            "sum of token bytes",
            tokens.iter().map(Vec::len).sum(),
            MAX_TRIE_NODES,
        )?;
        let &first = end
            .first()
            .ok_or(CoreError::from(ConstrainError::NoEndToken))?;
        let vocab = tokens.len();
        for &id in end {
            // An end token is allowed by id, never by text.
            let token = tokens.get_mut(id as usize);
            token
                .ok_or(CoreError::TokenOutOfRange { id, vocab })?
                .clear();
        }
        let info = TokRxInfo::new(tokens.len() as u32, first);
        let trie = TokTrie::from(&info, &tokens).with_eos_tokens(end);
        let env: TokEnv = Arc::new(Vocabulary {
            trie,
            encode: Box::new(encode),
        });
        let caps = InferenceCapabilities {
            ff_tokens: true,
            ..InferenceCapabilities::default()
        };
        let mut factory = ParserFactory::new(&env, caps, &SlicedBiasComputer::general_slices())
            .map_err(|e| ConstrainError::Failed {
                reason: e.to_string(),
            })?;
        factory.quiet();
        *factory.limits_mut() = ParserLimits {
            // Errors say what is wrong; they do not carry the generated text about.
            verbose_errors: false,
            ..ParserLimits::default()
        };
        Ok(Self {
            factory: Arc::new(factory),
            controls: Arc::default(),
            ends: end.into(),
            endings: Arc::new(Endings::new(&env)),
        })
    }

    /// Indexes the vocabulary of a tokenizer. Control tokens can only end a text, never be in one,
    /// save where a [`CallFormat`](super::CallFormat) has them.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn of(tokenizer: &Tokenizer) -> Result<Self> {
        let tokens = (0..tokenizer.vocab() as TokenId)
            .map(|id| tokenizer.token_bytes(id).to_vec())
            .collect();
        let mut controls: Vec<(String, TokenId)> = tokenizer
            .specials()
            .filter(|&(id, text)| tokenizer.is_control(id) && !text.is_empty())
            .map(|(id, text)| (text.to_owned(), id))
            .collect();
        controls.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
        let encoder = tokenizer.clone();
        let env = Self::new(tokens, tokenizer.ends(), move |text| {
            // Only gigabytes of text fail, and no grammar forces that much.
            encoder.encode_continuation(text).unwrap_or_default()
        })?;
        Ok(Self {
            controls: controls.into(),
            ..env
        })
    }

    /// Whether the text ends with this token.
    pub(super) fn is_end(&self, id: TokenId) -> bool {
        self.ends.contains(&id)
    }

    /// The control token that a text begins with, and what follows it.
    pub(super) fn control<'a>(&self, text: &'a str) -> Option<(TokenId, &'a str)> {
        self.controls.iter().find_map(|(control, id)| {
            let rest = text.strip_prefix(control.as_str())?;
            Some((*id, rest))
        })
    }

    /// Number of tokens.
    pub fn vocab(&self) -> usize {
        self.factory.tok_env().tok_trie().vocab_size()
    }

    pub(super) fn endings(&self) -> Arc<Endings> {
        Arc::clone(&self.endings)
    }

    pub(super) fn factory(&self) -> &ParserFactory {
        &self.factory
    }
}

type Encode = Box<dyn Fn(&str) -> Vec<TokenId> + Send + Sync>;

struct Vocabulary {
    trie: TokTrie,
    encode: Encode,
}

impl TokenizerEnv for Vocabulary {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    /// Canonical for whole characters. Grammars may ask for text that starts or ends inside one:
    /// such bytes go token by token.
    fn tokenize_bytes(&self, s: &[u8]) -> Vec<TokenId> {
        self.trie.tokenize_with_greedy_fallback(s, &self.encode)
    }
}
