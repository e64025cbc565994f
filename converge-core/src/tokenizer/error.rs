use thiserror::Error;

use crate::TokenId;

/// What is wrong with a vocabulary, or with what is asked of it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// `tokenizer.ggml.model` names a kind of tokenizer that is not implemented.
    #[error(
        "the tokenizer `{found}` (tokenizer.ggml.model) is not supported; supported are {}",
        supported.join(", ")
    )]
    UnsupportedModel {
        /// What the file says.
        found: String,
        /// What is implemented.
        supported: &'static [&'static str],
    },
    /// `tokenizer.ggml.pre` names a way of splitting text that is not implemented.
    #[error(
        "the pre-tokenizer `{found}` (tokenizer.ggml.pre) is not supported; supported are {}",
        supported.join(", ")
    )]
    UnsupportedPre {
        /// What the file says.
        found: String,
        /// What is implemented.
        supported: &'static [&'static str],
    },
    /// No tokens at all, or more than an id can name.
    #[error("tokenizer.ggml.tokens has {found} tokens; between 1 and {most} can be used")]
    VocabSize {
        /// Tokens in the file.
        found: usize,
        /// The most that can be.
        most: usize,
    },
    /// Two lists that belong together have different lengths.
    #[error("{key} has {found} entries for {expected} tokens")]
    ListLength {
        /// The list.
        key: &'static str,
        /// Number of tokens.
        expected: usize,
        /// Its entries.
        found: usize,
    },
    /// A token type that the GGUF specification does not know.
    #[error("token {id} has the type {found} (tokenizer.ggml.token_type); known are 1 to 6")]
    TokenType {
        /// The token.
        id: TokenId,
        /// Its type.
        found: i32,
    },
    /// Two tokens with the same text.
    #[error("tokens {first} and {second} are both `{text}`")]
    DuplicateToken {
        /// The text.
        text: String,
        /// The first of them.
        first: TokenId,
        /// The second.
        second: TokenId,
    },
    /// A special token of absurd length.
    #[error("special token {id} is {found} bytes long; at most {most} are supported")]
    SpecialTooLong {
        /// The token.
        id: TokenId,
        /// Its bytes.
        found: usize,
        /// The limit.
        most: usize,
    },
    /// A byte token that is not written `<0xNN>`.
    #[error("byte token {id} is `{text}`; expected `<0x00>` to `<0xFF>`")]
    ByteToken {
        /// The token.
        id: TokenId,
        /// Its text.
        text: String,
    },
    /// The vocabulary cannot even say the replacement character, so text could not be encoded.
    #[error("no token stands for the byte 0x{byte:02X}, without which text cannot be encoded")]
    MissingByte {
        /// The byte.
        byte: u8,
    },
    /// A score that is no number, so that tokens cannot be ranked by it.
    #[error("token {id} has the score {found} (tokenizer.ggml.scores); expected a finite number")]
    Score {
        /// The token.
        id: TokenId,
        /// Its score.
        found: f32,
    },
    /// A map of characters that is damaged.
    #[error(
        "tokenizer.ggml.precompiled_charsmap, {found} bytes long, is no map of characters: its parts \
         are not as long as it says, or a replacement is of absurd length"
    )]
    Charsmap {
        /// Its bytes.
        found: usize,
    },
    /// The token for what is in no other one is missing.
    #[error("{key} names no token, and without one text cannot be encoded")]
    MissingUnknown {
        /// The key that should name it.
        key: &'static str,
    },
    /// A merge that is not two texts with one space between them.
    #[error("merge {index} is `{merge}`; expected two tokens separated by a space")]
    MalformedMerge {
        /// Its place in `tokenizer.ggml.merges`.
        index: usize,
        /// The merge.
        merge: String,
    },
    /// A merge of or into something that is no ordinary token.
    #[error("merge {index} (`{merge}`) needs the ordinary token `{missing}`, which there is not")]
    UnknownMerge {
        /// Its place in `tokenizer.ggml.merges`.
        index: usize,
        /// The merge.
        merge: String,
        /// The missing token.
        missing: String,
    },
    /// A merge that stands in the list already.
    #[error("merge {index} (`{merge}`) stands in the list twice")]
    DuplicateMerge {
        /// Its place in `tokenizer.ggml.merges`.
        index: usize,
        /// The merge.
        merge: String,
    },
    /// A key that names a token outside the vocabulary.
    #[error("{key} is {id}, outside the vocabulary of {vocab} tokens")]
    RoleOutOfRange {
        /// The key.
        key: &'static str,
        /// The id that it names.
        id: TokenId,
        /// Number of tokens.
        vocab: usize,
    },
    /// The file wants a token before every text and does not say which.
    #[error("tokenizer.ggml.add_bos_token is true, but there is no tokenizer.ggml.bos_token_id")]
    MissingBos,
    /// The built-in expressions of a pre-tokenizer do not compile.
    #[error("the pre-tokenizer `{pre}` does not compile: {source}")]
    Splitter {
        /// Its name.
        pre: String,
        /// What the regex engine says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A text of more than 4 GiB.
    #[error("a text of {bytes} bytes cannot be encoded in one piece; at most 4 GiB can")]
    TextTooLong {
        /// Its length.
        bytes: usize,
    },
}
