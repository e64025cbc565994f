//! The map of characters that SentencePiece normalizes text with: which beginnings of a text are
//! replaced by what.
//!
//! A file has it as `tokenizer.ggml.precompiled_charsmap`: the length of a trie, the trie, and the
//! replacements, each ended by a zero. The trie is a double array of 32-bit nodes: the child for
//! byte `b` of a node with base `s` is at `s ^ b` if the low byte there is `b`. Damaged nodes lead
//! nowhere: then text stays as it is.

use super::TokenizerError;

/// Bytes of a text that are looked at for one replacement, and of a replacement: many times what
/// Unicode's normal forms need. It bounds the work for each character.
const LONGEST: usize = 256;

/// Bit of a node: its base is the place of the replacement.
const LEAF: u32 = 1 << 8;
/// Bit of a node: its base is kept without its low byte.
const SHIFTED: u32 = 1 << 9;
/// Bit of a place of a replacement, which no byte has.
const VALUE: u32 = 1 << 31;

/// A map of characters.
#[derive(Debug)]
pub(super) struct Charsmap {
    nodes: Vec<u32>,
    replacements: Vec<u8>,
}

impl Charsmap {
    /// # Errors
    /// [`TokenizerError::Charsmap`] if the parts are not as long as they say, or a replacement is
    /// longer than any can be.
    pub(super) fn new(bytes: &[u8]) -> Result<Self, TokenizerError> {
        let damaged = || TokenizerError::Charsmap { found: bytes.len() };
        let (len, rest) = bytes.split_first_chunk::<4>().ok_or_else(damaged)?;
        let len = usize::try_from(u32::from_le_bytes(*len)).map_err(|_| damaged())?;
        let (nodes, replacements) = rest.split_at_checked(len).ok_or_else(damaged)?;
        let (nodes, left) = nodes.as_chunks::<4>();
        let longest = replacements.split(|&byte| byte == 0).map(<[u8]>::len).max();
        if !left.is_empty() || longest.is_some_and(|longest| longest > LONGEST) {
            return Err(damaged());
        }
        Ok(Self {
            nodes: nodes.iter().map(|&node| u32::from_le_bytes(node)).collect(),
            replacements: replacements.to_vec(),
        })
    }

    /// The replacement for the longest beginning of `text` that has one, and that beginning's length.
    pub(super) fn replace(&self, text: &str) -> Option<(&str, usize)> {
        let node = |at: u32| self.nodes.get(at as usize).copied();
        let base = |node: u32| node >> 10 << ((node & SHIFTED) >> 6);
        let mut at = base(node(0)?);
        let mut found = None;
        for (end, &byte) in (1..=LONGEST).zip(text.as_bytes()) {
            at ^= u32::from(byte);
            let Some(child) = node(at).filter(|child| child & (VALUE | 0xff) == u32::from(byte))
            else {
                break;
            };
            at ^= base(child);
            if child & LEAF != 0 {
                found = node(at).map(|value| (value & !VALUE, end));
            }
        }
        let (place, end) = found.filter(|&(_, end)| text.is_char_boundary(end))?;
        let from = self.replacements.get(place as usize..)?;
        let len = from.iter().position(|&byte| byte == 0)?;
        Some((std::str::from_utf8(from.get(..len)?).ok()?, end))
    }
}
