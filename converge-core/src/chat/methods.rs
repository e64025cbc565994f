//! Methods of Python's `str`, `dict` and `list` that templates call.
//!
//! Every method pays for the text that it reads before it reads it, and for what it will build
//! before it builds it, so that no call escapes the rendering's budget.

use minijinja::formatting::{FormatStyle, format as format_field};
use minijinja::value::{Tuple, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};

use super::json::{invalid, split_kwargs};
use super::measure::{measure, pay};

/// Answers the methods that the engine does not know.
pub(super) fn call(
    state: &mut State,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::String => match value.as_str() {
            Some(text) => string(state, value, text, method, args),
            None => Err(unknown()),
        },
        ValueKind::Map => map(state, value, method, args),
        ValueKind::Seq | ValueKind::Iterable => sequence(state, value, method, args),
        _ => Err(unknown()),
    }
}

fn unknown() -> Error {
    Error::from(ErrorKind::UnknownMethod)
}

/// Whitespace as `str.strip` sees it: Unicode's, and the four ASCII separators.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

fn string(
    state: &mut State,
    value: &Value,
    text: &str,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    pay(state, text.len())?;
    for arg in args {
        pay(state, arg.as_str().map_or(0, str::len))?;
    }
    Ok(match method {
        "strip" => Value::from(strip(text, args, true, true)?),
        "lstrip" => Value::from(strip(text, args, true, false)?),
        "rstrip" => Value::from(strip(text, args, false, true)?),
        "split" => split(state, text, args, false)?,
        "rsplit" => split(state, text, args, true)?,
        "splitlines" => splitlines(text, args)?,
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            let parts = match method {
                "partition" => text.split_once(separator),
                _ => text.rsplit_once(separator),
            };
            let parts = match (parts, method) {
                (Some((before, after)), _) => [before, separator, after],
                (None, "partition") => [text, "", ""],
                (None, _) => ["", "", text],
            };
            Value::from(Tuple::from(parts.map(Value::from)))
        }
        "replace" => replace(state, text, args)?,
        "join" => join(state, text, args)?,
        "format" => format(state, text, args)?,
        "startswith" => Value::from(affix(args, |affix| text.starts_with(affix))?),
        "endswith" => Value::from(affix(args, |affix| text.ends_with(affix))?),
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Value::from(text.strip_prefix(prefix).unwrap_or(text))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Value::from(text.strip_suffix(suffix).unwrap_or(text))
        }
        "upper" => none(args, || text.to_uppercase().into())?,
        "lower" | "casefold" => none(args, || text.to_lowercase().into())?,
        "title" | "capitalize" => {
            let () = from_args(args)?;
            state.apply_filter(method, std::slice::from_ref(value))?
        }
        "count" => {
            let (what,): (&str,) = from_args(args)?;
            Value::from(text.matches(what).count())
        }
        "find" | "rfind" | "index" | "rindex" => {
            let (what,): (&str,) = from_args(args)?;
            let at = match method {
                "find" | "index" => text.find(what),
                _ => text.rfind(what),
            };
            match at {
                Some(at) => Value::from(text[..at].chars().count()),
                None if method.ends_with("index") => return Err(invalid("substring not found")),
                None => Value::from(-1),
            }
        }
        "zfill" => {
            let (width,): (usize,) = from_args(args)?;
            pay(state, width)?;
            let missing = width.saturating_sub(text.chars().count());
            let (sign, digits) = match text.strip_prefix(['+', '-']) {
                Some(digits) => text.split_at(text.len() - digits.len()),
                None => ("", text),
            };
            Value::from(format!("{sign}{}{digits}", "0".repeat(missing)))
        }
        "ljust" | "rjust" => {
            let (width, fill): (usize, Option<char>) = from_args(args)?;
            pay(state, width.saturating_mul(4))?;
            let missing = width.saturating_sub(text.chars().count());
            let padding: String = std::iter::repeat_n(fill.unwrap_or(' '), missing).collect();
            Value::from(match method {
                "ljust" => format!("{text}{padding}"),
                _ => format!("{padding}{text}"),
            })
        }
        "isspace" => none(args, || every(text, is_space))?,
        "isdigit" | "isdecimal" | "isnumeric" => none(args, || every(text, char::is_numeric))?,
        "isalpha" => none(args, || every(text, char::is_alphabetic))?,
        "isalnum" => none(args, || every(text, char::is_alphanumeric))?,
        "isascii" => none(args, || text.is_ascii().into())?,
        "islower" => none(args, || {
            (text.chars().any(char::is_lowercase) && !text.chars().any(char::is_uppercase)).into()
        })?,
        "isupper" => none(args, || {
            (text.chars().any(char::is_uppercase) && !text.chars().any(char::is_lowercase)).into()
        })?,
        _ => return Err(unknown()),
    })
}

fn none(args: &[Value], result: impl FnOnce() -> Value) -> Result<Value, Error> {
    let () = from_args(args)?;
    Ok(result())
}

fn every(text: &str, is: impl Fn(char) -> bool) -> Value {
    Value::from(!text.is_empty() && text.chars().all(is))
}

fn strip<'a>(text: &'a str, args: &[Value], start: bool, end: bool) -> Result<&'a str, Error> {
    let (chars,): (Option<&str>,) = from_args(args)?;
    let drop = |c: char| chars.map_or_else(|| is_space(c), |chars| chars.contains(c));
    let text = if start {
        text.trim_start_matches(drop)
    } else {
        text
    };
    Ok(if end {
        text.trim_end_matches(drop)
    } else {
        text
    })
}

fn split(state: &State, text: &str, args: &[Value], from_end: bool) -> Result<Value, Error> {
    let (positional, kwargs) = split_kwargs(args)?;
    let (separator, limit): (Option<&str>, Option<i64>) = from_args(positional)?;
    let limit = match limit {
        Some(limit) => Some(limit),
        None => kwargs.get::<Option<i64>>("maxsplit")?,
    };
    let given = kwargs.get::<Option<Value>>("sep")?;
    kwargs.assert_all_used()?;
    let separator = separator.or_else(|| given.as_ref().and_then(Value::as_str));
    // No limit, or one that cannot be reached.
    let limit = limit.and_then(|n| usize::try_from(n).ok());
    let parts: Vec<&str> = match separator {
        Some("") => return Err(invalid("empty separator")),
        Some(separator) => {
            // A part costs more than its text: pay for the list ahead.
            pay(state, text.matches(separator).count().saturating_mul(32))?;
            match (limit, from_end) {
                (None, _) => text.split(separator).collect(),
                (Some(n), false) => text.splitn(n.saturating_add(1), separator).collect(),
                (Some(n), true) => {
                    let mut parts: Vec<&str> =
                        text.rsplitn(n.saturating_add(1), separator).collect();
                    parts.reverse();
                    parts
                }
            }
        }
        None => {
            pay(state, text.len().saturating_mul(16))?;
            words(text, limit.unwrap_or(usize::MAX), from_end)
        }
    };
    Ok(parts.into_iter().map(Value::from).collect())
}

/// `str.split()` at runs of whitespace: no empty parts, the rest keeps its far edge.
fn words(text: &str, limit: usize, from_end: bool) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        rest = if from_end {
            rest.trim_end_matches(is_space)
        } else {
            rest.trim_start_matches(is_space)
        };
        if rest.is_empty() {
            break;
        }
        let cut = if from_end {
            rest.rfind(is_space)
        } else {
            rest.find(is_space)
        };
        match cut {
            Some(at) if parts.len() < limit => {
                if from_end {
                    let after = at + rest[at..].chars().next().map_or(1, char::len_utf8);
                    parts.push(&rest[after..]);
                    rest = &rest[..at];
                } else {
                    parts.push(&rest[..at]);
                    rest = &rest[at..];
                }
            }
            _ => {
                parts.push(rest);
                break;
            }
        }
    }
    if from_end {
        parts.reverse();
    }
    parts
}

fn splitlines(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (keep,): (Option<bool>,) = from_args(args)?;
    let keep = keep.unwrap_or(false);
    let is_break = |c: char| {
        matches!(
            c,
            '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}'
        ) || matches!(c, '\u{2028}' | '\u{2029}')
    };
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(is_break) {
        let end = if rest[at..].starts_with("\r\n") {
            at + 2
        } else {
            at + rest[at..].chars().next().map_or(1, char::len_utf8)
        };
        lines.push(Value::from(&rest[..if keep { end } else { at }]));
        rest = &rest[end..];
    }
    if !rest.is_empty() {
        lines.push(Value::from(rest));
    }
    Ok(Value::from(lines))
}

fn replace(state: &State, text: &str, args: &[Value]) -> Result<Value, Error> {
    let (positional, kwargs) = split_kwargs(args)?;
    let (old, new, count): (&str, &str, Option<i64>) = from_args(positional)?;
    let count = match count {
        Some(count) => Some(count),
        None => kwargs.get::<Option<i64>>("count")?,
    };
    kwargs.assert_all_used()?;
    let limit = count
        .and_then(|n| usize::try_from(n).ok())
        .unwrap_or(usize::MAX);
    let found = text.matches(old).count().min(limit);
    pay(state, found.saturating_mul(new.len()))?;
    Ok(Value::from(text.replacen(old, new, limit)))
}

fn join(state: &State, separator: &str, args: &[Value]) -> Result<Value, Error> {
    let (items,): (&Value,) = from_args(args)?;
    let mut out = String::new();
    for (i, item) in items.try_iter()?.checked().enumerate() {
        let item = item?;
        let text = item
            .as_str()
            .ok_or_else(|| invalid("join: the items are strings"))?;
        pay(state, separator.len().saturating_add(text.len()))?;
        if i > 0 {
            out.push_str(separator);
        }
        out.push_str(text);
    }
    Ok(Value::from(out))
}

/// Digits that a width or precision may have: more would only make a bomb.
const MAX_SPEC_DIGITS: usize = 4;

fn format(state: &State, text: &str, args: &[Value]) -> Result<Value, Error> {
    let mut size = 0usize;
    for arg in args {
        size = size.saturating_add(measure(state, arg)?);
    }
    let fields = text.matches('{').count();
    pay(state, fields.saturating_mul(size.saturating_add(64)))?;
    let mut digits = 0;
    for c in text.chars() {
        digits = if c.is_ascii_digit() { digits + 1 } else { 0 };
        if digits > MAX_SPEC_DIGITS && fields > 0 {
            return Err(invalid("format: a width is too large"));
        }
    }
    // A width taken from an argument escapes the check above.
    if text.contains(":{") || text.contains(".{") {
        return Err(invalid("format: nested fields are not supported"));
    }
    pay(state, fields.saturating_mul(10_000))?;
    format_field(FormatStyle::StrFormat, text, args).map(Value::from)
}

fn affix(args: &[Value], is: impl Fn(&str) -> bool) -> Result<bool, Error> {
    let (affix,): (&Value,) = from_args(args)?;
    if let Some(affix) = affix.as_str() {
        return Ok(is(affix));
    }
    if !affix.is_tuple() {
        return Err(invalid("startswith, endswith: a string or a tuple of them"));
    }
    for item in affix.try_iter()?.checked() {
        let item = item?;
        match item.as_str() {
            Some(affix) if is(affix) => return Ok(true),
            Some(_) => {}
            None => return Err(invalid("startswith, endswith: a string or a tuple of them")),
        }
    }
    Ok(false)
}

fn map(state: &State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let length = value.len().unwrap_or(0);
    Ok(match method {
        "get" => {
            let (key, default): (&Value, Option<Value>) = from_args(args)?;
            match value.get_item(key)? {
                found if !found.is_undefined() => found,
                _ => default.unwrap_or_else(|| Value::from(())),
            }
        }
        "keys" | "values" | "items" | "copy" => {
            let () = from_args(args)?;
            pay(state, length.saturating_mul(64))?;
            if method == "copy" {
                return Ok(value.clone());
            }
            let mut items = Vec::new();
            for key in value.try_iter()?.checked() {
                let key = key?;
                items.push(match method {
                    "keys" => key,
                    "values" => value.get_item(&key)?,
                    _ => {
                        let item = value.get_item(&key)?;
                        Value::from(Tuple::from([key, item]))
                    }
                });
            }
            Value::from(items)
        }
        _ => return Err(unknown()),
    })
}

fn sequence(state: &State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let length = value.len().unwrap_or(0);
    match method {
        "count" | "index" => {
            let (what,): (&Value,) = from_args(args)?;
            let cost = measure(state, what)?;
            pay(state, length.saturating_mul(cost))?;
            let mut count = 0usize;
            for (i, item) in value.try_iter()?.checked().enumerate() {
                if item? == *what {
                    if method == "index" {
                        return Ok(Value::from(i));
                    }
                    count += 1;
                }
            }
            if method == "index" {
                return Err(invalid("the value is not in the list"));
            }
            Ok(Value::from(count))
        }
        "copy" => none(args, || value.clone()),
        _ => Err(unknown()),
    }
}
