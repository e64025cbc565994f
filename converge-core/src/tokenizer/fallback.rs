//! The tokens of single bytes, for text that has no other token.

use super::vocab::{Kind, Vocab};
use crate::TokenId;

/// The token of each byte, where there is one.
#[derive(Debug)]
pub(super) struct Bytes([Option<TokenId>; 256]);

impl Bytes {
    /// Those of a vocabulary.
    pub(super) fn new(vocab: &Vocab) -> Self {
        let mut bytes = [None; 256];
        for id in 0..vocab.len() as TokenId {
            if let (Some(Kind::Normal | Kind::Byte), &[byte]) = (vocab.kind(id), vocab.bytes(id))
                && let Some(token) = bytes.get_mut(byte as usize)
            {
                // A vocabulary may hold `A` and `<0x41>`: the earlier one is it.
                *token = token.or(Some(id));
            }
        }
        Self(bytes)
    }

    pub(super) fn token(&self, byte: u8) -> Option<TokenId> {
        self.0.get(byte as usize).copied().flatten()
    }

    /// Whether every byte of the character has a token.
    pub(super) fn can_encode(&self, c: char) -> bool {
        self.missing(c).is_none()
    }

    /// The first byte of the character that has no token.
    pub(super) fn missing(&self, c: char) -> Option<u8> {
        let mut buffer = [0; 4];
        let mut bytes = c.encode_utf8(&mut buffer).bytes();
        bytes.find(|&byte| self.token(byte).is_none())
    }
}
