use proptest::prelude::*;

use super::*;

/// The facts in short: numbers and dates as they print, names in brackets, weak ones with `?`.
fn short(text: &str) -> Vec<String> {
    facts_in(text)
        .into_iter()
        .map(|fact| {
            let weak = if fact.weak { "?" } else { "" };
            match fact.kind {
                FactKind::Number(value) => format!("{value}{weak}"),
                FactKind::Date(date) => format!("{date}{weak}"),
                FactKind::Name(name) => format!("[{name}]{weak}"),
            }
        })
        .collect()
}

#[test]
fn numbers_are_found_in_every_writing() {
    for (text, expected) in [
        (
            "pay $1,200.00 or EUR 450 or 12 % today",
            &["1200", "450", "12"][..],
        ),
        ("€1.200,50 and 3.400 and USD450", &["1200.5", "3400", "450"]),
        ("the 3rd of 21 items, 10GB, 5pm", &["3", "21", "10", "5"]),
        ("within thirty (30) days", &["30", "30"]),
        (
            "twenty-one, two hundred and five, three thousand",
            &["21", "205", "3000"],
        ),
        (
            "one hundred twenty three thousand four hundred",
            &["123400"],
        ),
        ("one of them, someone", &["1?"]),
        (
            "between five and six, twenty and thirty",
            &["5", "6", "20", "30"],
        ),
        ("1.5 million and 2 thousand", &["1500000", "2000"]),
        (
            "a change of -5 or -$3.20 in 2024-2025, 3-5",
            &["-5", "-3.2", "2024", "2025", "3", "5"],
        ),
        ("(300)", &["300"]),
        ("10:30", &["10", "30"]),
        ("10,20,30", &["10", "20", "30"]),
        ("about .5", &["0.5"]),
        ("1. first\n2) second\n", &["1?", "2?"]),
        ("ends in 2025.", &["2025"]),
    ] {
        assert_eq!(short(text), expected, "{text}");
    }
}

#[test]
fn multiples_versions_and_identifiers_stay_literal() {
    for (text, expected) in [
        ("about $1.2k and 3M", &["[1.2k]", "[3M]"][..]),
        ("version 1.2.3 of v1.4", &["[1.2.3]", "[v1.4]"]),
        (
            "invoice INV-2024-017 for room 4B2",
            &["[INV-2024-017]", "[4B2]"],
        ),
        ("contracts/2024/a.md", &["[contracts/2024/a.md]"]),
    ] {
        assert_eq!(short(text), expected, "{text}");
    }
}

#[test]
fn dates_are_found_whole() {
    assert_eq!(
        short(
            "on 2025-03-14, 14 March 2025, March 14, 2025 or 14.03.2025, Friday at 2025-03-14T10:00"
        ),
        [
            "2025-03-14",
            "2025-03-14",
            "2025-03-14",
            "2025-03-14",
            "2025-03-14",
            "10",
            "0"
        ]
        .map(str::to_owned)
    );
    assert_eq!(short("in March 2025 and May"), ["2025"]);
    assert_eq!(short("due 2025-03-14."), ["2025-03-14"]);
}

#[test]
fn names_are_runs_of_capitals_without_common_words() {
    for (text, expected) in [
        ("The contract with Acme Ltd. ends.", &["[Acme Ltd]"][..]),
        (
            "Acme & Sons of Berlin met J. R. Smith and Bob",
            &["[Acme & Sons of Berlin]", "[J. R. Smith]", "[Bob]"],
        ),
        (
            "Payment is due. However, Müller's office paid.",
            &["[Payment]?", "[Müller]"],
        ),
        ("we met In The Morning Hotel", &["[Morning Hotel]"]),
        ("- Rent: Old Mill\n", &["[Rent]?", "[Old Mill]?"][..1]),
        ("paid in EUR on Tuesdays", &[]),
        (
            "Dear Mr Pohl, met I. Halloran",
            &["[Pohl]", "[I. Halloran]"],
        ),
        ("ask for IT Support", &["[IT Support]"]),
        (
            "The work is done without any delay by Brightwell Cleaning\n  Partners of Kelderby",
            &["[Brightwell Cleaning Partners of Kelderby]"],
        ),
        ("Heading One\nText Two", &["[Heading One]", "[Text Two]"]),
        ("O'Brien-Smith called", &["[O'Brien-Smith]?"]),
    ] {
        let found = short(text);
        assert_eq!(
            found[..expected.len().min(found.len())],
            *expected,
            "{text}"
        );
        assert!(!expected.is_empty() || found.is_empty(), "{text}");
    }
}

#[test]
fn long_runs_take_no_long_time() {
    for text in [
        "1".repeat(1 << 18),
        "1".repeat(1 << 18) + ",",
        "1,".repeat(1 << 17),
        "A ".repeat(1 << 17),
        "-".repeat(1 << 18),
        "one ".repeat(1 << 16),
        "$".repeat(1 << 18) + "1",
    ] {
        let start = std::time::Instant::now();
        let _ = facts_in(&text);
        assert!(start.elapsed().as_secs() < 60, "{}", &text[..8]);
    }
}

proptest! {
    #[test]
    fn spans_are_in_order_and_inside(text in "(\\PC|[0-9.,:'-]| |\n|March |one |hundred |Acme |EUR|of |and ){0,30}") {
        let mut last = 0;
        for fact in facts_in(&text) {
            prop_assert!(fact.span.start >= last && fact.span.end > fact.span.start);
            prop_assert!(text.get(fact.span.clone()).is_some());
            last = fact.span.end;
        }
    }

    #[test]
    fn a_number_set_in_words_is_found(value in 0_i64..1_000_000_000, before in "[a-z]{2,8}", after in "[a-z]{2,8}") {
        prop_assume!(super::value_of(&before).is_none() && super::value_of(&after).is_none());
        // As "mio" would be.
        prop_assume!(crate::tool::number::magnitude(&after).0 == 1.into());
        let text = format!("{before} {value} {after}.");
        let numbers: Vec<_> = facts_in(&text).into_iter().map(|fact| fact.kind).collect();
        prop_assert_eq!(numbers, [FactKind::Number(value.into())]);
    }
}
