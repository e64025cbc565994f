//! Words of a text for comparison: lower case, common English endings taken off.

/// The stems of the words of `text`, in order. Digits with separators inside (`1,200.50`) are
/// one word without the commas.
pub(crate) fn stems(text: &str) -> impl Iterator<Item = String> + '_ {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches(|c: char| !c.is_alphanumeric());
        let number = rest.starts_with(|c: char| c.is_ascii_digit());
        let mut end = 0;
        for (at, c) in rest.char_indices() {
            let inner = if number {
                matches!(c, ',' | '.')
            } else {
                matches!(c, '\'' | '’')
            };
            let goes_on = || {
                let next = rest[at + c.len_utf8()..].chars().next();
                next.is_some_and(|c| {
                    if number {
                        c.is_ascii_digit()
                    } else {
                        c.is_alphabetic()
                    }
                })
            };
            if !(c.is_alphanumeric() || inner && goes_on()) {
                break;
            }
            end = at + c.len_utf8();
        }
        let (word, after) = rest.split_at(end);
        rest = after;
        match (word.is_empty(), number) {
            (true, _) => None,
            (_, true) => Some(word.replace(',', "").to_lowercase()),
            (_, false) => Some(stem(&word.to_lowercase())),
        }
    })
}

/// A word of lower case without plural, `-ed`, `-ing`, `-ly`, `-ion` and a final `e`, so that
/// "terminates", "terminated", "terminating" and "termination" meet.
fn stem(word: &str) -> String {
    let word = word
        .strip_suffix("'s")
        .or_else(|| word.strip_suffix("’s"))
        .unwrap_or(word);
    if word.len() <= 3 || !word.is_ascii() {
        return word.to_owned();
    }
    let singular = if let Some(base) = word.strip_suffix("ies").filter(|base| base.len() > 1) {
        format!("{base}y")
    } else if ["sses", "xes", "ches", "shes", "zes"]
        .iter()
        .any(|end| word.ends_with(end))
    {
        word[..word.len() - 2].to_owned()
    } else if word.ends_with('s') && !["ss", "us", "is"].iter().any(|end| word.ends_with(end)) {
        word[..word.len() - 1].to_owned()
    } else {
        word.to_owned()
    };
    // "quarterly" meets "quarter", "monthly" "month".
    let singular = match singular.strip_suffix("ly") {
        Some(base) if base.len() >= 4 => base.to_owned(),
        _ => singular,
    };
    let vowels = |base: &str| base.len() >= 3 && base.contains(|c| "aeiouy".contains(c));
    let base = ["ing", "ed"]
        .iter()
        .find_map(|end| singular.strip_suffix(end));
    let base = match base.filter(|base| vowels(base)) {
        Some(base) => base,
        None => singular
            .strip_suffix("ion")
            .filter(|base| base.len() >= 4 && (base.ends_with('t') || base.ends_with('s')))
            .unwrap_or(&singular),
    };
    let base = if base.len() > 3 {
        base.strip_suffix('e').unwrap_or(base)
    } else {
        base
    };
    let bytes = base.as_bytes();
    // "planned" loses a letter to meet "plan"; so that "billed" and "bill" still meet, both do.
    match bytes {
        [.., a, b] if a == b && base.len() > 3 && b.is_ascii_alphabetic() => {
            base[..base.len() - 1].to_owned()
        }
        _ => base.to_owned(),
    }
}

/// Whether a stem is too common to search for when there are others.
pub(crate) fn is_stop_word(stem: &str) -> bool {
    const STOP: &str = " a an and any are as at be been by can could did do does doe for from \
        had has have ha hav how i if in into is it its me my of on or our shall should so such \
        than that the their them then there these they thi this those to wa was we were what \
        when where which who whom whos whose why will with would you your wher ther wer thos thes \
        ";
    STOP.split_ascii_whitespace().any(|word| word == stem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Vec<String> {
        stems(text).collect()
    }

    #[test]
    fn endings_are_taken_off_alike() {
        for group in [
            "terminate terminates terminated terminating termination",
            "invoice invoices invoiced invoicing",
            "party parties",
            "plan plans planned planning",
            "bill bills billed billing",
            "box boxes",
            "renew renews renewed renewing",
            "tax taxes taxed",
            "quarter quarters quarterly",
        ] {
            let stems = all(group);
            assert!(stems.iter().all(|stem| *stem == stems[0]), "{stems:?}");
        }
        assert_ne!(all("contract"), all("contrast"));
        assert_eq!(
            all("status analysis bus gas"),
            ["status", "analysis", "bus", "gas"]
        );
    }

    #[test]
    fn numbers_and_apostrophes_stay_whole() {
        assert_eq!(all("$1,200.50, then 3."), ["1200.50", "then", "3"]);
        assert_eq!(
            all("the tenant's ‘Müller’s’ co-op"),
            ["the", "tenant", "müller", "co", "op"]
        );
        assert_eq!(all(" ,;. "), Vec::<String>::new());
    }
}
