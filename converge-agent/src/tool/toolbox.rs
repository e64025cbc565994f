//! The tools of one agent, by name.

use std::sync::Arc;

use serde_json::Value;

use super::{Effect, Tool, ToolContext, ToolError, ToolOutput};

/// The tools that an agent may call, in the order in which they were added.
#[derive(Clone, Default)]
pub struct Toolbox {
    tools: Vec<Arc<dyn Tool>>,
}

impl Toolbox {
    /// Without any tool.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tool.
    ///
    /// # Errors
    /// A name that is taken, or one that is not `[a-z][a-z0-9_]*`.
    pub fn add(&mut self, tool: impl Tool + 'static) -> Result<&mut Self, ToolError> {
        let name = tool.name();
        let well_formed = name.starts_with(|c: char| c.is_ascii_lowercase())
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if !well_formed {
            return Err(ToolError::BadToolName {
                tool: name.to_owned(),
            });
        }
        if self.find(name).is_some() {
            return Err(ToolError::DuplicateTool {
                tool: name.to_owned(),
            });
        }
        self.tools.push(Arc::new(tool));
        Ok(self)
    }

    /// The tool of that name.
    pub fn find(&self, name: &str) -> Option<&dyn Tool> {
        self.iter().find(|tool| tool.name() == name)
    }

    /// The tool of that name.
    ///
    /// # Errors
    /// [`ToolError::UnknownTool`] with the names there are.
    pub fn get(&self, name: &str) -> Result<&dyn Tool, ToolError> {
        self.find(name).ok_or_else(|| ToolError::UnknownTool {
            tool: name.to_owned(),
            known: self.iter().map(|tool| tool.name().to_owned()).collect(),
        })
    }

    /// All tools, in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = &dyn Tool> {
        self.tools.iter().map(AsRef::as_ref)
    }

    /// Runs a call.
    ///
    /// # Errors
    /// An unknown tool, a mutating one without a permit for this call, and what the tool gives.
    pub fn call(
        &self,
        name: &str,
        args: &Value,
        context: &ToolContext<'_>,
    ) -> Result<ToolOutput, ToolError> {
        context.check()?;
        let tool = self.get(name)?;
        let approved = context
            .permit
            .is_some_and(|permit| permit.covers(name, args));
        if tool.effect() == Effect::Mutating && !approved {
            return Err(ToolError::NotApproved {
                tool: name.to_owned(),
            });
        }
        tool.call(args, context)
    }
}

impl std::fmt::Debug for Toolbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter().map(Tool::name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::policy::{AskWith, Decision, DenyAll, review};
    use crate::tool::FnTool;

    fn tool(name: &str, effect: Effect) -> impl Tool + 'static {
        FnTool::new(name, "", effect, |args: i64, _| {
            ToolOutput::new(&args, "done")
        })
    }

    #[test]
    fn names_are_unique_and_well_formed() {
        let mut tools = Toolbox::new();
        tools.add(tool("a", Effect::ReadOnly)).unwrap();
        tools.add(tool("b_2", Effect::ReadOnly)).unwrap();
        assert!(matches!(
            tools.add(tool("a", Effect::ReadOnly)),
            Err(ToolError::DuplicateTool { tool }) if tool == "a"
        ));
        for name in ["", "A", "2b", "a b", "ä", "_a"] {
            let added = tools.add(tool(name, Effect::ReadOnly));
            assert!(
                matches!(added, Err(ToolError::BadToolName { .. })),
                "{name:?}"
            );
        }
        assert_eq!(format!("{tools:?}"), r#"["a", "b_2"]"#);
        let missing = tools
            .call("c", &json!(1), &ToolContext::default())
            .unwrap_err();
        assert_eq!(
            missing.to_string(),
            r#"there is no tool "c"; there are a, b_2"#
        );
    }

    #[test]
    fn a_mutating_call_runs_only_with_a_permit_for_these_arguments() {
        let mut tools = Toolbox::new();
        tools.add(tool("send", Effect::Mutating)).unwrap();
        let call = |args, permit| {
            tools.call(
                "send",
                &args,
                &ToolContext {
                    cancel: None,
                    permit,
                },
            )
        };
        assert!(matches!(
            call(json!(1), None),
            Err(ToolError::NotApproved { .. })
        ));

        let send = tools.get("send").unwrap();
        assert_eq!(review(&DenyAll, send, &json!(1)).unwrap_err(), None);
        let small = AskWith(|request: &crate::policy::ApprovalRequest<'_>| {
            assert_eq!((request.tool, request.effect), ("send", Effect::Mutating));
            match request.args.as_i64() {
                Some(0..10) => Decision::Approve,
                _ => Decision::Deny {
                    reason: Some("too much".to_owned()),
                },
            }
        });
        assert_eq!(
            review(&small, send, &json!(11)).unwrap_err().as_deref(),
            Some("too much")
        );
        let permit = review(&small, send, &json!(1)).unwrap();
        assert_eq!(call(json!(1), Some(&permit)).unwrap().value, json!(1));
        assert!(matches!(
            call(json!(2), Some(&permit)),
            Err(ToolError::NotApproved { .. })
        ));
    }

    #[test]
    fn a_cancelled_run_calls_nothing() {
        let mut tools = Toolbox::new();
        tools.add(tool("a", Effect::ReadOnly)).unwrap();
        let cancel = converge_core::generate::Cancel::new();
        cancel.cancel();
        let context = ToolContext {
            cancel: Some(&cancel),
            permit: None,
        };
        assert!(matches!(
            tools.call("a", &json!(1), &context),
            Err(ToolError::Cancelled)
        ));
    }
}
