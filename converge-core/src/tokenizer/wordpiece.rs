//! BERT's WordPiece: words without case and accents, cut into the longest tokens from the left.

use std::collections::HashMap;

use tokenizers::{
    NormalizedString, Normalizer as _, normalizers::bert::BertNormalizer, utils::SysRegex,
};

use super::TokenizerError;
use crate::TokenId;

/// The tables of a WordPiece model.
#[derive(Debug)]
pub(super) struct WordPiece {
    /// Every token that text can become; those that begin a word have a space in front.
    pub(super) pieces: HashMap<Box<str>, TokenId>,
    /// The length of the longest of them, in bytes: it bounds the work per character.
    pub(super) longest: usize,
    /// For words that are not made of tokens.
    pub(super) unknown: TokenId,
    splitter: SysRegex,
}

impl WordPiece {
    /// # Errors
    /// [`TokenizerError::Splitter`].
    pub(super) fn new(
        pieces: HashMap<Box<str>, TokenId>,
        unknown: TokenId,
    ) -> Result<Self, TokenizerError> {
        let longest = pieces.keys().map(|piece| piece.len()).max().unwrap_or(0);
        let splitter = SysRegex::new(r"\s+|[\p{P}!-/:-@\[-`{-~]").map_err(|source| {
            let pre = "bert".to_owned();
            TokenizerError::Splitter { pre, source }
        })?;
        Ok(Self {
            pieces,
            longest,
            unknown,
            splitter,
        })
    }

    /// Appends the tokens of a text.
    pub(super) fn encode(&self, text: &str, tokens: &mut Vec<TokenId>) {
        let text = normalized(text);
        let mut word = String::new();
        let mut at = 0;
        for (start, end) in self.splitter.find_iter(&text) {
            self.word(text.get(at..start).unwrap_or_default(), &mut word, tokens);
            let found = text.get(start..end).unwrap_or_default();
            self.word(found.trim(), &mut word, tokens);
            at = end;
        }
        self.word(text.get(at..).unwrap_or_default(), &mut word, tokens);
    }

    fn word(&self, text: &str, word: &mut String, tokens: &mut Vec<TokenId>) {
        if text.is_empty() {
            return;
        }
        word.clear();
        word.extend([" ", text]);
        let before = tokens.len();
        let mut rest = word.as_str();
        while !rest.is_empty() {
            let longest = rest.floor_char_boundary(self.longest);
            let found = (1..=longest).rev().find_map(|end| {
                let token = self.pieces.get(rest.get(..end)?)?;
                Some((end, *token))
            });
            let Some((end, token)) = found else {
                tokens.truncate(before);
                tokens.push(self.unknown);
                return;
            };
            tokens.push(token);
            rest = rest.get(end..).unwrap_or_default();
        }
    }
}

/// Text without controls, accents and case, with spaces around Chinese characters. Each character
/// by itself: marks are removed, so that their order does not matter, and a run of a million of
/// them costs no more than other text.
fn normalized(text: &str) -> String {
    let bert = BertNormalizer::default();
    let mut known: HashMap<char, String> = HashMap::new();
    let mut normal = String::with_capacity(text.len());
    for c in text.chars() {
        let of = known.entry(c).or_insert_with(|| {
            let mut one = NormalizedString::from(c.to_string());
            match bert.normalize(&mut one) {
                Ok(()) => one.get().to_owned(),
                // It never fails; if it did the character would stand for itself.
                Err(_) => c.to_string(),
            }
        });
        normal.push_str(of);
    }
    normal
}
