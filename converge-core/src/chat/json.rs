//! `tojson` as Transformers has it: Python's `json.dumps(…, ensure_ascii=False)`, no HTML escapes.

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};

use super::context::MAX_DEPTH;

/// How the text is laid out, Python's keyword arguments.
struct Style {
    ascii: bool,
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
    sort_keys: bool,
}

/// `value | tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
pub(super) fn tojson(
    state: &State,
    value: &Value,
    first: Option<Value>,
    second: Option<Value>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    // Jinja2's own filter takes `indent` first, Transformers' takes `ensure_ascii`: told by type.
    let mut ascii = None;
    let mut indent = None;
    for arg in [first, second].into_iter().flatten() {
        match arg.kind() {
            ValueKind::Bool if ascii.is_none() => ascii = Some(arg.is_true()),
            _ => indent = Some(arg),
        }
    }
    let ascii = match kwargs.get::<Option<bool>>("ensure_ascii")? {
        Some(b) => b,
        None => ascii.unwrap_or(false),
    };
    let indent = match kwargs.get::<Option<Value>>("indent")? {
        Some(value) => Some(value),
        None => indent,
    };
    let indent = match indent {
        None => None,
        Some(v) if v.is_none() || v.is_undefined() => None,
        Some(v) => Some(match v.as_str() {
            Some(s) => s.to_owned(),
            None => {
                let width = usize::try_from(v.clone())?;
                if width > 64 {
                    return Err(invalid("tojson: indent is wider than 64"));
                }
                " ".repeat(width)
            }
        }),
    };
    let separators = kwargs.get::<Option<Value>>("separators")?;
    let (item_separator, key_separator) = match separators {
        Some(pair) if !pair.is_none() => {
            let mut texts = Vec::new();
            for text in pair.try_iter()?.take(3) {
                texts.push(
                    text.as_str()
                        .ok_or_else(|| invalid("tojson: separators are strings"))?
                        .to_owned(),
                );
            }
            match <[String; 2]>::try_from(texts) {
                Ok([item, key]) => (item, key),
                Err(_) => return Err(invalid("tojson: separators are a pair")),
            }
        }
        _ => {
            let item = if indent.is_some() { "," } else { ", " };
            (item.to_owned(), ": ".to_owned())
        }
    };
    let sort_keys = kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    kwargs.assert_all_used()?;
    let style = Style {
        ascii,
        indent,
        item_separator,
        key_separator,
        sort_keys,
    };
    let mut writer = Writer {
        out: String::new(),
        charged: 0,
        style,
        state,
    };
    writer.value(value, 0)?;
    Ok(Value::from(writer.out))
}

/// Positional and keyword arguments of a call.
pub(super) fn split_kwargs(args: &[Value]) -> Result<(&[Value], Kwargs), Error> {
    match args.split_last() {
        Some((last, rest)) if last.is_kwargs() => Ok((rest, Kwargs::try_from(last.clone())?)),
        _ => Ok((args, Kwargs::from_iter(Vec::<(String, Value)>::new()))),
    }
}

pub(super) fn invalid(message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

struct Writer<'a, 'b, 'c> {
    out: String,
    /// Bytes already paid for.
    charged: usize,
    style: Style,
    state: &'a State<'b, 'c>,
}

impl Writer<'_, '_, '_> {
    /// Pays for a node and for the text written since: shared values may be written many times.
    fn charge(&mut self) -> Result<(), Error> {
        let bytes = self.out.len() - self.charged;
        self.charged = self.out.len();
        self.state.consume_fuel(1 + bytes as u64 / 64)
    }

    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(invalid("tojson: the value is nested too deep"));
        }
        self.charge()?;
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => {
                self.out
                    .push_str(if value.is_true() { "true" } else { "false" });
            }
            ValueKind::Number => self.number(value),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                self.out.push('[');
                let mut empty = true;
                for item in value.try_iter()?.checked() {
                    let item = item?;
                    self.separate(empty, depth + 1);
                    empty = false;
                    self.value(&item, depth + 1)?;
                }
                self.close(']', empty, depth);
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = Vec::new();
                for key in value.try_iter()?.checked() {
                    keys.push(key?);
                    if keys.len().is_multiple_of(64) {
                        self.charge()?;
                    }
                }
                if self.style.sort_keys {
                    keys.sort_by(|a, b| match (a.as_str(), b.as_str()) {
                        // Python orders strings by code point, as UTF-8 orders bytes.
                        (Some(a), Some(b)) => a.cmp(b),
                        _ => a.cmp(b),
                    });
                }
                self.out.push('{');
                let empty = keys.is_empty();
                for (i, key) in keys.into_iter().enumerate() {
                    self.separate(i == 0, depth + 1);
                    self.key(&key)?;
                    let separator = std::mem::take(&mut self.style.key_separator);
                    self.out.push_str(&separator);
                    self.style.key_separator = separator;
                    let item = value.get_item(&key)?;
                    self.value(&item, depth + 1)?;
                }
                self.close('}', empty, depth);
            }
            _ => {
                return Err(Error::new(
                    ErrorKind::BadSerialization,
                    format!("{} is not JSON serializable", value.kind()),
                ));
            }
        }
        Ok(())
    }

    fn key(&mut self, key: &Value) -> Result<(), Error> {
        match key.kind() {
            ValueKind::String => self.string(key.as_str().unwrap_or_default()),
            ValueKind::None | ValueKind::Bool | ValueKind::Number => {
                self.out.push('"');
                self.value(key, 0)?;
                self.out.push('"');
            }
            _ => {
                return Err(Error::new(
                    ErrorKind::BadSerialization,
                    format!("a key of JSON cannot be a {}", key.kind()),
                ));
            }
        }
        Ok(())
    }

    fn separate(&mut self, first: bool, depth: usize) {
        if !first {
            self.out.push_str(&self.style.item_separator);
        }
        self.newline(depth);
    }

    fn close(&mut self, bracket: char, empty: bool, depth: usize) {
        if !empty {
            self.newline(depth);
        }
        self.out.push(bracket);
    }

    fn newline(&mut self, depth: usize) {
        if let Some(indent) = &self.style.indent {
            self.out.push('\n');
            for _ in 0..depth {
                self.out.push_str(indent);
            }
        }
    }

    fn number(&mut self, value: &Value) {
        if value.is_integer() {
            self.out.push_str(&value.to_string());
        } else {
            match f64::try_from(value.clone()) {
                Ok(f) => self.out.push_str(&float(f)),
                Err(_) => self.out.push_str(&value.to_string()),
            }
        }
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                c if (c as u32) < 0x20 => self.escape(c as u16),
                c if self.style.ascii && !c.is_ascii() => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        self.escape(*unit);
                    }
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }

    fn escape(&mut self, unit: u16) {
        self.out.push_str(&format!("\\u{unit:04x}"));
    }
}

/// `repr` of a Python float: shortest digits that read back, exponent outside 1e-4 … 1e16.
pub(super) fn float(f: f64) -> String {
    if f.is_nan() {
        return "NaN".into();
    }
    if f.is_infinite() {
        return if f > 0.0 { "Infinity" } else { "-Infinity" }.into();
    }
    let scientific = format!("{f:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if f != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    let mut plain = f.to_string();
    if !plain.contains('.') {
        plain.push_str(".0");
    }
    plain
}
