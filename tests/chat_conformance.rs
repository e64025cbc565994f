//! Renders real chat templates and compares with what Jinja2 makes of them, set up as
//! Transformers does.
//!
//! The data is in `tests/data/conformance/chat`, or in the folder `chat` of the one that
//! `CONVERGE_CONFORMANCE` names. What does not pass yet is in `chat_known_failures.txt`, a line
//! `template/case: reason` each; the list may only shrink, so a case of the list that passes
//! fails the test as well.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result};
use converge_core::CoreError;
use converge_core::chat::{ChatError, ChatTemplate, Message, RenderOptions, ToolDef};
use serde::Deserialize;

#[derive(Deserialize)]
struct Template {
    template: String,
    bos_token: String,
    eos_token: String,
    now: String,
    cases: BTreeMap<String, Case>,
}

#[derive(Deserialize)]
struct Case {
    input: Input,
    expected: Option<String>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Input {
    messages: Vec<Message>,
    #[serde(default)]
    tools: Vec<ToolDef>,
    #[serde(default = "yes")]
    add_generation_prompt: bool,
}

fn yes() -> bool {
    true
}

fn folder() -> PathBuf {
    std::env::var_os("CONVERGE_CONFORMANCE").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("data/conformance/chat"),
        |folder| PathBuf::from(folder).join("chat"),
    )
}

fn known_failures() -> BTreeMap<String, String> {
    include_str!("data/conformance/chat_known_failures.txt")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let (case, reason) = line.split_once(": ").expect("a line is `case: reason`");
            (case.to_owned(), reason.to_owned())
        })
        .collect()
}

/// Why a case fails, or nothing.
fn run(template: &Template, case: &Case) -> Result<(), String> {
    let compiled = ChatTemplate::from_source(
        &template.template,
        template.bos_token.as_str(),
        template.eos_token.as_str(),
    )
    .map_err(|e| e.to_string())?;
    let options = RenderOptions {
        add_generation_prompt: case.input.add_generation_prompt,
        now: Some(
            template
                .now
                .parse()
                .map_err(|e: jiff::Error| e.to_string())?,
        ),
        ..RenderOptions::with_tools(&case.input.tools)
    };
    let rendered = compiled.render(&case.input.messages, &options);
    match (&case.expected, &case.error, rendered) {
        (Some(expected), _, Ok(text)) if *expected == text => Ok(()),
        (Some(expected), _, Ok(text)) => Err(difference(expected, &text)),
        (Some(_), _, Err(e)) => Err(e.to_string()),
        (None, Some(error), Err(CoreError::Chat(ChatError::TemplateError { message, .. })))
            if error.strip_prefix("TemplateError: ") == Some(&message) =>
        {
            Ok(())
        }
        (None, Some(error), other) if error.starts_with("TemplateError") => {
            Err(format!("expected {error}, got {other:?}"))
        }
        // Errors of Python itself may render, and must not end in anything but a typed error.
        (None, _, _) => Ok(()),
    }
}

fn difference(expected: &str, got: &str) -> String {
    let at = expected
        .char_indices()
        .zip(got.chars())
        .find(|((_, a), b)| a != b)
        .map_or(expected.len().min(got.len()), |((at, _), _)| at);
    let around = |text: &str| {
        let from = text.floor_char_boundary(at.saturating_sub(40));
        let to = text.floor_char_boundary(at + 60);
        text[from..to].to_owned()
    };
    format!(
        "differs at byte {at}: expected …{:?}…, got …{:?}…",
        around(expected),
        around(got)
    )
}

#[test]
fn chat_conformance() -> Result<()> {
    let folder = folder();
    let entries = std::fs::read_dir(&folder).with_context(|| {
        format!(
            "{}: no conformance data; it is part of the repository, or set CONVERGE_CONFORMANCE \
             to a folder that holds `chat`",
            folder.display()
        )
    })?;
    let known = known_failures();
    let (mut cases, mut problems) = (0, Vec::new());
    let mut files: Vec<PathBuf> = entries.map(|e| Ok(e?.path())).collect::<Result<_>>()?;
    files.sort();
    for file in files {
        if file.extension().is_none_or(|e| e != "json") {
            continue;
        }
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        let template: Template = serde_json::from_str(&std::fs::read_to_string(&file)?)
            .with_context(|| file.display().to_string())?;
        for (case_name, case) in &template.cases {
            cases += 1;
            let id = format!("{name}/{case_name}");
            match (run(&template, case), known.get(&id)) {
                (Ok(()), None) | (Err(_), Some(_)) => {}
                (Ok(()), Some(_)) => problems.push(format!(
                    "{id} passes: take it out of chat_known_failures.txt"
                )),
                (Err(why), None) => problems.push(format!("{id}: {why}")),
            }
        }
    }
    assert!(cases >= 210, "only {cases} cases in {}", folder.display());
    assert!(
        problems.is_empty(),
        "{} of {cases} cases:\n{}",
        problems.len(),
        problems.join("\n")
    );
    Ok(())
}
