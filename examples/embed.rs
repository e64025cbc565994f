//! Shows which texts mean the same: embeds them and prints what lies closest.
//!
//! ```text
//! cargo run --release --example embed -- "A dog runs." "A puppy is running." "Stocks fell."
//! cargo run --release --example embed -- --query "when does it end?" --file contract.md
//! cargo run --release --example embed -- --json < lines.txt
//! ```
//!
//! Texts are the arguments, the paragraphs of files, or else the lines of stdin. With `--query`
//! the texts closest to it are printed, without it the pairs that are closest to each other; 1 is
//! the same, around 0 nothing in common. `--json` prints the vectors, too.
//!
//! The model is a folder with a sentence-embedding model of BERT's kind, or a GGUF file, whose
//! hidden states are pooled.

use std::{
    fs,
    io::{BufRead as _, Write as _, stdin, stdout},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use candle_core::Device;
use clap::{Parser, ValueEnum};
use converge_core::{
    backend::candle::CandleOptions,
    embed::{BertEmbedder, DecoderEmbedder, Embedder, Pooling, similarity},
    generate::Cancel,
    model::DecoderSpec,
};
use converge_examples::{
    cli::{self, Interrupted},
    engine, models,
};
use serde_json::json;

/// Embed texts and print which of them are closest.
#[derive(Parser)]
#[command(name = "embed")]
struct Args {
    /// The texts; without them and without --file, the lines of stdin
    #[arg(value_name = "TEXT")]
    texts: Vec<String>,
    /// The paragraphs of this file are texts; may be repeated
    #[arg(long, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// Print the texts closest to this one
    #[arg(long, value_name = "TEXT")]
    query: Option<String>,
    /// How many texts or pairs to print [default: 10; with --json all]
    #[arg(long, value_name = "N")]
    top: Option<usize>,
    /// Name of a known model (see `fetch --list`), path of a model's folder or of a GGUF file
    #[arg(short, long, default_value = models::EMBEDDING)]
    model: String,
    /// How a GGUF file's states become one vector [default: as the file says, else the mean]
    #[arg(long, value_enum)]
    pooling: Option<PoolingArg>,
    /// One JSON object a text on stdout, with its vector
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PoolingArg {
    /// The mean of all tokens
    Mean,
    /// The last token
    Last,
}

/// A text with where it stands: a file and the line that it begins at.
struct Passage {
    text: String,
    place: Option<String>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    cli::run(|| {
        // 1. The model.
        let embedder = open(&args)?;

        // 2. The texts.
        let passages = passages(&args, embedder.as_ref())?;

        // 3. Their vectors.
        let cancel = cli::interrupt();
        let mut texts: Vec<&str> = passages.iter().map(|p| p.text.as_str()).collect();
        texts.extend(args.query.as_deref());
        let mut vectors = embedder.embed(&texts, &cancel).map_err(engine::advise)?;
        let query = args.query.is_some().then(|| vectors.pop()).flatten();

        // 4. What is close to what.
        match query {
            Some(query) => nearest(&args, &passages, &vectors, &query),
            None if args.json => {
                let all = (0..passages.len()).map(|i| (i, None)).collect();
                objects(&passages, &vectors, all)
            }
            None => pairs(&args, &passages, &vectors, &cancel),
        }
    })
}

fn open(args: &Args) -> anyhow::Result<Box<dyn Embedder>> {
    let path = models::ensure(&args.model)?;
    if path.is_dir() {
        if args.pooling.is_some() {
            bail!("--pooling is for GGUF files: the folder of a model names its own");
        }
        let embedder = BertEmbedder::load(&path, &Device::Cpu).with_context(|| {
            format!(
                "{} holds no usable embedding model: give {}, another folder with config.json, \
                 tokenizer.json and model.safetensors, or a .gguf file",
                path.display(),
                models::EMBEDDING,
            )
        })?;
        return Ok(Box::new(embedder));
    }
    let gguf = engine::open(&args.model)?;
    let advised = |error| engine::with_advice(&gguf, error);
    let spec = DecoderSpec::from_gguf(&gguf).map_err(advised)?;
    let options = CandleOptions {
        context: engine::DEFAULT_CONTEXT.min(spec.trained_context),
        ..CandleOptions::default()
    };
    let pooling = args.pooling.map(|pooling| match pooling {
        PoolingArg::Mean => Pooling::Mean,
        PoolingArg::Last => Pooling::Last,
    });
    let embedder = DecoderEmbedder::load(&gguf, &options, pooling).map_err(advised)?;
    Ok(Box::new(embedder))
}

fn passages(args: &Args, embedder: &dyn Embedder) -> anyhow::Result<Vec<Passage>> {
    let without_place = |text| Passage { text, place: None };
    let mut passages: Vec<_> = args.texts.iter().cloned().map(without_place).collect();
    for path in &args.file {
        let text = fs::read_to_string(path)
            .with_context(|| format!("cannot read {} as UTF-8 text", path.display()))?;
        for (line, paragraph) in paragraphs(&text) {
            let mut pieces = Vec::new();
            cut(paragraph, embedder, &mut pieces)?;
            passages.extend(pieces.into_iter().map(|piece| Passage {
                text: piece.to_owned(),
                place: Some(format!("{}:{line}", path.display())),
            }));
        }
    }
    if args.texts.is_empty() && args.file.is_empty() {
        for line in stdin().lock().lines() {
            let line = line.context("cannot read stdin as UTF-8 text")?;
            if !line.trim().is_empty() {
                passages.push(without_place(line));
            }
        }
    }
    if passages.is_empty() {
        bail!("there is no text: give some as arguments, with --file or on stdin");
    }
    Ok(passages)
}

/// The runs of lines that are not blank, with the number of the first, from 1.
fn paragraphs(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let (mut start, mut at, mut first) = (0, 0, 1);
    let blank_at_the_end = std::iter::once("");
    for (line, number) in text.split_inclusive('\n').chain(blank_at_the_end).zip(1..) {
        let next = at + line.len();
        if line.trim().is_empty() {
            let paragraph = &text[start..at];
            if !paragraph.is_empty() {
                found.push((first, paragraph.trim_end()));
            }
            (start, first) = (next, number + 1);
        }
        at = next;
    }
    found
}

/// Halves a text, between words where it has some, until the model takes its pieces.
fn cut<'a>(
    text: &'a str,
    embedder: &dyn Embedder,
    pieces: &mut Vec<&'a str>,
) -> anyhow::Result<()> {
    if text.trim().is_empty() {
        return Ok(());
    }
    let middle = text.floor_char_boundary(text.len() / 2);
    if embedder.tokens(text)? <= embedder.limit() || middle == 0 {
        pieces.push(text.trim());
        return Ok(());
    }
    let (left, right) = text.split_at(middle);
    let before = left.rfind(char::is_whitespace);
    let after = right.find(char::is_whitespace).map(|at| middle + at);
    let at = [before, after]
        .into_iter()
        .flatten()
        .filter(|&at| at > 0)
        .min_by_key(|at| at.abs_diff(middle));
    let (left, right) = text.split_at(at.unwrap_or(middle));
    cut(left, embedder, pieces)?;
    cut(right, embedder, pieces)
}

fn nearest(
    args: &Args,
    passages: &[Passage],
    vectors: &[Vec<f32>],
    query: &[f32],
) -> anyhow::Result<()> {
    let mut found: Vec<(usize, f32)> = vectors
        .iter()
        .map(|vector| similarity(vector, query))
        .enumerate()
        .collect();
    found.sort_by(|a, b| b.1.total_cmp(&a.1));
    let most = if args.json { passages.len() } else { 10 };
    found.truncate(args.top.unwrap_or(most));
    if args.json {
        let found = found.into_iter().map(|(i, s)| (i, Some(s))).collect();
        return objects(passages, vectors, found);
    }
    let mut out = stdout().lock();
    for (i, similarity) in found {
        writeln!(out, "{similarity:>7.4}  {}", passages[i].shown())?;
    }
    Ok(())
}

fn pairs(
    args: &Args,
    passages: &[Passage],
    vectors: &[Vec<f32>],
    cancel: &Cancel,
) -> anyhow::Result<()> {
    let most = args.top.unwrap_or(10);
    let mut found: Vec<(f32, usize, usize)> = Vec::new();
    for (i, vector) in vectors.iter().enumerate() {
        if cancel.is_cancelled() {
            return Err(Interrupted.into());
        }
        let others = vectors.iter().enumerate().skip(i + 1);
        found.extend(others.map(|(j, other)| (similarity(vector, other), i, j)));
        found.sort_by(|a, b| b.0.total_cmp(&a.0));
        found.truncate(most);
    }
    let mut out = stdout().lock();
    for (similarity, i, j) in found {
        let (one, other) = (passages[i].shown(), passages[j].shown());
        writeln!(out, "{similarity:>7.4}  {one}  ~  {other}")?;
    }
    Ok(())
}

/// A line for each of the passages named, with its vector.
fn objects(
    passages: &[Passage],
    vectors: &[Vec<f32>],
    which: Vec<(usize, Option<f32>)>,
) -> anyhow::Result<()> {
    let mut out = stdout().lock();
    for (i, similarity) in which {
        let Passage { text, place } = &passages[i];
        let mut object = json!({"text": text, "place": place, "embedding": vectors[i]});
        if let Some(similarity) = similarity {
            object["similarity"] = json!(similarity);
        }
        writeln!(out, "{object}")?;
    }
    Ok(())
}

impl Passage {
    /// The beginning of the text on one line, after its place.
    fn shown(&self) -> String {
        const MOST: usize = 72;
        let line = self.text.split_whitespace().collect::<Vec<_>>().join(" ");
        let mut shown: String = line.chars().take(MOST).collect();
        if shown.len() < line.len() {
            shown.push('…');
        }
        match &self.place {
            Some(place) => format!("{place}  {shown}"),
            None => shown,
        }
    }
}
