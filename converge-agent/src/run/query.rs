//! Execute, on a table: what becomes of a query's result.

use std::collections::HashSet;

use super::{
    state::{Run, Stage},
    survey::typed,
};
use crate::{
    error::Result,
    evidence::Evidence,
    tool::{
        Source, ToolOutput,
        table::{AggregateOp, Compare, Condition, TableArgs, TableResult},
        words,
    },
};

impl Run {
    /// Takes the result of a query. One that no row matched is tried without the conditions that
    /// nobody spoke of, then once more in another way; only a count may be zero.
    pub(super) fn queried(
        &mut self,
        args: TableArgs,
        again: bool,
        output: ToolOutput,
    ) -> Result<Stage> {
        let path = args.path.clone();
        let lines = output.sources.iter().filter(|source| source.path == path);
        let first = lines.clone().map(|source| source.first).min().unwrap_or(1);
        let last = lines.map(|source| source.last).max().unwrap_or(first);
        let quote = output.text.clone();
        let result: TableResult = typed("table", output)?;
        if result.matched == 0
            && let Some(args) = self.without_unspoken(&args)
        {
            return Ok(Stage::Table { args, again });
        }
        if result.matched == 0 && !again {
            let failed = Some(args);
            return Ok(Stage::Query { path, failed });
        }
        if result.matched > 0 || args.aggregate.op == AggregateOp::Count {
            self.add(Evidence {
                source: Source { path, first, last },
                quote,
                fact: Some(query_text(&args)),
                value: None,
            });
        }
        Ok(self.next_work())
    }

    /// A query without the conditions whose values stand neither in the question nor in what was
    /// found; `None` where that leaves all of them, or none.
    fn without_unspoken(&self, args: &TableArgs) -> Option<TableArgs> {
        let known = self.known();
        let texts = known.iter().map(String::as_str).chain([self.question()]);
        let spoken: HashSet<String> = texts.flat_map(words::stems).collect();
        let is_spoken = |condition: &Condition| {
            let number = |word: &String| word.starts_with(|c: char| c.is_ascii_digit());
            let (numbers, texts): (Vec<_>, Vec<_>) =
                words::stems(&condition.value).partition(number);
            let text = texts.is_empty() || texts.iter().any(|word| spoken.contains(word));
            condition.other_column.is_some()
                || text && numbers.iter().all(|word| spoken.contains(word))
        };
        let mut fewer = args.clone();
        fewer.filter.retain(is_spoken);
        let less = (1..args.filter.len()).contains(&fewer.filter.len());
        less.then_some(fewer)
    }
}

/// A query in words: what a table was asked.
pub(super) fn query_text(args: &TableArgs) -> String {
    let mut text = format!("{:?}", args.aggregate.op).to_lowercase();
    if let Some(column) = &args.aggregate.column {
        text.push_str(&format!(" of {column}"));
    }
    if let Some(group) = &args.group_by {
        text.push_str(&format!(" by {group}"));
    }
    for (at, condition) in args.filter.iter().enumerate() {
        let op = match condition.op {
            Compare::Eq => "=",
            Compare::Ne => "is not",
            Compare::Lt => "<",
            Compare::Le => "<=",
            Compare::Gt => ">",
            Compare::Ge => ">=",
            Compare::Contains => "contains",
            Compare::Between => "from",
        };
        let word = if at == 0 { "where" } else { "and" };
        let with = condition.other_column.as_ref().unwrap_or(&condition.value);
        text.push_str(&format!(" {word} {} {op} {with}", condition.column));
        if let Some(to) = &condition.to {
            text.push_str(&format!(" to {to}"));
        }
    }
    text
}
