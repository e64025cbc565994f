//! Building a tokenizer from the metadata of a GGUF file, trusting none of it.

use std::{collections::HashMap, sync::Arc};

use converge_quant::{Metadata, gguf::Strings};

use super::{
    Inner, Roles, Tokenizer, TokenizerError, alphabet,
    bpe::{Bpe, Merge},
    special::{MAX_SPECIAL, Matcher},
    split::{Pre, Splitter},
    vocab::{Kind, Vocab},
};
use crate::{Result, TokenId};

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";
const BOS: &str = "tokenizer.ggml.bos_token_id";
const EOS: &str = "tokenizer.ggml.eos_token_id";
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";

/// Keys that name further tokens which end a generation: end of turn, end of message.
const OTHER_ENDS: [&str; 2] = ["tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];

/// How tokens are written that end a generation in the models there are, whatever the keys say:
/// llama.cpp's list.
const END_TEXTS: [&str; 20] = [
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
];

impl Tokenizer {
    /// Builds the tokenizer that the file describes under `tokenizer.ggml.*`.
    ///
    /// Tokens that end a generation are those that the keys for the end of text, turn and message
    /// name, and those that are written as such tokens are in the models there are. They count as
    /// control tokens even where the file calls them something else, so that data cannot end a
    /// turn.
    ///
    /// # Errors
    /// [`TokenizerError`] for what is not supported or contradicts itself,
    /// [`QuantError`](converge_quant::QuantError) for keys that are missing or of another type.
    pub fn from_gguf(metadata: &Metadata) -> Result<Self> {
        let model: &str = metadata.get(MODEL)?;
        if model != "gpt2" {
            let found = model.to_owned();
            return Err(TokenizerError::UnsupportedModel {
                found,
                supported: "gpt2",
            }
            .into());
        }
        let pre = Pre::named(metadata.find(PRE)?.unwrap_or("default"))?;
        let tokens = metadata.get_strs(TOKENS)?;
        let mut vocab = vocabulary(tokens, &metadata.get::<Vec<i32>>(TYPES)?)?;
        let ids = by_text(tokens)?;
        let mut bpe = Bpe {
            bytes: byte_tokens(&vocab)?,
            merges: HashMap::new(),
            whole: HashMap::new(),
        };
        let made = merges(metadata.get_strs(MERGES)?, &ids, &vocab, &mut bpe)?;
        let roles = roles(metadata, &pre, &ids, &made, &mut vocab)?;
        if pre.ignores_merges {
            bpe.whole = (0..tokens.len() as TokenId)
                .filter(|&id| vocab.kind(id) == Some(Kind::Normal))
                .map(|id| (vocab.bytes(id).into(), id))
                .collect();
        }
        for (id, text) in vocab.specials() {
            if text.len() > MAX_SPECIAL {
                let (found, most) = (text.len(), MAX_SPECIAL);
                return Err(TokenizerError::SpecialTooLong { id, found, most }.into());
            }
        }
        let specials = Matcher::new(vocab.specials());
        let plain =
            Matcher::new(vocab.specials().filter(|&(id, text)| {
                vocab.kind(id) == Some(Kind::UserDefined) && !is_markup(text)
            }));
        let splitter = Splitter::new(&pre)?;
        Ok(Self(Arc::new(Inner {
            vocab,
            bpe,
            splitter,
            specials,
            plain,
            roles,
        })))
    }
}

/// Whether a user-defined token reads like markup rather than like mere text.
fn is_markup(text: &str) -> bool {
    let between = |open, close| text.starts_with(open) && text.ends_with(close);
    between('<', '>') || between('[', ']')
}

fn vocabulary(tokens: &Strings, types: &[i32]) -> Result<Vocab, TokenizerError> {
    let most = i32::MAX as usize;
    if tokens.is_empty() || tokens.len() > most {
        return Err(TokenizerError::VocabSize {
            found: tokens.len(),
            most,
        });
    }
    if types.len() != tokens.len() {
        let (expected, found) = (tokens.len(), types.len());
        return Err(TokenizerError::ListLength {
            key: TYPES,
            expected,
            found,
        });
    }
    let mut vocab = Vocab::default();
    let mut bytes = Vec::new();
    for (id, (text, &kind)) in (0..).zip(tokens.iter().zip(types)) {
        let raw = |kind| (text.as_bytes(), kind);
        bytes.clear();
        let (bytes, kind) = match kind {
            1 => match alphabet::bytes_of(text, &mut bytes) {
                Some(()) => (bytes.as_slice(), Kind::Normal),
                // Not of the alphabet, so no merge makes it: it can only be decoded.
                None => raw(Kind::Normal),
            },
            2 => raw(Kind::Unknown),
            3 => raw(Kind::Control),
            4 => raw(Kind::UserDefined),
            5 => raw(Kind::Unused),
            6 => {
                let byte = text
                    .strip_prefix("<0x")
                    .and_then(|rest| rest.strip_suffix('>'))
                    .filter(|hex| {
                        hex.len() == 2 && hex.bytes().all(|digit| digit.is_ascii_hexdigit())
                    })
                    .and_then(|hex| u8::from_str_radix(hex, 16).ok())
                    .ok_or_else(|| TokenizerError::ByteToken {
                        id,
                        text: text.to_owned(),
                    })?;
                bytes.push(byte);
                (bytes.as_slice(), Kind::Byte)
            }
            found => return Err(TokenizerError::TokenType { id, found }),
        };
        vocab.push(bytes, kind);
    }
    Ok(vocab)
}

fn by_text(tokens: &Strings) -> Result<HashMap<&str, TokenId>, TokenizerError> {
    let mut ids = HashMap::with_capacity(tokens.len());
    for (id, text) in (0..).zip(tokens.iter()) {
        if let Some(first) = ids.insert(text, id) {
            let text = text.to_owned();
            return Err(TokenizerError::DuplicateToken {
                text,
                first,
                second: id,
            });
        }
    }
    Ok(ids)
}

/// The token of each byte. Those of the replacement character must be there, since it stands in
/// for what cannot be encoded.
fn byte_tokens(vocab: &Vocab) -> Result<[Option<TokenId>; 256], TokenizerError> {
    let mut bytes = [None; 256];
    for id in 0..vocab.len() as TokenId {
        if let (Some(Kind::Normal | Kind::Byte), &[byte]) = (vocab.kind(id), vocab.bytes(id))
            && let Some(token) = bytes.get_mut(byte as usize)
        {
            // A vocabulary may hold `A` and `<0x41>`: the earlier one is it.
            *token = token.or(Some(id));
        }
    }
    for &byte in char::REPLACEMENT_CHARACTER
        .encode_utf8(&mut [0; 4])
        .as_bytes()
    {
        if bytes.get(byte as usize).is_none_or(Option::is_none) {
            return Err(TokenizerError::MissingByte { byte });
        }
    }
    Ok(bytes)
}

/// Fills in the merges; returns for each token whether a merge makes it.
fn merges(
    merges: &Strings,
    ids: &HashMap<&str, TokenId>,
    vocab: &Vocab,
    bpe: &mut Bpe,
) -> Result<Vec<bool>, TokenizerError> {
    let mut made = vec![false; vocab.len()];
    let mut text = String::new();
    bpe.merges.reserve(merges.len());
    for (index, merge) in merges.iter().enumerate() {
        let malformed = || TokenizerError::MalformedMerge {
            index,
            merge: merge.to_owned(),
        };
        let (left, right) = merge.split_once(' ').ok_or_else(malformed)?;
        if left.is_empty() || right.is_empty() || right.contains(' ') {
            return Err(malformed());
        }
        let normal = |text: &str| {
            ids.get(text)
                .copied()
                .filter(|&id| vocab.kind(id) == Some(Kind::Normal))
                .ok_or_else(|| TokenizerError::UnknownMerge {
                    index,
                    merge: merge.to_owned(),
                    missing: text.to_owned(),
                })
        };
        text.clear();
        text.extend([left, right]);
        let (left, right, token) = (normal(left)?, normal(right)?, normal(&text)?);
        let rank = u32::try_from(index).map_err(|_| malformed())?;
        if bpe
            .merges
            .insert((left, right), Merge { rank, token })
            .is_some()
        {
            return Err(TokenizerError::DuplicateMerge {
                index,
                merge: merge.to_owned(),
            });
        }
        if let Some(made) = made.get_mut(token as usize) {
            *made = true;
        }
    }
    Ok(made)
}

fn roles(
    metadata: &Metadata,
    pre: &Pre,
    ids: &HashMap<&str, TokenId>,
    made: &[bool],
    vocab: &mut Vocab,
) -> Result<Roles> {
    let role = |key: &'static str| -> Result<Option<TokenId>> {
        match metadata.find::<TokenId>(key)? {
            Some(id) if id as usize >= vocab.len() => Err(TokenizerError::RoleOutOfRange {
                key,
                id,
                vocab: vocab.len(),
            }
            .into()),
            id => Ok(id),
        }
    };
    let (bos, eos) = (role(BOS)?, role(EOS)?);
    let adds_bos = match metadata.find::<bool>(ADD_BOS)? {
        Some(true) if bos.is_none() => return Err(TokenizerError::MissingBos.into()),
        Some(adds) => adds,
        None => pre.adds_bos && bos.is_some(),
    };
    let mut ends: Vec<TokenId> = eos.into_iter().collect();
    for key in OTHER_ENDS {
        ends.extend(role(key)?);
    }
    // What merges make is text, however it reads.
    let written = END_TEXTS.iter().filter_map(|&text| ids.get(text).copied());
    ends.extend(written.filter(|&id| !made.get(id as usize).is_some_and(|&made| made)));
    ends.sort_unstable();
    ends.dedup();
    for &id in bos.iter().chain(&ends) {
        if made.get(id as usize).is_some_and(|&made| made) || vocab.bytes(id).len() == 1 {
            continue;
        }
        vocab.set_kind(id, Kind::Control);
    }
    Ok(Roles {
        bos,
        eos,
        adds_bos,
        ends,
    })
}
