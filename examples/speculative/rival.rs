//! llama.cpp on the same prompts.

use std::{
    ffi::OsString,
    fmt::Write as _,
    path::{Path, PathBuf},
};

use anyhow::bail;
use converge_core::{TokenId, generate::Cancel};
use converge_examples::llama::{self, Ask, Options, Server};
use serde_json::{Value, json};

use crate::Pair;

/// What it is called where it guesses nothing.
const PLAIN: &str = "plain";

/// Tokens of the question whether repacked weights are quicker.
const TRIAL: usize = 48;

/// How the servers are to be.
pub(crate) struct Setting<'a> {
    /// The folder of llama.cpp's programs.
    pub(crate) dir: &'a Path,
    pub(crate) model: &'a Path,
    pub(crate) draft: Option<PathBuf>,
    /// Positions of the longest prompt and its answer.
    pub(crate) context: usize,
    /// The modes wanted; empty for all.
    pub(crate) modes: &'a [String],
}

/// A server for each mode, all of them running: each has seen the same prompts.
pub(crate) struct Rival {
    servers: Vec<(String, Server)>,
    pub(crate) repack: bool,
}

/// One answer.
#[derive(Clone)]
pub(crate) struct Measure {
    /// How guesses came, and whether the answer was held to the schema.
    pub(crate) mode: String,
    tokens: usize,
    pub(crate) speed: f64,
    drafted: usize,
    accepted: usize,
}

/// The modes that a build has, with their arguments. llama.cpp's n-gram modes draft 48 tokens after 12
/// by default, which a processor seldom gets back: the simple one also comes with less of both.
fn modes(kinds: &[String], setting: &Setting<'_>) -> Vec<(String, Vec<OsString>)> {
    let mut modes = vec![(PLAIN.to_owned(), Vec::new())];
    for kind in kinds {
        let mut with = vec!["--spec-type".into(), kind.into()];
        match kind.as_str() {
            "draft-simple" | "draft" => {
                let Some(draft) = &setting.draft else {
                    continue;
                };
                with.extend(["--spec-draft-model".into(), draft.into()]);
            }
            _ if kind.starts_with("ngram-") => {}
            // Those that need models made for them.
            _ => continue,
        }
        if kind == "ngram-simple" {
            let flags = ["--spec-ngram-simple-size-n", "4"];
            let more = ["--spec-ngram-simple-size-m", "8"];
            let short = flags.iter().chain(&more).map(OsString::from);
            let short = with.iter().cloned().chain(short).collect();
            modes.push(("ngram-simple 4+8".to_owned(), short));
        }
        modes.push((kind.clone(), with));
    }
    modes.retain(|(name, _)| {
        name == PLAIN || setting.modes.is_empty() || setting.modes.contains(name)
    });
    modes
}

impl Rival {
    /// Starts the servers; `prompt` tells whether they shall pack the weights anew.
    pub(crate) fn start(
        setting: &Setting<'_>,
        prompt: &[TokenId],
        cancel: &Cancel,
    ) -> anyhow::Result<Self> {
        let program = setting.dir.join("llama-server");
        llama::check(&program)?;
        let kinds = llama::kinds(&program)?;
        let all = Setting {
            draft: setting.draft.clone(),
            modes: &[],
            ..*setting
        };
        let chosen = modes(&kinds, setting);
        let missing = setting
            .modes
            .iter()
            .find(|wanted| chosen.iter().all(|(name, _)| name != *wanted));
        if let Some(wanted) = missing {
            let known: Vec<_> = modes(&kinds, &all)
                .into_iter()
                .map(|(name, _)| name)
                .collect();
            bail!(
                "--llama-modes {wanted:?}: {} has {}",
                program.display(),
                known.join(", ")
            );
        }
        let start = |repack, more| {
            let options = Options {
                program: &program,
                model: setting.model,
                slots: 1,
                context: setting.context,
                repack,
                more,
            };
            let server = Server::start(&options, cancel)?;
            // The first pass touches the weights.
            answer(&server, prompt, 4, None)?;
            anyhow::Ok(server)
        };
        let mut plain = Vec::new();
        for repack in [true, false] {
            let server = start(repack, Vec::new())?;
            plain.push((answer(&server, prompt, TRIAL, None)?.speed, repack, server));
        }
        plain.sort_by(|a, b| b.0.total_cmp(&a.0));
        let slower = plain.pop();
        let mut servers = Vec::new();
        let mut repack = true;
        if let (Some(fast), Some(slow)) = (plain.pop(), slower) {
            eprintln!(
                "[llama.cpp, plain: repack {} {:.1} tokens per second, repack {} {:.1}]",
                fast.1, fast.0, slow.1, slow.0
            );
            repack = fast.1;
            servers.push((PLAIN.to_owned(), fast.2));
        }
        for (name, more) in chosen {
            if name != PLAIN {
                servers.push((name, start(repack, more)?));
            }
        }
        Ok(Self { servers, repack })
    }

    /// Every mode's answer of so many tokens, and the one held to the schema; beginning with another
    /// mode for each `turn`.
    pub(crate) fn measure(
        &self,
        prompt: &[TokenId],
        tokens: usize,
        schema: Option<&Value>,
        turn: usize,
    ) -> anyhow::Result<Vec<Measure>> {
        let mut all = Vec::new();
        let count = self.servers.len();
        let order = self.servers.iter().cycle().skip(turn % count.max(1));
        for (name, server) in order.take(count) {
            for schema in [None].into_iter().chain(schema.map(Some)) {
                let mut measure = answer(server, prompt, tokens, schema)?;
                measure.mode = match schema {
                    Some(_) => format!("{name}, schema"),
                    None => name.clone(),
                };
                all.push(measure);
            }
        }
        all.sort_by(|a, b| a.mode.cmp(&b.mode));
        Ok(all)
    }
}

fn answer(
    server: &Server,
    prompt: &[TokenId],
    answer: usize,
    schema: Option<&Value>,
) -> anyhow::Result<Measure> {
    let reply = server.ask(&Ask {
        prompt,
        answer,
        slot: 0,
        schema,
    })?;
    Ok(Measure {
        mode: String::new(),
        tokens: reply.tokens.len(),
        speed: reply.speed,
        drafted: reply.drafted,
        accepted: reply.accepted,
    })
}

impl Measure {
    pub(crate) fn json(&self) -> Value {
        json!({
            "mode": self.mode,
            "tokens": self.tokens,
            "tokens_per_second": self.speed,
            "drafted": self.drafted,
            "accepted": self.accepted,
        })
    }
}

/// What a suite came to.
pub(crate) struct Summary {
    /// Geometric means of tokens per second, the highest first, with guesses and right ones.
    modes: Vec<(String, f64, usize, usize)>,
    /// … of the quickest mode of each prompt.
    best_each: f64,
    /// … without guesses, held to the schema or not, whichever is quicker.
    plain: f64,
    ours_plain: f64,
    ours: f64,
}

impl Summary {
    /// `None` where nothing was measured.
    pub(crate) fn of(pairs: &[Pair]) -> Option<Self> {
        let names = pairs.first()?.rival.iter().map(|m| m.mode.clone());
        let row = |name: String| {
            let of = |pair: &Pair| pair.rival.iter().find(|m| m.mode == name).cloned();
            let all: Vec<_> = pairs.iter().filter_map(of).collect();
            let speed = mean(all.iter().map(|m| m.speed));
            let drafted = all.iter().map(|m| m.drafted).sum();
            let accepted = all.iter().map(|m| m.accepted).sum();
            (name, speed, drafted, accepted)
        };
        let mut modes: Vec<_> = names.map(row).collect();
        modes.sort_by(|a, b| b.1.total_cmp(&a.1));
        let plain = modes.iter().find(|m| m.0.starts_with(PLAIN))?.1;
        let best = |pair: &Pair| pair.rival.iter().map(|m| m.speed).fold(0.0, f64::max);
        Some(Self {
            modes,
            best_each: mean(pairs.iter().map(best)),
            plain,
            ours_plain: mean(pairs.iter().map(Pair::plain_speed)),
            ours: mean(pairs.iter().map(Pair::drafted_speed)),
        })
    }

    fn best(&self) -> (&str, f64) {
        self.modes
            .first()
            .map_or((PLAIN, f64::NAN), |m| (&m.0, m.1))
    }

    pub(crate) fn json(&self, suite: &str, repack: bool) -> Value {
        let modes = self.modes.iter().map(|(mode, speed, drafted, accepted)| {
            json!({
                "mode": mode,
                "tokens_per_second": speed,
                "drafted": drafted,
                "accepted": accepted,
            })
        });
        let (mode, best) = self.best();
        json!({
            "suite": suite,
            "summary": {
                "plain_tokens_per_second": self.ours_plain,
                "tokens_per_second": self.ours,
                "llama": {
                    "repack": repack,
                    "modes": modes.collect::<Vec<_>>(),
                    "plain_tokens_per_second": self.plain,
                    "best": mode,
                    "best_tokens_per_second": best,
                    "best_of_each_prompt_tokens_per_second": self.best_each,
                },
                "plain_over_plain": self.ours_plain / self.plain,
                "over_best": self.ours / best,
                "over_best_of_each_prompt": self.ours / self.best_each,
            },
        })
    }

    pub(crate) fn table(&self, repack: bool) -> Result<String, std::fmt::Error> {
        let mut out = String::new();
        let w = &mut out;
        writeln!(
            w,
            "llama.cpp, repack {repack}: tokens per second (geometric mean), accepted of drafted; \
             ours with drafts is so many times quicker"
        )?;
        for (mode, speed, drafted, accepted) in &self.modes {
            let times = self.ours / speed;
            writeln!(
                w,
                "  {mode:<26} {speed:>6.1}  {accepted:>5}/{drafted:<5} {times:>6.2}"
            )?;
        }
        let (mode, best) = self.best();
        writeln!(
            w,
            "ours plain {:.1}, with drafts {:.1}; plain over plain {:.2}; over its best mode ({mode}) \
             {:.2}, over the best of each prompt {:.2}\n",
            self.ours_plain,
            self.ours,
            self.ours_plain / self.plain,
            self.ours / best,
            self.ours / self.best_each,
        )?;
        Ok(out)
    }
}

/// The geometric mean.
fn mean(figures: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = figures.fold((0.0, 0.0), |(sum, n), x| (sum + x.ln(), n + 1.0));
    (sum / f64::max(count, 1.0)).exp()
}
