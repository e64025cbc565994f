//! `search`: ranked passages for the words of a query (BM25, Robertson and Zaragoza 2009), or
//! every place of an exact phrase.

use std::collections::{BTreeMap, HashMap};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::folder::TextFile;
use super::words::{is_stop_word, stems};
use super::{Effect, FnTool, Folder, Source, Tool, ToolContext, ToolError, ToolOutput, clip};

/// Longest query, in bytes, that is looked at.
const QUERY_BYTES: usize = 1_000;
/// Longest passage: lines and bytes.
const PASSAGE_LINES: usize = 6;
const PASSAGE_BYTES: usize = 700;
/// BM25's usual saturation and length normalization.
const K1: f64 = 1.2;
const B: f64 = 0.75;
/// What a word counts that stands in the passage's file name, title or heading only.
const CONTEXT_WEIGHT: f64 = 0.5;

/// Arguments of [`search`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SearchArgs {
    /// Words to look for.
    pub query: String,
    /// Look for the query as it stands instead of its words, in any case and spacing.
    #[serde(default)]
    pub exact: bool,
    /// Rank whole files instead of passages.
    #[serde(default)]
    pub by_file: bool,
    /// Only in this file or directory.
    #[serde(default)]
    pub path: Option<String>,
    /// Most hits to return; 8 if left out.
    #[serde(default)]
    pub limit: Option<usize>,
}

/// A passage that fits the query.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hit {
    /// Where it stands.
    pub source: Source,
    /// The higher the better; comparable within one result only. 1 for exact hits.
    pub score: f64,
    /// Its lines as they stand in the file.
    pub text: String,
}

/// Passages that fit the query: the best three of each file (two of a table) first, then the
/// others, each part best first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SearchResult {
    /// The hits.
    pub hits: Vec<Hit>,
    /// Passages (exact: places) that fit at all.
    pub matched: usize,
    /// Files looked into.
    pub files: usize,
    /// Whether the folder's limits kept some files, or ends of files, out of the search.
    pub truncated: bool,
}

impl SearchResult {
    /// The hits as the model sees them, at most `max` bytes.
    pub fn text(&self, max: usize) -> String {
        let mut text = String::new();
        for (done, hit) in self.hits.iter().enumerate() {
            let block = format!("[{}]\n{}\n\n", hit.source, hit.text);
            if done > 0 && text.len() + block.len() > max {
                text.push_str(&format!("[and {} more]\n", self.hits.len() - done));
                return text;
            }
            text.push_str(&block);
        }
        if self.hits.is_empty() {
            text.push_str("(nothing found)\n");
        }
        text
    }
}

/// Searches the folder.
///
/// # Errors
/// A query without words, a path that cannot be used, and those of [`Folder::walk`].
pub fn search(
    folder: &Folder,
    args: &SearchArgs,
    context: &ToolContext<'_>,
) -> Result<SearchResult, ToolError> {
    let (query, _) = clip(args.query.trim(), QUERY_BYTES);
    let limit = args.limit.unwrap_or(8).clamp(1, 100);
    let (files, truncated) = collect(folder, args.path.as_deref(), context)?;
    let (hits, matched) = if args.exact {
        let places = find_phrase(&files, query, context)?;
        let matched = places.len();
        (places.into_iter().take(limit).collect(), matched)
    } else {
        rank(&files, query, args.by_file, limit, context)?
    };
    Ok(SearchResult {
        hits,
        matched,
        files: files.len(),
        truncated,
    })
}

/// The text files below `path`, as far as the limits let through, and whether something was cut.
fn collect(
    folder: &Folder,
    path: Option<&str>,
    context: &ToolContext<'_>,
) -> Result<(Vec<TextFile>, bool), ToolError> {
    let below = Folder::normalize(path.unwrap_or(""))?;
    let walk = folder.walk(context)?;
    let mut truncated = walk.truncated;
    let mut left = folder.limits().total_bytes;
    let mut files = Vec::new();
    let mut inside = 0_usize;
    for entry in walk.files {
        let rest = entry.path.strip_prefix(&below);
        if !below.is_empty() && !rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
            continue;
        }
        inside += 1;
        context.check()?;
        let cost = entry.bytes.min(folder.limits().file_bytes);
        if cost > left {
            truncated = true;
            continue;
        }
        match folder.read_text(&entry.path) {
            Ok(file) => {
                left -= cost;
                truncated |= file.truncated;
                files.push(file);
            }
            Err(ToolError::Binary { .. }) => {}
            Err(_) => truncated = true,
        }
    }
    if inside == 0 && !below.is_empty() {
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        return Err(folder.explain(&below, missing));
    }
    Ok((files, truncated))
}

/// A run of lines that is ranked as one.
struct Passage {
    file: usize,
    first: usize,
    last: usize,
    length: f64,
    /// For each word of the query, how often it occurs.
    counts: Vec<f64>,
}

fn rank(
    files: &[TextFile],
    query: &str,
    by_file: bool,
    limit: usize,
    context: &ToolContext<'_>,
) -> Result<(Vec<Hit>, usize), ToolError> {
    let all: Vec<String> = stems(query).collect();
    let mut words: Vec<&str> = all
        .iter()
        .map(String::as_str)
        .filter(|word| !is_stop_word(word))
        .collect();
    if words.is_empty() {
        words = all.iter().map(String::as_str).collect();
    }
    words.sort_unstable();
    words.dedup();
    if words.is_empty() {
        return Err(ToolError::EmptyQuery);
    }
    let index: HashMap<&str, usize> = words.iter().enumerate().map(|(i, w)| (*w, i)).collect();

    let mut passages = Vec::new();
    let mut containing = vec![0_usize; words.len()];
    let mut total = 0_usize;
    let mut total_length = 0.0;
    for (number, file) in files.iter().enumerate() {
        context.check()?;
        let passages_here = if by_file {
            let lines: Vec<&str> = file.lines().collect();
            vec![(1, lines.len().max(1), "", lines)]
        } else {
            passages_of(file)
        };
        for (first, last, heading, lines) in passages_here {
            let mut counts = vec![0.0; words.len()];
            let mut length = 0.0;
            for stem in lines.iter().flat_map(|line| stems(line)) {
                length += 1.0;
                if let Some(word) = index.get(stem.as_str()) {
                    counts[*word] += 1.0;
                }
            }
            total += 1;
            total_length += length;
            let mut fits = false;
            for (count, containing) in counts.iter().zip(&mut containing) {
                if *count > 0.0 {
                    *containing += 1;
                    fits = true;
                }
            }
            if !fits && !by_file {
                continue;
            }
            for stem in stems(&file.path).chain(stems(heading)) {
                if let Some(word) = index.get(stem.as_str())
                    && counts[*word] == 0.0
                {
                    counts[*word] = CONTEXT_WEIGHT;
                }
            }
            // A file may fit by its name alone.
            if counts.iter().all(|count| *count == 0.0) {
                continue;
            }
            passages.push(Passage {
                file: number,
                first,
                last,
                length,
                counts,
            });
        }
    }

    let average = total_length / (total.max(1) as f64);
    let rarity: Vec<f64> = containing
        .iter()
        .map(|with| (1.0 + (total as f64 - *with as f64 + 0.5) / (*with as f64 + 0.5)).ln())
        .collect();
    let mut scored: Vec<(f64, &Passage)> = passages
        .iter()
        .map(|passage| {
            let norm = K1 * (1.0 - B + B * passage.length / average.max(1.0));
            let score = passage.counts.iter().zip(&rarity);
            let score: f64 = score
                .map(|(tf, idf)| idf * tf * (K1 + 1.0) / (tf + norm))
                .sum();
            let covered = passage.counts.iter().filter(|tf| **tf > 0.0).count();
            // A passage with all words beats one with a single word many times.
            (
                score * (covered as f64 / words.len() as f64).sqrt(),
                passage,
            )
        })
        .collect();
    scored.sort_by(|(a, x), (b, y)| {
        b.total_cmp(a)
            .then_with(|| (x.file, x.first).cmp(&(y.file, y.first)))
    });
    // A few of each file first, so that one file does not fill the result.
    let mut shown = vec![0_usize; files.len()];
    let (first, later): (Vec<_>, Vec<_>) = scored.into_iter().partition(|(_, passage)| {
        shown[passage.file] += 1;
        shown[passage.file] <= if is_table(&files[passage.file]) { 2 } else { 3 }
    });
    let hits = first
        .iter()
        .chain(&later)
        .take(limit)
        .map(|(score, passage)| {
            let file = &files[passage.file];
            let lines: Vec<&str> = file
                .lines()
                .skip(passage.first - 1)
                .take(passage.last + 1 - passage.first)
                .collect();
            hit(file, passage.first, passage.last, *score, &lines)
        });
    Ok((hits.collect(), passages.len()))
}

fn hit(file: &TextFile, first: usize, last: usize, score: f64, lines: &[&str]) -> Hit {
    let joined = lines.join("\n");
    let (text, cut) = clip(&joined, 2 * PASSAGE_BYTES);
    let text = if cut { format!("{text} […]") } else { joined };
    Hit {
        source: Source {
            path: file.path.clone(),
            first,
            last,
        },
        score,
        text,
    }
}

fn is_table(file: &TextFile) -> bool {
    let path = file.path.to_ascii_lowercase();
    path.ends_with(".csv") || path.ends_with(".tsv")
}

/// Cuts a file into passages: paragraphs, at most [`PASSAGE_LINES`] long, rows of a table one by
/// one. With each comes the heading it stands under (for a table, its header).
fn passages_of(file: &TextFile) -> Vec<(usize, usize, &str, Vec<&str>)> {
    let table = is_table(file);
    let mut passages = Vec::new();
    let mut heading = "";
    let mut title = "";
    let mut open: Vec<&str> = Vec::new();
    let mut first = 1;
    let mut last = 1;
    let mut bytes = 0;
    for (number, line) in file.lines().enumerate().map(|(i, line)| (i + 1, line)) {
        let is_heading = line.starts_with('#');
        let blank = line.trim().is_empty();
        let full = open.len() >= PASSAGE_LINES
            || bytes + line.len() > PASSAGE_BYTES
            || table
            || is_heading;
        // A heading belongs to the paragraph after it.
        let bare = open.len() == 1 && open.iter().any(|line| line.starts_with('#'));
        if (blank && !bare || full) && !open.is_empty() {
            passages.push((first, last, heading, std::mem::take(&mut open)));
        }
        if blank {
            continue;
        }
        if title.is_empty() {
            title = clip(line, 300).0;
            heading = title;
        } else if is_heading {
            heading = clip(line, 300).0;
        }
        if open.is_empty() {
            first = number;
            bytes = 0;
        }
        bytes += line.len();
        last = number;
        open.push(line);
    }
    if !open.is_empty() {
        passages.push((first, last, heading, open));
    }
    passages
}

fn find_phrase(
    files: &[TextFile],
    phrase: &str,
    context: &ToolContext<'_>,
) -> Result<Vec<Hit>, ToolError> {
    if Phrase::new(phrase).is_none() {
        return Err(ToolError::EmptyQuery);
    }
    let mut hits = Vec::new();
    for file in files {
        context.check()?;
        let Some(phrase) = Phrase::new(phrase) else {
            break;
        };
        let lines: Vec<&str> = file.lines().collect();
        // One hit per run of lines, however often the phrase occurs there.
        let mut places = BTreeMap::new();
        for (first, last) in phrase.places(&file.text) {
            places.entry(first).or_insert(last);
        }
        for (first, last) in places {
            let slice = lines.get(first - 1..last).unwrap_or_default();
            hits.push(hit(file, first, last, 1.0, slice));
        }
    }
    Ok(hits)
}

/// Where `quote` stands in `text`, in any case and with any spacing (also across line ends):
/// first and last line, from 1. `None` if it does not occur or holds no letter or digit.
pub fn locate(text: &str, quote: &str) -> Option<(usize, usize)> {
    Phrase::new(quote)?.places(text).next()
}

/// A phrase folded for comparison: lower case, one space for any white space, plain quotes.
struct Phrase(Vec<char>);

impl Phrase {
    fn new(phrase: &str) -> Option<Self> {
        let mut folded: Vec<char> = Vec::new();
        for c in phrase.trim().chars().flat_map(fold) {
            if c != ' ' || folded.last() != Some(&' ') {
                folded.push(c);
            }
        }
        folded
            .iter()
            .any(|c| c.is_alphanumeric())
            .then_some(Self(folded))
    }

    /// The runs of lines in which the phrase occurs, in order (Knuth, Morris and Pratt 1977, so
    /// that no text makes it slow).
    fn places<'a>(&'a self, text: &'a str) -> impl Iterator<Item = (usize, usize)> + 'a {
        let phrase = &self.0;
        let mut border = vec![0_usize; phrase.len()];
        let mut matched = 0;
        for i in 1..phrase.len() {
            while matched > 0 && phrase[matched] != phrase[i] {
                matched = border[matched - 1];
            }
            matched += usize::from(phrase[matched] == phrase[i]);
            border[i] = matched;
        }
        let mut line = 1;
        let mut last = ' ';
        // Lines of the last `phrase.len()` folded characters.
        let mut lines = std::collections::VecDeque::with_capacity(phrase.len());
        let mut matched = 0;
        text.chars().filter_map(move |c| {
            let mut found = None;
            for c in fold(c) {
                if c == ' ' && last == ' ' {
                    continue;
                }
                last = c;
                if lines.len() == phrase.len() {
                    lines.pop_front();
                }
                lines.push_back(line);
                while matched > 0 && phrase[matched] != c {
                    matched = border[matched - 1];
                }
                matched += usize::from(phrase[matched] == c);
                if matched == phrase.len() {
                    matched = border[matched - 1];
                    found = lines.front().map(|first| (*first, line));
                }
            }
            line += usize::from(c == '\n');
            found
        })
    }
}

/// A character as it is compared.
fn fold(c: char) -> impl Iterator<Item = char> {
    let c = match c {
        '‘' | '’' => '\'',
        '“' | '”' | '„' => '"',
        '–' | '—' | '−' => '-',
        c if c.is_whitespace() => ' ',
        c => c,
    };
    c.to_lowercase()
}

/// [`search`] as a tool named `search`.
pub fn tool(folder: Folder) -> impl Tool {
    let description = "Finds the passages of all files that fit some words best. \
                       With exact, finds every place of a phrase.";
    FnTool::new(
        "search",
        description,
        Effect::ReadOnly,
        move |args: SearchArgs, context| {
            let result = search(&folder, &args, context)?;
            let mut output = ToolOutput::new(&result, result.text(folder.limits().output_bytes))?;
            output.sources = result.hits.iter().map(|hit| hit.source.clone()).collect();
            output.truncated = result.truncated || result.matched > result.hits.len();
            Ok(output)
        },
    )
}

#[cfg(test)]
#[path = "search_tests.rs"]
mod tests;
