//! Text to tokens and back, from what a GGUF file says of its vocabulary.
//!
//! | `tokenizer.ggml.model` | what it is |
//! |---|---|
//! | `gpt2` | byte-level BPE as GPT-2 introduced it, with the splitting of text into words that `tokenizer.ggml.pre` names ([`SUPPORTED_PRE`]) |
//! | `gemma4` | BPE over characters, with single bytes for those that are no token |
//! | `llama` | SentencePiece: characters joined by score, with single bytes for those that are no token (Llama 2, Mistral, Phi-3, Gemma to 3) |
//! | `t5` | SentencePiece's unigram model: the likeliest way to cut a text, normalized by the file's map of characters (T5, XLM-R) |
//! | `bert` | WordPiece, for embeddings |
//!
//! The ids are those of llama.cpp; but data never becomes a control token here, nor markup.
//! Encoding takes n log n steps for n bytes, whatever the text.

mod alphabet;
mod bpe;
mod charsmap;
mod error;
mod fallback;
mod load;
mod merge;
mod model;
mod pre;
mod roles;
mod special;
mod split;
mod spm;
mod stream;
mod unigram;
mod vocab;
mod wordpiece;

use std::{borrow::Cow, fmt, sync::Arc};

pub use error::TokenizerError;
pub use pre::SUPPORTED_PRE;
pub use stream::StreamDecoder;

use crate::{Result, TokenId};
use merge::Scratch;
use model::Model;
use roles::Roles;
use special::Matcher;
use vocab::{Kind, Vocab};

/// What becomes of text that reads like a special token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// It becomes that token: for text that the program wrote.
    Parse,
    /// It stays text: for data. Only user-defined tokens that are mere text (runs of spaces, say)
    /// are still taken whole, as the model was trained; those that look like markup (`<tool_call>`,
    /// `[PAD]`) are not.
    Text,
}

/// The vocabulary of a model, both ways. Clones share it.
#[derive(Clone)]
pub struct Tokenizer(Arc<Inner>);

struct Inner {
    vocab: Vocab,
    model: Model,
    /// Every control, unknown and user-defined token.
    specials: Matcher,
    /// The user-defined tokens that are taken whole even in data.
    plain: Matcher,
    /// Special tokens after which white space is dropped, ascending.
    trims: Vec<TokenId>,
    roles: Roles,
}

impl Tokenizer {
    /// Encodes text. No token is added at the beginning or the end: see [`adds_bos`](Self::adds_bos).
    ///
    /// Some vocabularies lack tokens for bytes that hardly occur (SmolLM2: a few control characters
    /// and private planes). A character with such a byte is encoded as U+FFFD, and
    /// [`unencodable`](Self::unencodable) finds it; everything else decodes to itself.
    ///
    /// # Errors
    /// [`TokenizerError::TextTooLong`] for more than 4 GiB.
    pub fn encode(&self, text: &str, special: Special) -> Result<Vec<TokenId>> {
        let matcher = match special {
            Special::Parse => &self.0.specials,
            Special::Text => &self.0.plain,
        };
        self.encode_with(matcher, text, None, true)
    }

    /// Encodes data that goes on after other text: no space is put in front of it, as some
    /// vocabularies have it at the beginning of a text. Else [`encode`](Self::encode) with
    /// [`Special::Text`].
    ///
    /// # Errors
    /// [`TokenizerError::TextTooLong`] for more than 4 GiB.
    pub fn encode_continuation(&self, text: &str) -> Result<Vec<TokenId>> {
        self.encode_with(&self.0.plain, text, None, false)
    }

    /// Encodes text in which special tokens are parsed except where `guard` keeps them apart.
    ///
    /// First every special token in `text` is matched, the longest at each place from the left;
    /// then `guard` is deleted from the text between them; then that text is encoded as words. So
    /// data with a guard inside everything that reads like a special token comes out as the
    /// ordinary tokens of that data, and joins the text around it as if it had never been guarded.
    /// Without a guard this is [`encode`](Self::encode) with [`Special::Parse`].
    ///
    /// # Errors
    /// [`TokenizerError::TextTooLong`] for more than 4 GiB.
    pub fn encode_guarded(&self, text: &str, guard: Option<char>) -> Result<Vec<TokenId>> {
        self.encode_with(&self.0.specials, text, guard, true)
    }

    fn encode_with(
        &self,
        matcher: &Matcher,
        text: &str,
        guard: Option<char>,
        begins: bool,
    ) -> Result<Vec<TokenId>> {
        // One more for a space in front.
        if u32::try_from(text.len() + 1).is_err() {
            return Err(TokenizerError::TextTooLong { bytes: text.len() }.into());
        }
        let mut tokens = Vec::with_capacity(text.len() / 4 + 1);
        let mut scratch = Scratch::default();
        let mut rest = text;
        let mut begins = begins;
        loop {
            let (plain, special, after) = match matcher.find(rest) {
                Some(hit) => (
                    rest.get(..hit.start).unwrap_or_default(),
                    Some(hit.token),
                    rest.get(hit.end..).unwrap_or_default(),
                ),
                None => (rest, None, ""),
            };
            let words = self.words(plain, guard);
            if !words.is_empty() {
                let model = &self.0.model;
                model.encode(&words, begins, &mut scratch, &mut tokens);
            }
            let Some(special) = special else { break };
            tokens.push(special);
            begins = true;
            rest = after;
            if self.0.trims.binary_search(&special).is_ok() {
                rest =
                    rest.trim_start_matches(|c| matches!(c, ' ' | '\t'..='\r') || Some(c) == guard);
            }
        }
        Ok(tokens)
    }

    /// Text without the guard and without what the vocabulary cannot say.
    fn words<'a>(&self, text: &'a str, guard: Option<char>) -> Cow<'a, str> {
        let mut words = Cow::Borrowed(text);
        if let Some(guard) = guard
            && text.contains(guard)
        {
            words = Cow::Owned(text.replace(guard, ""));
        }
        if self.0.model.has_no_unknown() && self.unencodable(&words).is_some() {
            let replaced = words.chars().map(|c| match self.0.model.can_encode(c) {
                true => c,
                false => char::REPLACEMENT_CHARACTER,
            });
            words = Cow::Owned(replaced.collect());
        }
        words
    }

    /// The first character of the text for which the vocabulary has no tokens, and its byte offset.
    pub fn unencodable(&self, text: &str) -> Option<(usize, char)> {
        text.char_indices()
            .find(|&(_, c)| !self.0.model.can_encode(c))
    }

    /// Whether decoding gives back every text without an [`unencodable`](Self::unencodable)
    /// character. BERT's vocabularies forget case, accents and spaces, T5's
    /// what their map of characters replaces. (`▁` U+2581 comes back as a
    /// space from the vocabularies that write spaces so.)
    pub fn is_lossless(&self) -> bool {
        self.0.model.is_lossless()
    }

    /// The text of tokens. Bytes that are no UTF-8 become U+FFFD, ids outside the vocabulary
    /// nothing. Control tokens come out as they are written (`<|im_end|>`), or not at all with
    /// `skip_special`; user-defined tokens are text. Where encoding puts a space before a text and
    /// after special tokens, that space is taken away.
    pub fn decode(&self, tokens: &[TokenId], skip_special: bool) -> String {
        let mut bytes = Vec::with_capacity(tokens.len() * 4);
        let mut begins = true;
        for &id in tokens {
            bytes.extend_from_slice(self.next_bytes(id, &mut begins));
            if !skip_special && self.is_control(id) {
                bytes.extend_from_slice(self.token_text(id).as_bytes());
            }
        }
        match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        }
    }

    /// The bytes of the next token of a text; `begins` says whether the text begins here, and is
    /// changed to whether it does after the token.
    fn next_bytes(&self, id: TokenId, begins: &mut bool) -> &[u8] {
        let bytes = self.token_bytes(id);
        let begun = *begins && self.0.model.prefixes_space();
        match self.0.vocab.kind(id) {
            Some(Kind::Control | Kind::Unknown | Kind::UserDefined) => {
                *begins = true;
                bytes
            }
            _ if bytes.is_empty() => bytes,
            _ => {
                *begins = false;
                bytes.strip_prefix(b" ").filter(|_| begun).unwrap_or(bytes)
            }
        }
    }

    /// A decoder for tokens that come one by one.
    pub fn stream(&self) -> StreamDecoder {
        StreamDecoder::new(self.clone(), true)
    }

    /// A decoder for tokens that come one by one after others, the last of which is given: where
    /// that is text, a space at the beginning of the new tokens stays.
    pub fn stream_after(&self, last: Option<TokenId>) -> StreamDecoder {
        let mut begins = true;
        if let Some(last) = last {
            self.next_bytes(last, &mut begins);
        }
        StreamDecoder::new(self.clone(), begins)
    }

    /// The bytes that a token stands for: often no whole UTF-8 characters. Empty for tokens that
    /// stand for no text, and for ids outside the vocabulary.
    pub fn token_bytes(&self, id: TokenId) -> &[u8] {
        match self.is_control(id) {
            true => &[],
            false => self.0.vocab.bytes(id),
        }
    }

    /// A token as a person would write it: `<|im_end|>` for a control token, else its bytes with
    /// U+FFFD for what is no UTF-8. Empty for ids outside the vocabulary.
    pub fn token_text(&self, id: TokenId) -> Cow<'_, str> {
        String::from_utf8_lossy(self.0.vocab.bytes(id))
    }

    /// Whether a token stands for no text: control, unknown and unused tokens, and ids outside the
    /// vocabulary.
    pub fn is_control(&self, id: TokenId) -> bool {
        match self.0.vocab.kind(id) {
            Some(Kind::Normal | Kind::Byte | Kind::UserDefined) => false,
            Some(Kind::Control | Kind::Unknown | Kind::Unused) | None => true,
        }
    }

    /// How many tokens there are. Ids are smaller than that.
    pub fn vocab(&self) -> usize {
        self.0.vocab.len()
    }

    /// The special token (control or user-defined) that is written so.
    pub fn special(&self, text: &str) -> Option<TokenId> {
        let hit = self.0.specials.find(text)?;
        (hit.start == 0 && hit.end == text.len()).then_some(hit.token)
    }

    /// Every special token (control, unknown or user-defined) as it is written: what
    /// [`encode_guarded`](Self::encode_guarded) would match.
    pub fn specials(&self) -> impl Iterator<Item = (TokenId, &str)> {
        self.0.vocab.specials()
    }

    /// The first special token (control or user-defined) in the text, the longest at its place:
    /// its byte range and its id.
    pub fn find_special(&self, text: &str) -> Option<(std::ops::Range<usize>, TokenId)> {
        self.0
            .specials
            .find(text)
            .map(|hit| (hit.start..hit.end, hit.token))
    }

    /// The token that begins a text, if the model has one (`tokenizer.ggml.bos_token_id`).
    pub fn bos(&self) -> Option<TokenId> {
        self.0.roles.bos
    }

    /// Whether the model wants [`bos`](Self::bos) before every prompt. Encoding does not add it,
    /// and a chat template usually writes it out.
    pub fn adds_bos(&self) -> bool {
        self.0.roles.adds_bos
    }

    /// The token that ends a text, if the model has one (`tokenizer.ggml.eos_token_id`).
    pub fn eos(&self) -> Option<TokenId> {
        self.0.roles.eos
    }

    /// Whether a generation ends with this token: the end of the text, of a turn or of a message.
    pub fn is_end(&self, id: TokenId) -> bool {
        self.0.roles.ends.binary_search(&id).is_ok()
    }

    /// Every token for which [`is_end`](Self::is_end) holds, ascending.
    pub fn ends(&self) -> &[TokenId] {
        &self.0.roles.ends
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab", &self.vocab())
            .field("roles", &self.0.roles)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod kinds_tests;
#[cfg(test)]
mod tests;
