//! The searches of a run and what they lead to: names, the words of the question, what an answer
//! lacks.

use std::collections::BTreeSet;

use super::{
    lookup,
    state::{Run, Stage, Work},
    survey,
};
use crate::{
    evidence::Evidence,
    phase::{
        plan::{Kind, Wanted},
        scope::Place,
    },
    segment::speaks_to_assistant,
    tool::{
        facts::{FactKind, facts_in},
        search::{Hit, SearchResult},
    },
};

/// Documents that a rare name stands in.
const NAMING: usize = 3;
/// Unread documents that one round of refinement adds.
const SOUGHT: usize = 3;

impl Run {
    pub(super) fn after_lookup(&self, at: usize) -> Stage {
        if at < self.named.len() {
            Stage::Lookup(at)
        } else {
            Stage::Search { by_file: true }
        }
    }

    /// Takes where a name of the question stands. One that stands nowhere ends the run: whatever
    /// the files say, they say it of something else.
    pub(super) fn looked_up(&mut self, at: usize, found: &SearchResult) -> Stage {
        let Some(named) = self.named.get(at).cloned() else {
            return self.after_lookup(at + 1);
        };
        if found.hits.is_empty() {
            return Stage::Done(self.nowhere(&named.text));
        }
        self.note_naming(found);
        if named.identifier && found.matched <= lookup::PLACES {
            for hit in &found.hits {
                let quote = hit.text.split_whitespace().collect::<Vec<_>>().join(" ");
                if !speaks_to_assistant(&quote) {
                    self.add(Evidence {
                        source: hit.source.clone(),
                        quote,
                        fact: None,
                        value: None,
                    });
                }
            }
        }
        self.after_lookup(at + 1)
    }

    /// Keeps the documents that hold a name, if they are few: the question speaks of them.
    fn note_naming(&mut self, found: &SearchResult) {
        let mut files: Vec<String> = Vec::new();
        for hit in &found.hits {
            let path = &hit.source.path;
            let document = self.documents.iter().any(|file| file.path == *path);
            if document && !files.contains(path) && !self.naming.contains(path) {
                files.push(path.clone());
            }
        }
        if found.matched <= found.hits.len() && files.len() <= NAMING {
            self.naming.extend(files);
        }
    }

    /// What to search for: the question, what is missing, and the names that the evidence leads
    /// to.
    pub(super) fn search_text(&self, missing: &str) -> String {
        let mut text = format!("{} {missing}", self.question);
        for (_, evidence) in self.shown() {
            for fact in facts_in(&evidence.quote) {
                if let FactKind::Name(name) = fact.kind
                    && !fact.weak
                {
                    text.push(' ');
                    text.push_str(&name);
                }
            }
        }
        text
    }

    pub(super) fn beyond(&self) -> BTreeSet<String> {
        lookup::beyond_tables(&self.question, &self.tables)
    }

    /// A question about a table whose other words stand together in a document needs that too.
    pub(super) fn reach_beyond(&mut self, found: &SearchResult) {
        let words = self.beyond();
        let document = |hit: &&Hit| {
            self.documents
                .iter()
                .any(|file| file.path == hit.source.path)
                && lookup::shared(&words, &format!("{} {}", hit.source.path, hit.text)) >= 2
        };
        let Some(hit) = found.hits.iter().find(document) else {
            return;
        };
        self.scope.place = Place::Both;
        let path = hit.source.path.clone();
        let hits = survey::hits(found).into_iter();
        let first: Vec<_> = hits.filter(|hit| hit.path == path).collect();
        self.hits.retain(|hit| hit.path != path);
        self.hits.splice(0..0, first);
    }

    /// Goes back to read the documents that may hold what is missing.
    pub(super) fn seek(&mut self, missing: &str, found: &SearchResult) -> Stage {
        let unread = |path: &String| !self.seen.contains(path);
        let more: Vec<String> = survey::hits(found)
            .into_iter()
            .map(|hit| hit.path)
            .filter(unread)
            .take(SOUGHT)
            .collect();
        if more.is_empty() {
            return Stage::Done(self.not_found());
        }
        let wanted = Wanted {
            fact: missing.chars().take(48).collect(),
            kind: Kind::Text,
        };
        if !self
            .plan
            .facts
            .iter()
            .any(|known| known.fact == wanted.fact)
        {
            self.plan.facts.push(wanted);
        }
        for path in more {
            self.queue.push_back(if self.is_table(&path) {
                Work::Table(path)
            } else {
                Work::Document(path)
            });
        }
        self.next_work()
    }
}
