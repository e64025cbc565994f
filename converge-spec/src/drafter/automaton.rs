//! A suffix automaton over tokens, built as they come.
//!
//! Its states are the classes of substrings that end at the same places (Blumer et al. 1985). The
//! suffix link of the last state is the longest suffix of the text that occurred before, so the
//! match needs no search; a state's transitions are what followed its substrings, each with when it did last.
//!
//! ```text
//!   text   … f ( x ) ; … f ( x
//!                ▲           └── last; its link is "f ( x", which was followed by ")"
//! ```

use converge_core::TokenId;

/// Tokens from here on are breaks between texts; each occurs once, so no match crosses it.
const BREAK: TokenId = TokenId::MAX / 2;

/// Of the suffixes of the text, from the longest on, so many classes take down that they ended here.
/// Longer chains of suffix links belong to texts such as "aaaa…", where the shortest do not matter.
const CHAIN: usize = 48;

const ROOT: u32 = 0;

#[derive(Clone, Debug, Default)]
struct State {
    /// Length of the longest substring of this class.
    len: u32,
    /// The class of its longest suffix that ends elsewhere, too.
    link: u32,
    /// Where it ended the last time.
    recent: u32,
    /// What follows, by token.
    next: Vec<(TokenId, u32)>,
}

impl State {
    fn follow(&self, token: TokenId) -> Option<u32> {
        let at = self.next.binary_search_by_key(&token, |&(t, _)| t).ok()?;
        Some(self.next[at].1)
    }

    fn set(&mut self, token: TokenId, state: u32) {
        match self.next.binary_search_by_key(&token, |&(t, _)| t) {
            Ok(at) => self.next[at].1 = state,
            Err(at) => self.next.insert(at, (token, state)),
        }
    }
}

/// A text and all its substrings.
#[derive(Clone, Debug)]
pub(super) struct Automaton {
    states: Vec<State>,
    text: Vec<TokenId>,
    last: u32,
    breaks: TokenId,
}

/// A place after tokens that may or may not have been said: the longest of their suffixes that was.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor {
    matched: usize,
    state: u32,
}

/// A token that followed the match before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) token: TokenId,
    /// Length of the match that this token follows.
    pub(super) matched: usize,
    /// Whether nothing else ever followed it.
    pub(super) only: bool,
}

impl Automaton {
    pub(super) fn new() -> Self {
        Self {
            states: vec![State::default()],
            text: Vec::new(),
            last: ROOT,
            breaks: BREAK,
        }
    }

    pub(super) fn text(&self) -> &[TokenId] {
        &self.text
    }

    /// Appends a token of the text. One that no vocabulary has is a break.
    pub(super) fn push(&mut self, token: TokenId) {
        match token < BREAK {
            true => self.extend(token),
            false => self.end(),
        }
    }

    /// Ends a text: no match goes on from here.
    pub(super) fn end(&mut self) {
        let token = self.breaks;
        self.breaks = self.breaks.saturating_add(1);
        self.extend(token);
    }

    fn extend(&mut self, token: TokenId) {
        let new = self.states.len() as u32;
        let len = self.states[self.last as usize].len + 1;
        self.states.push(State {
            len,
            ..State::default()
        });
        let mut at = Some(self.last);
        let known = loop {
            let Some(state) = at else { break None };
            if let Some(next) = self.states[state as usize].follow(token) {
                break Some((state, next));
            }
            self.states[state as usize].set(token, new);
            at = (state != ROOT).then(|| self.states[state as usize].link);
        };
        let link = match known {
            None => ROOT,
            Some((state, next)) => self.split(state, token, next),
        };
        self.states[new as usize].link = link;
        self.last = new;
        self.text.push(token);
        let end = self.text.len() as u32;
        let mut state = new;
        for _ in 0..CHAIN {
            if state == ROOT {
                break;
            }
            let s = &mut self.states[state as usize];
            s.recent = end;
            state = s.link;
        }
    }

    /// The class of what `state` and `token` spell, apart from longer ones that end at fewer places.
    fn split(&mut self, state: u32, token: TokenId, next: u32) -> u32 {
        let len = self.states[state as usize].len + 1;
        if self.states[next as usize].len == len {
            return next;
        }
        let copy = self.states.len() as u32;
        let mut class = self.states[next as usize].clone();
        class.len = len;
        self.states.push(class);
        self.states[next as usize].link = copy;
        let mut at = Some(state);
        while let Some(state) = at {
            if self.states[state as usize].follow(token) != Some(next) {
                break;
            }
            self.states[state as usize].set(token, copy);
            at = (state != ROOT).then(|| self.states[state as usize].link);
        }
        copy
    }

    /// The longest suffix of the text that occurred before and was followed by something: its length
    /// and its class.
    fn state(&self) -> (usize, u32) {
        let mut state = self.states[self.last as usize].link;
        while state != ROOT && self.best(state).is_none() {
            state = self.states[state as usize].link;
        }
        (self.states[state as usize].len as usize, state)
    }

    /// What followed last; and whether nothing else ever did.
    fn best(&self, state: u32) -> Option<(TokenId, bool)> {
        let next = &self.states[state as usize].next;
        let inside = next.iter().take_while(|(token, _)| *token < BREAK);
        let (token, _) = inside.max_by_key(|&&(_, to)| self.states[to as usize].recent)?;
        Some((*token, next.len() == 1))
    }

    /// The place after the text.
    pub(super) fn end_of_text(&self) -> Cursor {
        let (matched, state) = self.state();
        Cursor { matched, state }
    }

    /// What followed the longest match at a place.
    pub(super) fn next(&self, cursor: &mut Cursor) -> Option<Step> {
        // At the end of the text, what it ends with goes on as it did before: a cycle.
        while cursor.state != ROOT && self.best(cursor.state).is_none() {
            self.shorten(cursor);
        }
        let (token, only) = self.best(cursor.state).filter(|_| cursor.state != ROOT)?;
        Some(Step {
            token,
            matched: cursor.matched,
            only,
        })
    }

    /// Goes on by a token, whether or not it followed before.
    pub(super) fn advance(&self, cursor: &mut Cursor, token: TokenId) {
        loop {
            if let Some(to) = self.states[cursor.state as usize].follow(token) {
                cursor.matched += 1;
                cursor.state = to;
                return;
            }
            if cursor.state == ROOT {
                return;
            }
            self.shorten(cursor);
        }
    }

    /// Matches less.
    pub(super) fn shorten(&self, cursor: &mut Cursor) {
        cursor.state = self.states[cursor.state as usize].link;
        cursor.matched = self.states[cursor.state as usize].len as usize;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(text: &[TokenId]) -> Automaton {
        let mut automaton = Automaton::new();
        text.iter().for_each(|&t| automaton.push(t));
        automaton
    }

    fn tokens(automaton: &Automaton, most: usize) -> Vec<TokenId> {
        let mut cursor = automaton.end_of_text();
        let next = || {
            let step = automaton.next(&mut cursor)?;
            automaton.advance(&mut cursor, step.token);
            Some(step.token)
        };
        std::iter::from_fn(next).take(most).collect()
    }

    /// Length of the longest suffix that occurred before, and what followed it: by looking.
    fn searched(text: &[TokenId]) -> (usize, Vec<TokenId>) {
        let n = text.len();
        for len in (1..n).rev() {
            let suffix = &text[n - len..];
            let followers: Vec<_> = (0..n - len)
                .filter(|&i| &text[i..i + len] == suffix)
                .map(|i| text[i + len])
                .collect();
            if !followers.is_empty() {
                return (len, followers);
            }
        }
        (0, Vec::new())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_match_is_the_longest_and_its_follower_the_last(
            text in prop::collection::vec(0u32..4, 1..40),
        ) {
            let automaton = of(&text);
            let (len, followers) = searched(&text);
            prop_assert_eq!(automaton.state().0, len);
            match automaton.next(&mut automaton.end_of_text()) {
                None => prop_assert!(followers.is_empty()),
                Some(step) => {
                    prop_assert_eq!(Some(&step.token), followers.last());
                    prop_assert_eq!(step.matched, len);
                    prop_assert_eq!(step.only, followers.iter().all(|&f| f == step.token));
                }
            }
            prop_assert!(automaton.states.len() <= 2 * text.len() + 1);
        }
    }

    #[test]
    fn what_followed_last_goes_on() {
        assert_eq!(tokens(&of(&[1, 2, 9, 1, 3, 9, 1]), 2), [3, 9]);
        assert_eq!(tokens(&of(&[1, 2, 1, 2, 1, 3, 5, 1]), 2), [3, 5]);
    }

    #[test]
    fn nothing_matches_across_a_break_or_follows_it() {
        let mut automaton = of(&[1, 2, 3]);
        automaton.end();
        [1, 2].iter().for_each(|&t| automaton.push(t));
        assert_eq!(tokens(&automaton, 5), [3]);
        automaton.push(TokenId::MAX);
        assert_eq!((automaton.state().0, tokens(&automaton, 5)), (0, vec![]));
        automaton.push(3);
        assert_eq!((automaton.state().0, tokens(&automaton, 5)), (0, vec![]));
    }

    #[test]
    fn one_token_over_and_over_stays_small_and_quick() {
        let automaton = of(&[7; 20_000]);
        assert_eq!(automaton.state().0, 19_999);
        assert_eq!(tokens(&automaton, 3), [7, 7, 7]);
        assert!(automaton.states.len() <= 40_001);
    }
}
