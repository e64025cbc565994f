//! Ends of texts: short ways from a state of a grammar to a complete text, and the rule that keeps
//! one within reach.
//!
//! A best-first search. What is forced costs no choice, so a way is mostly brackets, quotes and
//! short values; where none of them is allowed, a few tokens of each kind stand for all. It is no
//! proof that nothing shorter exists; but what it finds has gone through the parser token by token.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use super::{ConstrainError, Constraint, Mask, ending::Endings};
use crate::{Result, TokenId, sample::noise};

/// Longest way that is looked for at all.
const LONGEST: usize = 1 << 14;
/// Tokens that a search may try: at the beginning, and in mid-text.
const FIRST_EFFORT: usize = 4000;
const EFFORT: usize = 48;
/// And so many more for each token of room: where there is little, few turns can help.
const ROOM: usize = 8;
/// A known way is looked for again from so many of its tokens on.
const REJOIN: usize = 6;
/// What an open bracket or string is expected to cost, in choices.
const OPEN: usize = 3;
/// What a state costs that looks like one before it on the same way, in a string or number: perhaps
/// the way leads nowhere.
const AGAIN: usize = 2;
/// What a state costs that another way has led to: perhaps it only looks the same.
const ELSEWHERE: usize = 64;

/// Keeps a text completable: after each token `way` leads to the end of the text, and is no longer
/// than what is left.
pub(crate) struct Closing {
    /// The constraint's double, with lexer states of its own: what is tried here never weighs on
    /// the limits of the text.
    scout: Constraint,
    scan: Scan,
    /// A way from here to the end of the text.
    way: Vec<TokenId>,
}

impl Closing {
    /// Refuses a budget that no completion was found for.
    pub(crate) fn new(constraint: &Constraint, budget: usize) -> Result<Self> {
        let scout = constraint.apart();
        let scan = Scan::default();
        let find = |most, effort| shortest(&scout, scan, most, effort, &[]);
        let way = match find(LONGEST, FIRST_EFFORT) {
            Some(way) if way.len() > budget => {
                let least = way.len();
                let error = ConstrainError::Budget { least, budget };
                find(budget, EFFORT + ROOM * budget).ok_or(error)
            }
            Some(way) => Ok(way),
            None => Err(ConstrainError::TooComplex {
                reason: "no completion of the text was found".to_owned(),
            }),
        }?;
        Ok(Self { scout, scan, way })
    }

    /// The token to take where `token` is asked for and `left` may still be taken: itself, or the
    /// next of the known way where nothing that fits was found behind it. `None` where the text must
    /// end here.
    ///
    /// # Errors
    /// As [`Constraint::commit`].
    pub(crate) fn keep(&mut self, token: TokenId, left: usize) -> Result<Option<TokenId>> {
        if self.way.first() != Some(&token) {
            if let Some((scout, scan, way)) = self.beyond(token, left) {
                (self.scout, self.scan, self.way) = (scout, scan, way);
                return Ok(Some(token));
            }
            if self.way.is_empty() {
                return Ok(None);
            }
        }
        let token = self.way.remove(0);
        self.scout.commit(token)?;
        self.scan.push(self.scout.endings.bytes(token));
        Ok(Some(token))
    }

    /// The state after a token, with a way that fits.
    fn beyond(&self, token: TokenId, left: usize) -> Option<(Constraint, Scan, Vec<TokenId>)> {
        let most = left.checked_sub(1)?;
        let mut scout = self.scout.clone();
        scout.commit(token).ok()?;
        let mut scan = self.scan;
        scan.push(scout.endings.bytes(token));
        let room = most.saturating_sub(self.way.len());
        let effort = FIRST_EFFORT.min(EFFORT + ROOM * room);
        let way = shortest(&scout, scan, most, effort, &self.way)?;
        Some((scout, scan, way))
    }
}

impl Constraint {
    /// A short way to the end of the text, of at most so many tokens, each of which the grammar
    /// allows after those before it; empty where the text may end here. `None` where none was found,
    /// which is no proof that there is none.
    pub fn completion(&self, most: usize) -> Option<Vec<TokenId>> {
        shortest(&self.apart(), Scan::default(), most, FIRST_EFFORT, &[])
    }

    /// A double with lexer states of its own.
    fn apart(&self) -> Self {
        Self {
            matcher: self.matcher.deep_clone(),
            vocab: self.vocab,
            endings: Arc::clone(&self.endings),
        }
    }

    /// Whether these tokens, one after the other, end the text.
    fn ends(&mut self, way: &[TokenId]) -> bool {
        let Some(&end) = self.endings.end.first() else {
            return false;
        };
        if self.is_done() {
            return way.is_empty();
        }
        let mut tokens = way.to_vec();
        tokens.push(end);
        self.allowed_prefix(&tokens)
            .is_ok_and(|n| n == tokens.len())
    }
}

/// Where a text stands as JSON; a guess where it is none.
#[derive(Clone, Copy, Default)]
struct Scan {
    depth: usize,
    string: bool,
    escaped: bool,
    /// After a digit, which the next may go on from.
    number: bool,
}

impl Scan {
    fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = self.string,
                b'"' => self.string = !self.string,
                b'{' | b'[' if !self.string => self.depth += 1,
                b'}' | b']' if !self.string => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
            self.number = !self.string && byte.is_ascii_digit();
        }
    }

    fn open(self) -> usize {
        self.depth + usize::from(self.string)
    }
}

/// A state on the way.
#[derive(Clone)]
struct Node {
    at: Constraint,
    scan: Scan,
    way: Vec<TokenId>,
    /// What the choices before it looked like.
    path: Vec<u64>,
    /// Costs beside the choices.
    extra: usize,
}

impl Node {
    /// Goes on by tokens; `false` where one is not allowed.
    fn go(&mut self, tokens: &[TokenId]) -> bool {
        for &token in tokens {
            if self.at.commit(token).is_err() {
                return false;
            }
            self.scan.push(self.at.endings.bytes(token));
            self.way.push(token);
        }
        true
    }

    /// Goes on by what is forced. `None` where the way gets too long or the parser fails, else
    /// whether the text may end.
    fn go_forced(&mut self, most: usize) -> Option<bool> {
        loop {
            if self.way.len() > most {
                return None;
            }
            if self.at.is_accepting().ok()? {
                return Some(true);
            }
            let forced = self.at.forced().ok()?;
            if forced.is_empty() {
                return (self.way.len() < most).then_some(false);
            }
            if self.way.len() + forced.len() > most || !self.go(&forced) {
                return None;
            }
        }
    }

    /// The end of the known way, from a token near its beginning on.
    fn rejoin(&mut self, known: &[TokenId], most: usize) -> bool {
        let rest = (0..known.len().min(REJOIN)).find_map(|i| {
            let rest = known.get(i..)?;
            let fits = self.way.len() + rest.len() <= most;
            (fits && self.at.ends(rest)).then_some(rest)
        });
        self.way.extend(rest.unwrap_or_default());
        rest.is_some()
    }

    fn rank(&self, choice: usize) -> usize {
        choice * self.path.len() + OPEN * self.scan.open() + self.extra
    }

    /// What the state looks like: what may come next, what is open, and what was forced after the
    /// first `chosen` tokens of the way, as the name of a property is.
    fn look(&self, mask: &Mask, chosen: usize) -> u64 {
        let open = (self.scan.depth as u64) << 1 | u64::from(self.scan.string);
        let forced = self.way.iter().skip(chosen);
        forced.fold(mask.hash(open), |look, &token| noise::bits(look, 1, token))
    }
}

/// A state whose ways on are not tried yet: those of the shape of JSON, or all others.
struct Open {
    node: Node,
    mask: Mask,
    by_shape: bool,
}

struct Search<'a> {
    most: usize,
    effort: usize,
    /// What a choice costs.
    choice: usize,
    /// Led to the end from a state nearby.
    known: &'a [TokenId],
    endings: Arc<Endings>,
    /// By rank; then those after the most choices, of them the shortest, the first found.
    open: BTreeMap<(usize, Reverse<usize>, usize, usize), Open>,
    found: usize,
    /// Looks, with how often each had been on its way before.
    seen: HashSet<(u64, usize)>,
    /// A way, with its rank.
    best: Option<(usize, Vec<TokenId>)>,
}

/// A way of at most `most` tokens. `known` led to the end from a state nearby.
fn shortest(
    from: &Constraint,
    scan: Scan,
    most: usize,
    effort: usize,
    known: &[TokenId],
) -> Option<Vec<TokenId>> {
    // Few choices; where that is too wide a field, any number of them.
    [1, 0].into_iter().find_map(|choice| {
        let mut search = Search {
            most: most.min(LONGEST),
            effort,
            choice,
            known,
            endings: Arc::clone(&from.endings),
            open: BTreeMap::new(),
            found: 0,
            seen: HashSet::new(),
            best: None,
        };
        search.run(Node {
            at: from.clone(),
            scan,
            way: Vec::new(),
            path: Vec::new(),
            extra: 0,
        });
        search.best.map(|(_, way)| way)
    })
}

impl Search<'_> {
    fn run(&mut self, mut start: Node) {
        if start.rejoin(self.known, self.most) || start.go_forced(self.most) == Some(true) {
            self.best = Some((0, start.way));
            return;
        }
        if start.way.len() >= self.most {
            return;
        }
        if let Ok(mask) = start.at.mask() {
            self.push(start, mask, true);
        }
        while let Some(((rank, ..), mut open)) = self.open.pop_first() {
            if self.best.as_ref().is_some_and(|best| best.0 <= rank) {
                return;
            }
            if open.by_shape && open.node.rejoin(self.known, self.most) {
                self.end(open.node);
                continue;
            }
            if self.expand(open).is_none() {
                return;
            }
        }
    }

    fn end(&mut self, node: Node) {
        let rank = node.rank(self.choice);
        let better = |best: &(usize, Vec<_>)| (rank, node.way.len()) < (best.0, best.1.len());
        if self.best.as_ref().is_none_or(better) {
            self.best = Some((rank, node.way));
        }
    }

    fn push(&mut self, mut node: Node, mask: Mask, by_shape: bool) {
        if !by_shape {
            node.extra += OPEN;
        }
        let key = (
            node.rank(self.choice),
            Reverse(node.path.len()),
            node.way.len(),
            self.found,
        );
        self.found += 1;
        let open = Open {
            node,
            mask,
            by_shape,
        };
        self.open.insert(key, open);
    }

    /// Tries the ways on from a state. `None` where the effort is spent.
    fn expand(&mut self, open: Open) -> Option<()> {
        let Open {
            node,
            mask,
            by_shape,
        } = open;
        let mut tokens = match by_shape {
            true => self
                .endings
                .shape(&mask, node.scan.string, node.scan.number),
            false => Vec::new(),
        };
        let all = tokens.is_empty();
        if all {
            tokens = self.endings.others(&mask);
        }
        // Of ways on that look the same the first is enough.
        let mut looks = HashSet::new();
        for token in tokens {
            self.effort = self.effort.checked_sub(1)?;
            let mut next = node.clone();
            if !next.go(&[token]) {
                continue;
            }
            match next.go_forced(self.most) {
                None => {}
                Some(true) => self.end(next),
                Some(false) => {
                    let Ok(mask) = next.at.mask() else { continue };
                    let look = next.look(&mask, node.way.len() + 1);
                    if !looks.insert(look) {
                        continue;
                    }
                    let before = next.path.iter().filter(|&&l| l == look).count();
                    if all && before > 0 {
                        next.extra += AGAIN;
                    }
                    if !self.seen.insert((look, before)) {
                        next.extra += ELSEWHERE;
                    }
                    next.path.push(look);
                    self.push(next, mask, true);
                }
            }
        }
        if !all {
            self.push(node, mask, false);
        }
        Some(())
    }
}

#[cfg(test)]
#[path = "closing_tests.rs"]
mod tests;
