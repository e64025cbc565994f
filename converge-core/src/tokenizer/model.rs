//! What turns the text between special tokens into tokens.

use super::{
    bpe::Bpe,
    merge::Scratch,
    split::Splitter,
    spm::{self, Spm},
    unigram::Unigram,
    wordpiece::WordPiece,
};
use crate::TokenId;

/// A kind of vocabulary, with its tables.
#[derive(Debug)]
pub(super) enum Model {
    /// `gpt2`, `gemma4`.
    Bpe { bpe: Bpe, splitter: Splitter },
    /// `llama`.
    Spm(Spm),
    /// `t5`.
    Unigram(Unigram),
    /// `bert`.
    WordPiece(WordPiece),
}

impl Model {
    /// Whether text with this character decodes to itself.
    pub(super) fn can_encode(&self, c: char) -> bool {
        match self {
            Self::Bpe { bpe, .. } => bpe.can_encode(c),
            Self::Spm(spm) => spm.can_encode(c),
            Self::Unigram(_) | Self::WordPiece(_) => true,
        }
    }

    /// Whether what it cannot encode is to be replaced: it has no token for the unknown.
    pub(super) fn has_no_unknown(&self) -> bool {
        matches!(self, Self::Bpe { .. })
    }

    /// Whether decoding gives back what was encoded (but for `▁`, which is how some write a space).
    pub(super) fn is_lossless(&self) -> bool {
        match self {
            Self::Bpe { .. } => true,
            Self::Spm(spm) => !spm.squeezes_spaces,
            Self::Unigram(_) | Self::WordPiece(_) => false,
        }
    }

    /// Whether encoding puts a space before a text, which decoding has to take away.
    pub(super) fn prefixes_space(&self) -> bool {
        match self {
            Self::Bpe { .. } => false,
            Self::Spm(spm) => spm.space_prefix,
            Self::Unigram(unigram) => unigram.space_prefix || unigram.squeezes_spaces,
            Self::WordPiece(_) => true,
        }
    }

    /// Appends the tokens of a text of less than 4 GiB; `begins` says whether it begins one or
    /// follows a special token.
    pub(super) fn encode(
        &self,
        text: &str,
        begins: bool,
        scratch: &mut Scratch,
        tokens: &mut Vec<TokenId>,
    ) {
        match self {
            Self::Bpe { bpe, splitter } => {
                let spaced;
                let text = match &bpe.chars {
                    Some(_) if text.contains(spm::SPACE) => {
                        // The tokens here have spaces for it.
                        spaced = text.replace(spm::SPACE, " ");
                        &spaced
                    }
                    _ => text,
                };
                splitter.split(text, &mut |word| {
                    if !word.is_empty() {
                        bpe.encode(word, scratch, tokens);
                    }
                });
            }
            Self::Spm(spm) => spm.encode(text, begins, scratch, tokens),
            Self::Unigram(unigram) => unigram.encode(text, begins, tokens),
            Self::WordPiece(pieces) => pieces.encode(text, tokens),
        }
    }
}
