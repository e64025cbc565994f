//! From tool outputs to what the phases work with: documents, tables, pieces.

use std::collections::{BTreeSet, VecDeque};

use serde::de::DeserializeOwned;

use super::state::Settings;
use crate::{
    error::{AgentError, Result},
    phase::plan::Listed,
    segment::Segment,
    tool::{ToolOutput, list::ListResult, search::SearchResult, table::Profile},
};

/// The typed result of a built-in tool.
pub(super) fn typed<T: DeserializeOwned>(tool: &'static str, output: ToolOutput) -> Result<T> {
    serde_json::from_value(output.value).map_err(|source| AgentError::Output { tool, source })
}

/// Sorts the files that are text into documents and tables.
pub(super) fn sort(listed: &ListResult, documents: &mut Vec<Listed>, tables: &mut Vec<String>) {
    for file in &listed.files {
        if file.lines.is_none_or(|lines| lines == 0) {
            continue;
        }
        let name = file.path.to_lowercase();
        if name.ends_with(".csv") || name.ends_with(".tsv") {
            tables.push(file.path.clone());
        } else {
            documents.push(Listed {
                path: file.path.clone(),
                title: file.title.clone().unwrap_or_default(),
            });
        }
    }
}

/// A table as the plan sees it: its columns.
pub(super) fn listed(table: &Profile) -> Listed {
    let columns: Vec<&str> = table
        .columns
        .iter()
        .map(|column| column.name.as_str())
        .collect();
    Listed {
        path: table.path.clone(),
        title: format!("columns {}", columns.join(", ")),
    }
}

/// The files of the hits, best first, each once, with the line that was found.
pub(super) fn hits(found: &SearchResult) -> Vec<Listed> {
    let mut files: Vec<Listed> = Vec::new();
    for hit in &found.hits {
        if !files.iter().any(|file| file.path == hit.source.path) {
            let text = hit.text.split_whitespace().collect::<Vec<_>>().join(" ");
            files.push(Listed {
                path: hit.source.path.clone(),
                title: text.chars().take(120).collect(),
            });
        }
    }
    files
}

/// Two rankings in turn, each file once: whole files know what a document is about, passages what
/// it says. The line that is shown of a file is the passage's.
pub(super) fn merged(files: Vec<Listed>, passages: &SearchResult) -> Vec<Listed> {
    let passages = hits(passages);
    let mut merged: Vec<Listed> = Vec::new();
    for at in 0..files.len().max(passages.len()) {
        for one in [files.get(at), passages.get(at)].into_iter().flatten() {
            if !merged.iter().any(|known| known.path == one.path) {
                let shown = passages.iter().find(|passage| passage.path == one.path);
                merged.push(shown.unwrap_or(one).clone());
            }
        }
    }
    merged
}

/// Adds the rest of a folder where at least two of its documents are to be read: who compares
/// must see them all. A folder within it counts as part of it.
pub(super) fn complete(documents: &mut Vec<String>, all: &[Listed]) {
    let folder = |path: &str| {
        path.rsplit_once('/')
            .map(|(folder, _)| format!("{folder}/"))
    };
    let folders: BTreeSet<String> = documents.iter().filter_map(|path| folder(path)).collect();
    for folder in folders {
        let inside = documents.iter().filter(|path| path.starts_with(&folder));
        if inside.count() < 2 {
            continue;
        }
        for file in all {
            if file.path.starts_with(&folder) && !documents.contains(&file.path) {
                documents.push(file.path.clone());
            }
        }
    }
}

/// Groups the segments of a document into pieces of a size that one call reads; of a document with
/// too many, the pieces that share most words with the question, in order.
pub(super) fn pieces(
    segments: Vec<Segment>,
    question: &str,
    settings: &Settings,
) -> VecDeque<Vec<Segment>> {
    let mut pieces: Vec<Vec<Segment>> = Vec::new();
    let mut size = 0;
    for segment in segments {
        let length = segment.text.len();
        match pieces.last_mut() {
            Some(piece) if size + length <= settings.piece => piece.push(segment),
            _ => {
                pieces.push(vec![segment]);
                size = 0;
            }
        }
        size += length;
    }
    if pieces.len() > settings.pieces {
        let wanted = words(question);
        let mut ranked: Vec<(usize, usize)> = pieces
            .iter()
            .enumerate()
            .map(|(at, piece)| {
                let text: String = piece.iter().map(|segment| segment.text.as_str()).collect();
                (words(&text).intersection(&wanted).count(), at)
            })
            .collect();
        ranked.sort_by_key(|(shared, at)| (std::cmp::Reverse(*shared), *at));
        let kept: BTreeSet<usize> = ranked
            .into_iter()
            .take(settings.pieces)
            .map(|(_, at)| at)
            .collect();
        let mut at = 0;
        pieces.retain(|_| {
            at += 1;
            kept.contains(&(at - 1))
        });
    }
    pieces.into()
}

fn words(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| word.len() > 2)
        .map(str::to_lowercase)
        .collect()
}
