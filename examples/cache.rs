//! Lists and purges what `generate --keep` leaves for later runs.
//!
//! ```text
//! cargo run --release --example generate -- --keep kept "Sum up: …"
//! cargo run --release --example cache -- list kept
//! cargo run --release --example cache -- purge kept
//! ```
//!
//! A file has the keys and values of a text, and its tokens: private text. Only its owner can read it,
//! and nothing is kept unless asked for.

use std::{path::PathBuf, process::ExitCode, time::SystemTime};

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};
use converge_core::cache::{Store, StoreEntry};
use converge_examples::cli;
use serde_json::json;

/// List or purge a folder of kept beginnings.
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
}

fn main() -> ExitCode {
    let args = Args::parse();
    cli::run(|| run(&args))
}

fn run(args: &Args) -> anyhow::Result<()> {
    let (What::List { folder } | What::Purge { folder }) = &args.what;
    if !folder.is_dir() {
        bail!("{} is no folder: give the one of --keep", folder.display());
    }
    let store = Store::new(folder, u64::MAX)?;
    let entries = store.entries()?;
    let bytes: u64 = entries.iter().map(|entry| entry.bytes).sum();
    let folder = folder.display();
    match &args.what {
        What::List { .. } if args.json => {
            let entries = entries.iter().map(|entry| {
                json!({
                    "path": entry.path,
                    "bytes": entry.bytes,
                    "used_seconds_ago": age(entry),
                })
            });
            println!(
                "{}",
                json!({ "bytes": bytes, "entries": entries.collect::<Vec<_>>() })
            );
        }
        What::List { .. } => {
            for entry in &entries {
                let name = entry.path.file_name().unwrap_or_default().display();
                println!(
                    "{name}  {:>9}  used {} s ago",
                    cli::bytes(entry.bytes),
                    age(entry)
                );
            }
            println!("{} files, {} in {folder}", entries.len(), cli::bytes(bytes));
        }
        What::Purge { .. } => {
            let removed = store.purge().context("what is left is still there")?;
            if args.json {
                println!("{}", json!({ "removed": removed, "bytes": bytes }));
            } else {
                println!("removed {removed} files, {} in {folder}", cli::bytes(bytes));
            }
        }
    }
    Ok(())
}

fn age(entry: &StoreEntry) -> u64 {
    let age = SystemTime::now().duration_since(entry.used);
    age.map_or(0, |age| age.as_secs())
}
