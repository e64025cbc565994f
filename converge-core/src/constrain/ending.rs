//! The tokens of a vocabulary that lead to the end of a text.

use std::cmp::Reverse;

use toktrie::TokEnv;

use super::Mask;
use crate::TokenId;

/// Masks of at most so many tokens are gone through whole.
const FEW: usize = 24;
/// Tokens of one character that stand for all small letters, all capitals, all digits.
const EACH: usize = 2;

/// The shortest values, and what leads to the next one.
const VALUES: [&[u8]; 9] = [
    b"0", b"\"\"", b"[]", b"{}", b"null", b"true", b"false", b",\"", b",",
];

/// What is known of the tokens of a vocabulary, once for all grammars.
pub(super) struct Endings {
    /// Tokens that end a text.
    pub(super) end: Vec<TokenId>,
    tokens: TokEnv,
    /// Brackets and quotes that close, the most closing first.
    closers: Vec<TokenId>,
    /// Short values, and commas to the next.
    values: Vec<TokenId>,
    /// Letters and digits, the longest first.
    words: Vec<TokenId>,
    /// Small letters, capitals and digits, one by one; all other characters.
    single: [Vec<TokenId>; 4],
}

impl Endings {
    pub(super) fn new(tokens: &TokEnv) -> Self {
        let trie = tokens.tok_trie();
        let (mut closers, mut values, mut words) = (Vec::new(), Vec::new(), Vec::new());
        let mut single = [const { Vec::new() }; 4];
        for token in 0..trie.vocab_size() as TokenId {
            let bytes = trie.token(token);
            let Some(&first) = bytes.first() else {
                continue;
            };
            if bytes.iter().all(|b| b"\"]}".contains(b)) {
                closers.push((Reverse(bytes.len()), token));
            }
            let value = VALUES.iter().position(|value| *value == bytes);
            values.extend(value.map(|rank| (rank, token)));
            if bytes.iter().all(u8::is_ascii_alphanumeric) {
                words.push((Reverse(bytes.len()), token));
            }
            if bytes.len() == 1 {
                let [small, capital, digit, other] = &mut single;
                match first {
                    b'a'..=b'z' => small.push(token),
                    b'A'..=b'Z' => capital.push(token),
                    b'0'..=b'9' => digit.push(token),
                    b' '..=b'~' => other.push(token),
                    _ => {}
                }
            }
        }
        closers.sort_unstable();
        values.sort_unstable();
        words.sort_unstable();
        Self {
            end: trie.eos_tokens().to_vec(),
            tokens: TokEnv::clone(tokens),
            closers: closers.into_iter().map(|(_, token)| token).collect(),
            values: values.into_iter().map(|(_, token)| token).collect(),
            words: words.into_iter().map(|(_, token)| token).collect(),
            single,
        }
    }

    pub(super) fn bytes(&self, token: TokenId) -> &[u8] {
        self.tokens.tok_trie().token(token)
    }

    /// Those allowed that close brackets or, in a `string`, this; outside of one, short values and
    /// commas too, but no more digits of a `number`.
    pub(super) fn shape(&self, mask: &Mask, string: bool, number: bool) -> Vec<TokenId> {
        let closes = |token: &TokenId| !string || self.bytes(*token).starts_with(b"\"");
        let digit = |token: &TokenId| number && self.bytes(*token) == b"0";
        let value = |token: &TokenId| !(string || digit(token));
        let values = self.values.iter().filter(|&token| value(token));
        self.closers
            .iter()
            .filter(|&token| closes(token))
            .chain(values)
            .copied()
            .filter(|&token| mask.allows(token))
            .collect()
    }

    /// A few of those allowed, as different as can be.
    pub(super) fn others(&self, mask: &Mask) -> Vec<TokenId> {
        let mut few: Vec<_> = mask.iter().take(FEW + 1).collect();
        few.retain(|token| !self.end.contains(token));
        if few.len() <= FEW {
            return few;
        }
        let allowed = |token: &TokenId| mask.allows(*token);
        let [small, capital, digit, other] = &self.single;
        let mut tokens: Vec<_> = self
            .words
            .iter()
            .copied()
            .find(allowed)
            .into_iter()
            .collect();
        for (kind, most) in [
            (digit, EACH),
            (small, EACH),
            (capital, EACH),
            (other, usize::MAX),
        ] {
            tokens.extend(kind.iter().copied().filter(allowed).take(most));
        }
        match tokens.is_empty() {
            true => few,
            false => tokens,
        }
    }
}
