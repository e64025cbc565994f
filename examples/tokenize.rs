//! Shows how a model sees a text: its tokens, with their ids and the text of each.
//!
//! ```text
//! cargo run --release --example tokenize -- "Hello, world!"
//! cargo run --release --example tokenize -- --model path/to/model.gguf --json < README.md
//! cargo run --release --example tokenize -- --decode "9707 11 1879 0"
//! ```
//!
//! Only the header of the model's file is read. The text is taken as data: what reads like a
//! control token (`<|im_end|>`) is encoded as the characters it is made of. With `--special` it
//! becomes that token, as in text that a program wrote.
//!
//! Each line is an id, what kind of token it is where it is no text, and the token's text in
//! quotes; bytes that are no whole character are written as `\xE2`.

use std::{
    io::{Read as _, Write as _, stdin, stdout},
    process::ExitCode,
};

use anyhow::{Context as _, ensure};
use clap::Parser;
use converge_core::{
    TokenId,
    tokenizer::{Special, Tokenizer},
};
use converge_examples::{cli, engine, models};
use serde_json::json;

/// Show the tokens of a text, or the text of tokens.
#[derive(Parser)]
#[command(name = "tokenize")]
struct Args {
    /// Name of a known model (see `fetch --list`) or path of a GGUF file
    #[arg(short, long, default_value = models::DEFAULT)]
    model: String,
    /// The text; without it, stdin
    #[arg(value_name = "TEXT")]
    text: Option<String>,
    /// The text is token ids, separated by spaces or commas: decode them
    #[arg(long)]
    decode: bool,
    /// Text that reads like a control token becomes that token
    #[arg(long, conflicts_with = "decode")]
    special: bool,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    cli::run(|| {
        // 1. The tokenizer is in the header of the file, under `tokenizer.ggml.*`.
        let gguf = engine::open(&args.model)?;
        let tokenizer = Tokenizer::from_gguf(gguf.metadata())
            .map_err(|error| engine::with_advice(&gguf, error))?;

        // 2. From text to ids, or the ids as given.
        let given = match &args.text {
            Some(text) => text.clone(),
            None => {
                let mut text = String::new();
                let read = stdin().lock().read_to_string(&mut text);
                read.context("cannot read stdin as UTF-8 text")?;
                text
            }
        };
        let tokens = match args.decode {
            true => ids(&given, tokenizer.vocab())?,
            false => {
                let special = match args.special {
                    true => Special::Parse,
                    false => Special::Text,
                };
                if let Some((at, c)) = tokenizer.unencodable(&given) {
                    eprintln!("note: the vocabulary has no token for {c:?} (byte {at})");
                }
                tokenizer.encode(&given, special)?
            }
        };

        // 3. And back.
        let text = tokenizer.decode(&tokens, false);
        let mut out = stdout().lock();
        if args.json {
            let pieces: Vec<String> = tokens.iter().map(|&id| piece(&tokenizer, id)).collect();
            let object = json!({"tokens": tokens, "pieces": pieces, "text": text});
            writeln!(out, "{object}")?;
        } else if args.decode {
            writeln!(out, "{text}")?;
        } else {
            for &id in &tokens {
                let kind = if tokenizer.is_end(id) {
                    "end "
                } else if tokenizer.is_control(id) {
                    "control "
                } else {
                    ""
                };
                writeln!(out, "{id:>7} {kind}\"{}\"", piece(&tokenizer, id))?;
            }
        }
        Ok(())
    })
}

/// The token ids in a text.
fn ids(text: &str, vocab: usize) -> anyhow::Result<Vec<TokenId>> {
    text.split(|c: char| c.is_whitespace() || matches!(c, ',' | '[' | ']'))
        .filter(|id| !id.is_empty())
        .map(|id| {
            let token: TokenId = id
                .parse()
                .with_context(|| format!("{id:?} is no token id: give whole numbers"))?;
            ensure!(
                (token as usize) < vocab,
                "there is no token {token}: the vocabulary has {vocab}"
            );
            Ok(token)
        })
        .collect()
}

/// A token as text on one line.
fn piece(tokenizer: &Tokenizer, id: TokenId) -> String {
    if tokenizer.is_control(id) {
        return tokenizer.token_text(id).into_owned();
    }
    let mut text = String::new();
    for chunk in tokenizer.token_bytes(id).utf8_chunks() {
        let valid = chunk.valid().chars();
        text.extend(valid.flat_map(|c| match c.is_control() {
            true => c.escape_default().collect(),
            false => vec![c],
        }));
        for byte in chunk.invalid() {
            text += &format!("\\x{byte:02X}");
        }
    }
    text
}
