//! A bar chart as SVG, for light and dark pages.

use std::fmt::{self, Write as _};

use crate::{
    engine::Engine,
    record::{Results, Test, median},
};

const WIDTH: usize = 760;
/// Where bars begin, and how long the longest is.
const LEFT: usize = 210;
const LONGEST: f64 = 390.0;
const BAR: usize = 15;
const GAP: usize = 10;

/// Colours in the order of [`Engine::RIVALS`], ours before: all seen well on white and on black.
const STYLE: &str = "
  text { font: 13px system-ui, sans-serif; fill: #3d444d }
  .title { font-size: 17px; font-weight: 600 }
  .model { font-size: 14px; font-weight: 600 }
  .note, .value { font-size: 12px }
  .best { font-weight: 600 }
  .e0 { fill: #1f7ae0 } .e1 { fill: #8c959f } .e2 { fill: #b08968 } .e3 { fill: #a58fd0 }
  @media (prefers-color-scheme: dark) { text { fill: #d1d7e0 } }
";

/// A bar.
struct Bar {
    engine: usize,
    name: &'static str,
    value: f64,
}

/// The speeds of all models. Bars of a test are relative to the fastest of it.
pub(crate) fn svg(results: &Results) -> String {
    let mut body = String::new();
    // Writing to a string does not fail.
    let height = draw(&mut body, results).unwrap_or_default();
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\" role=\"img\">\n\
         <title>Tokens per second of Converge and other engines</title>\n\
         <style>{STYLE}</style>\n{body}</svg>\n"
    )
}

/// Draws everything and gives the height.
fn draw(out: &mut String, results: &Results) -> Result<usize, fmt::Error> {
    let mut y = 26;
    writeln!(
        out,
        "<text class=\"title\" x=\"16\" y=\"{y}\">Tokens per second: more is better</text>"
    )?;
    y += 20;
    writeln!(
        out,
        "<text class=\"note\" x=\"16\" y=\"{y}\">{}, {} threads, {}. Medians; each rival with its \
         better setting.</text>",
        escaped(&results.cpu),
        results.threads,
        results.date.split(' ').next().unwrap_or_default(),
    )?;
    y += 14;
    for model in results.models() {
        let tests: Vec<(Test, Vec<Bar>)> = results
            .tests(model)
            .into_iter()
            .filter(|test| shown(*test))
            .map(|test| (test, bars(results, model, test)))
            .filter(|(_, bars)| bars.len() > 1)
            .collect();
        if tests.is_empty() {
            continue;
        }
        y += 22;
        let name = escaped(model);
        writeln!(
            out,
            "<text class=\"model\" x=\"16\" y=\"{y}\">{name}</text>"
        )?;
        y += 8;
        for (test, bars) in tests {
            let most = bars.iter().map(|bar| bar.value).fold(0.0, f64::max);
            let middle = y + bars.len() * BAR / 2 + 4;
            let name = test.name();
            writeln!(out, "<text x=\"16\" y=\"{middle}\">{name}</text>")?;
            for bar in bars {
                let length = (LONGEST * bar.value / most.max(f64::MIN_POSITIVE)).max(1.0);
                let text = y + BAR - 4;
                let (engine, name) = (bar.engine, bar.name);
                let best = if bar.value == most { " best" } else { "" };
                writeln!(
                    out,
                    "<text class=\"note\" x=\"{}\" y=\"{text}\" text-anchor=\"end\">{name}</text>\
                     <rect class=\"e{engine}\" x=\"{LEFT}\" y=\"{}\" width=\"{length:.1}\" \
                     height=\"{}\" rx=\"2\"/>\
                     <text class=\"value{best}\" x=\"{:.1}\" y=\"{text}\">{}</text>",
                    LEFT - 8,
                    y + 1,
                    BAR - 3,
                    LEFT as f64 + length + 6.0,
                    test.show(bar.value),
                )?;
                y += BAR;
            }
            y += GAP;
        }
    }
    Ok(y + 8)
}

/// Whether a test is in the chart: of the passes one that checks a draft.
fn shown(test: Test) -> bool {
    match test {
        Test::Pass(n) => n == 8,
        Test::Prefill(_) | Test::Decode(_) | Test::DecodeAt(_) => true,
        Test::Check(_) | Test::Load | Test::Memory => false,
    }
}

fn bars(results: &Results, model: &str, test: Test) -> Vec<Bar> {
    let ours = median(&results.ours(model, test)).map(|value| Bar {
        engine: 0,
        name: Engine::Ours.name(),
        value,
    });
    let rivals = Engine::RIVALS.into_iter().enumerate();
    let theirs = rivals.filter_map(|(i, rival)| {
        Some(Bar {
            engine: i + 1,
            name: rival.name(),
            value: median(&results.rival(model, rival, test)?.theirs)?,
        })
    });
    ours.into_iter().chain(theirs).collect()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
