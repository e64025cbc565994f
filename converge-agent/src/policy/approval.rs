//! Approvals: a tool that changes something outside the run needs a permit for exactly that call.

use serde_json::Value;

use crate::tool::{Effect, Tool};

/// A call that waits for a decision.
#[derive(Clone, Copy, Debug)]
pub struct ApprovalRequest<'a> {
    /// Name of the tool.
    pub tool: &'a str,
    /// What the tool does to the world.
    pub effect: Effect,
    /// The arguments as they would be passed.
    pub args: &'a Value,
}

/// The answer to an [`ApprovalRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Go ahead with this call, once.
    Approve,
    /// Do not; the reason, if any, is shown to the model.
    Deny {
        /// Why, in words for the model and the user.
        reason: Option<String>,
    },
}

/// Who decides about calls that change something.
pub trait Approval: Send + Sync {
    /// Decides about one call. May ask a person and so take long.
    fn decide(&self, request: &ApprovalRequest<'_>) -> Decision;
}

/// Denies every call: what a run does unless told otherwise.
#[derive(Clone, Copy, Debug, Default)]
pub struct DenyAll;

impl Approval for DenyAll {
    fn decide(&self, _: &ApprovalRequest<'_>) -> Decision {
        Decision::Deny { reason: None }
    }
}

/// Asks a function.
pub struct AskWith<F>(pub F);

impl<F: Fn(&ApprovalRequest<'_>) -> Decision + Send + Sync> Approval for AskWith<F> {
    fn decide(&self, request: &ApprovalRequest<'_>) -> Decision {
        (self.0)(request)
    }
}

/// Proof that one call, with these very arguments, was approved. Only [`review`] makes one.
#[derive(Debug)]
pub struct Permit {
    tool: String,
    args: Value,
}

impl Permit {
    /// Whether this permit is for that call.
    pub fn covers(&self, tool: &str, args: &Value) -> bool {
        self.tool == tool && self.args == *args
    }
}

/// Asks `approval` about a call of `tool`.
///
/// # Errors
/// The [`Decision::Deny`]'s reason.
pub fn review(
    approval: &dyn Approval,
    tool: &dyn Tool,
    args: &Value,
) -> Result<Permit, Option<String>> {
    let request = ApprovalRequest {
        tool: tool.name(),
        effect: tool.effect(),
        args,
    };
    match approval.decide(&request) {
        Decision::Approve => Ok(Permit {
            tool: tool.name().to_owned(),
            args: args.clone(),
        }),
        Decision::Deny { reason } => Err(reason),
    }
}
