use std::fmt;

use super::Tokenizer;
use crate::TokenId;

/// Decodes tokens one by one into whole UTF-8 characters: the pieces joined are what
/// [`Tokenizer::decode`] makes of all tokens, control tokens left out.
#[derive(Clone)]
pub struct StreamDecoder {
    tokenizer: Tokenizer,
    /// The beginning of a character whose end is still to come: at most three bytes.
    pending: Vec<u8>,
    /// Whether the next token begins a text.
    begins: bool,
}

impl StreamDecoder {
    pub(super) fn new(tokenizer: Tokenizer, begins: bool) -> Self {
        Self {
            tokenizer,
            pending: Vec::new(),
            begins,
        }
    }

    /// The text that is complete with this token: empty while a character lacks its end.
    pub fn push(&mut self, token: TokenId) -> String {
        let bytes = self.tokenizer.next_bytes(token, &mut self.begins);
        self.pending.extend_from_slice(bytes);
        let mut text = String::new();
        let mut incomplete = 0;
        for chunk in self.pending.utf8_chunks() {
            text.push_str(chunk.valid());
            incomplete = 0;
            if !chunk.invalid().is_empty() {
                if is_prefix(chunk.invalid()) {
                    // Kept if it stands at the end, where the rest may follow.
                    incomplete = chunk.invalid().len();
                }
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        if incomplete > 0 {
            text.pop();
        }
        self.pending.drain(..self.pending.len() - incomplete);
        text
    }

    /// What is left at the end: U+FFFD for a character that lacks its end, else nothing.
    pub fn flush(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending.clear();
        text
    }
}

/// Whether an invalid sequence is one only because it stops too early.
fn is_prefix(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

impl fmt::Debug for StreamDecoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamDecoder")
            .field("pending", &self.pending)
            .finish_non_exhaustive()
    }
}
