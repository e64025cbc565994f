//! Numbers as people write them: `$1,200.50`, `1.200,50 €`, `12 %`, `(300)`, `1 200`, `5 days`.

use serde::{Deserialize, Serialize};

use super::decimal::Decimal;

/// Which of `.` and `,` stands before the fraction, where the number itself leaves it open
/// (`1,200` and `1.200`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NumberStyle {
    /// `1,200.50`
    #[default]
    Point,
    /// `1.200,50`
    Comma,
}

/// A number with its unit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Quantity {
    /// The number.
    pub value: Decimal,
    /// The unit, if there is one: a currency by its code (`EUR` for `€`), `%` for percent (the
    /// value is not divided by 100), or a word.
    pub unit: Option<String>,
}

/// The number that all of `text` is, with a sign, accounting brackets, and a unit before or
/// after it.
pub fn parse_quantity(text: &str, style: NumberStyle) -> Option<Quantity> {
    let text = text.trim();
    let bracketed = text
        .strip_prefix('(')
        .and_then(|inner| inner.strip_suffix(')'));
    let inner = bracketed.map_or(text, str::trim);
    let (first_sign, rest) = sign(inner);
    let (prefix, rest) = prefix_unit(rest);
    let (second_sign, rest) = if prefix.is_some() {
        sign(rest)
    } else {
        (None, rest)
    };
    let (mut value, end) = scan_number(rest, style, true)?;
    let signs = [bracketed.map(|_| true), first_sign, second_sign];
    let mut signs = signs.into_iter().flatten();
    let negative = signs.next();
    if signs.next().is_some() {
        return None;
    }
    let rest = rest[end..].trim();
    let (factor, rest) = magnitude(rest);
    value = value.checked_mul(factor).ok()?;
    let suffix = if rest.is_empty() {
        None
    } else {
        Some(suffix_unit(rest)?)
    };
    let unit = match (prefix, suffix) {
        (Some(prefix), Some(suffix)) if suffix.starts_with('/') => {
            Some(format!("{prefix}{suffix}"))
        }
        (Some(prefix), Some(suffix)) if prefix == suffix => Some(prefix),
        (Some(_), Some(_)) => return None,
        (prefix, suffix) => prefix.or(suffix),
    };
    Some(Quantity {
        value: if negative == Some(true) {
            -value
        } else {
            value
        },
        unit,
    })
}

/// The style that the numbers in `texts` show; `None` if they leave it open.
pub fn infer_style<'a>(texts: impl IntoIterator<Item = &'a str>) -> Option<NumberStyle> {
    let (mut point, mut comma) = (0_usize, 0_usize);
    for text in texts {
        let Some(start) = text.find(|c: char| c.is_ascii_digit()) else {
            continue;
        };
        let run = run_of(&text[start..], true);
        let Some((last, digits)) = run.groups.last() else {
            continue;
        };
        let separators = |c| {
            run.groups
                .iter()
                .filter(|(separator, _)| *separator == c)
                .count()
        };
        let fraction = match (separators('.'), separators(',')) {
            (0, 0) => continue,
            (1, 0) | (0, 1) if digits.len() == 3 && run.groups.len() == 1 && grouped(run.first) => {
                continue;
            }
            (1, 0) | (0, 1) => *last,
            (0, _) => '.',
            (_, 0) => ',',
            _ => *last,
        };
        match fraction {
            '.' => point += 1,
            _ => comma += 1,
        }
    }
    match point.cmp(&comma) {
        std::cmp::Ordering::Greater => Some(NumberStyle::Point),
        std::cmp::Ordering::Less => Some(NumberStyle::Comma),
        std::cmp::Ordering::Equal => None,
    }
}

/// Digits with separators: the first group, and each further one with the separator before it.
struct Run<'a> {
    first: &'a str,
    groups: Vec<(char, &'a str)>,
    end: usize,
}

/// More digits than any number of ours has.
const MOST_GROUPS: usize = 40;

fn run_of(text: &str, spaces: bool) -> Run<'_> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let (first, mut rest) = text.split_at(digits(text));
    let mut groups = Vec::new();
    while groups.len() < MOST_GROUPS {
        let Some(separator) = rest.chars().next() else {
            break;
        };
        let known = matches!(separator, '.' | ',' | '\'' | '’' | '\u{a0}' | '\u{202f}')
            || spaces && separator == ' ';
        let after = &rest[separator.len_utf8()..];
        let count = digits(after);
        // A blank groups exactly three digits.
        let blank = separator.is_whitespace();
        if !known || count == 0 || blank && (count != 3 || !grouped(first)) {
            break;
        }
        let (group, after) = after.split_at(count);
        groups.push((if blank { ' ' } else { separator }, group));
        rest = after;
    }
    Run {
        first,
        groups,
        end: text.len() - rest.len(),
    }
}

/// Whether this can be the first group of a number with thousands separators.
fn grouped(first: &str) -> bool {
    (1..=3).contains(&first.len()) && !first.starts_with('0')
}

/// The unsigned number at the beginning of `text` (which must be a digit, or a point before
/// one) and the bytes it takes. `spaces` allows plain blanks between thousands. `None` also for
/// digits whose separators make no number, such as `1.2.3`.
pub(crate) fn scan_number(
    text: &str,
    style: NumberStyle,
    spaces: bool,
) -> Option<(Decimal, usize)> {
    let run = run_of(text, spaces);
    if run.first.is_empty() {
        let fraction = text.strip_prefix('.')?;
        let count = fraction.bytes().take_while(u8::is_ascii_digit).count();
        return Some((
            format!("0.{}", fraction.get(..count)?).parse().ok()?,
            count + 1,
        ))
        .filter(|_| count > 0);
    }
    let separators: Vec<char> = run.groups.iter().map(|(separator, _)| *separator).collect();
    let fraction = match separators.as_slice() {
        [] => None,
        ['.'] | [','] => {
            let other = if style == NumberStyle::Point {
                ','
            } else {
                '.'
            };
            let (separator, digits) = run.groups.first()?;
            let thousands = digits.len() == 3 && grouped(run.first) && *separator == other;
            if thousands { None } else { Some(*digits) }
        }
        [.., before, last] if before != last && matches!(last, '.' | ',') => {
            run.groups.last().map(|(_, digits)| *digits)
        }
        _ => None,
    };
    let whole = &run.groups[..run.groups.len() - usize::from(fraction.is_some())];
    if let Some((separator, _)) = whole.first() {
        let same = whole.iter().all(|(other, _)| other == separator);
        let last = whole.last().is_some_and(|(_, digits)| digits.len() == 3);
        let threes = whole.iter().all(|(_, digits)| digits.len() == 3);
        // 12,34,567 as written in India.
        let indian = *separator == ','
            && whole
                .iter()
                .rev()
                .skip(1)
                .all(|(_, digits)| digits.len() == 2);
        let point_twice = fraction.is_some() && separators.last() == Some(separator);
        if !same || !last || !(threes || indian) || !grouped(run.first) || point_twice {
            return None;
        }
    }
    let mut plain = run.first.to_owned();
    whole.iter().for_each(|(_, digits)| plain.push_str(digits));
    if let Some(fraction) = fraction {
        plain.push('.');
        plain.push_str(fraction);
    }
    Some((plain.parse().ok()?, run.end))
}

/// A sign at the beginning (true for minus) and what follows it.
fn sign(text: &str) -> (Option<bool>, &str) {
    let sign = match text.chars().next() {
        Some('-' | '−' | '–') => true,
        Some('+') => false,
        _ => return (None, text),
    };
    let rest = text.trim_start_matches(['-', '−', '–', '+']);
    // One sign, not several.
    if text.chars().count() - rest.chars().count() > 1 {
        return (None, text);
    }
    (Some(sign), rest.trim_start())
}

/// `thousand`, `million`, `billion` (and `Mio.`, `Mrd.`) at the beginning, as a factor.
pub(crate) fn magnitude(text: &str) -> (Decimal, &str) {
    let end = text
        .find(|c: char| !c.is_alphabetic())
        .unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    let factor = match word.to_lowercase().as_str() {
        "thousand" => 1_000,
        "million" | "millions" | "mio" => 1_000_000,
        "billion" | "billions" | "mrd" => 1_000_000_000,
        _ => return (Decimal::ONE, text),
    };
    (
        Decimal::from(factor),
        rest.strip_prefix('.').unwrap_or(rest).trim_start(),
    )
}

/// The code of a currency's sign.
pub(crate) fn currency_of(sign: char) -> Option<&'static str> {
    Some(match sign {
        '$' => "USD",
        '€' => "EUR",
        '£' => "GBP",
        '¥' => "JPY",
        '₹' => "INR",
        '₩' => "KRW",
        '₽' => "RUB",
        _ => return None,
    })
}

/// Whether this is the code of a currency that stands before or after amounts.
pub(crate) fn is_currency_code(text: &str) -> bool {
    const CODES: &str = "EUR USD GBP CHF JPY CNY INR SEK NOK DKK PLN CZK HUF CAD AUD NZD BRL MXN \
        ZAR KRW RUB TRY SGD HKD ILS UAH RON BGN";
    text.len() == 3 && CODES.split_ascii_whitespace().any(|code| code == text)
}

fn prefix_unit(text: &str) -> (Option<String>, &str) {
    for marked in ["US$", "A$", "C$"] {
        if let Some(rest) = text.strip_prefix(marked) {
            let code = if marked == "US$" { "USD" } else { marked };
            return (Some(code.to_owned()), rest.trim_start());
        }
    }
    if let Some(first) = text.chars().next()
        && let Some(code) = currency_of(first)
    {
        return (Some(code.to_owned()), text[first.len_utf8()..].trim_start());
    }
    match text.get(..3) {
        Some(code) if is_currency_code(code) => (
            Some(code.to_owned()),
            text[3..].trim_start_matches('.').trim_start(),
        ),
        _ => (None, text),
    }
}

fn suffix_unit(text: &str) -> Option<String> {
    if text.len() > 32 || text.chars().any(|c| c.is_ascii_digit()) {
        return None;
    }
    let words: Vec<&str> = text
        .split(char::is_whitespace)
        .filter(|word| !word.is_empty())
        .collect();
    match words.as_slice() {
        [word] => one_unit(word),
        ["per", unit] | ["/", unit] => Some(format!("/{}", one_unit(unit)?)),
        [unit, "per" | "/", per] => Some(format!("{}/{}", one_unit(unit)?, one_unit(per)?)),
        [unit, per] if per.starts_with('/') => {
            Some(format!("{}{}", one_unit(unit)?, one_unit(per)?))
        }
        _ => None,
    }
}

fn one_unit(word: &str) -> Option<String> {
    let word = word.trim_end_matches('.');
    let mut chars = word.chars();
    let first = chars.next()?;
    if let (Some(code), "") = (currency_of(first), chars.as_str()) {
        return Some(code.to_owned());
    }
    if let (Some(code), Some(per)) = (currency_of(first), chars.as_str().strip_prefix('/')) {
        return Some(format!("{code}/{}", one_unit(per)?));
    }
    let fits = |c: char| c.is_alphabetic() || "/%‰°²³µ.".contains(c);
    if !word.chars().all(fits) || first == '.' {
        return None;
    }
    let plural = word.len() > 3 && word.ends_with('s') && word.chars().all(char::is_lowercase);
    Some(if plural {
        word[..word.len() - 1].to_owned()
    } else {
        word.to_owned()
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn q(text: &str, style: NumberStyle) -> Option<String> {
        parse_quantity(text, style).map(|q| {
            format!("{} {}", q.value, q.unit.unwrap_or_default())
                .trim()
                .to_owned()
        })
    }

    #[test]
    fn amounts_are_read_in_both_styles() {
        use NumberStyle::{Comma, Point};
        for (text, point, comma) in [
            ("1,200.50", Some("1200.5"), Some("1200.5")),
            ("1.200,50", Some("1200.5"), Some("1200.5")),
            ("1,200", Some("1200"), Some("1.2")),
            ("1.200", Some("1.2"), Some("1200")),
            ("0.250", Some("0.25"), Some("0.25")),
            ("12,5", Some("12.5"), Some("12.5")),
            ("1,234,567", Some("1234567"), Some("1234567")),
            ("1.234.567,8", Some("1234567.8"), Some("1234567.8")),
            ("12,34,567.8", Some("1234567.8"), Some("1234567.8")),
            ("1'200.50", Some("1200.5"), Some("1200.5")),
            ("1 200,50", Some("1200.5"), Some("1200.5")),
            ("1\u{a0}200", Some("1200"), Some("1200")),
            (".5", Some("0.5"), Some("0.5")),
            ("-5", Some("-5"), Some("-5")),
            ("−5", Some("-5"), Some("-5")),
            ("+5", Some("5"), Some("5")),
            ("(300)", Some("-300"), Some("-300")),
            ("($1,200.50)", Some("-1200.5 USD"), Some("-1200.5 USD")),
            ("$1,200.50", Some("1200.5 USD"), Some("1200.5 USD")),
            ("-$5", Some("-5 USD"), Some("-5 USD")),
            ("$ -5", Some("-5 USD"), Some("-5 USD")),
            ("EUR 450", Some("450 EUR"), Some("450 EUR")),
            ("450,00 €", Some("450 EUR"), Some("450 EUR")),
            ("US$5", Some("5 USD"), Some("5 USD")),
            ("12 %", Some("12 %"), Some("12 %")),
            ("12%", Some("12 %"), Some("12 %")),
            ("5 days", Some("5 day"), Some("5 day")),
            ("€450/month", Some("450 EUR/month"), Some("450 EUR/month")),
            (
                "450 EUR per month",
                Some("450 EUR/month"),
                Some("450 EUR/month"),
            ),
            ("3.5 kWh", Some("3.5 kWh"), Some("3.5 kWh")),
            ("1.5 million EUR", Some("1500000 EUR"), Some("1500000 EUR")),
            ("$5 USD", Some("5 USD"), Some("5 USD")),
        ] {
            assert_eq!(q(text, Point).as_deref(), point, "{text}");
            assert_eq!(q(text, Comma).as_deref(), comma, "{text}");
        }
        for text in [
            "",
            "-",
            "--5",
            "(-5)",
            "1.2.3",
            "1,2,3",
            "1,20,000.5.1",
            "12 Main Street",
            "2025-03-14",
            "abc",
            "$",
            "€5 USD",
            "5 5",
            "1.200.50",
            "5 a1",
            "()",
            "1,,2",
            "10:30",
            "%",
        ] {
            assert_eq!(q(text, Point), None, "{text:?}");
        }
    }

    #[test]
    fn the_style_of_a_column_is_inferred() {
        for (cells, style) in [
            (&["1,200", "12,5"][..], Some(NumberStyle::Comma)),
            (&["1,200", "12.5"], Some(NumberStyle::Point)),
            (&["1,200,000"], Some(NumberStyle::Point)),
            (&["€1.200.000"], Some(NumberStyle::Comma)),
            (&["1.200", "1,300", "7", ""], None),
            (&["0.250"], Some(NumberStyle::Point)),
        ] {
            assert_eq!(infer_style(cells.iter().copied()), style, "{cells:?}");
        }
    }

    proptest! {
        #[test]
        fn written_in_any_style_it_reads_back(cents in 0_i64..10_000_000_000, negative: bool) {
            let (whole, fraction) = (cents / 100, cents % 100);
            let digits = whole.to_string();
            let group = |separator: &str| {
                let bytes = digits.as_bytes().rchunks(3).rev();
                let groups: Vec<&str> = bytes.map(|g| std::str::from_utf8(g).unwrap()).collect();
                groups.join(separator)
            };
            let value = Decimal::new(i128::from(if negative { -cents } else { cents }), 2).unwrap();
            let sign = if negative { "-" } else { "" };
            for (thousands, point) in [(",", "."), (".", ","), (" ", ","), ("'", "."), ("", ".")] {
                let text = format!("{sign}{}{point}{fraction:02}", group(thousands));
                for style in [NumberStyle::Point, NumberStyle::Comma] {
                    for text in [format!("{text} €"), format!("${text}"), text.clone()] {
                        let read = parse_quantity(&text, style);
                        prop_assert_eq!(read.map(|q| q.value), Some(value), "{}", text);
                    }
                }
            }
        }

        #[test]
        fn no_text_panics(text in "(\\PC|[0-9.,' ()%$€-]|EUR|US){0,25}") {
            for style in [NumberStyle::Point, NumberStyle::Comma] {
                let _ = parse_quantity(&text, style);
            }
            let _ = infer_style([text.as_str()]);
        }
    }
}
