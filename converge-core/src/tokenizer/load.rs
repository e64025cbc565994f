//! Building a tokenizer from the metadata of a GGUF file, trusting none of it.

use std::{collections::HashMap, sync::Arc};

use converge_quant::{Metadata, gguf::Strings};

use super::{
    Inner, Tokenizer, TokenizerError, alphabet,
    bpe::Bpe,
    charsmap::Charsmap,
    fallback::Bytes,
    merge::Merge,
    model::Model,
    pre::Pre,
    roles::{self, Defaults, Roles},
    special::{MAX_SPECIAL, Matcher},
    split::Splitter,
    spm::{self, Spm},
    unigram::Unigram,
    vocab::{Kind, Vocab},
    wordpiece::WordPiece,
};
use crate::{Result, TokenId};

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";
const MERGES: &str = "tokenizer.ggml.merges";
const UNKNOWN: &str = "tokenizer.ggml.unknown_token_id";
const SPACE_PREFIX: &str = "tokenizer.ggml.add_space_prefix";
const CHARSMAP: &str = "tokenizer.ggml.precompiled_charsmap";
const SQUEEZES: &str = "tokenizer.ggml.remove_extra_whitespaces";

/// The values of `tokenizer.ggml.model` that are supported.
const SUPPORTED: &[&str] = &["gpt2", "gemma4", "llama", "t5", "bert"];

/// A vocabulary, the ids by text, and whether a merge makes a token.
struct Tables<'a> {
    metadata: &'a Metadata,
    vocab: Vocab,
    ids: HashMap<&'a str, TokenId>,
    made: Vec<bool>,
}

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
        let name: &str = metadata.get(MODEL)?;
        let pre = match name {
            "gpt2" => Some(metadata.find(PRE)?.unwrap_or("default")),
            "gemma4" => Some("gemma4"),
            "llama" | "t5" | "bert" => None,
            _ => {
                let (found, supported) = (name.to_owned(), SUPPORTED);
                return Err(TokenizerError::UnsupportedModel { found, supported }.into());
            }
        };
        let pre = pre.map(|pre| Ok::<_, TokenizerError>((pre, Pre::named(pre)?)));
        let pre = pre.transpose()?;
        let raw = pre.is_none_or(|(_, pre)| pre.raw);

        let tokens = metadata.get_strs(TOKENS)?;
        let vocab = vocabulary(tokens, &metadata.get::<Vec<i32>>(TYPES)?, raw)?;
        let mut tables = Tables {
            metadata,
            made: vec![false; vocab.len()],
            vocab,
            // Gemma 4 has some tokens twice, and means the later ones.
            ids: by_text(tokens, pre.is_some() && raw)?,
        };
        let (defaults, bpe) = match pre {
            Some((_, pre)) => (
                Defaults {
                    adds_bos: pre.adds_bos,
                    ..Defaults::default()
                },
                Some(tables.bpe(&pre)?),
            ),
            None if name == "llama" => (
                Defaults {
                    bos: Some(1),
                    eos: Some(2),
                    adds_bos: true,
                },
                None,
            ),
            None if name == "t5" => (
                Defaults {
                    eos: Some(1),
                    ..Defaults::default()
                },
                None,
            ),
            None => (
                Defaults {
                    bos: Some(101),
                    eos: None,
                    adds_bos: true,
                },
                None,
            ),
        };
        let Tables {
            vocab, ids, made, ..
        } = &mut tables;
        let roles = Roles::find(metadata, defaults, ids, made, vocab)?;
        // Only now is it known which tokens control something.
        let model = match (bpe, pre) {
            (Some(bpe), Some((name, pre))) => Model::Bpe {
                bpe: tables.with_whole(bpe, &pre),
                splitter: Splitter::new(name, pre.stages)?,
            },
            _ if name == "llama" => Model::Spm(tables.spm()?),
            _ if name == "t5" => Model::Unigram(tables.unigram()?),
            _ => Model::WordPiece(tables.word_piece()?),
        };
        let trims = tables.trims()?;
        let vocab = tables.vocab;
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
        Ok(Self(Arc::new(Inner {
            vocab,
            model,
            specials,
            plain,
            trims,
            roles,
        })))
    }
}

/// Whether a user-defined token reads like markup rather than like mere text.
fn is_markup(text: &str) -> bool {
    let between = |open, close| text.starts_with(open) && text.ends_with(close);
    between('<', '>') || between('[', ']')
}

impl Tables<'_> {
    fn bpe(&mut self, pre: &Pre) -> Result<Bpe> {
        let bytes = Bytes::new(&self.vocab);
        // It stands in for what cannot be encoded.
        if let Some(byte) = bytes.missing(char::REPLACEMENT_CHARACTER) {
            return Err(TokenizerError::MissingByte { byte }.into());
        }
        let chars = pre.raw.then(|| {
            let chars = self.text_tokens().filter_map(|(text, id)| {
                let mut chars = text.chars();
                chars
                    .next()
                    .filter(|_| chars.next().is_none())
                    .map(|c| (c, id))
            });
            chars.collect()
        });
        let mut bpe = Bpe {
            bytes,
            chars,
            merges: HashMap::new(),
            whole: HashMap::new(),
        };
        let list = self.metadata.get_strs(MERGES)?;
        merges(list, &self.ids, &self.vocab, &mut bpe, &mut self.made)?;
        Ok(bpe)
    }

    /// Adds the words that are tokens as they are.
    fn with_whole(&self, bpe: Bpe, pre: &Pre) -> Bpe {
        // Characters joined by merges never join line ends, which the model has as tokens.
        let line_ends = |text: &str| text.bytes().all(|byte| byte == b'\n');
        let whole = self
            .text_tokens_bytes()
            .filter(|(bytes, _)| {
                pre.ignores_merges || pre.raw && std::str::from_utf8(bytes).is_ok_and(line_ends)
            })
            .map(|(bytes, id)| (bytes.into(), id));
        Bpe {
            whole: whole.collect(),
            ..bpe
        }
    }

    /// The scores, if the file has any: one for each token, all of them finite.
    fn scores(&self) -> Result<Option<Vec<f32>>> {
        let scores: Option<Vec<f32>> = self.metadata.find(SCORES)?;
        let expected = self.vocab.len();
        if let Some(scores) = &scores {
            let found = scores.len();
            if found != expected {
                let key = SCORES;
                return Err(TokenizerError::ListLength {
                    key,
                    expected,
                    found,
                }
                .into());
            }
            let odd = (0..).zip(scores).find(|(_, score)| !score.is_finite());
            if let Some((id, &found)) = odd {
                return Err(TokenizerError::Score { id, found }.into());
            }
        }
        Ok(scores)
    }

    fn spm(&self) -> Result<Spm> {
        let scores = self.scores()?;
        let score = |id: TokenId| {
            let scores = scores
                .as_ref()
                .and_then(|all| all.get(id as usize).copied());
            scores.unwrap_or(0.0)
        };
        let pieces: HashMap<Box<str>, Merge> = self
            .text_tokens()
            .map(|(text, token)| {
                let rank = spm::rank(score(token));
                (text.into(), Merge { rank, token })
            })
            .collect();
        let bytes = Bytes::new(&self.vocab);
        let unknown = roles::named(self.metadata, UNKNOWN, &self.vocab)?
            .or(Some(0).filter(|&id| self.vocab.kind(id) == Some(Kind::Unknown)));
        if unknown.is_none() && bytes.missing(char::REPLACEMENT_CHARACTER).is_some() {
            return Err(TokenizerError::MissingUnknown { key: UNKNOWN }.into());
        }
        Ok(Spm {
            longest: pieces.keys().map(|piece| piece.len()).max().unwrap_or(0),
            pieces,
            bytes,
            unknown,
            space_prefix: self.metadata.find(SPACE_PREFIX)?.unwrap_or(true),
            squeezes_spaces: self.metadata.find(SQUEEZES)?.unwrap_or(false),
        })
    }

    fn unigram(&self) -> Result<Unigram> {
        let scores = self.scores()?.unwrap_or_default();
        let score = |id: TokenId| scores.get(id as usize).copied().unwrap_or(0.0);
        let pieces = self.text_tokens().map(|(text, id)| (text, id, score(id)));
        let unknown = roles::named(self.metadata, UNKNOWN, &self.vocab)?
            .or(Some(2).filter(|&id| self.vocab.kind(id) == Some(Kind::Unknown)))
            .ok_or(TokenizerError::MissingUnknown { key: UNKNOWN })?;
        // Bytes, which some files have as signed ones.
        let charsmap: Option<Vec<i32>> = self.metadata.find(CHARSMAP)?;
        let charsmap = charsmap.map(|map| map.into_iter().map(|byte| byte as u8).collect());
        let charsmap = charsmap
            .map(|map: Vec<u8>| Charsmap::new(&map))
            .transpose()?;
        let mut unigram = Unigram::new(pieces, unknown);
        unigram.charsmap = charsmap;
        unigram.space_prefix = self.metadata.find(SPACE_PREFIX)?.unwrap_or(false);
        unigram.squeezes_spaces = self.metadata.find(SQUEEZES)?.unwrap_or(false);
        Ok(unigram)
    }

    fn word_piece(&self) -> Result<WordPiece> {
        let pieces = self.text_tokens().map(|(text, id)| (text.into(), id));
        let unknown = roles::named(self.metadata, UNKNOWN, &self.vocab)?
            .or(self.ids.get("[UNK]").copied())
            .ok_or(TokenizerError::MissingUnknown { key: UNKNOWN })?;
        Ok(WordPiece::new(pieces.collect(), unknown)?)
    }

    /// The tokens after which white space is dropped. No key says so: like llama.cpp this goes by
    /// the name of the model.
    fn trims(&self) -> Result<Vec<TokenId>> {
        let name: Option<&str> = self.metadata.find("general.name")?;
        let name = name.unwrap_or_default().to_lowercase();
        if !name.contains("phi-3") && !name.contains("phi3") {
            return Ok(Vec::new());
        }
        let kept = ["<unk>", "<s>", "<|endoftext|>"];
        let specials = self.vocab.specials();
        Ok(specials
            .filter(|(_, text)| !kept.contains(text))
            .map(|(id, _)| id)
            .collect())
    }

    /// The tokens that text becomes without being parsed.
    fn text_tokens_bytes(&self) -> impl Iterator<Item = (&[u8], TokenId)> {
        (0..self.vocab.len() as TokenId)
            .filter(|&id| self.vocab.kind(id) == Some(Kind::Normal))
            .map(|id| (self.vocab.bytes(id), id))
            .filter(|(bytes, _)| !bytes.is_empty())
    }

    fn text_tokens(&self) -> impl Iterator<Item = (&str, TokenId)> {
        let tokens = self.text_tokens_bytes();
        tokens.filter_map(|(bytes, id)| Some((std::str::from_utf8(bytes).ok()?, id)))
    }
}

/// The tokens as what they stand for: written in the byte alphabet, or `raw` with `▁` for a space.
fn vocabulary(tokens: &Strings, types: &[i32], raw: bool) -> Result<Vocab, TokenizerError> {
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
        let as_written = |kind| (text.as_bytes(), kind);
        bytes.clear();
        let (bytes, kind) = match kind {
            1 if raw => {
                let spaced = text.chars().map(|c| if c == spm::SPACE { ' ' } else { c });
                bytes.extend_from_slice(spaced.collect::<String>().as_bytes());
                (bytes.as_slice(), Kind::Normal)
            }
            1 => match alphabet::bytes_of(text, &mut bytes) {
                Some(()) => (bytes.as_slice(), Kind::Normal),
                // Not of the alphabet, so no merge makes it: it can only be decoded.
                None => as_written(Kind::Normal),
            },
            2 => as_written(Kind::Unknown),
            3 => as_written(Kind::Control),
            4 => as_written(Kind::UserDefined),
            5 => as_written(Kind::Unused),
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

fn by_text(tokens: &Strings, twice: bool) -> Result<HashMap<&str, TokenId>, TokenizerError> {
    let mut ids = HashMap::with_capacity(tokens.len());
    for (id, text) in (0..).zip(tokens.iter()) {
        if let Some(first) = ids.insert(text, id)
            && !twice
        {
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

/// Fills in the merges, and for each token whether a merge makes it.
fn merges(
    merges: &Strings,
    ids: &HashMap<&str, TokenId>,
    vocab: &Vocab,
    bpe: &mut Bpe,
    made: &mut [bool],
) -> Result<(), TokenizerError> {
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
    Ok(())
}
