//! The tokens of a vocabulary: what they stand for and of what kind they are.

use crate::TokenId;

/// `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

/// All tokens in one piece of memory.
#[derive(Debug, Default)]
pub(super) struct Vocab {
    bytes: Vec<u8>,
    /// Where each token ends in `bytes`.
    ends: Vec<usize>,
    kinds: Vec<Kind>,
}

impl Vocab {
    /// Appends a token; `bytes` is what it stands for, or how it is written if it stands for none.
    pub(super) fn push(&mut self, bytes: &[u8], kind: Kind) {
        self.bytes.extend_from_slice(bytes);
        self.ends.push(self.bytes.len());
        self.kinds.push(kind);
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn kind(&self, id: TokenId) -> Option<Kind> {
        self.kinds.get(id as usize).copied()
    }

    pub(super) fn set_kind(&mut self, id: TokenId, kind: Kind) {
        if let Some(old) = self.kinds.get_mut(id as usize) {
            *old = kind;
        }
    }

    /// Empty for an id outside the vocabulary.
    pub(super) fn bytes(&self, id: TokenId) -> &[u8] {
        let id = id as usize;
        let start = match id {
            0 => Some(0),
            _ => self.ends.get(id - 1).copied(),
        };
        let range = start.zip(self.ends.get(id).copied());
        range
            .and_then(|(start, end)| self.bytes.get(start..end))
            .unwrap_or_default()
    }

    /// Control, unknown and user-defined tokens as they are written, none of them empty.
    pub(super) fn specials(&self) -> impl Iterator<Item = (TokenId, &str)> {
        let special = |kind| matches!(kind, Kind::Control | Kind::UserDefined | Kind::Unknown);
        (0..)
            .zip(&self.kinds)
            .filter(move |&(_, &kind)| special(kind))
            .filter_map(|(id, _)| {
                let text = std::str::from_utf8(self.bytes(id)).ok()?;
                (!text.is_empty()).then_some((id, text))
            })
    }
}
