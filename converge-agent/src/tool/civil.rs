//! Dates as people write them: `2025-03-14`, `14.03.2025`, `14 March 2025`, `March 14th, 2025`,
//! `14-Mar-2025`, English and German month names. `03/04/2025` is refused: nothing says which
//! of its numbers is the month; `14/03/2025` says it.

use jiff::civil::Date;

/// The date that all of `text` is, with or without a weekday before and a time of day after it.
pub fn parse_date(text: &str) -> Option<Date> {
    let text = text.trim();
    let text = without_weekday(text).unwrap_or(text);
    let (date, end) = scan_date(text)?;
    let rest = text[end..].trim_start_matches(',').trim();
    (rest.is_empty() || is_time(rest)).then_some(date)
}

/// First and last day of what all of `text` names: a date, a month (`2025-03`, `March 2025`), a
/// quarter (`Q1 2025`, `2025-Q1`) or a year.
pub fn parse_period(text: &str) -> Option<(Date, Date)> {
    if let Some(date) = parse_date(text) {
        return Some((date, date));
    }
    let text = text.trim();
    let parts: Vec<&str> = text
        .split([' ', '-', '/', '.'])
        .filter(|part| !part.is_empty())
        .collect();
    let (year, month, length) = match parts.as_slice() {
        [year] => (year_of(year)?, 1, 12),
        [a, b] => {
            let (year, other) = match (year_of(a), year_of(b)) {
                (Some(year), None) => (year, b),
                (None, Some(year)) => (year, a),
                _ => return None,
            };
            let quarter = other
                .strip_prefix(['Q', 'q'])
                .and_then(|q| q.parse::<i8>().ok());
            match quarter.filter(|quarter| (1..=4).contains(quarter)) {
                Some(quarter) => (year, quarter * 3 - 2, 3),
                None => {
                    let number = (other.len() <= 2)
                        .then(|| other.parse::<i8>().ok())
                        .flatten();
                    (year, number.or_else(|| month_of(other))?, 1)
                }
            }
        }
        _ => return None,
    };
    let first = Date::new(year, month, 1).ok()?;
    let last = Date::new(year, month.checked_add(length - 1)?, 1)
        .ok()?
        .last_of_month();
    Some((first, last))
}

/// The date that all of `text` is, written like `03/04/2025` or `03-04-2025`, with or without a
/// time of day after it, in a place where the day stands first or does not.
pub(crate) fn parse_slashed(text: &str, day_first: bool) -> Option<Date> {
    let (first, rest) = digits(text.trim(), 1, 2)?;
    let separator = rest.chars().next().filter(|c| "-/".contains(*c))?;
    let (second, rest) = digits(rest.strip_prefix(separator)?, 1, 2)?;
    let (year, rest) = digits(rest.strip_prefix(separator)?, 4, 4)?;
    let (day, month) = if day_first {
        (first, second)
    } else {
        (second, first)
    };
    let rest = rest.trim_start_matches(',').trim();
    (rest.is_empty() || is_time(rest)).then(|| date(year, month, day))?
}

/// The date at the beginning of `text`, and how many bytes it takes. What follows it must not
/// continue it (a digit or a letter), except for the `T` of a time.
pub(crate) fn scan_date(text: &str) -> Option<(Date, usize)> {
    let forms = [year_first, day_first, day_month_name, month_name_day];
    let (date, rest) = forms.iter().find_map(|form| form(text))?;
    let mut after = rest.chars();
    let ends = match after.next() {
        Some('T') => after.next().is_some_and(|c| c.is_ascii_digit()),
        Some(c) => !c.is_alphanumeric(),
        None => true,
    };
    ends.then_some((date, text.len() - rest.len()))
}

/// `2025-03-14`, also with `/` or `.`.
fn year_first(text: &str) -> Option<(Date, &str)> {
    let (year, rest) = digits(text, 4, 4)?;
    let separator = rest.chars().next().filter(|c| "-/.".contains(*c))?;
    let (month, rest) = digits(rest.strip_prefix(separator)?, 1, 2)?;
    let (day, rest) = digits(rest.strip_prefix(separator)?, 1, 2)?;
    Some((date(year, month, day)?, rest))
}

/// `14.03.2025`, and `14/03/2025` or `03-14-2025` where only one reading is a date.
fn day_first(text: &str) -> Option<(Date, &str)> {
    let (first, rest) = digits(text, 1, 2)?;
    let separator = rest.chars().next().filter(|c| "-/.".contains(*c))?;
    let gap = |text| if separator == '.' { spaces(text) } else { text };
    let (second, rest) = digits(gap(rest.strip_prefix(separator)?), 1, 2)?;
    let (year, rest) = digits(gap(rest.strip_prefix(separator)?), 4, 4)?;
    let day_month = date(year, second, first);
    let month_day = date(year, first, second);
    let date = match (day_month, month_day) {
        (Some(date), _) if separator == '.' => date,
        (Some(a), Some(b)) if a != b => return None,
        (day_month, month_day) if separator != '.' => day_month.or(month_day)?,
        _ => return None,
    };
    Some((date, rest))
}

/// `14 March 2025`, `14th of March, 2025`, `14. März 2025`, `14-Mar-2025`.
fn day_month_name(text: &str) -> Option<(Date, &str)> {
    let (day, rest) = digits(text, 1, 2)?;
    let rest = ordinal(rest);
    let (rest, separator) = match rest.strip_prefix('-') {
        Some(rest) => (rest, '-'),
        None => (spaces(rest), ' '),
    };
    let rest = rest.strip_prefix("of ").map_or(rest, spaces);
    let (month, rest) = month(rest)?;
    let rest = match separator {
        '-' => rest.strip_prefix('-')?,
        _ => spaces(rest.strip_prefix(',').unwrap_or(rest)),
    };
    let (year, rest) = digits(rest, 4, 4)?;
    Some((date(year, month, day)?, rest))
}

/// `March 14, 2025`, `Mar. 14th 2025`.
fn month_name_day(text: &str) -> Option<(Date, &str)> {
    let (month, rest) = month(text)?;
    let (day, rest) = digits(spaces(rest), 1, 2)?;
    let rest = ordinal(rest);
    let separated = rest.strip_prefix(',').unwrap_or(rest);
    let after = spaces(separated);
    if after.len() == rest.len() {
        return None;
    }
    let (year, rest) = digits(after, 4, 4)?;
    Some((date(year, month, day)?, rest))
}

/// A date in JSON as `YYYY-MM-DD`, for `#[serde(with)]`.
pub(crate) mod as_text {
    use jiff::civil::Date;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(date: &Date, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(date)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Date, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

fn date(year: u16, month: u16, day: u16) -> Option<Date> {
    let (year, month, day) = (
        i16::try_from(year).ok()?,
        i8::try_from(month).ok()?,
        i8::try_from(day).ok()?,
    );
    // Four digits below this are not years of anything in an archive.
    if year < 1000 {
        return None;
    }
    Date::new(year, month, day).ok()
}

fn year_of(text: &str) -> Option<i16> {
    let (year, rest) = digits(text, 4, 4)?;
    if rest.is_empty() {
        i16::try_from(year).ok().filter(|year| *year >= 1000)
    } else {
        None
    }
}

/// Between `least` and `most` (at most 4) ASCII digits that no further digit follows.
fn digits(text: &str, least: usize, most: usize) -> Option<(u16, &str)> {
    let count = text.bytes().take_while(u8::is_ascii_digit).count();
    if count < least || count > most {
        return None;
    }
    let (number, rest) = text.split_at(count);
    Some((number.parse().ok()?, rest))
}

/// Without blanks at the beginning, also across one line end.
fn spaces(text: &str) -> &str {
    text.trim_start_matches([' ', '\t', '\u{a0}', '\u{202f}', '\n', '\r'])
}

fn ordinal(text: &str) -> &str {
    ["st", "nd", "rd", "th", "."]
        .iter()
        .find_map(|end| text.strip_prefix(end))
        .unwrap_or(text)
}

fn month(text: &str) -> Option<(u16, &str)> {
    let end = text
        .find(|c: char| !c.is_alphabetic())
        .unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let month = month_of(name)?;
    let rest = if name.chars().count() <= 4 {
        rest.strip_prefix('.').unwrap_or(rest)
    } else {
        rest
    };
    Some((u16::try_from(month).ok()?, rest))
}

/// The month of a name or its abbreviation, English or German.
pub(crate) fn month_of(name: &str) -> Option<i8> {
    const MONTHS: [&[&str]; 12] = [
        &["january", "jan", "januar", "jänner"],
        &["february", "feb", "februar"],
        &["march", "mar", "märz", "mär", "mrz"],
        &["april", "apr"],
        &["may", "mai"],
        &["june", "jun", "juni"],
        &["july", "jul", "juli"],
        &["august", "aug"],
        &["september", "sep", "sept"],
        &["october", "oct", "oktober", "okt"],
        &["november", "nov"],
        &["december", "dec", "dezember", "dez"],
    ];
    if name.len() > 12 {
        return None;
    }
    let name = name.to_lowercase();
    (1..)
        .zip(MONTHS)
        .find(|(_, names)| names.contains(&name.as_str()))
        .map(|(month, _)| month)
}

const WEEKDAYS: &str = "monday tuesday wednesday thursday friday saturday sunday montag dienstag \
    mittwoch donnerstag freitag samstag sonntag mon tue wed thu fri sat sun mo di mi do fr sa so";

/// Whether this, in lower case, names a month or a day of the week ("tuesdays" too).
pub(crate) fn is_month_or_weekday(word: &str) -> bool {
    let one = word.strip_suffix('s').unwrap_or(word);
    month_of(word).is_some()
        || WEEKDAYS
            .split_ascii_whitespace()
            .any(|day| day == word || day == one)
}

fn without_weekday(text: &str) -> Option<&str> {
    let end = text.find(|c: char| !c.is_alphabetic())?;
    let (name, rest) = text.split_at(end);
    let name = name.to_lowercase();
    WEEKDAYS
        .split_ascii_whitespace()
        .any(|day| day == name)
        .then(|| rest.trim_start_matches(['.', ',', ' ']))
}

/// `T10:00`, `10:00:05.123Z`, `10:00 +02:00`.
fn is_time(text: &str) -> bool {
    let text = text.strip_prefix('T').unwrap_or(text);
    let Some((hour, rest)) = digits(text, 1, 2) else {
        return false;
    };
    let minute = rest.strip_prefix(':').and_then(|rest| digits(rest, 2, 2));
    let Some((minute, rest)) = minute else {
        return false;
    };
    hour < 25
        && minute < 60
        && rest.len() <= 24
        && rest
            .chars()
            .all(|c| c.is_ascii_digit() || ":.,+- ZUTC".contains(c))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn iso(text: &str) -> Option<String> {
        parse_date(text).map(|date| date.to_string())
    }

    #[test]
    fn every_form_is_read() {
        for text in [
            "2025-03-04",
            "2025/3/4",
            "2025.03.04",
            "04.03.2025",
            "4.3.2025",
            "4. 3. 2025",
            "4 March 2025",
            "4th March 2025",
            "4th of March, 2025",
            "04 Mar 2025",
            "4-Mar-2025",
            "March 4, 2025",
            "March 4th 2025",
            "Mar. 4, 2025",
            "4. März 2025",
            "4 MARCH 2025",
            " Tuesday, 4 March 2025 ",
            "Tue 4 Mar. 2025",
            "2025-03-04T10:00:00Z",
            "2025-03-04 10:00:00.123",
            "2025-03-04 9:05 +02:00",
            "March\n4,\n2025",
        ] {
            assert_eq!(iso(text).as_deref(), Some("2025-03-04"), "{text:?}");
        }
        assert_eq!(iso("14/03/2025").as_deref(), Some("2025-03-14"));
        assert_eq!(iso("03/14/2025").as_deref(), Some("2025-03-14"));
        assert_eq!(iso("03-03-2025").as_deref(), Some("2025-03-03"));
        assert_eq!(iso("29.02.2024").as_deref(), Some("2024-02-29"));
    }

    #[test]
    fn what_is_no_date_or_no_certain_one_is_refused() {
        for text in [
            "",
            "03/04/2025",
            "30.02.2025",
            "29 February 2025",
            "2025-13-01",
            "2025-3-004",
            "4 Marching 2025",
            "14.03.25",
            "1.2.3",
            "2025",
            "March 2025",
            "2025-03",
            "4 March",
            "2025-03-04x",
            "12025-03-04",
            "0025-03-04",
            "due 4 March 2025",
            "4 March 2025 to 5",
            "May 2025",
            "March 42025",
            "2025-03/04",
            "٤ March 2025",
        ] {
            assert_eq!(iso(text), None, "{text:?}");
        }
    }

    #[test]
    fn periods_have_a_first_and_a_last_day() {
        for (text, first, last) in [
            ("2024", "2024-01-01", "2024-12-31"),
            ("2024-02", "2024-02-01", "2024-02-29"),
            ("02/2025", "2025-02-01", "2025-02-28"),
            ("February 2025", "2025-02-01", "2025-02-28"),
            ("2025 Feb", "2025-02-01", "2025-02-28"),
            ("Q4 2025", "2025-10-01", "2025-12-31"),
            ("2025-Q1", "2025-01-01", "2025-03-31"),
            ("14 March 2025", "2025-03-14", "2025-03-14"),
        ] {
            let (a, b) = parse_period(text).unwrap();
            assert_eq!(
                (a.to_string().as_str(), b.to_string().as_str()),
                (first, last),
                "{text}"
            );
        }
        for text in [
            "",
            "25",
            "13/2025",
            "Q5 2025",
            "Q0 2025",
            "2025 2026",
            "2025-",
            "1 2 3 4",
        ] {
            assert!(text == "2025-" || parse_period(text).is_none(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn dates_round_trip_through_every_form(days in 0_i32..400_000) {
            let start = Date::new(1200, 1, 1).unwrap();
            let date = start.checked_add(jiff::Span::new().days(days)).unwrap();
            for form in ["%Y-%m-%d", "%d.%m.%Y", "%-d.%-m.%Y", "%-d %B %Y", "%B %-d, %Y", "%d %b %Y",
                "%A, %-d %B %Y", "%Y-%m-%d 10:20"]
            {
                let text = date.strftime(form).to_string();
                prop_assert_eq!(parse_date(&text), Some(date), "{}", text);
            }
        }

        #[test]
        fn no_text_panics(text in "(\\PC|[0-9 .,/-]|March |Q1 |Fri, ){0,20}") {
            let _ = parse_period(&text);
            if let Some((_, end)) = scan_date(&text) {
                prop_assert!(text.is_char_boundary(end) && end >= 8);
            }
        }
    }
}
