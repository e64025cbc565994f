//! A drawing of how far drafts went.

use std::fmt::Write as _;

use converge_spec::Position;

const WIDTH: usize = 900;
/// Height of a suite's panel, and of its bars.
const PANEL: usize = 190;
const BARS: usize = 120;
const LEFT: usize = 60;
const STEP: usize = 34;

/// Fonts and colours, for light and dark pages.
const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#444}.name{font-weight:600}\
                     .wrong{fill:#c9d3df}.right{fill:#2f6fb3}\
                     @media(prefers-color-scheme:dark){text{fill:#ccc}.wrong{fill:#4a5663}\
                     .right{fill:#6ea8e6}}";

/// What came of the drafts of a suite.
pub(crate) struct Panel {
    pub(crate) suite: String,
    /// How much sooner than plain decoding: the geometric mean.
    pub(crate) ratio: f64,
    /// By position in the draft, of all sources.
    pub(crate) positions: Vec<Position>,
}

/// The panels below each other: for each position of a draft, how many guesses were checked there, and
/// how many of them were right.
pub(crate) fn svg(panels: &[Panel]) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    let w = &mut out;
    let height = PANEL * panels.len() + 30;
    writeln!(
        w,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-label=\"Guesses checked and right by their position in the draft\">\n<style>{STYLE}</style>"
    )?;
    for (i, panel) in panels.iter().enumerate() {
        draw(w, panel, i * PANEL)?;
    }
    let y = height - 10;
    writeln!(
        w,
        "<text x=\"{LEFT}\" y=\"{y}\">position in the draft; light: guesses checked there, dark: of \
         these, right</text>\n</svg>"
    )?;
    Ok(out)
}

fn draw(w: &mut String, panel: &Panel, top: usize) -> std::fmt::Result {
    let most = panel.positions.iter().map(|p| p.drafted).max();
    let most = most.unwrap_or(0).max(1);
    writeln!(
        w,
        "<text class=\"name\" x=\"{LEFT}\" y=\"{}\">{}: {:.2} times plain decoding</text>\n\
         <text x=\"{}\" y=\"{}\" text-anchor=\"end\">{most}</text>",
        top + 22,
        escape(&panel.suite),
        panel.ratio,
        LEFT - 8,
        top + 46,
    )?;
    let base = top + 36 + BARS;
    for (i, position) in panel.positions.iter().enumerate() {
        let x = LEFT + i * STEP;
        for (class, count) in [("wrong", position.drafted), ("right", position.accepted)] {
            let height = count * BARS / most;
            writeln!(
                w,
                "<rect class=\"{class}\" x=\"{x}\" y=\"{}\" width=\"{}\" height=\"{height}\"/>",
                base - height,
                STEP - 6
            )?;
        }
        let middle = x + (STEP - 6) / 2;
        writeln!(
            w,
            "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            base + 16,
            i + 1
        )?;
    }
    Ok(())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
