//! A transcript, and its replay by any engine.

use std::{fmt, fs, path::Path, time::Instant};

use anyhow::{Context as _, ensure};
use converge_core::{
    TokenId,
    generate::{Cancel, Generate, Request, StopReason},
};
use converge_examples::cli::Interrupted;
use serde::{Deserialize, Serialize};

/// The calls of a run.
#[derive(Serialize, Deserialize)]
pub(crate) struct Transcript {
    /// The model that the run was made with, and whose tokens these are.
    pub(crate) model: String,
    /// What all conversations begin with: instructions and tools.
    pub(crate) prefix: Vec<TokenId>,
    pub(crate) calls: Vec<Call>,
}

/// A call.
#[derive(Serialize, Deserialize)]
pub(crate) struct Call {
    /// Tokens that came to the conversation: a question, or what a tool gave.
    pub(crate) new: Vec<TokenId>,
    /// Tokens of the answer.
    pub(crate) answer: usize,
}

/// What an engine did of a call.
pub(crate) struct Answer {
    pub(crate) tokens: Vec<TokenId>,
    /// Tokens of the prompt that were computed.
    pub(crate) prefilled: usize,
}

/// What a replay cost.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) engine: String,
    pub(crate) branches: usize,
    pub(crate) seconds: f64,
    /// Tokens of prompts that were computed.
    pub(crate) prefilled: usize,
    /// Tokens answered.
    pub(crate) answered: usize,
    /// Tokens of all prompts: what would be computed without any cache.
    pub(crate) prompts: usize,
    /// Of these, those that had not been there before.
    pub(crate) unique: usize,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} conversation(s), {}: {:.1} s; {} tokens answered, {} of prompts computed \
             ({} are new, {} there are in all)",
            self.branches,
            self.engine,
            self.seconds,
            self.answered,
            self.prefilled,
            self.unique,
            self.prompts
        )
    }
}

impl Transcript {
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let name = path.display();
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
        let transcript: Self = serde_json::from_str(&text)
            .with_context(|| format!("{name} is no transcript of `--record`"))?;
        ensure!(!transcript.calls.is_empty(), "{name} has no calls");
        Ok(transcript)
    }

    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string(self)?.replace("},{", "},\n{");
        fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
        eprintln!("{} calls are in {}", self.calls.len(), path.display());
        Ok(())
    }

    /// Tokens of the conversation at its end.
    pub(crate) fn longest(&self) -> usize {
        let calls = self.calls.iter().map(|call| call.new.len() + call.answer);
        self.prefix.len() + calls.sum::<usize>()
    }

    /// Makes the calls, by turns in so many conversations.
    pub(crate) fn replay(
        &self,
        engine: &str,
        branches: usize,
        mut ask: impl FnMut(&[TokenId], usize, usize) -> anyhow::Result<Answer>,
    ) -> anyhow::Result<Outcome> {
        let mut conversations = vec![self.prefix.clone(); branches];
        let mut outcome = Outcome {
            engine: engine.to_owned(),
            branches,
            seconds: 0.0,
            prefilled: 0,
            answered: 0,
            prompts: 0,
            unique: self.prefix.len(),
        };
        let start = Instant::now();
        for (i, call) in self.calls.iter().enumerate() {
            let branch = i % branches;
            let Some(conversation) = conversations.get_mut(branch) else {
                continue;
            };
            conversation.extend_from_slice(&call.new);
            let answer = ask(conversation, call.answer, branch)?;
            ensure!(
                answer.tokens.len() == call.answer,
                "{engine} answered {} tokens of {}",
                answer.tokens.len(),
                call.answer
            );
            outcome.prompts += conversation.len();
            // The last token of an answer is computed with the next prompt.
            outcome.unique += call.new.len() + usize::from(i >= branches);
            outcome.prefilled += answer.prefilled;
            outcome.answered += answer.tokens.len();
            conversation.extend(answer.tokens);
        }
        outcome.seconds = start.elapsed().as_secs_f64();
        Ok(outcome)
    }
}

/// Has our own engine answer.
pub(crate) fn ask(
    model: &mut dyn Generate,
    prompt: &[TokenId],
    answer: usize,
    cancel: &Cancel,
) -> anyhow::Result<Answer> {
    let ids = 0..model.tokenizer().vocab() as TokenId;
    let ends = ids.filter(|&id| model.tokenizer().is_end(id));
    let mut request = Request::new(prompt.to_vec());
    request.sampling.logit_bias = ends.map(|id| (id, f32::NEG_INFINITY)).collect();
    request.max_tokens = answer;
    request.cancel = cancel.clone();
    let generation = model.generate(&request, &mut |_| ())?;
    ensure!(generation.stop != StopReason::Cancelled, Interrupted);
    Ok(Answer {
        prefilled: generation.usage.prefilled,
        tokens: generation.tokens,
    })
}

/// Medians, and how they compare.
pub(crate) fn table(all: &[Outcome], transcript: &Transcript) {
    let mut kinds: Vec<(usize, &str)> = Vec::new();
    for outcome in all {
        let kind = (outcome.branches, outcome.engine.as_str());
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    println!(
        "{} calls, {} tokens answered\n",
        transcript.calls.len(),
        transcript
            .calls
            .iter()
            .map(|call| call.answer)
            .sum::<usize>()
    );
    println!(
        "| conversations | engine | seconds | of llama.cpp's best | prompt tokens computed | of those that are new | without a cache |"
    );
    println!("|---|---|---|---|---|---|---|");
    let median = |branches, engine: &str| {
        let chosen = all
            .iter()
            .filter(|o| o.branches == branches && o.engine == engine);
        let mut seconds: Vec<f64> = chosen.map(|o| o.seconds).collect();
        seconds.sort_by(f64::total_cmp);
        seconds.get(seconds.len() / 2).copied().unwrap_or(f64::NAN)
    };
    for &(branches, engine) in &kinds {
        let rivals = kinds
            .iter()
            .filter(|k| k.0 == branches && k.1.starts_with("llama"));
        let best = rivals.map(|k| median(k.0, k.1)).min_by(f64::total_cmp);
        let Some(one) = all
            .iter()
            .find(|o| o.branches == branches && o.engine == engine)
        else {
            continue;
        };
        let seconds = median(branches, engine);
        let ratio = best.map_or("–".to_owned(), |best| format!("{:.2}", seconds / best));
        println!(
            "| {branches} | {engine} | {seconds:.1} | {ratio} | {} | {:.2} | {} |",
            one.prefilled,
            one.prefilled as f64 / one.unique.max(1) as f64,
            one.prompts
        );
    }
}
