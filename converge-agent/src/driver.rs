//! The driver: carries out the steps of a [`Run`] with a model and tools, within budgets.

use std::time::Instant;

use converge_core::{
    CoreError,
    chat::RenderOptions,
    constrain::ConstrainError,
    generate::{self, Cancel, Generate, Request},
    sample::Sampling,
};
use serde::Serialize;
use serde_json::Value;

use crate::{
    error::{AgentError, Result},
    event::Event,
    ledger::Ledger,
    phase::{Phase, Prompt},
    policy::{Approval, Budget, DenyAll, Exceeded, Spent, review},
    run::{Outcome, Run, Settings, Step, StopReason},
    tool::{Effect, ToolContext, ToolError, ToolOutput, Toolbox},
};

/// What came of a question, with all that happened on the way.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The question.
    pub question: String,
    /// The answer, or what there is instead.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// What it cost.
    pub ledger: Ledger,
    /// Every event, in order.
    pub trace: Vec<Event>,
}

/// An agent: a model, tools, and the bounds within which it may use them.
pub struct Agent<'a> {
    model: &'a mut dyn Generate,
    tools: &'a Toolbox,
    approval: &'a dyn Approval,
    /// What a run may cost.
    pub budget: Budget,
    /// How tokens are chosen; greedy unless set.
    pub sampling: Sampling,
    /// How far a run goes.
    pub settings: Settings,
    /// Ends a run from elsewhere.
    pub cancel: Cancel,
}

/// How often a record may fail to come out whole before the run ends.
const TRIES: u64 = 2;

impl<'a> Agent<'a> {
    /// An agent that denies every call that changes something and never samples at random.
    pub fn new(model: &'a mut dyn Generate, tools: &'a Toolbox) -> Self {
        Self {
            model,
            tools,
            approval: &DenyAll,
            budget: Budget::default(),
            sampling: Sampling::default(),
            settings: Settings::default(),
            cancel: Cancel::new(),
        }
    }

    /// Decides about calls that change something.
    #[must_use]
    pub fn with_approval(mut self, approval: &'a dyn Approval) -> Self {
        self.approval = approval;
        self
    }

    /// Answers a question. A budget that runs out, a cancellation, and a model that fails end the
    /// run with what was found so far; the outcome says which.
    ///
    /// # Errors
    /// A tool whose output is not of its type: a fault of the toolbox, not of the model.
    pub fn ask(&mut self, question: &str, on_event: &mut dyn FnMut(&Event)) -> Result<Report> {
        let mut run = Run::new(question, self.settings.clone());
        let started = Instant::now();
        let mut ledger = Ledger::default();
        let mut trace = Vec::new();
        let mut emit = |event: Event| {
            on_event(&event);
            trace.push(event);
        };
        let mut phase = None;
        let mut failed = 0;
        let outcome = loop {
            ledger.seconds = started.elapsed().as_secs_f64();
            let step = run.next_step();
            if let Step::Done(outcome) = step {
                break outcome;
            }
            if self.cancel.is_cancelled() {
                run.stop(StopReason::Cancelled);
                continue;
            }
            if let Err(exceeded) = self.check(&ledger) {
                run.stop(StopReason::Budget(exceeded.limit));
                continue;
            }
            let now = match &step {
                Step::Call { phase, .. } => *phase,
                Step::Generate(prompt) => prompt.phase,
                Step::Done(_) => continue,
            };
            if phase != Some(now) {
                phase = Some(now);
                emit(Event::Phase { phase: now });
            }
            match step {
                Step::Call { tool, args, .. } => {
                    emit(Event::ToolCall {
                        tool: tool.clone(),
                        args: args.clone(),
                    });
                    ledger.tool_calls += 1;
                    let output = self.call(&tool, &args);
                    emit(result_event(&tool, &output));
                    let before = run.calculations().len();
                    run.called(output)?;
                    emit_computed(&run, before, &mut emit);
                }
                Step::Generate(prompt) => {
                    let before = (run.calculations().len(), run.rejected().len());
                    match self.generate(&prompt, failed, &mut ledger, &mut emit) {
                        Ok(text) => match run.generated(&text) {
                            Ok(()) => failed = 0,
                            Err(error) => {
                                failed += 1;
                                if failed >= TRIES {
                                    run.stop(StopReason::Model(error.to_string()));
                                }
                            }
                        },
                        Err(AgentError::Core(CoreError::ContextOverflow { .. })) => {
                            run.stop(StopReason::Overflow);
                        }
                        Err(AgentError::Core(CoreError::Cancelled)) => {
                            run.stop(StopReason::Cancelled)
                        }
                        Err(error) => run.stop(StopReason::Model(error.to_string())),
                    }
                    emit_computed(&run, before.0, &mut emit);
                    if let Some((answer, reason)) = run.rejected().get(before.1) {
                        emit(Event::Rejected {
                            answer: answer.clone(),
                            reason: reason.clone(),
                        });
                    }
                }
                Step::Done(_) => {}
            }
        };
        ledger.seconds = started.elapsed().as_secs_f64();
        emit(Event::Done {
            outcome: outcome.clone(),
        });
        Ok(Report {
            question: question.to_owned(),
            outcome,
            ledger,
            trace,
        })
    }

    fn check(&self, ledger: &Ledger) -> std::result::Result<(), Exceeded> {
        let total = ledger.total();
        self.budget.check(&Spent {
            calls: total.calls,
            tokens: total.prefilled + total.decoded,
            seconds: ledger.seconds,
            tool_calls: ledger.tool_calls,
        })
    }

    fn call(&self, name: &str, args: &Value) -> std::result::Result<ToolOutput, ToolError> {
        let tool = self.tools.get(name)?;
        let permit = match tool.effect() {
            Effect::ReadOnly => None,
            _ => review(self.approval, tool, args).ok(),
        };
        let context = ToolContext {
            cancel: Some(&self.cancel),
            permit: permit.as_ref(),
        };
        self.tools.call(name, args, &context)
    }

    /// One call to the model. `attempt` moves the seed, so that a second try is not the first.
    fn generate(
        &mut self,
        prompt: &Prompt,
        attempt: u64,
        ledger: &mut Ledger,
        emit: &mut dyn FnMut(Event),
    ) -> Result<String> {
        let grammar = self.model.compile(&prompt.schema)?;
        let tokens = self.model.chat().encode(
            self.model.tokenizer(),
            &prompt.messages,
            &RenderOptions::default(),
        )?;
        emit(Event::Ask {
            phase: prompt.phase,
            about: prompt.about.clone(),
            prompt_tokens: tokens.len(),
        });
        let mut request = Request::new(tokens);
        request.max_tokens = prompt.max_tokens;
        request.sampling = self.sampling.clone();
        request.sampling.seed = self.sampling.seed.wrapping_add(attempt);
        request.grammar = Some(grammar);
        request.complete = true;
        request.cancel = self.cancel.clone();
        let generation = match self.model.generate(&request, &mut |_| {}) {
            // No complete record fits: what there is of one says more than none.
            Err(CoreError::Constrain(
                ConstrainError::Budget { .. } | ConstrainError::TooComplex { .. },
            )) => {
                request.complete = false;
                self.model.generate(&request, &mut |_| {})?
            }
            generation => generation?,
        };
        ledger.book(prompt.phase, &generation.usage);
        if generation.stop == generate::StopReason::Cancelled {
            return Err(CoreError::Cancelled.into());
        }
        emit(Event::Record {
            phase: prompt.phase,
            about: prompt.about.clone(),
            record: serde_json::from_str(&generation.text)
                .unwrap_or_else(|_| Value::String(generation.text.clone())),
            seconds: generation.usage.prefill_seconds + generation.usage.decode_seconds,
        });
        Ok(generation.text)
    }
}

fn result_event(tool: &str, output: &std::result::Result<ToolOutput, ToolError>) -> Event {
    let (text, sources, failed) = match output {
        Ok(output) => (output.text.clone(), output.sources.clone(), false),
        Err(error) => (error.to_string(), Vec::new(), true),
    };
    Event::ToolResult {
        tool: tool.to_owned(),
        text,
        sources,
        failed,
    }
}

fn emit_computed(run: &Run, before: usize, emit: &mut dyn FnMut(Event)) {
    for calculation in run.calculations().iter().skip(before) {
        emit(Event::Computed {
            calculation: calculation.clone(),
        });
    }
}

impl Phase {
    /// All phases, in order.
    pub const ALL: [Self; 4] = [Self::Plan, Self::Execute, Self::Observe, Self::Refine];
}
