//! Files that belong together: a contract, its amendments and the letters about it name the same
//! firms and reference numbers.
//!
//! A name that few documents share ties them together; one that stands in most of them, as the
//! owner's own, does not. So the file that a question is about brings along what changed it later,
//! whatever words the change is written in.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, VecDeque},
};

use super::{
    lookup::{self, Named, named_in},
    state::{Run, Stage, Work},
    survey,
};
use crate::{
    evidence::{Evidence, FactValue},
    phase::{plan::Kind, quote},
    segment::Segment,
    tool::{
        search::SearchResult,
        words::{is_stop_word, stems},
    },
};

/// Names of one document that are looked up.
const NAMES: usize = 8;
/// Words that a line of a related document shares with what is known, at least.
const SHARED: usize = 2;
/// Lines of the document in question that are added for their words.
const TERMS: usize = 2;
/// Related documents that are read.
const RELATED: usize = 3;
/// A name that stands in more than one in so many documents ties nothing together.
const RARE: usize = 5;
/// Names that a reference number counts for.
const NUMBER: usize = 3;
/// Places of a name that are looked at.
pub(super) const PLACES: usize = 40;

/// The names of a document that may tie it to others, the most telling first: reference numbers,
/// then the first two words of names in the order in which they stand there.
fn names(segments: &[Segment]) -> Vec<String> {
    let mut found: Vec<Named> = Vec::new();
    for segment in segments {
        for one in named_in(&segment.text) {
            let ties = one.identifier || one.text.contains(' ');
            if ties && !found.iter().any(|known| known.head() == one.head()) {
                found.push(one);
            }
        }
    }
    found.sort_by_key(|one| !one.identifier);
    let heads = found.iter().map(|one| one.head().to_owned());
    heads.take(NAMES).collect()
}

impl Run {
    /// Takes a document that was read. Who compares looks up facts in every one; else in the first,
    /// which the plan thinks the question is about. Lines are quoted from that too, as the plan may
    /// have named a fact too loosely, and from the others.
    pub(super) fn has_read(&mut self, path: String, segments: Vec<Segment>) -> Stage {
        let compares = self.scope.calculate.compares();
        if !compares && self.about.is_none() {
            self.ties = names(&segments);
            self.about = Some(path.clone());
        }
        let pieces = survey::pieces(segments, &self.question, &self.settings);
        let about = !compares && self.about.as_ref() == Some(&path);
        if pieces.is_empty() {
            self.next_work()
        } else if compares || about {
            let quote = if about {
                pieces.clone()
            } else {
                VecDeque::new()
            };
            Stage::Extract {
                path,
                pieces,
                quote,
            }
        } else {
            Stage::Quote { path, pieces }
        }
    }

    /// Goes on after the facts of a document: with what belongs to it, if it is the one in
    /// question.
    pub(super) fn extracted(&mut self, path: &str) -> Stage {
        if self.about.as_deref() == Some(path) {
            self.after_tie(0)
        } else {
            self.next_work()
        }
    }

    /// Keeps the quotes of a related document that speak in the words of the question or of the
    /// lines found in the one in question: a price letter names the price, not the notice.
    pub(super) fn fits(&self, evidence: &Evidence) -> bool {
        lookup::shared(&self.known_words(), &evidence.quote) >= SHARED
    }

    fn known_words(&self) -> BTreeSet<String> {
        let facts = self.plan.facts.iter().map(|wanted| wanted.fact.as_str());
        let quotes = self.evidence.iter().filter(|one| self.is_about(one));
        let texts = facts.chain(quotes.map(|one| one.quote.as_str()));
        texts
            .chain([self.question.as_str()])
            .flat_map(stems)
            .filter(|stem| is_word(stem))
            .collect()
    }

    fn is_about(&self, evidence: &Evidence) -> bool {
        self.about.as_ref() == Some(&evidence.source.path)
    }

    /// A line of the document in question weighs no more than one of a document that changes it: no
    /// fact is named beside it, unless values are compared or days counted.
    pub(super) fn labelled(&self, evidence: Evidence) -> Evidence {
        let calculate = self.scope.calculate;
        if calculate.compares() || calculate.dates() {
            return evidence;
        }
        Evidence {
            fact: None,
            value: None,
            ..evidence
        }
    }

    /// Adds lines of the document in question. Where no fact was found in it, those that share most
    /// words with the question; where numbers are calculated with, those that state a number in the
    /// terms of what was found: "8% of the quarterly fee" needs the fee. Who counts days and found no
    /// day to count from gets the days in those terms: "before the end of the term" needs the term.
    pub(super) fn add_terms(&mut self, path: &str, segments: &[Segment]) {
        if self.about.as_deref() != Some(path) {
            return;
        }
        let quotes: Vec<&Evidence> = self
            .evidence
            .iter()
            .filter(|one| self.is_about(one))
            .collect();
        let found = !quotes.is_empty();
        let calculate = self.scope.calculate;
        let dated = |one: &&Evidence| matches!(one.value, Some(FactValue::Date(_)));
        let (kind, least) = match (found, calculate.dates()) {
            (false, _) => (None, SHARED),
            (true, false) if calculate.arithmetic() => (Some(Kind::Number), SHARED),
            (true, true) if !quotes.iter().any(dated) => (Some(Kind::Date), 1),
            _ => return,
        };
        let words: BTreeSet<String> = if found {
            let stems = quotes.iter().flat_map(|one| stems(&one.quote));
            stems.filter(|stem| is_word(stem)).collect()
        } else {
            self.known_words()
        };
        let mut lines: Vec<(usize, &Segment)> = segments
            .iter()
            .filter(|segment| kind.is_none_or(|kind| !segment.values(kind).is_empty()))
            .map(|segment| (lookup::shared(&words, &segment.text), segment))
            .filter(|(shared, _)| *shared >= least)
            .collect();
        lines.sort_by_key(|(shared, segment)| (Reverse(*shared), segment.first));
        let known: BTreeSet<&str> = self.evidence.iter().map(|one| one.quote.as_str()).collect();
        lines.retain(|(_, segment)| !known.contains(segment.text.as_str()));
        let more: Vec<Evidence> = lines
            .into_iter()
            .take(TERMS)
            .map(|(_, segment)| quote::evidence(path, segment))
            .collect();
        for evidence in more {
            self.add(evidence);
        }
    }

    pub(super) fn after_tie(&mut self, at: usize) -> Stage {
        if at < self.ties.len() {
            return Stage::Relate(at);
        }
        let mut related: Vec<(String, usize)> =
            std::mem::take(&mut self.related).into_iter().collect();
        related.retain(|(path, _)| self.about.as_ref() != Some(path));
        // Those that share most names first; a single address in common does not count beside them.
        related.sort_by_key(|(_, shared)| Reverse(*shared));
        let most = related.first().map_or(0, |(_, shared)| *shared);
        related.retain(|(_, shared)| shared * 2 > most);
        for (path, _) in related.into_iter().take(RELATED).rev() {
            self.queue.push_front(Work::Document(path));
        }
        self.next_work()
    }

    /// Takes the places of a name.
    pub(super) fn tied(&mut self, at: usize, found: &SearchResult) -> Stage {
        let mut files: BTreeMap<&str, usize> = BTreeMap::new();
        for hit in &found.hits {
            let path = hit.source.path.as_str();
            if self.documents.iter().any(|file| file.path == path) {
                *files.entry(path).or_default() += 1;
            }
        }
        let all_seen = found.matched <= PLACES;
        if all_seen && files.len() <= (self.documents.len() / RARE).max(2) {
            let number = |name: &String| name.contains(|c: char| c.is_ascii_digit());
            let weight = if self.ties.get(at).is_some_and(number) {
                NUMBER
            } else {
                1
            };
            for path in files.into_keys() {
                *self.related.entry(path.to_owned()).or_default() += weight;
            }
        }
        self.after_tie(at + 1)
    }
}

fn is_word(stem: &str) -> bool {
    !is_stop_word(stem) && stem.chars().any(char::is_alphabetic)
}
