//! Tokens with a part to play: those that begin and end texts.

use std::collections::HashMap;

use converge_quant::Metadata;

use super::{
    TokenizerError,
    vocab::{Kind, Vocab},
};
use crate::{Result, TokenId};

const BOS: &str = "tokenizer.ggml.bos_token_id";
const EOS: &str = "tokenizer.ggml.eos_token_id";
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";

/// Keys that name further tokens which end a generation: end of turn, end of message.
const OTHER_ENDS: [&str; 2] = ["tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];

/// How tokens are written that end a generation in the models there are, whatever the keys say:
/// llama.cpp's list.
const END_TEXTS: [&str; 21] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<｜end▁of▁sentence｜>",
];

/// Tokens with a part to play.
#[derive(Clone, Debug, Default)]
pub(super) struct Roles {
    pub(super) bos: Option<TokenId>,
    pub(super) eos: Option<TokenId>,
    pub(super) adds_bos: bool,
    /// Tokens that end a generation, ascending.
    pub(super) ends: Vec<TokenId>,
}

/// What holds where a file does not say.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Defaults {
    pub(super) bos: Option<TokenId>,
    pub(super) eos: Option<TokenId>,
    pub(super) adds_bos: bool,
}

/// The token that a key names.
///
/// # Errors
/// [`TokenizerError::RoleOutOfRange`], and metadata of another type.
pub(super) fn named(
    metadata: &Metadata,
    key: &'static str,
    vocab: &Vocab,
) -> Result<Option<TokenId>> {
    match metadata.find::<TokenId>(key)? {
        Some(id) if id as usize >= vocab.len() => Err(TokenizerError::RoleOutOfRange {
            key,
            id,
            vocab: vocab.len(),
        }
        .into()),
        id => Ok(id),
    }
}

impl Roles {
    /// Finds the roles, and makes those tokens control tokens in `vocab`. `made` says for each
    /// token whether a merge makes it.
    ///
    /// # Errors
    /// As [`named`], and [`TokenizerError::MissingBos`].
    pub(super) fn find(
        metadata: &Metadata,
        defaults: Defaults,
        ids: &HashMap<&str, TokenId>,
        made: &[bool],
        vocab: &mut Vocab,
    ) -> Result<Self> {
        let there = |id: &TokenId| (*id as usize) < vocab.len();
        let bos = named(metadata, BOS, vocab)?.or(defaults.bos.filter(there));
        let eos = named(metadata, EOS, vocab)?.or(defaults.eos.filter(there));
        let adds_bos = match metadata.find::<bool>(ADD_BOS)? {
            Some(true) if bos.is_none() => return Err(TokenizerError::MissingBos.into()),
            Some(adds) => adds,
            None => defaults.adds_bos && bos.is_some(),
        };
        let mut ends: Vec<TokenId> = eos.into_iter().collect();
        for key in OTHER_ENDS {
            ends.extend(named(metadata, key, vocab)?);
        }
        // What merges make is text, however it reads.
        let is_made = |id: TokenId| made.get(id as usize).is_some_and(|&made| made);
        let written = END_TEXTS.iter().filter_map(|&text| ids.get(text).copied());
        ends.extend(written.filter(|&id| !is_made(id)));
        ends.sort_unstable();
        ends.dedup();
        for &id in bos.iter().chain(&ends) {
            if !is_made(id) && vocab.bytes(id).len() != 1 {
                vocab.set_kind(id, Kind::Control);
            }
        }
        // In OpenAI's Harmony format this one ends a message, and others follow in the same turn.
        if let [Some(end), Some(_), Some(_)] =
            ["<|end|>", "<|return|>", "<|call|>"].map(|text| ids.get(text))
        {
            ends.retain(|id| id != end);
        }
        Ok(Self {
            bos,
            eos,
            adds_bos,
            ends,
        })
    }
}
