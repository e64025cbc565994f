//! The state of a run and its transitions.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Citation, Outcome, StopReason, survey};
use crate::{
    error::Result,
    evidence::{Calculation, Evidence},
    ground::Ground,
    phase::{
        Phase, Prompt,
        answer::{self, Conclusion},
        compare, compute, extract,
        plan::{self, Kind, Listed, Plan, Wanted},
        query,
        scope::{self, Scope},
    },
    segment::{self, Segment},
    tool::{
        Source, ToolError, ToolOutput,
        list::ListResult,
        read::ReadResult,
        search::SearchResult,
        table::{Profile, TableArgs},
    },
};

/// How far a run goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Documents read in all.
    pub documents: usize,
    /// Documents read because the search found them, whatever the plan says.
    pub hits: usize,
    /// Documents that the plan may add where nothing is compared.
    pub planned: usize,
    /// Tables queried in all.
    pub tables: usize,
    /// Calculations in all.
    pub calculations: usize,
    /// Answers that may fail the check before the run gives up.
    pub answers: usize,
    /// Times that refine may send the run back to read more.
    pub rounds: usize,
    /// Characters of a document that are read in one call to the model; a longer one is read in
    /// pieces.
    pub piece: usize,
    /// Pieces of one document that are read; the ones nearest to the question.
    pub pieces: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            documents: 16,
            hits: 2,
            planned: 3,
            tables: 3,
            calculations: 4,
            answers: 3,
            rounds: 2,
            piece: 5000,
            pieces: 3,
        }
    }
}

/// What to do next.
#[derive(Clone, Debug)]
pub enum Step {
    /// Call a tool and hand the output to [`Run::called`].
    Call {
        /// The phase that calls.
        phase: Phase,
        /// The tool's name.
        tool: String,
        /// Its arguments.
        args: Value,
    },
    /// Ask the model and hand its text to [`Run::generated`].
    Generate(Box<Prompt>),
    /// Nothing: the run is over.
    Done(Outcome),
}

/// Something to look into.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Work {
    Document(String),
    Table(String),
}

/// What the run waits for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Stage {
    List,
    Profile(usize),
    Search,
    Scope,
    Plan,
    Read(String),
    Extract {
        path: String,
        pieces: VecDeque<Vec<Segment>>,
    },
    Query(String),
    Table(TableArgs),
    Compare,
    Compute,
    Calculate {
        tool: String,
        args: Value,
        calculation: Calculation,
    },
    Answer,
    Done(Outcome),
}

/// A run: one question over one folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    pub(super) question: String,
    pub(super) settings: Settings,
    pub(super) stage: Stage,
    pub(super) documents: Vec<Listed>,
    pub(super) tables: Vec<Profile>,
    pub(super) unprofiled: Vec<String>,
    pub(super) hits: Vec<Listed>,
    pub(super) scope: Scope,
    pub(super) plan: Plan,
    pub(super) queue: VecDeque<Work>,
    pub(super) seen: Vec<String>,
    pub(super) evidence: Vec<Evidence>,
    pub(super) calculations: Vec<Calculation>,
    /// The document that a comparison singled out: the rest of the run speaks of it alone.
    pub(super) focus: Option<String>,
    rejected: Vec<(String, String)>,
    rounds: usize,
}

impl Run {
    /// A run that has not begun.
    pub fn new(question: impl Into<String>, settings: Settings) -> Self {
        Self {
            question: question.into(),
            settings,
            stage: Stage::List,
            documents: Vec::new(),
            tables: Vec::new(),
            unprofiled: Vec::new(),
            hits: Vec::new(),
            scope: Scope::default(),
            plan: Plan::default(),
            queue: VecDeque::new(),
            seen: Vec::new(),
            evidence: Vec::new(),
            calculations: Vec::new(),
            focus: None,
            rejected: Vec::new(),
            rounds: 0,
        }
    }

    /// The question.
    pub fn question(&self) -> &str {
        &self.question
    }

    /// What was found so far.
    pub fn evidence(&self) -> &[Evidence] {
        &self.evidence
    }

    /// What was computed so far.
    pub fn calculations(&self) -> &[Calculation] {
        &self.calculations
    }

    /// What to do next. Asking again gives the same.
    pub fn next_step(&self) -> Step {
        let call = |phase, tool: &str, args| Step::Call {
            phase,
            tool: tool.to_owned(),
            args,
        };
        match &self.stage {
            Stage::List => call(Phase::Plan, "list", json!({})),
            Stage::Profile(at) => {
                let path = self.unprofiled.get(*at).cloned().unwrap_or_default();
                call(Phase::Plan, "profile", json!({"path": path}))
            }
            Stage::Search => call(Phase::Plan, "search", json!({"query": self.question})),
            Stage::Scope => generate(scope::prompt(&self.question, &self.listed_tables())),
            Stage::Plan => {
                let tables = self.listed_tables();
                let place = self.scope.place;
                generate(plan::prompt(
                    &self.question,
                    &self.documents,
                    &tables,
                    &self.hits,
                    place,
                ))
            }
            Stage::Read(path) => call(Phase::Execute, "read", json!({"path": path})),
            Stage::Extract { path, pieces } => {
                let segments = pieces.front().map_or(&[][..], Vec::as_slice);
                generate(extract::prompt(
                    &self.question,
                    &self.plan.facts,
                    path,
                    segments,
                ))
            }
            Stage::Query(path) => match self.table(path) {
                Some(table) => generate(query::prompt(&self.question, table, &self.known())),
                None => Step::Done(self.partial(StopReason::NoProgress)),
            },
            Stage::Table(args) => call(Phase::Execute, "table", json!(args)),
            Stage::Compare => generate(compare::prompt(
                &self.question,
                &self.compared(Kind::Date),
                &self.compared(Kind::Number),
            )),
            Stage::Compute => generate(compute::prompt(
                &self.question,
                &self.found(),
                &self.operands(),
            )),
            Stage::Calculate { tool, args, .. } => call(Phase::Observe, tool, args.clone()),
            Stage::Answer => generate(answer::prompt(
                &self.question,
                &self.found(),
                &self.shown().map(|(at, _)| at + 1).collect::<Vec<_>>(),
                &self.unread(),
                &self.rejected,
            )),
            Stage::Done(outcome) => Step::Done(outcome.clone()),
        }
    }

    /// Takes what a tool gave for a [`Step::Call`]. A tool that fails is an observation, not the
    /// end of the run.
    ///
    /// # Errors
    /// A tool's output that is no output of that tool.
    pub fn called(&mut self, output: std::result::Result<ToolOutput, ToolError>) -> Result<()> {
        let stage = std::mem::replace(&mut self.stage, Stage::Answer);
        match stage {
            Stage::List => {
                let listed: ListResult = survey::typed("list", output?)?;
                survey::sort(&listed, &mut self.documents, &mut self.unprofiled);
                self.stage = self.after_profile(0);
            }
            Stage::Profile(at) => {
                match output {
                    Ok(output) => self.tables.push(survey::typed("profile", output)?),
                    // A table that cannot be read as one is read as a document.
                    Err(_) => self
                        .documents
                        .extend(self.unprofiled.get(at).map(|path| Listed {
                            path: path.clone(),
                            title: "a list".to_owned(),
                        })),
                }
                self.stage = self.after_profile(at + 1);
            }
            Stage::Search => {
                if let Ok(output) = output {
                    let found: SearchResult = survey::typed("search", output)?;
                    self.hits = survey::hits(&found);
                }
                self.stage = match (self.documents.is_empty(), self.tables.is_empty()) {
                    (true, true) => Stage::Done(self.not_found()),
                    _ => Stage::Scope,
                };
            }
            Stage::Read(path) => {
                self.stage = match output {
                    Ok(output) => {
                        let read: ReadResult = survey::typed("read", output)?;
                        let segments = segment::segments(&read.lines);
                        let pieces = survey::pieces(segments, &self.question, &self.settings);
                        if pieces.is_empty() {
                            self.next_work()
                        } else {
                            Stage::Extract { path, pieces }
                        }
                    }
                    Err(_) => self.next_work(),
                };
            }
            Stage::Table(args) => {
                if let Ok(output) = output {
                    let path = args.path.clone();
                    let lines = output.sources.iter().filter(|source| source.path == path);
                    let first = lines.clone().map(|source| source.first).min().unwrap_or(1);
                    let last = lines.map(|source| source.last).max().unwrap_or(first);
                    self.add(Evidence {
                        source: Source { path, first, last },
                        quote: output.text,
                        fact: Some(survey::query_text(&args)),
                        value: None,
                    });
                }
                self.stage = self.next_work();
            }
            Stage::Calculate {
                mut calculation, ..
            } => {
                self.stage = match output {
                    Ok(output) => {
                        let (_, result) =
                            output.text.rsplit_once(" = ").unwrap_or(("", &output.text));
                        calculation.result = result.to_owned();
                        self.computed(calculation)
                    }
                    Err(_) => Stage::Answer,
                };
            }
            other => self.stage = other,
        }
        Ok(())
    }

    /// Takes what the model generated for a [`Step::Generate`].
    ///
    /// # Errors
    /// Text that is no record of the phase: the run stays where it was, so the step can be tried
    /// again.
    pub fn generated(&mut self, text: &str) -> Result<()> {
        match self.stage.clone() {
            Stage::Scope => {
                self.scope = scope::record(text)?;
                self.stage = Stage::Plan;
            }
            Stage::Plan => {
                self.plan = plan::record(text)?;
                self.fill_plan();
                self.stage = self.next_work();
            }
            Stage::Extract { path, mut pieces } => {
                let segments = pieces.pop_front().unwrap_or_default();
                for evidence in
                    extract::record(text, &self.question, &self.plan.facts, &path, &segments)?
                {
                    self.add(evidence);
                }
                self.stage = if pieces.is_empty() {
                    self.next_work()
                } else {
                    Stage::Extract { path, pieces }
                };
            }
            Stage::Query(path) => {
                self.stage = Stage::Table(query::record(text, &path)?);
            }
            Stage::Compare => {
                let comparison = compare::record(text)?;
                self.stage = self.compare(&comparison);
            }
            Stage::Compute => {
                let decision = compute::record(text)?;
                self.stage = self.decide(decision);
            }
            Stage::Answer => {
                let conclusion = answer::record(text)?;
                self.stage = self.conclude(conclusion);
            }
            _ => {}
        }
        Ok(())
    }

    /// The evidence that later phases see, by index.
    pub(super) fn shown(&self) -> impl Iterator<Item = (usize, &Evidence)> {
        self.evidence.iter().enumerate().filter(|(_, evidence)| {
            self.focus
                .as_ref()
                .is_none_or(|path| evidence.source.path == *path)
        })
    }

    /// Ends the run where it is, with what was found so far.
    pub fn stop(&mut self, reason: StopReason) {
        if !matches!(self.stage, Stage::Done(_)) {
            self.stage = Stage::Done(self.partial(reason));
        }
    }

    /// The answers that did not hold, with the reasons.
    pub fn rejected(&self) -> &[(String, String)] {
        &self.rejected
    }

    fn listed_tables(&self) -> Vec<Listed> {
        self.tables.iter().map(survey::listed).collect()
    }

    /// Adds evidence; a line found twice keeps the fact that it was found for.
    fn add(&mut self, evidence: Evidence) {
        let known = self.evidence.iter().any(|known| {
            known.source == evidence.source
                && known.quote == evidence.quote
                && (known.fact == evidence.fact || evidence.fact.is_none())
        });
        if !known {
            self.evidence.push(evidence);
        }
    }

    fn after_profile(&self, at: usize) -> Stage {
        if at < self.unprofiled.len() {
            Stage::Profile(at)
        } else {
            Stage::Search
        }
    }

    /// Adds what the search found to what the plan names, and queues it all.
    fn fill_plan(&mut self) {
        let known = |files: &[Listed], path: &String| files.iter().any(|file| file.path == *path);
        let mut documents: Vec<String> = Vec::new();
        let hits = self
            .hits
            .iter()
            .map(|hit| &hit.path)
            .take(self.settings.hits);
        let found = hits
            .filter(|path| known(&self.documents, path))
            .take(self.settings.hits);
        // Who does not compare needs few documents; what is missing is read later.
        let planned = if self.scope.calculate.compares() {
            self.settings.documents
        } else {
            self.settings.planned
        };
        for path in found.chain(self.plan.documents.iter().take(planned)) {
            if known(&self.documents, path) && !documents.contains(path) {
                documents.push(path.clone());
            }
        }
        if self.scope.calculate.compares() {
            survey::complete(&mut documents, &self.documents);
        }
        self.plan.documents = documents;
        self.plan.documents.truncate(self.settings.documents);
        self.plan.tables.truncate(self.settings.tables);
        if self.plan.facts.is_empty() {
            self.plan.facts.push(Wanted {
                fact: "what the question asks for".to_owned(),
                kind: Kind::Text,
            });
        }
        // Who counts days needs a day to count from.
        let dated = self
            .plan
            .facts
            .iter()
            .any(|wanted| wanted.kind == Kind::Date);
        if self.scope.calculate.dates() && !dated {
            self.plan.facts.push(Wanted {
                fact: "end date".to_owned(),
                kind: Kind::Date,
            });
        }
        let documents = self.plan.documents.iter().cloned().map(Work::Document);
        let tables = self.plan.tables.iter().cloned().map(Work::Table);
        self.queue.extend(documents.chain(tables));
    }

    fn table(&self, path: &str) -> Option<&Profile> {
        self.tables.iter().find(|table| table.path == path)
    }

    /// The next file to look into, or the next phase.
    fn next_work(&mut self) -> Stage {
        while let Some(work) = self.queue.pop_front() {
            let (Work::Document(path) | Work::Table(path)) = &work;
            if self.seen.contains(path) {
                continue;
            }
            self.seen.push(path.clone());
            return match work {
                Work::Document(path) => Stage::Read(path),
                Work::Table(path) => Stage::Query(path),
            };
        }
        self.observe()
    }

    /// Files that can still be read.
    fn unread(&self) -> Vec<String> {
        if self.rounds >= self.settings.rounds {
            return Vec::new();
        }
        let documents = self.documents.iter().map(|file| &file.path);
        documents
            .chain(self.tables.iter().map(|table| &table.path))
            .filter(|path| !self.seen.contains(path))
            .cloned()
            .collect()
    }

    fn conclude(&mut self, conclusion: Conclusion) -> Stage {
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
            Conclusion::Missing { read, .. } => {
                let unread = self.unread();
                let more: Vec<String> = read
                    .into_iter()
                    .filter(|path| unread.contains(path))
                    .collect();
                if more.is_empty() {
                    return Stage::Done(self.not_found());
                }
                self.rounds += 1;
                for path in more {
                    let work = if self.table(&path).is_some() {
                        Work::Table(path)
                    } else {
                        Work::Document(path)
                    };
                    self.queue.push_back(work);
                }
                self.next_work()
            }
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

    fn not_found(&self) -> Outcome {
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

    /// What there is where no answer stands: the quotes, as they are.
    fn partial(&self, stop: StopReason) -> Outcome {
        Outcome {
            answer: "Not found: no answer could be grounded in the files.".to_owned(),
            stop,
            citations: self.evidence.iter().map(citation).collect(),
            calculations: self.calculations.clone(),
        }
    }
}

fn generate(prompt: Prompt) -> Step {
    Step::Generate(Box::new(prompt))
}

fn citation(evidence: &Evidence) -> Citation {
    Citation {
        source: evidence.source.clone(),
        quote: evidence.quote.clone(),
    }
}
