//! The engines, each measured by a process.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::{
    machine::{self, Ended},
    measure::{CONTEXT, PROMPT, Plan},
    record::{Run, Samples, Test},
};

/// An engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub(crate) enum Engine {
    /// This project's.
    #[value(skip)]
    #[serde(rename = "converge")]
    Ours,
    /// llama.cpp, by its `llama-bench`.
    #[value(name = "llama.cpp")]
    #[serde(rename = "llama.cpp")]
    LlamaCpp,
    /// ik_llama.cpp, by its `llama-bench`.
    #[value(name = "ik_llama.cpp")]
    #[serde(rename = "ik_llama.cpp")]
    IkLlamaCpp,
    /// candle's quantized tensors.
    #[value(name = "candle")]
    #[serde(rename = "candle")]
    Candle,
}

impl Engine {
    pub(crate) const RIVALS: [Self; 3] = [Self::LlamaCpp, Self::IkLlamaCpp, Self::Candle];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "converge",
            Self::LlamaCpp => "llama.cpp",
            Self::IkLlamaCpp => "ik_llama.cpp",
            Self::Candle => "candle",
        }
    }
}

/// An engine with a setting.
#[derive(Clone, Debug)]
pub(crate) struct Contender {
    pub(crate) engine: Engine,
    /// The setting's name, and the arguments that it is.
    setting: &'static str,
    arguments: &'static [&'static str],
    /// Folder of the programs of a rival that is not part of this one.
    programs: PathBuf,
}

/// What is to be measured of a model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job<'a> {
    pub(crate) path: &'a Path,
    pub(crate) threads: usize,
    pub(crate) reps: u32,
    pub(crate) prompt: usize,
    pub(crate) decode: usize,
    pub(crate) passes: &'a [usize],
    pub(crate) depth: usize,
    /// Whether ours probes the machine's limits.
    pub(crate) probe: bool,
    pub(crate) speed: bool,
    pub(crate) load: bool,
}

/// What of a test in the output of `llama-bench` counts.
#[derive(Deserialize)]
struct Tested {
    n_prompt: usize,
    n_gen: usize,
    avg_ts: f64,
    #[serde(default)]
    samples_ts: Vec<f64>,
    #[serde(default)]
    build_number: u64,
    #[serde(default)]
    build_commit: String,
}

impl Contender {
    pub(crate) fn ours() -> Self {
        Self::new(Engine::Ours, "", &[], PathBuf::new())
    }

    fn new(
        engine: Engine,
        setting: &'static str,
        arguments: &'static [&'static str],
        programs: PathBuf,
    ) -> Self {
        Self {
            engine,
            setting,
            arguments,
            programs,
        }
    }

    /// All settings of a rival that count.
    pub(crate) fn settings(engine: Engine, peers: &Path) -> Result<Vec<Self>> {
        let programs = peers.join(engine.name()).join("bin");
        let all: &[(&'static str, &'static [&'static str])] = match engine {
            Engine::Ours => &[],
            Engine::Candle => &[("", &[])],
            Engine::LlamaCpp => &[
                ("repack 0", &["--repack", "0"]),
                ("repack 1", &["--repack", "1"]),
            ],
            Engine::IkLlamaCpp => &[
                ("rtr 0", &["-rtr", "0", "-fa", "1"]),
                ("rtr 1", &["-rtr", "1", "-fa", "1"]),
            ],
        };
        let bench = programs.join("llama-bench");
        if matches!(engine, Engine::LlamaCpp | Engine::IkLlamaCpp) && !bench.is_file() {
            bail!("there is no {}", bench.display());
        }
        let contender =
            |&(setting, arguments)| Self::new(engine, setting, arguments, programs.clone());
        Ok(all.iter().map(contender).collect())
    }

    /// The name with the setting.
    pub(crate) fn label(&self) -> String {
        format!("{} {}", self.engine.name(), self.setting)
            .trim()
            .to_owned()
    }

    pub(crate) fn measure(&self, job: &Job<'_>) -> Result<Run> {
        let mut run = Run {
            engine: self.engine,
            setting: self.setting.to_owned(),
            beside: String::new(),
            version: String::new(),
            samples: Vec::new(),
            limits: None,
        };
        if job.speed {
            match self.engine {
                Engine::Ours | Engine::Candle => self.own_speed(job, &mut run)?,
                Engine::LlamaCpp | Engine::IkLlamaCpp => self.peer_speed(job, &mut run)?,
            }
        }
        if job.load {
            let (seconds, memory) = self.load(job)?;
            let sample = |test, value| Samples {
                test,
                values: vec![value],
            };
            run.samples.push(sample(Test::Load, seconds));
            if memory > 0 {
                run.samples.push(sample(Test::Memory, memory as f64));
            }
        }
        Ok(run)
    }

    fn plan(&self, job: &Job<'_>) -> Plan {
        Plan {
            engine: self.engine,
            path: job.path.to_owned(),
            threads: job.threads,
            reps: job.reps,
            prompt: job.prompt,
            decode: job.decode,
            passes: job.passes.to_vec(),
            depth: job.depth,
            probe: job.probe && self.engine == Engine::Ours,
        }
    }

    /// This program again, to do one part.
    fn own(&self, part: &str, job: &Job<'_>) -> Result<Ended> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut command = Command::new(program);
        command
            .arg(part)
            .arg(serde_json::to_string(&self.plan(job))?)
            // candle's threads, and those that pack weights.
            .env("RAYON_NUM_THREADS", job.threads.to_string());
        machine::run(command)
    }

    fn own_speed(&self, job: &Job<'_>, run: &mut Run) -> Result<()> {
        let ended = self.own("__measure", job)?;
        let measured: Run =
            serde_json::from_str(&ended.stdout).context("what a measurement printed")?;
        run.samples = measured.samples;
        run.limits = measured.limits;
        run.version = measured.version;
        Ok(())
    }

    /// `llama-bench` with what all its calls share.
    fn bench(&self, job: &Job<'_>) -> Command {
        let mut command = Command::new(self.programs.join("llama-bench"));
        command
            .args(["-o", "json", "-t", &job.threads.to_string(), "-m"])
            .arg(job.path)
            .args(self.arguments);
        command
    }

    fn peer_speed(&self, job: &Job<'_>, run: &mut Run) -> Result<()> {
        let prompts = [job.prompt].into_iter().chain(job.passes.iter().copied());
        let prompts: Vec<String> = prompts.filter(|&n| n > 0).map(|n| n.to_string()).collect();
        let mut command = self.bench(job);
        let none = || "0".to_owned();
        command.args(["-r", &job.reps.to_string()]);
        command.args([
            "-p",
            &if prompts.is_empty() {
                none()
            } else {
                prompts.join(",")
            },
        ]);
        command.args(["-n", &job.decode.to_string()]);
        for tested in tested(&machine::run(command)?)? {
            let test = match (tested.n_prompt, tested.n_gen) {
                (0, n) => Test::Decode(n),
                (m, _) if m == job.prompt => Test::Prefill(m),
                (m, _) => Test::Pass(m),
            };
            run.version = format!("{} {}", tested.build_number, tested.build_commit);
            run.samples.push(tested.samples(test));
        }
        if job.depth > 0 && job.decode > 0 {
            let (depth, decode) = (job.depth.to_string(), job.decode.to_string());
            let mut command = self.bench(job);
            command.args(["-r", &job.reps.to_string(), "-p", "0"]);
            match self.engine {
                Engine::LlamaCpp => command.args(["-n", &decode, "-d", &depth]),
                _ => command.args(["-n", "0", "-gp", &format!("{depth},{decode}")]),
            };
            let all = tested(&machine::run(command)?)?;
            let deep = all.into_iter().find(|tested| tested.n_gen == job.decode);
            let deep = deep.context("llama-bench did not measure decoding at depth")?;
            run.samples.push(deep.samples(Test::DecodeAt(job.depth)));
        }
        Ok(())
    }

    /// Seconds to the first token of a prompt of about 16, and the peak of memory.
    fn load(&self, job: &Job<'_>) -> Result<(f64, u64)> {
        if matches!(self.engine, Engine::Ours | Engine::Candle) {
            let ended = self.own("__load", job)?;
            return Ok((ended.first, ended.peak));
        }
        let completion = self.programs.join("llama-completion");
        if self.engine == Engine::LlamaCpp && completion.is_file() {
            let mut command = Command::new(completion);
            command.args([
                "-c",
                &CONTEXT.to_string(),
                "-t",
                &job.threads.to_string(),
                "-m",
            ]);
            command.arg(job.path);
            command.arg(if self.setting == "repack 0" {
                "--no-repack"
            } else {
                "--repack"
            });
            command.args(["-n", "1", "-no-cnv", "--simple-io", "--no-display-prompt"]);
            command.args(["--no-warmup", "--temp", "0", "-p", PROMPT]);
            let ended = machine::run(command)?;
            return Ok((ended.first, ended.peak));
        }
        // The whole process, with a context of no more than the prompt: that errs in its favour in
        // memory, and against it by the time that ending takes.
        let mut command = self.bench(job);
        command.args(["-p", "16", "-n", "0", "-r", "1"]);
        match self.engine {
            Engine::LlamaCpp => command.arg("--no-warmup"),
            _ => command.args(["-w", "0"]),
        };
        let ended = machine::run(command)?;
        Ok((ended.all, ended.peak))
    }
}

impl Tested {
    fn samples(self, test: Test) -> Samples {
        let values = match self.samples_ts.is_empty() {
            true => vec![self.avg_ts],
            false => self.samples_ts,
        };
        Samples { test, values }
    }
}

/// What `llama-bench -o json` printed. Some versions print other lines around it.
fn tested(ended: &Ended) -> Result<Vec<Tested>> {
    let (from, to) = (ended.stdout.find("[\n"), ended.stdout.rfind(']'));
    let json = from
        .zip(to)
        .and_then(|(from, to)| ended.stdout.get(from..=to));
    serde_json::from_str(json.unwrap_or(&ended.stdout)).context("what llama-bench printed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_of_llama_bench() {
        let ended = Ended {
            stdout: "warning: none\n[\n  {\"build_commit\": \"0c1e570\", \"build_number\": 1, \
                     \"n_prompt\": 16, \"n_gen\": 0, \"avg_ts\": 2.0, \"samples_ts\": [ 1.5, 2.5 ]}\n]\n"
                .to_owned(),
            first: 0.0,
            all: 0.0,
            peak: 0,
        };
        let mut all = tested(&ended).unwrap();
        let one = all.remove(0);
        assert_eq!((one.n_prompt, one.n_gen), (16, 0));
        assert_eq!(one.samples(Test::Pass(16)).values, [1.5, 2.5]);
    }
}
