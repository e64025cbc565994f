//! The built-in tools in one box.

use super::{Folder, ToolError, Toolbox, calculate, date, list, read, search, table, write};

impl Toolbox {
    /// `list`, `read`, `search`, `table` and `profile` over a folder, and `calculate` and `date`.
    ///
    /// # Errors
    /// None in practice: the names are different.
    pub fn read_only(folder: &Folder) -> Result<Self, ToolError> {
        let mut tools = Self::new();
        tools
            .add(list::tool(folder.clone()))?
            .add(read::tool(folder.clone()))?
            .add(search::tool(folder.clone()))?
            .add(table::tool(folder.clone()))?
            .add(profile(folder.clone()))?
            .add(calculate::tool())?
            .add(date::tool())?;
        Ok(tools)
    }

    /// [`Toolbox::read_only`] and `write`, which needs an approval for each call.
    ///
    /// # Errors
    /// None in practice: the names are different.
    pub fn read_write(folder: &Folder) -> Result<Self, ToolError> {
        let mut tools = Self::read_only(folder)?;
        tools.add(write::tool(folder.clone()))?;
        Ok(tools)
    }
}

/// Arguments of `profile`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct ProfileArgs {
    /// Path of the table file.
    path: String,
}

/// [`table::profile`] as a tool.
fn profile(folder: Folder) -> impl super::Tool {
    let description = "Says which columns a table file has and what they hold.";
    super::FnTool::new(
        "profile",
        description,
        super::Effect::ReadOnly,
        move |args: ProfileArgs, context| {
            context.check()?;
            let profile = table::profile(&folder, &args.path)?;
            super::ToolOutput::new(&profile, profile.text())
        },
    )
}
