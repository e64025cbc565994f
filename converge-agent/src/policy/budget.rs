//! Budgets: upper limits of a run, and the typed report of the one that was reached.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Upper limits of one run; `None` sets no limit. The default suits one question over a folder
/// of documents on a small machine.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Budget {
    /// Calls of the model.
    pub calls: Option<u64>,
    /// Tokens that the model reads anew and writes (reused ones cost nothing).
    pub tokens: Option<u64>,
    /// Wall-clock seconds.
    pub seconds: Option<f64>,
    /// Calls of tools.
    pub tool_calls: Option<u64>,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            calls: Some(200),
            tokens: Some(400_000),
            seconds: Some(3600.0),
            tool_calls: Some(400),
        }
    }
}

impl Budget {
    /// No limit at all.
    pub fn unlimited() -> Self {
        Self {
            calls: None,
            tokens: None,
            seconds: None,
            tool_calls: None,
        }
    }

    /// Whether something is left of every limit, so that a next step may begin.
    ///
    /// # Errors
    /// The first limit that `spent` reaches, in the order of the fields. A limit or a time that
    /// is not a number counts as reached.
    pub fn check(&self, spent: &Spent) -> Result<(), Exceeded> {
        self.reached(Limit::Calls, self.calls, spent.calls)?;
        self.reached(Limit::Tokens, self.tokens, spent.tokens)?;
        if let Some(limit) = self.seconds
            && !matches!(
                spent.seconds.partial_cmp(&limit),
                Some(std::cmp::Ordering::Less)
            )
        {
            return Err(Exceeded {
                limit: Limit::Seconds,
                allowed: limit,
                spent: spent.seconds,
            });
        }
        self.reached(Limit::ToolCalls, self.tool_calls, spent.tool_calls)
    }

    /// Tokens that may still be read and written; `None` without a limit.
    pub fn tokens_left(&self, spent: &Spent) -> Option<u64> {
        self.tokens.map(|limit| limit.saturating_sub(spent.tokens))
    }

    fn reached(&self, limit: Limit, allowed: Option<u64>, spent: u64) -> Result<(), Exceeded> {
        match allowed {
            Some(allowed) if spent >= allowed => Err(Exceeded {
                limit,
                allowed: allowed as f64,
                spent: spent as f64,
            }),
            _ => Ok(()),
        }
    }
}

/// What a run has used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spent {
    /// Calls of the model.
    pub calls: u64,
    /// Tokens read anew and written.
    pub tokens: u64,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// Calls of tools.
    pub tool_calls: u64,
}

/// Which limit of a [`Budget`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Limit {
    /// Calls of the model.
    Calls,
    /// Tokens read anew and written.
    Tokens,
    /// Wall-clock seconds.
    Seconds,
    /// Calls of tools.
    ToolCalls,
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Calls => "model calls",
            Self::Tokens => "tokens",
            Self::Seconds => "seconds",
            Self::ToolCalls => "tool calls",
        })
    }
}

/// A budget ran out.
#[derive(Clone, Copy, Debug, PartialEq, Error, Serialize, Deserialize)]
#[error("the budget of {allowed} {limit} is used up ({spent} spent)")]
pub struct Exceeded {
    /// The limit that was reached first.
    pub limit: Limit,
    /// What it allows.
    pub allowed: f64,
    /// What was spent.
    pub spent: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_is_named_when_it_is_reached() {
        let budget = Budget {
            calls: Some(2),
            tokens: Some(10),
            seconds: Some(1.5),
            tool_calls: Some(3),
        };
        let below = Spent {
            calls: 1,
            tokens: 9,
            seconds: 1.49,
            tool_calls: 2,
        };
        assert_eq!(budget.check(&below), Ok(()));
        let reached = [
            (Limit::Calls, Spent { calls: 2, ..below }),
            (
                Limit::Tokens,
                Spent {
                    tokens: 11,
                    ..below
                },
            ),
            (
                Limit::Seconds,
                Spent {
                    seconds: 1.5,
                    ..below
                },
            ),
            (
                Limit::Seconds,
                Spent {
                    seconds: f64::NAN,
                    ..below
                },
            ),
            (
                Limit::ToolCalls,
                Spent {
                    tool_calls: 3,
                    ..below
                },
            ),
        ];
        for (limit, spent) in reached {
            assert_eq!(budget.check(&spent).unwrap_err().limit, limit);
            assert_eq!(Budget::unlimited().check(&spent), Ok(()));
        }
        assert_eq!(budget.tokens_left(&below), Some(1));
        let message = budget
            .check(&Spent { calls: 2, ..below })
            .unwrap_err()
            .to_string();
        assert_eq!(message, "the budget of 2 model calls is used up (2 spent)");
    }

    #[test]
    fn a_budget_reads_back_from_json_and_refuses_unknown_fields() {
        let budget = Budget {
            calls: Some(5),
            ..Budget::unlimited()
        };
        let text = serde_json::to_string(&budget).unwrap();
        assert_eq!(serde_json::from_str::<Budget>(&text).unwrap(), budget);
        assert!(serde_json::from_str::<Budget>(r#"{"dollars": 3}"#).is_err());
    }
}
