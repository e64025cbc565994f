//! Tables in Markdown.

use std::fmt::{self, Write as _};

use crate::{
    engine::Engine,
    record::{Limits, Results, Test, median},
};

/// What a pass may cost of what the limits allow.
const ALLOWED: f64 = 1.25;

/// Everything as tables.
pub(crate) fn markdown(results: &Results) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut out, results);
    out
}

fn write(out: &mut String, results: &Results) -> fmt::Result {
    writeln!(out, "# Converge beside other engines\n")?;
    writeln!(
        out,
        "{} UTC · {} · {} threads\n",
        results.date, results.cpu, results.threads
    )?;
    writeln!(
        out,
        "Tokens per second, medians. A ratio above 1 means that ours is better: ratio of medians \
         (ratio of the best of each), ours from the runs in turn with that rival. Of a rival's \
         settings the better one counts.\n"
    )?;
    for model in results.models() {
        let rounds = results.runs.iter().filter(|run| run.model == model);
        let rounds = rounds.map(|run| run.round).max().unwrap_or(0);
        writeln!(out, "## {model}\n")?;
        let bytes = results.files.get(model).map_or(0.0, |&bytes| bytes as f64);
        writeln!(
            out,
            "File of {:.0} MB; rounds: {rounds}, repetitions in each: {}.\n",
            bytes / 1e6,
            results.reps
        )?;
        let limits = results.limits(model);
        speeds(out, results, model, limits.as_ref())?;
        if let Some(limits) = &limits {
            checks(out, results, model, limits)?;
        }
    }
    versions(out, results)
}

fn speeds(
    out: &mut String,
    results: &Results,
    model: &str,
    limits: Option<&Limits>,
) -> fmt::Result {
    let mut tests = results.tests(model);
    tests.retain(|test| !matches!(test, Test::Check(_)));
    let rivals = Engine::RIVALS
        .into_iter()
        .filter(|engine| results.of(model).any(|run| run.engine == *engine));
    let rivals: Vec<Engine> = rivals.collect();
    write!(out, "| test | ours | of the limit |")?;
    for rival in &rivals {
        write!(out, " {} | ratio |", rival.name())?;
    }
    writeln!(out, "\n|---|---|---|{}", "---|---|".repeat(rivals.len()))?;
    for test in tests {
        let ours = median(&results.ours(model, test));
        let show = |value: Option<f64>| value.map_or("–".to_owned(), |value| test.show(value));
        let limit = limits.and_then(|limits| {
            let (_, limit) = limits.speeds.iter().find(|(of, _)| *of == test)?;
            Some(format!("{:.0} %", 100.0 * ours? / limit))
        });
        write!(
            out,
            "| {} | {} | {} |",
            test.name(),
            show(ours),
            limit.unwrap_or_default()
        )?;
        for &rival in &rivals {
            let duel = results.rival(model, rival, test);
            let Some((duel, (medians, best))) = duel.and_then(|duel| {
                let ratios = duel.ratios(test)?;
                Some((duel, ratios))
            }) else {
                write!(out, " – | – |")?;
                continue;
            };
            let setting = match duel.setting.is_empty() {
                true => String::new(),
                false => format!(" ({})", duel.setting),
            };
            let theirs = show(median(&duel.theirs));
            write!(out, " {theirs}{setting} | **{medians:.2}** ({best:.2}) |")?;
        }
        writeln!(out)?;
    }
    writeln!(out)
}

/// What passes cost in which every token goes through the head.
fn checks(out: &mut String, results: &Results, model: &str, limits: &Limits) -> fmt::Result {
    let seconds = |m: usize| median(&results.ours(model, Test::Check(m))).map(|v| m as f64 / v);
    let Some(one) = seconds(1) else {
        return Ok(());
    };
    let formula = limits.arithmetic_seconds / limits.memory_seconds;
    writeln!(
        out,
        "Passes in which every token goes through the head, as in checking a draft. Probed in the \
         same runs: {:.1} GB/s from memory, {:.0} G multiply-adds per second raw; so streaming the \
         weights takes {:.2} ms, and the products of a token {:.2} ms at the kernels' own rate.\n",
        limits.bandwidth / 1e9,
        limits.raw / 1e9,
        limits.memory_seconds * 1e3,
        limits.arithmetic_seconds * 1e3,
    )?;
    writeln!(
        out,
        "| m | ms | tokens/s | c(m) | max(1, m·t_a/t_m) | c(m) of it | at most {ALLOWED} |"
    )?;
    writeln!(out, "|---|---|---|---|---|---|---|")?;
    for test in results.tests(model) {
        let Test::Check(m) = test else { continue };
        let Some(time) = seconds(m) else { continue };
        let (cost, allowed) = (time / one, (m as f64 * formula).max(1.0));
        let share = cost / allowed;
        writeln!(
            out,
            "| {m} | {:.2} | {} | {cost:.2} | {allowed:.2} | {share:.2} | {} |",
            time * 1e3,
            test.show(m as f64 / time),
            if share <= ALLOWED { "yes" } else { "no" },
        )?;
    }
    writeln!(out)
}

fn versions(out: &mut String, results: &Results) -> fmt::Result {
    for rival in Engine::RIVALS {
        let run = results.runs.iter().find(|run| run.run.engine == rival);
        if let Some(version) = run
            .map(|run| &run.run.version)
            .filter(|text| !text.is_empty())
        {
            writeln!(out, "{}: build {version}.", rival.name())?;
        }
    }
    Ok(())
}
