//! The state of a run and its transitions.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Outcome, StopReason,
    lookup::{self, Named},
    query::query_text,
    relate, survey,
};
use crate::{
    error::Result,
    evidence::{self, Evidence},
    phase::{
        Phase, Prompt, answer, compare, compute, extract,
        plan::{self, Kind, Listed, Plan, Wanted},
        query, quote,
        scope::{self, Calculation, Place, Scope},
    },
    segment::{self, Segment},
    tool::{
        ToolError, ToolOutput,
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
            hits: 1,
            planned: 2,
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
    Lookup(usize),
    Search {
        by_file: bool,
    },
    Scope,
    /// A search for the words that no table knows.
    Beyond,
    Plan,
    Read(String),
    Extract {
        path: String,
        pieces: VecDeque<Vec<Segment>>,
        /// What is quoted from afterwards.
        quote: VecDeque<Vec<Segment>>,
    },
    Quote {
        path: String,
        pieces: VecDeque<Vec<Segment>>,
    },
    Query {
        path: String,
        /// An earlier query that no row matched.
        failed: Option<TableArgs>,
    },
    Table {
        args: TableArgs,
        again: bool,
    },
    /// Where a name of the document in question stands.
    Relate(usize),
    Compare,
    Compute,
    Calculate {
        tool: String,
        args: Value,
        calculation: evidence::Calculation,
    },
    Answer,
    /// A search for what an answer lacks.
    Seek(String),
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
    pub(super) named: Vec<Named>,
    /// Documents that hold a rare name of the question.
    pub(super) naming: Vec<String>,
    pub(super) hits: Vec<Listed>,
    pub(super) scope: Scope,
    pub(super) plan: Plan,
    pub(super) queue: VecDeque<Work>,
    pub(super) seen: Vec<String>,
    pub(super) evidence: Vec<Evidence>,
    pub(super) calculations: Vec<evidence::Calculation>,
    /// The document that a comparison singled out: the rest of the run speaks of it alone.
    pub(super) focus: Option<String>,
    /// The document that the question is about, where nothing is compared.
    pub(super) about: Option<String>,
    /// Names of the document in question, and how many of them each document shares.
    pub(super) ties: Vec<String>,
    pub(super) related: BTreeMap<String, usize>,
    pub(super) rejected: Vec<(String, String)>,
    pub(super) rounds: usize,
}

impl Run {
    /// A run that has not begun.
    pub fn new(question: impl Into<String>, settings: Settings) -> Self {
        let question = question.into();
        Self {
            named: lookup::named_in(&question),
            question,
            settings,
            stage: Stage::List,
            documents: Vec::new(),
            naming: Vec::new(),
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
            about: None,
            ties: Vec::new(),
            related: BTreeMap::new(),
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
    pub fn calculations(&self) -> &[evidence::Calculation] {
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
            Stage::Lookup(at) => {
                let word = self.named.get(*at).map_or("", Named::word);
                let args = json!({"query": word, "exact": true, "limit": relate::PLACES});
                call(Phase::Plan, "search", args)
            }
            Stage::Relate(at) => {
                let word = self.ties.get(*at).map_or("", String::as_str);
                let args = json!({"query": word, "exact": true, "limit": relate::PLACES});
                call(Phase::Observe, "search", args)
            }
            Stage::Search { by_file } => {
                let args = json!({"query": self.search_text(""), "by_file": by_file});
                call(Phase::Plan, "search", args)
            }
            Stage::Beyond => {
                let words: Vec<String> = self.beyond().into_iter().collect();
                call(Phase::Plan, "search", json!({"query": words.join(" ")}))
            }
            Stage::Seek(missing) => {
                let query = self.search_text(missing);
                call(
                    Phase::Refine,
                    "search",
                    json!({"query": query, "limit": 20}),
                )
            }
            // A question that reaches beyond the tables is sorted again as if there were none.
            Stage::Scope if self.scope.place == Place::Both => {
                generate(scope::prompt(&self.question, &[]))
            }
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
            Stage::Extract { path, pieces, .. } => {
                let segments = pieces.front().map_or(&[][..], Vec::as_slice);
                generate(extract::prompt(
                    &self.question,
                    &self.plan.facts,
                    path,
                    segments,
                ))
            }
            Stage::Quote { path, pieces } => {
                let segments = pieces.front().map_or(&[][..], Vec::as_slice);
                generate(quote::prompt(&self.question, path, segments))
            }
            Stage::Query { path, failed } => match self.table(path) {
                Some(table) => {
                    let failed = failed.as_ref().map(query_text);
                    let known = self.known();
                    generate(query::prompt(
                        &self.question,
                        table,
                        &known,
                        failed.as_deref(),
                    ))
                }
                None => Step::Done(self.partial(StopReason::NoProgress)),
            },
            Stage::Table { args, .. } => call(Phase::Execute, "table", json!(args)),
            Stage::Compare => generate(compare::prompt(
                &self.question,
                &self.compared(Kind::Date),
                &self.compared(Kind::Number),
            )),
            Stage::Compute => generate(compute::prompt(
                &self.question,
                &self.found(),
                &self.span_lines(),
                &self.operands(),
            )),
            Stage::Calculate { tool, args, .. } => call(Phase::Observe, tool, args.clone()),
            Stage::Answer => generate(answer::prompt(
                &self.question,
                &self.found(),
                &self.shown().map(|(at, _)| at + 1).collect::<Vec<_>>(),
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
            Stage::Lookup(at) => {
                let found = output.map(|output| survey::typed("search", output));
                self.stage = match found.ok().transpose()? {
                    Some(found) => self.looked_up(at, &found),
                    None => self.after_lookup(at + 1),
                };
            }
            Stage::Relate(at) => {
                let found = output.map(|output| survey::typed("search", output));
                self.stage = match found.ok().transpose()? {
                    Some(found) => self.tied(at, &found),
                    None => self.after_tie(at + 1),
                };
            }
            Stage::Beyond => {
                if let Ok(output) = output {
                    let found: SearchResult = survey::typed("search", output)?;
                    self.reach_beyond(&found);
                }
                self.stage = match self.scope.place {
                    Place::Both => Stage::Scope,
                    _ => Stage::Plan,
                };
            }
            Stage::Seek(missing) => {
                self.stage = match output {
                    Ok(output) => {
                        let found: SearchResult = survey::typed("search", output)?;
                        self.seek(&missing, &found)
                    }
                    Err(_) => Stage::Done(self.not_found()),
                };
            }
            Stage::Search { by_file } => {
                if let Ok(output) = output {
                    let found: SearchResult = survey::typed("search", output)?;
                    self.hits = survey::merged(std::mem::take(&mut self.hits), &found);
                }
                if by_file {
                    self.stage = Stage::Search { by_file: false };
                    return Ok(());
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
                        self.has_read(path, segments)
                    }
                    Err(_) => self.next_work(),
                };
            }
            Stage::Table { args, again } => {
                self.stage = match output {
                    Ok(output) => self.queried(args, again, output)?,
                    Err(_) => self.next_work(),
                };
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
                if self.scope.place == Place::Both {
                    let calculate = scope::record(text)?.calculate;
                    // What documents lead to by calculation, no row states.
                    if calculate != Calculation::Nothing {
                        self.scope = Scope {
                            place: Place::Documents,
                            calculate,
                        };
                    }
                    self.stage = Stage::Plan;
                    return Ok(());
                }
                self.scope = scope::record(text)?;
                // Tables add up by themselves.
                if self.scope.place == Place::Table {
                    self.scope.calculate = Calculation::Nothing;
                }
                let beyond = self.scope.place == Place::Table && self.beyond().len() >= BEYOND;
                self.stage = if beyond { Stage::Beyond } else { Stage::Plan };
            }
            Stage::Plan => {
                self.plan = plan::record(text)?;
                self.fill_plan();
                self.stage = self.next_work();
            }
            Stage::Extract {
                path,
                mut pieces,
                quote,
            } => {
                let segments = pieces.pop_front().unwrap_or_default();
                let strict = self.scope.calculate.compares();
                let facts = &self.plan.facts;
                for evidence in
                    extract::record(text, &self.question, facts, &path, &segments, strict)?
                {
                    let evidence = self.labelled(evidence);
                    self.add(evidence);
                }
                self.stage = match (pieces.is_empty(), quote.is_empty()) {
                    (false, _) => Stage::Extract {
                        path,
                        pieces,
                        quote,
                    },
                    (true, false) => Stage::Quote {
                        path,
                        pieces: quote,
                    },
                    (true, true) => self.next_work(),
                };
            }
            Stage::Query { path, failed } => {
                let args = query::record(text, &path)?;
                self.stage = if failed.as_ref() == Some(&args) {
                    self.next_work()
                } else {
                    Stage::Table {
                        args,
                        again: failed.is_some(),
                    }
                };
            }
            Stage::Quote { path, mut pieces } => {
                let segments = pieces.pop_front().unwrap_or_default();
                for evidence in quote::record(text, &path, &segments)? {
                    if self.about.as_ref() == Some(&path) || self.fits(&evidence) {
                        self.add(evidence);
                    }
                }
                self.add_terms(&path, &segments);
                self.stage = if pieces.is_empty() {
                    self.extracted(&path)
                } else {
                    Stage::Quote { path, pieces }
                };
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
    pub(super) fn add(&mut self, evidence: Evidence) {
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
            self.after_lookup(0)
        }
    }

    /// Adds what the search found to what the plan names, and queues it all.
    fn fill_plan(&mut self) {
        let known = |files: &[Listed], path: &String| files.iter().any(|file| file.path == *path);
        let mut documents: Vec<String> = Vec::new();
        let hits = self.hits.iter().map(|hit| &hit.path);
        let hits_taken = match self.scope.place {
            Place::Table => 0,
            _ => self.settings.hits,
        };
        let found = hits
            .filter(|path| known(&self.documents, path))
            .take(hits_taken);
        let found = self.naming.iter().chain(found);
        // Who does not compare needs few documents; what is missing is read later.
        let planned = if self.scope.calculate.compares() {
            self.settings.documents
        } else {
            self.settings.planned
        };
        // The plan's first comes first: where nothing is compared, the question is about that.
        let (first, rest) = self
            .plan
            .documents
            .split_at(self.plan.documents.len().min(1));
        let rest = rest.iter().take(planned.saturating_sub(1));
        for path in first.iter().chain(found).chain(rest) {
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
    pub(super) fn next_work(&mut self) -> Stage {
        while let Some(work) = self.queue.pop_front() {
            let (Work::Document(path) | Work::Table(path)) = &work;
            if self.seen.contains(path) {
                continue;
            }
            self.seen.push(path.clone());
            return match work {
                Work::Document(path) => Stage::Read(path),
                Work::Table(path) => Stage::Query { path, failed: None },
            };
        }
        self.observe()
    }
}

/// Words beyond the tables from which on a question about a table needs a document too.
const BEYOND: usize = 2;

fn generate(prompt: Prompt) -> Step {
    Step::Generate(Box::new(prompt))
}
