//! What was measured.

use std::{collections::BTreeMap, fs, path::Path};

use serde::{Deserialize, Serialize};

use crate::{engine::Engine, machine};

/// What is measured. Speeds are in tokens per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Test {
    /// Reading a prompt of so many tokens.
    Prefill(usize),
    /// Generating so many tokens, one after the other.
    Decode(usize),
    /// Generating after a context of so many tokens.
    DecodeAt(usize),
    /// One pass over so many tokens, logits for the last.
    Pass(usize),
    /// The same with logits for all: the pass that checks a draft. Only ours can.
    Check(usize),
    /// Seconds from the start of a process to its first token.
    Load,
    /// The most bytes of memory that such a process held.
    Memory,
}

impl Test {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Prefill(n) => format!("prefill {n}"),
            Self::Decode(n) => format!("decode {n}"),
            Self::DecodeAt(n) => format!("decode at depth {n}"),
            Self::Pass(n) => format!("pass of {n}"),
            Self::Check(n) => format!("check of {n}"),
            Self::Load => "start to first token".to_owned(),
            Self::Memory => "peak memory".to_owned(),
        }
    }

    pub(crate) fn is_speed(self) -> bool {
        !matches!(self, Self::Load | Self::Memory)
    }

    /// The better of two values.
    pub(crate) fn better(self, a: f64, b: f64) -> f64 {
        match self.is_speed() {
            true => a.max(b),
            false => a.min(b),
        }
    }

    /// How much better ours is.
    pub(crate) fn ratio(self, ours: f64, theirs: f64) -> f64 {
        match self.is_speed() {
            true => ours / theirs,
            false => theirs / ours,
        }
    }

    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::Load => format!("{value:.2} s"),
            Self::Memory => format!("{:.0} MB", value / 1e6),
            _ if value < 100.0 => format!("{value:.1}"),
            _ => format!("{value:.0}"),
        }
    }
}

/// One process' measurements of a test.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Samples {
    pub(crate) test: Test,
    pub(crate) values: Vec<f64>,
}

/// What the machine could do at best, probed in a process of ours.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Limits {
    /// Bytes per second from memory.
    pub(crate) bandwidth: f64,
    /// Raw 8-bit multiply-adds per second.
    pub(crate) raw: f64,
    /// Seconds that streaming the model's weights takes.
    pub(crate) memory_seconds: f64,
    /// Seconds that the products of one token with logits take at the kernels' own rate.
    pub(crate) arithmetic_seconds: f64,
    /// The most tokens per second of each test.
    pub(crate) speeds: Vec<(Test, f64)>,
}

/// One process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) engine: Engine,
    pub(crate) setting: String,
    /// The rival in whose turn it ran.
    #[serde(default)]
    pub(crate) beside: String,
    /// Version as the program itself tells it.
    #[serde(default)]
    pub(crate) version: String,
    pub(crate) samples: Vec<Samples>,
    #[serde(default)]
    pub(crate) limits: Option<Limits>,
}

/// A run, and of which model in which round.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Numbered {
    pub(crate) model: String,
    pub(crate) round: u32,
    #[serde(flatten)]
    pub(crate) run: Run,
}

/// Everything that was measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Results {
    /// When it began, in universal time.
    pub(crate) date: String,
    pub(crate) cpu: String,
    pub(crate) threads: usize,
    pub(crate) reps: u32,
    /// Bytes of each model's file.
    pub(crate) files: BTreeMap<String, u64>,
    pub(crate) runs: Vec<Numbered>,
}

impl Results {
    pub(crate) fn new(threads: usize, reps: u32) -> Self {
        let now = jiff::Timestamp::now().to_string();
        Self {
            date: now.chars().take(16).collect::<String>().replace('T', " "),
            cpu: machine::cpu(),
            threads,
            reps,
            files: BTreeMap::new(),
            runs: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, model: &str, path: &Path, round: u32, runs: Vec<Run>) {
        let bytes = fs::metadata(path).map_or(0, |file| file.len());
        self.files.insert(model.to_owned(), bytes);
        self.runs.extend(runs.into_iter().map(|run| Numbered {
            model: model.to_owned(),
            round,
            run,
        }));
    }

    /// The models, as they came.
    pub(crate) fn models(&self) -> Vec<&str> {
        let mut models: Vec<&str> = Vec::new();
        for run in &self.runs {
            if !models.contains(&run.model.as_str()) {
                models.push(&run.model);
            }
        }
        models
    }

    pub(crate) fn of<'a>(&'a self, model: &'a str) -> impl Iterator<Item = &'a Run> + Clone {
        let of_model = self.runs.iter().filter(move |run| run.model == model);
        of_model.map(|run| &run.run)
    }

    /// The tests of a model, in their order.
    pub(crate) fn tests(&self, model: &str) -> Vec<Test> {
        let samples = self.of(model).flat_map(|run| &run.samples);
        let mut tests: Vec<Test> = samples.map(|samples| samples.test).collect();
        tests.sort();
        tests.dedup();
        tests
    }

    /// All of ours of a test.
    pub(crate) fn ours(&self, model: &str, test: Test) -> Vec<f64> {
        let ours = self.of(model).filter(|run| run.engine == Engine::Ours);
        values(ours, test)
    }

    /// How a rival did in a test with its better setting.
    pub(crate) fn rival(&self, model: &str, engine: Engine, test: Test) -> Option<Duel> {
        let of_engine = self.of(model).filter(move |run| run.engine == engine);
        let mut settings: Vec<&str> = of_engine.clone().map(|run| run.setting.as_str()).collect();
        settings.sort_unstable();
        settings.dedup();
        let mut best: Option<Duel> = None;
        for setting in settings {
            let theirs = of_engine.clone().filter(|run| run.setting == setting);
            let Some(label) = theirs.clone().map(|run| run.beside.as_str()).next() else {
                continue;
            };
            let beside = |run: &&Run| run.engine == Engine::Ours && run.beside == label;
            let duel = Duel {
                setting: setting.to_owned(),
                ours: values(self.of(model).filter(beside), test),
                theirs: values(theirs, test),
            };
            let Some(new) = median(&duel.theirs) else {
                continue;
            };
            let old = best.as_ref().and_then(|best| median(&best.theirs));
            if old.is_none_or(|old| test.better(old, new) != old) {
                best = Some(duel);
            }
        }
        best
    }

    /// The limits probed for a model: the median of each.
    pub(crate) fn limits(&self, model: &str) -> Option<Limits> {
        let all: Vec<&Limits> = self
            .of(model)
            .filter_map(|run| run.limits.as_ref())
            .collect();
        let of = |field: fn(&Limits) -> f64| {
            median(&all.iter().map(|limits| field(limits)).collect::<Vec<_>>())
        };
        let speeds = all.first()?.speeds.iter().filter_map(|(test, _)| {
            let each = all.iter().flat_map(|limits| &limits.speeds);
            let values: Vec<f64> = each.filter(|(of, _)| of == test).map(|(_, v)| *v).collect();
            Some((*test, median(&values)?))
        });
        Some(Limits {
            bandwidth: of(|limits| limits.bandwidth)?,
            raw: of(|limits| limits.raw)?,
            memory_seconds: of(|limits| limits.memory_seconds)?,
            arithmetic_seconds: of(|limits| limits.arithmetic_seconds)?,
            speeds: speeds.collect(),
        })
    }
}

/// A rival's samples and those of ours that were taken beside them.
pub(crate) struct Duel {
    pub(crate) setting: String,
    pub(crate) ours: Vec<f64>,
    pub(crate) theirs: Vec<f64>,
}

impl Duel {
    /// The ratio of medians, and that of the best of each.
    pub(crate) fn ratios(&self, test: Test) -> Option<(f64, f64)> {
        let best = |values: &[f64]| values.iter().copied().reduce(|a, b| test.better(a, b));
        let medians = test.ratio(median(&self.ours)?, median(&self.theirs)?);
        Some((medians, test.ratio(best(&self.ours)?, best(&self.theirs)?)))
    }
}

fn values<'a>(runs: impl Iterator<Item = &'a Run>, test: Test) -> Vec<f64> {
    let samples = runs.flat_map(|run| &run.samples);
    let of_test = samples.filter(|samples| samples.test == test);
    of_test
        .flat_map(|samples| samples.values.iter().copied())
        .collect()
}

/// The median: of two in the middle the mean.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    match sorted.len() % 2 {
        1 => Some(upper),
        _ => Some((sorted[sorted.len() / 2 - 1] + upper) / 2.0),
    }
}
