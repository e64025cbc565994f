use toktrie::SimpleVob;

use crate::{TokenId, sample::noise};

/// A set of tokens: those that a grammar allows next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    set: SimpleVob,
    vocab: usize,
}

impl Mask {
    /// The set of `tokens` out of a vocabulary; ids outside it are left out.
    pub fn of(vocab: usize, tokens: impl IntoIterator<Item = TokenId>) -> Self {
        let mut set = SimpleVob::alloc(vocab);
        for token in tokens {
            if (token as usize) < vocab {
                set.allow_token(token);
            }
        }
        Self { set, vocab }
    }

    pub(super) fn from_set(set: SimpleVob, vocab: usize) -> Self {
        let vocab = vocab.min(set.len());
        Self { set, vocab }
    }

    /// Whether `token` is in the set; false outside the vocabulary.
    pub fn allows(&self, token: TokenId) -> bool {
        (token as usize) < self.vocab && self.set.is_allowed(token)
    }

    /// The tokens, in rising order.
    pub fn iter(&self) -> impl Iterator<Item = TokenId> + '_ {
        self.set.iter().take_while(|&t| (t as usize) < self.vocab)
    }

    /// The same for the same tokens and seed.
    pub(super) fn hash(&self, seed: u64) -> u64 {
        let words = self.set.as_slice().iter();
        words.fold(seed, |hash, &word| noise::bits(hash, 0, word))
    }

    /// How many tokens are in the set.
    pub fn count(&self) -> usize {
        self.iter().count()
    }
}

#[cfg(test)]
mod tests {
    use super::Mask;

    #[test]
    fn membership_and_order() {
        let mask = Mask::of(70, [69, 3, 64, 70, 1000]);
        assert_eq!(mask.iter().collect::<Vec<_>>(), [3, 64, 69]);
        assert_eq!(mask.count(), 3);
        assert!(mask.allows(64) && !mask.allows(65) && !mask.allows(70) && !mask.allows(u32::MAX));
    }
}
