//! What a run may spend and what it may change: budgets and approvals.

mod approval;
mod budget;

pub use approval::{Approval, ApprovalRequest, AskWith, Decision, DenyAll, Permit, review};
pub use budget::{Budget, Exceeded, Limit, Spent};
