//! `calculate`: an expression over exact decimals.
//!
//! ```text
//! sum     = product { ("+" | "-") product }
//! product = signed { ("*" | "/") signed }
//! signed  = { "+" | "-" } power
//! power   = value [ "^" signed ]
//! value   = number | "(" sum ")" | name "(" sum { "," sum } ")" , { "%" }
//! ```
//! `%` divides by 100. `×`, `·`, `÷`, `−` and `**` are read as well, and currency signs at
//! numbers are passed over. Outside of a call's arguments numbers may have thousands separators.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::decimal::{Decimal, DecimalError};
use super::number::{NumberStyle, currency_of, scan_number};
use super::{Effect, FnTool, Tool, ToolError, ToolOutput};

/// Longest expression, in bytes.
pub const MAX_BYTES: usize = 4096;
/// Most brackets, signs and powers inside each other.
pub const MAX_DEPTH: usize = 64;

/// Arguments of the tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CalculateArgs {
    /// Numbers with + - * / ^ % ( ) and round(x, digits), min(…), max(…), sum(…), mean(…),
    /// abs(x), floor(x), ceil(x). No variables.
    pub expression: String,
}

/// A result and what it was made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calculation {
    /// The result.
    pub value: Decimal,
    /// The numbers written in the expression, in order, each as it stands (`12` for `12%`).
    pub numbers: Vec<Decimal>,
}

impl std::fmt::Display for Calculation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let short = self.value.round(10);
        if short == self.value {
            write!(f, "{short}")
        } else {
            write!(f, "{short} (rounded to 10 digits)")
        }
    }
}

/// An expression without a result; offsets are bytes from its beginning.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ExpressionError {
    /// Longer than [`MAX_BYTES`].
    #[error("the expression has {bytes} bytes, more than {MAX_BYTES}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("more than {MAX_DEPTH} levels of brackets at byte {offset}")]
    TooDeep {
        /// Where.
        offset: usize,
    },
    /// Something else was needed.
    #[error("at byte {offset} {expected} is needed, but there is {}", shown(*found))]
    Unexpected {
        /// Where.
        offset: usize,
        /// What is there; `None` for the end.
        found: Option<char>,
        /// What would fit.
        expected: &'static str,
    },
    /// Digits that are no number.
    #[error("the digits at byte {offset} are not a number that can be used")]
    Number {
        /// Where.
        offset: usize,
    },
    /// A name that is no function.
    #[error(
        "there is no function {name:?} and there are no variables; write numbers, and round, \
         min, max, sum, mean, abs, floor, ceil"
    )]
    UnknownName {
        /// Where.
        offset: usize,
        /// The name.
        name: String,
    },
    /// A function with the wrong number of arguments, or digits to round to that are not 0 to 28.
    #[error("the arguments of {name} at byte {offset} do not fit")]
    Arguments {
        /// Where.
        offset: usize,
        /// The function.
        name: String,
    },
    /// A step without a result.
    #[error("at byte {offset}: {source}")]
    Arithmetic {
        /// Where the operator stands.
        offset: usize,
        /// Why.
        source: DecimalError,
    },
}

fn shown(found: Option<char>) -> String {
    found.map_or_else(|| "the end".to_owned(), |c| format!("{c:?}"))
}

/// Evaluates an expression.
///
/// # Errors
/// [`ExpressionError`], with the place.
pub fn calculate(expression: &str) -> Result<Calculation, ExpressionError> {
    if expression.len() > MAX_BYTES {
        return Err(ExpressionError::TooLong {
            bytes: expression.len(),
        });
    }
    let mut parser = Parser {
        text: expression,
        at: 0,
        depth: 0,
        in_call: false,
        numbers: Vec::new(),
    };
    let value = parser.sum()?;
    match parser.peek() {
        None => Ok(Calculation {
            value,
            numbers: parser.numbers,
        }),
        Some(_) => Err(parser.unexpected("an operator")),
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    /// Whether a comma separates arguments here.
    in_call: bool,
    numbers: Vec<Decimal>,
}

type Parsed = Result<Decimal, ExpressionError>;

impl Parser<'_> {
    /// The next character that is no blank.
    fn peek(&mut self) -> Option<char> {
        let rest = &self.text[self.at..];
        let rest = rest.trim_start();
        self.at = self.text.len() - rest.len();
        rest.chars().next()
    }

    /// Passes over one of these characters.
    fn eat(&mut self, any: &[char]) -> Option<char> {
        let c = self.peek().filter(|c| any.contains(c))?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn unexpected(&mut self, expected: &'static str) -> ExpressionError {
        ExpressionError::Unexpected {
            found: self.peek(),
            offset: self.at,
            expected,
        }
    }

    fn sum(&mut self) -> Parsed {
        let mut value = self.product()?;
        loop {
            let offset = self.at;
            let failed = |source| ExpressionError::Arithmetic { offset, source };
            value = match self.eat(&['+', '-', '−', '–']) {
                None => return Ok(value),
                Some('+') => value.checked_add(self.product()?).map_err(failed)?,
                Some(_) => value.checked_sub(self.product()?).map_err(failed)?,
            };
        }
    }

    fn product(&mut self) -> Parsed {
        let mut value = self.signed()?;
        loop {
            let offset = self.at;
            let failed = |source| ExpressionError::Arithmetic { offset, source };
            value = match self.eat(&['*', '×', '·', '/', '÷', ':']) {
                None => return Ok(value),
                Some('*' | '×' | '·') => value.checked_mul(self.signed()?).map_err(failed)?,
                Some(_) => value.checked_div(self.signed()?).map_err(failed)?,
            };
        }
    }

    fn signed(&mut self) -> Parsed {
        // The recursion that all others go through.
        if self.depth >= MAX_DEPTH {
            return Err(ExpressionError::TooDeep { offset: self.at });
        }
        self.depth += 1;
        let value = match self.eat(&['+', '-', '−', '–']) {
            None => self.power(),
            Some('+') => self.signed(),
            Some(_) => self.signed().map(|value| -value),
        };
        self.depth -= 1;
        value
    }

    fn power(&mut self) -> Parsed {
        let base = self.value()?;
        let offset = self.at;
        let stars = self.peek() == Some('*') && self.text[self.at..].starts_with("**");
        if stars {
            self.at += 2;
        } else if self.eat(&['^']).is_none() {
            return Ok(base);
        }
        let exponent = self.signed()?;
        base.checked_pow(exponent)
            .map_err(|source| ExpressionError::Arithmetic { offset, source })
    }

    fn value(&mut self) -> Parsed {
        while self.peek().is_some_and(|c| currency_of(c).is_some()) {
            self.at += self.peek().map_or(0, char::len_utf8);
        }
        let mut value = match self.peek() {
            Some('(') => {
                self.at += 1;
                let outer = std::mem::replace(&mut self.in_call, false);
                let value = self.sum()?;
                self.in_call = outer;
                self.close("an operator or )")?;
                value
            }
            Some(c) if c.is_ascii_digit() || c == '.' => self.number()?,
            Some(c) if c.is_alphabetic() => self.call()?,
            _ => return Err(self.unexpected("a number")),
        };
        loop {
            let offset = self.at;
            if self.eat(&['%']).is_some() {
                let failed = |source| ExpressionError::Arithmetic { offset, source };
                value = value.checked_div(Decimal::HUNDRED).map_err(failed)?;
            } else if self.peek().is_some_and(|c| currency_of(c).is_some()) {
                self.at += self.peek().map_or(0, char::len_utf8);
            } else {
                return Ok(value);
            }
        }
    }

    fn close(&mut self, expected: &'static str) -> Result<(), ExpressionError> {
        match self.eat(&[')']) {
            Some(_) => Ok(()),
            None => Err(self.unexpected(expected)),
        }
    }

    fn number(&mut self) -> Parsed {
        let offset = self.at;
        let rest = &self.text[offset..];
        let rest = match rest.find(',') {
            // max(1,200) has two arguments.
            Some(comma) if self.in_call => &rest[..comma],
            _ => rest,
        };
        let (value, len) = scan_number(rest, NumberStyle::Point, false)
            .ok_or(ExpressionError::Number { offset })?;
        self.at += len;
        self.numbers.push(value);
        Ok(value)
    }

    fn call(&mut self) -> Parsed {
        let offset = self.at;
        let rest = &self.text[offset..];
        let end = rest
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        let name = rest[..end].to_lowercase();
        self.at += end;
        let unknown = || ExpressionError::UnknownName {
            offset,
            name: super::clip(&rest[..end], 40).0.to_owned(),
        };
        const FUNCTIONS: [&str; 9] = [
            "round", "min", "max", "sum", "mean", "avg", "abs", "floor", "ceil",
        ];
        if !FUNCTIONS.contains(&name.as_str()) {
            return Err(unknown());
        }
        if self.eat(&['(']).is_none() {
            return Err(self.unexpected("("));
        }
        let outer = std::mem::replace(&mut self.in_call, true);
        let mut args = vec![self.sum()?];
        let mut written = self.numbers.len();
        while self.eat(&[',', ';']).is_some() {
            written = self.numbers.len();
            args.push(self.sum()?);
        }
        self.in_call = outer;
        self.close(", or )")?;
        if name == "round" && args.len() == 2 {
            // The digits to round to are no number of the matter.
            self.numbers.truncate(written);
        }
        apply(&name, &args)
            .map_err(|source| ExpressionError::Arithmetic { offset, source })?
            .ok_or(ExpressionError::Arguments { offset, name })
    }
}

/// The function's result; `None` where the arguments do not fit.
fn apply(name: &str, args: &[Decimal]) -> Result<Option<Decimal>, DecimalError> {
    let sum = || {
        args.iter()
            .try_fold(Decimal::ZERO, |sum, value| sum.checked_add(*value))
    };
    Ok(match (name, args) {
        ("round", [value]) => Some(value.round(0)),
        ("round", [value, digits]) => {
            let digits = digits
                .to_i64()
                .and_then(|digits| u32::try_from(digits).ok());
            digits
                .filter(|digits| *digits <= 28)
                .map(|digits| value.round(digits))
        }
        ("min", args) => args.iter().min().copied(),
        ("max", args) => args.iter().max().copied(),
        ("sum", _) => Some(sum()?),
        ("mean" | "avg", args) => {
            let count = Decimal::from(i64::try_from(args.len()).unwrap_or(i64::MAX));
            Some(sum()?.checked_div(count)?)
        }
        ("abs", [value]) => Some(value.abs()),
        ("floor", [value]) => Some(value.floor()),
        ("ceil", [value]) => Some(value.ceil()),
        _ => None,
    })
}

/// [`calculate`] as a tool named `calculate`.
pub fn tool() -> impl Tool {
    let description = "Calculates an expression exactly, such as 12 * 1200.50 or \
                       round(100 / 3, 2). Only numbers, no variables.";
    FnTool::new(
        "calculate",
        description,
        Effect::ReadOnly,
        |args: CalculateArgs, _| {
            let result = calculate(&args.expression).map_err(ToolError::Expression)?;
            ToolOutput::new(&result, format!("{} = {result}", args.expression.trim()))
        },
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(expression: &str) -> String {
        calculate(expression).map_or_else(|e| e.to_string(), |c| c.to_string())
    }

    #[test]
    fn precedence_and_functions() {
        for (expression, result) in [
            ("1 + 2 * 3", "7"),
            ("(1 + 2) * 3", "9"),
            ("-2^2", "-4"),
            ("2^-1", "0.5"),
            ("2^3^2", "512"),
            ("2 ** 3 * 2", "16"),
            ("10 - 4 - 3", "3"),
            ("24 / 4 / 2", "3"),
            ("0.1 + 0.2", "0.3"),
            ("1 / 3", "0.3333333333 (rounded to 10 digits)"),
            ("round(1 / 3, 2)", "0.33"),
            ("round(2.5)", "3"),
            ("200 * 12%", "24"),
            ("12 × 1,200.50 €", "14406"),
            ("$1,200 + 1.200,50", "2400.5"),
            ("max(1,200)", "200"),
            ("max(1, (1,200))", "1200"),
            ("min(3, -1, 2)", "-1"),
            ("sum(1, 2, 3) / 2", "3"),
            ("mean(1, 2)", "1.5"),
            ("abs(-3) + floor(1.9) + ceil(1.1)", "6"),
            ("- - 3", "3"),
            ("1 / 0", "at byte 2: division by zero"),
            ("10 ^ 100", "at byte 3: the result is too large"),
            (
                "2 ^ 0.5",
                "at byte 2: the exponent 0.5 is not a whole number",
            ),
            ("", "at byte 0 a number is needed, but there is the end"),
            ("1 +", "at byte 3 a number is needed, but there is the end"),
            (
                "(1",
                "at byte 2 an operator or ) is needed, but there is the end",
            ),
            ("1 2", "at byte 2 an operator is needed, but there is '2'"),
            ("7 % 3", "at byte 4 an operator is needed, but there is '3'"),
            (
                "1.2.3",
                "the digits at byte 0 are not a number that can be used",
            ),
            (
                "round(1, 99)",
                "the arguments of round at byte 0 do not fit",
            ),
            ("abs(1, 2)", "the arguments of abs at byte 0 do not fit"),
        ] {
            assert_eq!(run(expression), result, "{expression}");
        }
        assert!(run("total * 2").starts_with("there is no function \"total\""));
        assert!(run("round").contains("( is needed"));
    }

    #[test]
    fn the_numbers_used_are_reported() {
        let calculation = calculate("round(12% * (1,200.50 + 3), 2) - max(4, 5)").unwrap();
        let numbers: Vec<String> = calculation.numbers.iter().map(Decimal::to_string).collect();
        assert_eq!(numbers, ["12", "1200.5", "3", "4", "5"]);
    }

    #[test]
    fn hostile_expressions_are_refused_quickly() {
        for (expression, depth) in [
            ("(".repeat(4000), true),
            ("-".repeat(4000), true),
            ("2^".repeat(2000), true),
            ("abs(".repeat(1000), true),
            ("1".repeat(4000), false),
            ("9".repeat(38) + "^99999", false),
            ("1+".repeat(3000), false),
        ] {
            let error = calculate(&expression).unwrap_err();
            assert_eq!(
                matches!(error, ExpressionError::TooDeep { .. }),
                depth,
                "{error}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(\\PC|[0-9+*/^%(),. -]|round|max\\(|€){0,40}") {
            let _ = calculate(&text);
        }

        #[test]
        fn sums_and_products_agree_with_integers(
            terms in proptest::collection::vec((0_i64..10_000, 0_i64..10_000, any::<bool>()), 1..12)
        ) {
            let mut text = "0".to_owned();
            let mut expected = 0;
            for (a, b, minus) in terms {
                text += &format!("{} {a} * {b}", if minus { " -" } else { " +" });
                expected += if minus { -(a * b) } else { a * b };
            }
            prop_assert_eq!(calculate(&text).unwrap().value, expected.into());
        }
    }
}
