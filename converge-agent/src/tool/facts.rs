//! The facts that a text states and that can be checked: numbers, dates and names. A loop
//! compares those of an answer with those of its evidence.

use std::ops::Range;

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use super::civil::{self, is_month_or_weekday, scan_date};
use super::decimal::Decimal;
use super::number::{
    NumberStyle, currency_of, infer_style, is_currency_code, magnitude, scan_number,
};

/// A fact and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// What it is.
    pub kind: FactKind,
    /// Its bytes in the text.
    pub span: Range<usize>,
    /// Whether it may be no fact at all: the word "one", the number of a list item, a single
    /// capitalised word that begins a sentence.
    pub weak: bool,
}

/// What a [`Fact`] is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FactKind {
    /// A number in digits or in words, without its unit: 1200.5 for `$1,200.50`.
    Number(Decimal),
    /// A date in any form of [`civil`].
    Date(#[serde(with = "civil::as_text")] Date),
    /// Capitalised words that belong together, or an identifier with digits such as
    /// `INV-2024-017`, as written but with single blanks.
    Name(String),
}

/// The numbers, dates and names in `text`, in order and without overlap. Where the style of a
/// number is open (`1.200`), the other numbers of the text decide.
pub fn facts_in(text: &str) -> Vec<Fact> {
    let words = text
        .split_whitespace()
        .filter(|word| word.contains(|c: char| c.is_ascii_digit()));
    let style = infer_style(words).unwrap_or_default();
    let mut facts = Vec::new();
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        let found = if c.is_ascii_digit() {
            digits(text, at, style)
        } else if c == '.' && rest[1..].starts_with(|c: char| c.is_ascii_digit()) {
            scan_number(rest, style, false)
                .map(|(value, len)| fact(FactKind::Number(value), at..at + len, false))
        } else if c.is_alphabetic() {
            Some(word(text, at, style))
        } else {
            None
        };
        match found {
            Some(Fact {
                kind: FactKind::Name(name),
                span,
                ..
            }) if name.is_empty() => at = span.end,
            Some(fact) => {
                at = fact.span.end;
                // The T of a time that follows a date.
                at += usize::from(
                    matches!(fact.kind, FactKind::Date(_)) && text[at..].starts_with('T'),
                );
                facts.push(fact);
            }
            None => at += c.len_utf8(),
        }
    }
    facts
}

fn fact(kind: FactKind, span: Range<usize>, weak: bool) -> Fact {
    Fact { kind, span, weak }
}

/// Nothing to report up to there.
fn nothing(span: Range<usize>) -> Fact {
    fact(FactKind::Name(String::new()), span, true)
}

/// What begins with a digit.
fn digits(text: &str, at: usize, style: NumberStyle) -> Option<Fact> {
    let rest = &text[at..];
    if let Some((date, len)) = scan_date(rest) {
        return Some(fact(FactKind::Date(date), at..at + len, false));
    }
    let mut before = text[..at].chars().rev();
    let listed = before.next() == Some(',') && before.next().is_some_and(|c| c.is_ascii_digit());
    let Some((value, len)) = scan_number(rest, style, false).filter(|_| !listed) else {
        let end = |fits: fn(char) -> bool| rest.find(|c| !fits(c)).unwrap_or(rest.len());
        // A list without blanks, one by one.
        let first = end(|c| c.is_ascii_digit());
        if listed || rest[first..].starts_with(',') {
            let span = at..at + first;
            return Some(match rest[..first].parse() {
                Ok(value) => fact(FactKind::Number(value), span, false),
                Err(_) => name(&rest[..first], span, false),
            });
        }
        // 1.2.3 is a version or an address.
        let token = rest[..end(|c| c.is_alphanumeric() || c == '.')].trim_end_matches('.');
        return Some(name(token, at..at + token.len(), false));
    };
    let mut end = at + len;
    let attached = text[end..]
        .find(|c: char| !c.is_alphanumeric())
        .unwrap_or(text.len() - end);
    let suffix = &text[end..end + attached];
    let multiple = matches!(suffix, "k" | "K" | "M" | "m" | "bn" | "B");
    if multiple || suffix.contains(|c: char| c.is_ascii_digit()) {
        end += attached;
        return Some(name(&text[at..end], at..end, false));
    }
    // A unit or an ordinal's ending.
    end += attached;
    let mut value = value;
    let after = text[end..].trim_start_matches([' ', '\u{a0}']);
    let (factor, left) = magnitude(after);
    if factor != Decimal::ONE
        && let Ok(product) = value.checked_mul(factor)
    {
        value = product;
        end = text.len() - left.len();
        end = at + text[at..end].trim_end().len();
    }
    let item = at_line_start(text, at)
        && text[end..].starts_with(['.', ')'])
        && text[end + 1..].starts_with([' ', '\t']);
    let value = if is_negative(text, at) { -value } else { value };
    Some(fact(FactKind::Number(value), at..end, item))
}

/// Whether a minus stands before the number (and its currency), and before that no word.
fn is_negative(text: &str, at: usize) -> bool {
    let before = text[..at].trim_end_matches(|c| currency_of(c).is_some());
    let mut before = before.chars().rev();
    matches!(before.next(), Some('-' | '−'))
        && before
            .next()
            .is_none_or(|c| c.is_whitespace() || "([=:,;|\"".contains(c))
}

fn at_line_start(text: &str, at: usize) -> bool {
    text[..at]
        .chars()
        .rev()
        .find(|c| !matches!(c, ' ' | '\t' | '*' | '#' | '>'))
        .is_none_or(|c| c == '\n')
}

/// What begins with a letter: a date, a number in words, an identifier or a name.
fn word(text: &str, at: usize, style: NumberStyle) -> Fact {
    let rest = &text[at..];
    if let Some((date, len)) = scan_date(rest) {
        return fact(FactKind::Date(date), at..at + len, false);
    }
    if let Some((value, len)) = in_words(rest) {
        let weak = rest[..len].eq_ignore_ascii_case("one");
        return fact(FactKind::Number(value), at..at + len, weak);
    }
    if let Some((code, after)) = rest.split_at_checked(3)
        && is_currency_code(code)
        && after.starts_with(|c: char| c.is_ascii_digit())
        && scan_number(after, style, false).is_some()
    {
        return nothing(at..at + 3);
    }
    let token = token_of(rest);
    if token.contains(|c: char| c.is_ascii_digit()) {
        return name(token, at..at + token.len(), false);
    }
    let first = word_of(rest);
    if !first.starts_with(char::is_uppercase) {
        return nothing(at..at + first.len());
    }
    names(text, at)
}

fn name(text: &str, span: Range<usize>, weak: bool) -> Fact {
    let words: Vec<&str> = text.split_whitespace().collect();
    fact(FactKind::Name(words.join(" ")), span, weak)
}

/// Letters and digits with `-`, `_`, `/`, `.` between them.
fn token_of(text: &str) -> &str {
    let mut end = 0;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let joins = "-_/.".contains(c) && chars.peek().is_some_and(|(_, c)| c.is_alphanumeric());
        if !(c.is_alphanumeric() || joins) {
            break;
        }
        end = at + c.len_utf8();
    }
    &text[..end]
}

/// Letters with apostrophes and hyphens between them, without a possessive `'s`.
fn word_of(text: &str) -> &str {
    let mut end = 0;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let joins = "'’-".contains(c) && chars.peek().is_some_and(|(_, c)| c.is_alphabetic());
        if !(c.is_alphabetic() || joins) {
            break;
        }
        end = at + c.len_utf8();
    }
    let word = &text[..end];
    word.strip_suffix("'s")
        .or_else(|| word.strip_suffix("’s"))
        .unwrap_or(word)
}

/// The capitalised words from `at` on that make one name.
fn names(text: &str, at: usize) -> Fact {
    let mut words: Vec<Range<usize>> = Vec::new();
    let mut next = at;
    loop {
        let word = word_of(&text[next..]);
        // "From January 1st, 2025" is a word and a date.
        let date = || !words.is_empty() && scan_date(&text[next..]).is_some();
        let other = token_of(&text[next..]).len() > word.len() + 2;
        if !word.starts_with(char::is_uppercase) || other || date() {
            break;
        }
        words.push(next..next + word.len());
        match gap_after(text, next + word.len()) {
            Some(start) => next = start,
            None => break,
        }
    }
    let Some(mut end) = words.last().map(|word| word.end) else {
        // A capital letter in a token of another kind.
        return nothing(at..at + token_of(&text[at..]).len().max(1));
    };
    // An initial such as "I." is no word.
    let initial = |word: &Range<usize>| word.len() == 1 && text[word.end..].starts_with('.');
    let common = |word: &Range<usize>| is_common(&text[word.clone()]) && !initial(word);
    let opens = opens_sentence(text, at);
    let skipped = words.iter().take_while(|word| common(word)).count();
    let kept = &words[skipped..];
    // "Ltd." keeps no point, and a name does not end in a common word.
    let kept = &kept[..kept
        .iter()
        .rposition(|word| !common(word))
        .map_or(0, |last| last + 1)];
    let (Some(first), Some(last)) = (kept.first(), kept.last()) else {
        return nothing(at..end);
    };
    end = last.end;
    let weak = opens && skipped == 0 && kept.len() == 1;
    name(&text[first.start..end], first.start..end, weak)
}

/// Where the next word of the name begins, if what stands between can stand inside a name: a
/// blank, `&`, a point after an initial, `of` and its like before a capital.
fn gap_after(text: &str, end: usize) -> Option<usize> {
    let rest = &text[end..];
    let initial = text[..end]
        .chars()
        .rev()
        .take_while(|c| c.is_alphabetic())
        .count()
        == 1;
    let after = match rest.strip_prefix('.') {
        Some(after) if initial => after,
        _ => rest,
    };
    let after = match after.strip_prefix([' ', '\u{a0}']) {
        Some(after) => after,
        None => wrapped(text, end, after)?,
    };
    let after = after.strip_prefix("& ").unwrap_or(after);
    let linked = [
        "of the ", "of ", "von ", "van der ", "van ", "de ", "der ", "di ", "du ", "la ",
    ]
    .iter()
    .find_map(|link| after.strip_prefix(link))
    .unwrap_or(after);
    linked
        .starts_with(char::is_uppercase)
        .then_some(text.len() - linked.len())
}

/// What follows a line end that only wraps the text: after a long line, before no blank one.
fn wrapped<'a>(text: &str, end: usize, after: &'a str) -> Option<&'a str> {
    const LONG: usize = 50;
    let next = after
        .strip_prefix("\r\n")
        .or_else(|| after.strip_prefix('\n'))?;
    let line = text[..end]
        .bytes()
        .rev()
        .take(LONG)
        .take_while(|b| *b != b'\n')
        .count();
    (line == LONG).then(|| next.trim_start_matches([' ', '\t']))
}

/// Whether a sentence, a line, a list item or a quotation begins at `at`.
fn opens_sentence(text: &str, at: usize) -> bool {
    let before = text[..at].trim_end_matches([
        ' ', '\t', '"', '“', '\'', '‘', '(', '*', '_', '#', '>', '-', '|',
    ]);
    before
        .chars()
        .next_back()
        .is_none_or(|c| matches!(c, '.' | '!' | '?' | ':' | ';' | '\n' | '\r'))
}

/// A word that is capitalised for its place and no name.
fn is_common(word: &str) -> bool {
    const COMMON: &str = "a about according after all also although an and any are as at based \
        be because been before both but by can could did do does during each either every few \
        first finally for from further given had has have he hence her here his how however i if \
        in into is it its last later many may more most much my neither next no none not note now \
        of on once only or other our over per please second several shall she should since so \
        some such than that the their then there therefore these they third this those though \
        through thus to total total under until up upon was we were what when where whereas \
        which while who whom whose why will with within without would yes yet you your \
        dear mr mrs ms messrs dr sincerely regards";
    if matches!(word, "IT" | "US") {
        return false;
    }
    let lower = word.to_lowercase();
    COMMON
        .split_ascii_whitespace()
        .any(|common| common == lower)
        || is_month_or_weekday(&lower)
        || is_currency_code(word)
}

/// A number in words at the beginning of `text` and the bytes it takes: `twenty-one`, `two
/// hundred and five`, `three million`.
fn in_words(text: &str) -> Option<(Decimal, usize)> {
    let mut total = 0_i64;
    let mut current = 0_i64;
    let mut end = 0;
    let mut at = 0;
    // What may follow: after a unit nothing below a hundred, after a ten only a unit.
    let mut room = 100;
    for _ in 0..16 {
        let len = text[at..]
            .bytes()
            .take_while(u8::is_ascii_alphabetic)
            .count();
        let word = text[at..at + len].to_ascii_lowercase();
        if text[at + len..].starts_with(|c: char| c.is_alphanumeric()) {
            break;
        }
        match value_of(&word) {
            Some(value) if value < 100 => {
                if value >= room || value == 0 && end > 0 || room < 100 && value == 0 {
                    break;
                }
                current += value;
                room = if value >= 20 { 10 } else { 0 };
            }
            Some(100) if (1..100).contains(&current) => {
                current *= 100;
                room = 100;
            }
            Some(value) if value >= 1000 && current > 0 && (total == 0 || value < 1_000_000) => {
                total += current * value;
                current = 0;
                room = 100;
            }
            None if word == "and" && end > 0 && room == 100 => {
                let next = text[at + len..].trim_start_matches(' ');
                let follows = next.bytes().take_while(u8::is_ascii_alphabetic).count();
                let small = value_of(&next[..follows].to_ascii_lowercase());
                if !small.is_some_and(|value| (1..100).contains(&value)) || current % 100 != 0 {
                    break;
                }
                at = text.len() - next.len();
                continue;
            }
            _ => break,
        }
        end = at + len;
        match text[end..].strip_prefix([' ', '-']) {
            Some(_) => at = end + 1,
            None => break,
        }
    }
    (end > 0).then(|| (Decimal::from(total + current), end))
}

fn value_of(word: &str) -> Option<i64> {
    const SMALL: [&str; 20] = [
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "thirteen",
        "fourteen",
        "fifteen",
        "sixteen",
        "seventeen",
        "eighteen",
        "nineteen",
    ];
    const TENS: [&str; 8] = [
        "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety",
    ];
    match word {
        "hundred" => return Some(100),
        "thousand" => return Some(1_000),
        "million" => return Some(1_000_000),
        _ => {}
    }
    let place = |names: &[&str]| names.iter().position(|name| *name == word);
    let value = place(&SMALL).or_else(|| place(&TENS).map(|ten| ten * 10 + 20))?;
    i64::try_from(value).ok()
}

#[cfg(test)]
#[path = "facts_tests.rs"]
mod tests;
