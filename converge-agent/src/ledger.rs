//! What a run cost, by phase: calls, tokens, seconds, and what it would have cost elsewhere.

use std::collections::BTreeMap;

use converge_core::generate::Usage;
use serde::{Deserialize, Serialize};

use crate::phase::Phase;

/// Sums over some calls to the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Calls to the model.
    pub calls: u64,
    /// Prompt tokens computed.
    pub prefilled: u64,
    /// Prompt tokens that the KV cache held already.
    pub reused: u64,
    /// Tokens generated.
    pub decoded: u64,
    /// Of those, tokens that the grammar left no choice about.
    pub forced: u64,
    /// Passes of the model that tokens were chosen after.
    #[serde(default)]
    pub passes: u64,
    /// Tokens that were guessed before the model chose them.
    #[serde(default)]
    pub drafted: u64,
    /// Of those, the ones that it then chose.
    #[serde(default)]
    pub accepted: u64,
    /// Seconds that the model took.
    pub seconds: f64,
}

impl Cost {
    fn add(&mut self, usage: &Usage) {
        self.calls += 1;
        self.prefilled += usage.prefilled as u64;
        self.reused += usage.reused as u64;
        self.decoded += usage.decoded as u64;
        self.forced += usage.forced as u64;
        self.passes += usage.passes as u64;
        self.drafted += usage.drafted as u64;
        self.accepted += usage.accepted as u64;
        self.seconds += usage.prefill_seconds + usage.decode_seconds;
    }
}

/// The ledger of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    /// Cost by phase.
    pub phases: BTreeMap<Phase, Cost>,
    /// Calls of tools.
    pub tool_calls: u64,
    /// Seconds from start to end, tools included.
    pub seconds: f64,
}

impl Ledger {
    /// Books one call of a phase.
    pub fn book(&mut self, phase: Phase, usage: &Usage) {
        self.phases.entry(phase).or_default().add(usage);
    }

    /// The sum over all phases.
    pub fn total(&self) -> Cost {
        self.phases
            .values()
            .fold(Cost::default(), |sum, cost| Cost {
                calls: sum.calls + cost.calls,
                prefilled: sum.prefilled + cost.prefilled,
                reused: sum.reused + cost.reused,
                decoded: sum.decoded + cost.decoded,
                forced: sum.forced + cost.forced,
                passes: sum.passes + cost.passes,
                drafted: sum.drafted + cost.drafted,
                accepted: sum.accepted + cost.accepted,
                seconds: sum.seconds + cost.seconds,
            })
    }

    /// What the calls would have cost at `price` each.
    pub fn price(&self, price: f64) -> f64 {
        self.total().calls as f64 * price
    }
}

impl std::fmt::Display for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "{:<9} {:>5} {:>9} {:>7} {:>7} {:>7} {:>7} {:>8} {:>8}",
            "phase",
            "calls",
            "prefilled",
            "reused",
            "decoded",
            "forced",
            "passes",
            "guessed",
            "seconds"
        )?;
        let mut row = |name: &str, cost: &Cost| {
            writeln!(
                f,
                "{:<9} {:>5} {:>9} {:>7} {:>7} {:>7} {:>7} {:>8} {:>8.1}",
                name,
                cost.calls,
                cost.prefilled,
                cost.reused,
                cost.decoded,
                cost.forced,
                cost.passes,
                cost.accepted,
                cost.seconds
            )
        };
        for (phase, cost) in &self.phases {
            row(phase.name(), cost)?;
        }
        row("all", &self.total())?;
        write!(
            f,
            "{} tool calls, {:.1} s in all",
            self.tool_calls, self.seconds
        )
    }
}
