//! `date`: arithmetic with civil dates, so that a model never counts days itself.

use std::fmt;

use jiff::civil::{Date, Weekday};
use jiff::{Span, Unit};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::civil::parse_date;
use super::{Effect, FnTool, Tool, ToolError, ToolOutput, clip};

/// What to do with dates. Dates are written as in the documents, such as `2025-03-14`,
/// `14.03.2025`, `14 March 2025` or `March 14, 2025`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum DateArgs {
    /// The date that lies an amount of units after a date.
    Add {
        /// The date to start from.
        date: String,
        /// How many units.
        amount: i64,
        /// Of what.
        unit: DateUnit,
    },
    /// The date that lies an amount of units before a date.
    Subtract {
        /// The date to start from.
        date: String,
        /// How many units.
        amount: i64,
        /// Of what.
        unit: DateUnit,
    },
    /// The time from one date to another, in days, in months and in years.
    Difference {
        /// The first date.
        from: String,
        /// The second date.
        to: String,
    },
    /// The day of the week.
    Weekday {
        /// The date.
        date: String,
    },
    /// The earliest of some dates.
    Earliest {
        /// The dates.
        dates: Vec<String>,
    },
    /// The latest of some dates.
    Latest {
        /// The dates.
        dates: Vec<String>,
    },
}

impl DateArgs {
    /// The dates given, as written.
    pub fn dates(&self) -> Vec<&str> {
        match self {
            Self::Add { date, .. } | Self::Subtract { date, .. } | Self::Weekday { date } => {
                vec![date]
            }
            Self::Difference { from, to } => vec![from, to],
            Self::Earliest { dates } | Self::Latest { dates } => {
                dates.iter().map(String::as_str).collect()
            }
        }
    }
}

/// A unit of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DateUnit {
    /// Days.
    Days,
    /// Seven days.
    Weeks,
    /// Calendar months; the last day where the month is shorter.
    Months,
    /// Calendar years.
    Years,
}

/// What came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DateResult {
    /// A date.
    Date {
        /// Which, in JSON as `YYYY-MM-DD`.
        #[serde(with = "super::civil::as_text")]
        date: Date,
    },
    /// A span of time, negative where the second date is the earlier one.
    Difference {
        /// In days.
        days: i64,
        /// Whole months in it.
        months: i64,
        /// Days beyond the whole months.
        days_beyond_months: i64,
        /// Whole years in it.
        years: i64,
        /// Months beyond the whole years.
        months_beyond_years: i64,
    },
}

/// A date that cannot be read or reached.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DateError {
    /// Not a date in a form that has one meaning.
    #[error("{text:?} is not a date; write it like 2025-03-14")]
    Unreadable {
        /// The text, at most 64 bytes of it.
        text: String,
    },
    /// Beyond the years -9999 to 9999.
    #[error("the date lies beyond the year 9999")]
    OutOfRange,
    /// No date to choose from.
    #[error("there is no date to choose from")]
    NoDates,
}

impl fmt::Display for DateResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Date { date } => write!(f, "{date} ({})", name_of(date.weekday())),
            Self::Difference {
                days,
                months,
                days_beyond_months,
                years,
                months_beyond_years,
            } => write!(
                f,
                "{days} days; {months} months and {days_beyond_months} days; \
                 {years} years, {months_beyond_years} months and {days_beyond_months} days"
            ),
        }
    }
}

fn name_of(day: Weekday) -> &'static str {
    match day {
        Weekday::Monday => "Monday",
        Weekday::Tuesday => "Tuesday",
        Weekday::Wednesday => "Wednesday",
        Weekday::Thursday => "Thursday",
        Weekday::Friday => "Friday",
        Weekday::Saturday => "Saturday",
        Weekday::Sunday => "Sunday",
    }
}

/// Does what `args` say.
///
/// # Errors
/// A date that cannot be read, or a result beyond the calendar.
pub fn date(args: &DateArgs) -> Result<DateResult, DateError> {
    let date = match args {
        DateArgs::Add { date, amount, unit } => shifted(read(date)?, *amount, *unit)?,
        DateArgs::Subtract { date, amount, unit } => {
            let amount = amount.checked_neg().ok_or(DateError::OutOfRange)?;
            shifted(read(date)?, amount, *unit)?
        }
        DateArgs::Difference { from, to } => return difference(read(from)?, read(to)?),
        DateArgs::Weekday { date } => read(date)?,
        DateArgs::Earliest { dates } => read_all(dates)?
            .into_iter()
            .min()
            .ok_or(DateError::NoDates)?,
        DateArgs::Latest { dates } => read_all(dates)?
            .into_iter()
            .max()
            .ok_or(DateError::NoDates)?,
    };
    Ok(DateResult::Date { date })
}

fn read(text: &str) -> Result<Date, DateError> {
    parse_date(text).ok_or_else(|| DateError::Unreadable {
        text: clip(text, 64).0.to_owned(),
    })
}

fn read_all(dates: &[String]) -> Result<Vec<Date>, DateError> {
    dates.iter().map(|text| read(text)).collect()
}

fn shifted(date: Date, amount: i64, unit: DateUnit) -> Result<Date, DateError> {
    let span = match unit {
        DateUnit::Days => Span::new().try_days(amount),
        DateUnit::Weeks => Span::new().try_weeks(amount),
        DateUnit::Months => Span::new().try_months(amount),
        DateUnit::Years => Span::new().try_years(amount),
    };
    span.and_then(|span| date.checked_add(span))
        .map_err(|_| DateError::OutOfRange)
}

fn difference(from: Date, to: Date) -> Result<DateResult, DateError> {
    let until = |unit| from.until((unit, to)).map_err(|_| DateError::OutOfRange);
    let (days, months, years) = (until(Unit::Day)?, until(Unit::Month)?, until(Unit::Year)?);
    Ok(DateResult::Difference {
        days: days.get_days().into(),
        months: months.get_months().into(),
        days_beyond_months: months.get_days().into(),
        years: years.get_years().into(),
        months_beyond_years: years.get_months().into(),
    })
}

/// [`date`] as a tool named `date`.
pub fn tool() -> impl Tool {
    let description = "Calculates with dates: adds or subtracts days, weeks, months or years, \
                       counts the time between two dates, finds the weekday, the earliest or the \
                       latest.";
    FnTool::new(
        "date",
        description,
        Effect::ReadOnly,
        |args: DateArgs, _| {
            let result = date(&args).map_err(ToolError::Date)?;
            ToolOutput::new(&result, result.to_string())
        },
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::tool::ToolContext;

    fn run(args: serde_json::Value) -> String {
        tool()
            .call(&args, &ToolContext::default())
            .map_or_else(|e| e.to_string(), |o| o.text)
    }

    #[test]
    fn each_operation_gives_its_result() {
        for (args, text) in [
            (
                json!({"op": "add", "date": "31 January 2025", "amount": 1, "unit": "months"}),
                "2025-02-28 (Friday)",
            ),
            (
                json!({"op": "subtract", "date": "2024-02-29", "amount": 1, "unit": "years"}),
                "2023-02-28 (Tuesday)",
            ),
            (
                json!({"op": "add", "date": "14.03.2025", "amount": -2, "unit": "weeks"}),
                "2025-02-28 (Friday)",
            ),
            (
                json!({"op": "add", "date": "March 1, 2025", "amount": 90, "unit": "days"}),
                "2025-05-30 (Friday)",
            ),
            (
                json!({"op": "difference", "from": "2024-01-31", "to": "2025-03-01"}),
                "395 days; 13 months and 1 days; 1 years, 1 months and 1 days",
            ),
            (
                json!({"op": "difference", "from": "2025-03-01", "to": "2025-02-27"}),
                "-2 days; 0 months and -2 days; 0 years, 0 months and -2 days",
            ),
            (
                json!({"op": "weekday", "date": "2000-01-01"}),
                "2000-01-01 (Saturday)",
            ),
            (
                json!({"op": "latest", "dates": ["1 May 2025", "2025-04-30", "02.05.2025"]}),
                "2025-05-02 (Friday)",
            ),
            (
                json!({"op": "earliest", "dates": ["1 May 2025", "2025-04-30"]}),
                "2025-04-30 (Wednesday)",
            ),
            (
                json!({"op": "earliest", "dates": []}),
                "there is no date to choose from",
            ),
            (
                json!({"op": "weekday", "date": "soon"}),
                "\"soon\" is not a date; write it like 2025-03-14",
            ),
            (
                json!({"op": "add", "date": "2025-01-01", "amount": i64::MIN, "unit": "days"}),
                "the date lies beyond the year 9999",
            ),
            (
                json!({"op": "subtract", "date": "2025-01-01", "amount": i64::MIN, "unit": "days"}),
                "the date lies beyond the year 9999",
            ),
        ] {
            assert_eq!(run(args.clone()), text, "{args}");
        }
    }

    proptest! {
        #[test]
        fn a_difference_added_gives_the_other_date(a in 0_i32..300_000, b in 0_i32..300_000) {
            let day = |n| Date::new(1600, 1, 1).unwrap().checked_add(Span::new().days(n)).unwrap();
            let (from, to) = (day(a), day(b));
            let DateResult::Difference { days, .. } = difference(from, to).unwrap() else {
                unreachable!()
            };
            prop_assert_eq!(days, i64::from(b) - i64::from(a));
            prop_assert_eq!(shifted(from, days, DateUnit::Days), Ok(to));
        }
    }
}
