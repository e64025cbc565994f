//! Lists and purges what `generate --keep` and `--packed` leave for later runs.
//!
//! ```text
//! cargo run --release --example generate -- --keep kept "Sum up: …"
//! cargo run --release --example cache -- list kept
//! cargo run --release --example cache -- purge kept
//! cargo run --release --example generate -- --packed map "Hello"
//! cargo run --release --example cache -- packed list
//! cargo run --release --example cache -- packed purge
//! ```
//!
//! A file of `--keep` has the keys and values of a text, and its tokens: private text. One of
//! `--packed` has the weights of a model, and names its file with the SHA-256 that it had. Only its
//! owner can read either, and nothing is kept unless asked for.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::SystemTime,
};

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};
use converge_core::{cache::Store, hub};
use converge_examples::cli;
use converge_quant::{PackedMode, PackedStore};
use serde_json::{Value, json};

/// List or purge what is kept on disk: beginnings of prompts, packed weights.
#[derive(Parser)]
#[command(name = "cache")]
struct Args {
    #[command(subcommand)]
    what: What,
    /// One JSON object on stdout
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum What {
    /// What is there, the most recently used first
    List {
        /// The folder that `generate --keep` was given
        folder: PathBuf,
    },
    /// Remove all of it
    Purge {
        /// The folder that `generate --keep` was given
        folder: PathBuf,
    },
    /// Packed weights, in ~/.cache/converge/packed or the folder that CONVERGE_PACKED names
    Packed {
        #[command(subcommand)]
        what: PackedWhat,
    },
}

#[derive(Subcommand)]
enum PackedWhat {
    /// What is there, the most recently used first
    List,
    /// Remove all of it
    Purge,
}

/// A file that is kept.
struct Kept {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
    /// The model's files that it was made of, with their SHA-256.
    sources: Vec<(PathBuf, String)>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    cli::run(|| run(&args))
}

fn run(args: &Args) -> anyhow::Result<()> {
    match &args.what {
        What::List { folder } => list(args.json, folder, &beginnings(folder)?.1),
        What::Purge { folder } => {
            let (store, kept) = beginnings(folder)?;
            purge(args.json, folder, &kept, || Ok(store.purge()?))
        }
        What::Packed { what } => {
            let folder = hub::packed_dir()?;
            let store = PackedStore::new(&folder, PackedMode::Read);
            let hex = |bytes: [u8; 32]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let kept = store.entries()?.into_iter().map(|entry| Kept {
                path: entry.path,
                bytes: entry.bytes,
                used: entry.used,
                sources: entry
                    .sources
                    .into_iter()
                    .map(|(path, sha256)| (path, hex(sha256)))
                    .collect(),
            });
            let kept: Vec<_> = kept.collect();
            match what {
                PackedWhat::List => list(args.json, &folder, &kept),
                PackedWhat::Purge => purge(args.json, &folder, &kept, || Ok(store.purge()?)),
            }
        }
    }
}

/// What `generate --keep` has left in a folder.
fn beginnings(folder: &Path) -> anyhow::Result<(Store, Vec<Kept>)> {
    if !folder.is_dir() {
        bail!("{} is no folder: give the one of --keep", folder.display());
    }
    let store = Store::new(folder, u64::MAX)?;
    let kept = store.entries()?.into_iter().map(|entry| Kept {
        path: entry.path,
        bytes: entry.bytes,
        used: entry.used,
        sources: Vec::new(),
    });
    let kept = kept.collect();
    Ok((store, kept))
}

fn list(as_json: bool, folder: &Path, kept: &[Kept]) -> anyhow::Result<()> {
    if as_json {
        let entries: Vec<Value> = kept.iter().map(as_value).collect();
        println!("{}", json!({ "bytes": total(kept), "entries": entries }));
        return Ok(());
    }
    for entry in kept {
        let name = entry.path.file_name().unwrap_or_default().display();
        println!(
            "{name}  {:>9}  used {} s ago",
            cli::bytes(entry.bytes),
            age(entry)
        );
        for (path, sha256) in &entry.sources {
            println!("  of {}, SHA-256 {sha256}", path.display());
        }
    }
    let bytes = cli::bytes(total(kept));
    println!("{} files, {bytes} in {}", kept.len(), folder.display());
    Ok(())
}

fn as_value(entry: &Kept) -> Value {
    let mut value = json!({
        "path": entry.path,
        "bytes": entry.bytes,
        "used_seconds_ago": age(entry),
    });
    if !entry.sources.is_empty() {
        let sources = entry.sources.iter();
        let sources = sources.map(|(path, sha256)| json!({ "path": path, "sha256": sha256 }));
        value["sources"] = sources.collect();
    }
    value
}

fn purge(
    as_json: bool,
    folder: &Path,
    kept: &[Kept],
    remove: impl FnOnce() -> anyhow::Result<usize>,
) -> anyhow::Result<()> {
    let removed = remove().context("what is left is still there")?;
    let bytes = total(kept);
    if as_json {
        println!("{}", json!({ "removed": removed, "bytes": bytes }));
    } else {
        let bytes = cli::bytes(bytes);
        println!("removed {removed} files, {bytes} in {}", folder.display());
    }
    Ok(())
}

fn total(kept: &[Kept]) -> u64 {
    kept.iter().map(|entry| entry.bytes).sum()
}

fn age(entry: &Kept) -> u64 {
    let age = SystemTime::now().duration_since(entry.used);
    age.map_or(0, |age| age.as_secs())
}
