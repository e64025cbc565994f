//! Fetches models into the cache, lists them, or checks them.
//!
//! ```text
//! cargo run --release --example fetch -- --list
//! cargo run --release --example fetch -- smollm2-135m
//! cargo run --release --example fetch -- --verify
//! ```
//!
//! The other examples fetch what they need by themselves; this one is for doing it ahead, for
//! instance before going offline. Models lie in `~/.cache/converge/models`, or in the folder that
//! `CONVERGE_MODELS` names. They come from Hugging Face, or the mirror that
//! `HF_ENDPOINT` names, where that can be reached (`HF_HUB_OFFLINE=1` leaves it out), else with
//! `python3` and `pip`; either way they must have the pinned checksums.

use std::{
    io::{Write as _, stdout},
    path::Path,
    process::ExitCode,
};

use anyhow::bail;
use clap::{ArgGroup, Parser};
use converge_core::hub::{self, Entry, HubError};
use converge_examples::{cli, models};
use serde_json::json;

/// Fetch models by name into the cache, list them, or check them.
#[derive(Parser)]
#[command(name = "fetch")]
#[command(group(ArgGroup::new("what").args(["names", "all", "list", "verify"]).required(true).multiple(true)))]
struct Args {
    /// Models to fetch, or to check with --verify.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Fetch every known model.
    #[arg(long, conflicts_with = "names")]
    all: bool,
    /// List the known models and whether they are on this machine.
    #[arg(long, conflicts_with_all = ["names", "all"])]
    list: bool,
    /// Compute the checksums of the models given, or of all that are on this machine.
    #[arg(long, conflicts_with_all = ["all", "list"])]
    verify: bool,
    /// One JSON object a line on stdout.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    cli::run(|| {
        let cache = hub::cache_dir()?;
        if args.list {
            return list(&cache, args.json);
        }
        if args.verify {
            return verify(&cache, &chosen(&args, true)?, args.json);
        }
        for entry in chosen(&args, args.all)? {
            let path = models::ensure(entry.name)?;
            if args.json {
                writeln!(stdout(), "{}", json!({"name": entry.name, "path": path}))?;
            } else {
                writeln!(stdout(), "{}", path.display())?;
            }
        }
        Ok(())
    })
}

/// The models named, or all of them where none is and `all` holds.
fn chosen(args: &Args, all: bool) -> anyhow::Result<Vec<&'static Entry>> {
    if args.names.is_empty() && all {
        return Ok(hub::catalogue().iter().collect());
    }
    let known = || hub::catalogue().iter().map(|entry| entry.name).collect();
    let find = |name: &String| {
        hub::find(name).ok_or_else(|| {
            let (name, known) = (name.clone(), known());
            HubError::UnknownModel { name, known }.into()
        })
    };
    args.names.iter().map(find).collect()
}

fn list(cache: &Path, json: bool) -> anyhow::Result<()> {
    let mut out = stdout().lock();
    for entry in hub::catalogue() {
        let here = hub::resolve_in(cache, entry.name).is_ok();
        if json {
            let line = json!({
                "name": entry.name, "summary": entry.summary, "bytes": entry.size(),
                "licence": entry.licence, "path": cache.join(entry.path), "here": here,
            });
            writeln!(out, "{line}")?;
        } else {
            writeln!(
                out,
                "{:<20} {:>8}  {:<4} {} ({})",
                entry.name,
                cli::bytes(entry.size()),
                if here { "here" } else { "-" },
                entry.summary,
                entry.licence,
            )?;
        }
    }
    Ok(())
}

fn verify(cache: &Path, entries: &[&'static Entry], json: bool) -> anyhow::Result<()> {
    let named = entries.len() < hub::catalogue().len();
    let mut bad = 0;
    for entry in entries {
        let (state, error) = match models::verify(cache, entry) {
            Ok(()) => ("good", None),
            Err(HubError::NotFetched { .. }) if !named => ("not here", None),
            Err(error) => ("bad", Some(error.to_string())),
        };
        bad += usize::from(error.is_some());
        if json {
            let line = json!({"name": entry.name, "state": state, "error": error});
            writeln!(stdout(), "{line}")?;
        } else {
            writeln!(
                stdout(),
                "{:<20} {}",
                entry.name,
                error.as_deref().unwrap_or(state)
            )?;
        }
    }
    if bad > 0 {
        bail!(
            "{bad} of {} models are not as they should be",
            entries.len()
        );
    }
    Ok(())
}
