//! How a run ends: an answer that its evidence carries, or words for why there is none.

use super::{Citation, Outcome, Run, StopReason, lookup::Named, state::Stage};
use crate::{evidence::Evidence, ground::Ground, phase::answer::Conclusion};

impl Run {
    pub(super) fn conclude(&mut self, conclusion: Conclusion) -> Stage {
        match conclusion {
            Conclusion::Answer { answer, cite } => match self.ground().reject(&answer) {
                None => Stage::Done(self.answered(answer, &cite)),
                Some(reason) => {
                    self.rejected.push((answer, reason));
                    if self.rejected.len() < self.settings.answers {
                        Stage::Answer
                    } else {
                        Stage::Done(self.partial(StopReason::NoProgress))
                    }
                }
            },
            Conclusion::Missing { .. } if self.focus.is_some() => {
                // What is missing about the one may stand with the others.
                self.focus = None;
                Stage::Answer
            }
            Conclusion::Missing { missing } if self.rounds < self.settings.rounds => {
                self.rounds += 1;
                Stage::Seek(missing)
            }
            Conclusion::Missing { .. } => Stage::Done(self.not_found()),
        }
    }

    fn ground(&self) -> Ground {
        let mut ground = Ground::new();
        ground.add(&self.question);
        for evidence in &self.evidence {
            ground.add(&evidence.source.path);
            ground.add(&evidence.quote);
        }
        for calculation in &self.calculations {
            ground.add(&calculation.expression);
            ground.add(&calculation.result);
        }
        ground
    }

    /// The answer with what it cites, and with the quotes that its numbers and dates come from.
    fn answered(&self, answer: String, cite: &[usize]) -> Outcome {
        let mut cited: Vec<usize> = cite.iter().filter_map(|at| at.checked_sub(1)).collect();
        for calculation in &self.calculations {
            cited.extend(&calculation.from);
        }
        // Where the numbers and dates of the answer stand.
        cited.extend(self.origins(&answer));
        // What the question names led there.
        let identifiers = self.named.iter().filter(|one| one.identifier);
        let named: Vec<&str> = identifiers.map(Named::word).collect();
        let stands = |(at, one): (usize, &Evidence)| {
            named
                .iter()
                .any(|name| one.quote.contains(name))
                .then_some(at)
        };
        cited.extend(self.evidence.iter().enumerate().filter_map(stands));
        // A table was asked with what a document said.
        let asked: Vec<String> = cited
            .iter()
            .filter_map(|at| self.evidence.get(*at)?.fact.clone())
            .collect();
        cited.extend(asked.iter().flat_map(|query| self.origins(query)));
        let mut citations: Vec<Citation> = Vec::new();
        for at in cited {
            if let Some(citation) = self.evidence.get(at).map(citation)
                && !citations.contains(&citation)
            {
                citations.push(citation);
            }
        }
        Outcome {
            answer,
            stop: StopReason::Done,
            citations,
            calculations: self.calculations.clone(),
        }
    }

    pub(super) fn not_found(&self) -> Outcome {
        Outcome {
            answer: format!(
                "Not found: the {} files that were read do not state this.",
                self.seen.len()
            ),
            stop: StopReason::NotFound,
            citations: Vec::new(),
            calculations: Vec::new(),
        }
    }

    /// A name of the question that no file holds.
    pub(super) fn nowhere(&self, name: &str) -> Outcome {
        Outcome {
            answer: format!("Not found: no file mentions {name}."),
            stop: StopReason::NotFound,
            citations: Vec::new(),
            calculations: Vec::new(),
        }
    }

    /// What there is where no answer stands: the quotes, as they are.
    pub(super) fn partial(&self, stop: StopReason) -> Outcome {
        Outcome {
            answer: "Not found: no answer could be grounded in the files.".to_owned(),
            stop,
            citations: self.evidence.iter().map(citation).collect(),
            calculations: self.calculations.clone(),
        }
    }
}

fn citation(evidence: &Evidence) -> Citation {
    Citation {
        source: evidence.source.clone(),
        quote: evidence.quote.clone(),
    }
}
