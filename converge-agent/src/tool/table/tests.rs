use std::fs;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::tool::folder::{Encoding, TextFile};
use crate::tool::{Decimal, Tool, ToolContext, ToolError};

fn parse(text: &str) -> Table {
    parse_as("t.csv", text).unwrap()
}

fn parse_as(path: &str, text: &str) -> Result<Table, TableError> {
    Table::parse(&TextFile {
        path: path.to_owned(),
        text: text.to_owned(),
        encoding: Encoding::Utf8,
        bytes: text.len() as u64,
        truncated: false,
    })
}

fn ask(table: &Table, args: Value) -> Result<TableResult, TableError> {
    let mut args = args;
    args["path"] = json!("t.csv");
    query(table, &serde_json::from_value(args).unwrap())
}

fn text(table: &Table, args: Value) -> String {
    ask(table, args).map_or_else(|error| error.to_string(), |result| result.text(10_000))
}

#[test]
fn two_columns_of_a_row_are_compared() {
    let stock = parse("article,count,level,note\na,5,9,x\nb,9,5,x\nc,,5,x\nd,7,7,x\n");
    let below = |op: &str| {
        let filter = json!([{"column": "count", "op": op, "other_column": "level"}]);
        let rows = json!({"filter": filter, "aggregate": {"op": "rows"}});
        let result = ask(&stock, rows)?;
        Ok::<_, TableError>(result.rows.iter().map(|row| row.line).collect::<Vec<_>>())
    };
    assert_eq!(below("lt").unwrap(), [2]);
    assert_eq!(below("le").unwrap(), [2, 5]);
    assert_eq!(below("gt").unwrap(), [3]);
    assert!(matches!(
        below("contains"),
        Err(TableError::NotOfColumns { .. })
    ));
    let mixed = json!({
        "filter": [{"column": "count", "op": "lt", "other_column": "note"}],
        "aggregate": {"op": "count"},
    });
    assert_eq!(ask(&stock, mixed).unwrap().incomparable, [2, 3, 5]);
}

const SALES: &str = "\
Date,Customer,Region,Amount,Note
2025-01-02,Acme,North,\"$1,200.50\",
2025-01-15,Bolt,South,$99.50,\"late, paid\"
2025-02-01,acme,North,$300.00,

2025-03-31,Cord,South,($50.00),refund
2025-04-01,Bolt,North,n/a,
Total,,,\"$1,550.00\",
";

#[test]
fn sums_are_exact_and_name_their_lines() {
    let table = parse(SALES);
    let sum = json!({"op": "sum", "column": "amount"});
    assert_eq!(
        text(&table, json!({"aggregate": sum})),
        "5 of 5 rows match\nsum of amount: 1550 USD (lines 2-4, 6)\n\
         note: nothing to compute with in line 7\nnote: a total, left out, in line 8\n"
    );
    let acme = json!([{"column": "customer", "op": "eq", "value": "ACME"}]);
    let result = ask(&table, json!({"filter": acme, "aggregate": sum})).unwrap();
    assert_eq!(result.groups[0].lines, [2, 4]);
    assert_eq!(
        serde_json::to_value(&result.groups[0].value).unwrap(),
        json!({"number": {"value": "1500.5", "unit": "USD"}})
    );
    let none = json!([{"column": "Region", "op": "eq", "value": "West"}]);
    assert!(text(&table, json!({"filter": none, "aggregate": sum})).contains("nothing (no line)"));
}

#[test]
fn groups_are_computed_and_sorted() {
    let table = parse(SALES);
    let mut args = json!({
        "group_by": "customer", "aggregate": {"op": "sum", "column": "Amount"},
        "sort": {"by": "value", "descending": true}
    });
    let lines = |args: &Value| -> Vec<String> {
        let text = text(&table, args.clone());
        text.lines()
            .filter(|line| line.starts_with("sum"))
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(
        lines(&args),
        [
            "sum of Amount for Acme: 1500.5 USD (lines 2, 4)",
            "sum of Amount for Bolt: 99.5 USD (line 3)",
            "sum of Amount for Cord: -50 USD (line 6)"
        ]
    );
    args["sort"] = json!({"by": "Customer", "descending": true});
    args["limit"] = json!(1);
    assert_eq!(lines(&args), ["sum of Amount for Cord: -50 USD (line 6)"]);
    args["sort"] = json!({"by": "Region"});
    assert!(
        text(&table, args).contains("there is no column \"Region\"; there are value, Customer")
    );
}

#[test]
fn every_comparison_works_on_what_the_column_holds() {
    let table = parse(SALES);
    let count = |conditions: Value| {
        ask(
            &table,
            json!({"filter": conditions, "aggregate": {"op": "count"}}),
        )
        .unwrap()
        .matched
    };
    let one = |column: &str, op: &str, value: Value| {
        count(json!([{"column": column, "op": op, "value": value}]))
    };
    assert_eq!(one("Amount", "gt", json!(99.5)), 2);
    assert_eq!(one("Amount", "ge", json!("$99.50")), 3);
    assert_eq!(one("Amount", "lt", json!(0)), 1);
    assert_eq!(one("Amount", "le", json!("1,200.50")), 4);
    assert_eq!(one("Amount", "eq", json!("300")), 1);
    assert_eq!(one("Amount", "ne", json!(300)), 4);
    assert_eq!(one("Amount", "eq", json!("")), 1);
    assert_eq!(one("Note", "ne", json!("")), 2);
    assert_eq!(one("Note", "contains", json!("LATE,")), 1);
    assert_eq!(one("Date", "eq", json!("January 2025")), 2);
    assert_eq!(one("Date", "eq", json!("Q1 2025")), 4);
    assert_eq!(one("Date", "gt", json!("2025-01")), 3);
    assert_eq!(one("Date", "ge", json!("15.01.2025")), 4);
    assert_eq!(one("Date", "lt", json!("2025")), 0);
    assert_eq!(one("Date", "contains", json!("-01-")), 2);
    assert_eq!(one("Customer", "lt", json!("b")), 2);
    let between = |from: &str, to: &str| {
        count(json!([{"column": "date", "op": "between", "value": from, "to": to}]))
    };
    assert_eq!(between("2025-01-15", "March 2025"), 3);
    assert_eq!(between("2025-02", "2025-02"), 1);
}

#[test]
fn least_greatest_mean_and_rows() {
    let table = parse(SALES);
    let run =
        |op: &str, column: &str| text(&table, json!({"aggregate": {"op": op, "column": column}}));
    assert!(run("max", "amount").contains("max of amount: 1200.5 USD (line 2)"));
    assert!(run("min", "date").contains("min of date: 2025-01-02 (line 2)"));
    assert!(run("mean", "amount").contains("mean of amount: 387.5 USD"));
    assert!(run("count", "note").contains("count of note: 2 (lines 3, 6)"));
    let rows = ask(
        &table,
        json!({"aggregate": {"op": "rows"}, "sort": {"by": "amount", "descending": true}, "limit": 2}),
    );
    let rows = rows.unwrap();
    assert!(rows.truncated);
    assert_eq!(
        rows.rows.iter().map(|row| row.line).collect::<Vec<_>>(),
        [2, 4]
    );
    assert_eq!(
        rows.rows[1].cells,
        ["2025-02-01", "acme", "North", "$300.00", ""]
    );
}

#[test]
fn questions_that_do_not_fit_are_refused() {
    let table = parse(SALES);
    let aggregate = |op: &str, column: &str| json!({"aggregate": {"op": op, "column": column}});
    let filter = |column: &str, op: &str, value: &str| json!({"filter": [{"column": column, "op": op, "value": value}], "aggregate": {"op": "count"}});
    for (args, message) in [
        (
            aggregate("sum", "price"),
            "there is no column \"price\"; there are Date, Customer",
        ),
        (
            aggregate("sum", "Customer"),
            "Sum does not work on column \"Customer\", which holds text",
        ),
        (
            aggregate("sum", "Date"),
            "Sum does not work on column \"Date\", which holds dates",
        ),
        (json!({"aggregate": {"op": "max"}}), "Max needs a column"),
        (
            filter("Amount", "gt", "much"),
            "holds numbers, with which \"much\" does not compare",
        ),
        (
            filter("Date", "gt", "soon"),
            "holds dates, with which \"soon\" does not compare",
        ),
        (
            filter("Date", "between", "2025"),
            "between needs both value and to",
        ),
    ] {
        let found = text(&table, args);
        assert!(found.contains(message), "{found}");
    }
}

#[test]
fn cells_that_would_falsify_a_sum_are_errors() {
    let sum = json!({"aggregate": {"op": "sum", "column": "a"}});
    let mixed = parse("a,b\n1 EUR,x\n2 €,y\n3 USD,z\n4,w\n");
    assert!(text(&mixed, sum.clone()).contains("mixes EUR and USD (line 4)"));
    let odd = parse("a,b\n1,x\nsoon,y\n3,z\n");
    assert!(text(&odd, sum.clone()).contains("line 3 has \"soon\" in column \"a\""));
    let y = json!([{"column": "b", "op": "ne", "value": "y"}]);
    assert!(
        text(
            &odd,
            json!({"filter": y, "aggregate": {"op": "sum", "column": "a"}})
        )
        .contains("sum of a: 4 (lines 2, 4)")
    );
    let above = json!([{"column": "a", "op": "gt", "value": 0}]);
    let result = ask(&odd, json!({"filter": above, "aggregate": {"op": "count"}})).unwrap();
    assert_eq!((result.matched, result.incomparable), (2, vec![3]));
    let large = "9".repeat(38);
    let table = parse(&format!("a,b\n{large},x\n{large},y\n"));
    assert!(text(&table, sum).contains("too large"));
}

#[test]
fn odd_files_are_understood_or_reported() {
    // Semicolons, decimal commas, a delimiter line, comments, DOS line ends.
    let table = parse("sep=;\r\n# export\r\nName;Betrag\r\nA;1.200,50 €\r\nB;300 €\r\n");
    assert_eq!(table.delimiter, ';');
    let sum = json!({"aggregate": {"op": "sum", "column": "betrag"}});
    assert!(text(&table, sum).contains("sum of betrag: 1500.5 EUR (lines 4-5)"));
    // Semicolons and thousands only.
    let table = parse("Name;Betrag\nA;1.200\nB;2.300\n");
    let sum = json!({"aggregate": {"op": "sum", "column": "Betrag"}});
    assert!(text(&table, sum).contains(": 3500 "));
    // A number with a separator that nobody quoted, a remark, blank lines.
    let table = parse("a,b,c\n1,2,3\n\n\n1,1,200,3\nremark only\n4,5,6\n,,\n");
    assert_eq!(
        table.rows.iter().map(|row| row.line).collect::<Vec<_>>(),
        [2, 7]
    );
    assert_eq!(
        table.set_aside,
        [
            SetAside {
                line: 5,
                reason: SetAsideReason::TooManyCells
            },
            SetAside {
                line: 6,
                reason: SetAsideReason::Remark
            }
        ]
    );
    // Quoted line ends: the line is that of the beginning.
    let table = parse("a,b\n1,\"x\ny\"\n2,z\n");
    assert_eq!(
        table.rows.iter().map(|row| row.line).collect::<Vec<_>>(),
        [2, 4]
    );
    // Double and missing names.
    let table = parse("a,a,\n1,2,3\n");
    let names: Vec<&str> = table
        .columns
        .iter()
        .map(|column| column.name.as_str())
        .collect();
    assert_eq!(names, ["a", "a (2)", "column 3"]);
    // Tabs; a single column.
    assert_eq!(parse("a\tb\n1,5\t2\n").delimiter, '\t');
    assert_eq!(parse("amount\n1\n2\n").columns.len(), 1);
}

#[test]
fn hopeless_files_are_refused() {
    assert!(matches!(
        parse_as("t.csv", " \n\n"),
        Err(TableError::Empty { .. })
    ));
    assert!(matches!(
        parse_as("t.csv", "a,b\n1,\"open\n2,3\n4,5\n"),
        Err(TableError::UnclosedQuote { line: 2, .. })
    ));
    let wide = ",".repeat(100_000);
    assert!(matches!(
        parse_as("t.csv", &wide),
        Err(TableError::TooManyColumns { .. })
    ));
}

#[test]
fn dates_with_slashes_read_as_the_column_shows() {
    let day = parse("d,x\n03/04/2025,1\n14/04/2025,2\n");
    let month = parse("d,x\n03/04/2025,1\n04/14/2025,2\n");
    let neither = parse("d,x\n03/04/2025,1\n05/04/2025,2\n");
    let min = json!({"aggregate": {"op": "min", "column": "d"}});
    assert!(text(&day, min.clone()).contains("2025-04-03"));
    assert!(text(&month, min.clone()).contains("2025-03-04"));
    assert!(text(&neither, min).contains("holds text"));
}

#[test]
fn markdown_tables_are_read_too() {
    let table = parse_as(
        "a.md",
        "# Fees\n\n| Item | Fee |\n|---|---|\n\nText | here\n\n| Item | Fee |\n|:--|--:|\n\
         | A \\| B | $1.50 |\n| **C** | $2 |\n",
    );
    let table = table.unwrap();
    assert_eq!(table.rows[0].cells, ["A | B", "$1.50"]);
    let sum = json!({"aggregate": {"op": "sum", "column": "fee"}});
    assert!(text(&table, sum).contains("3.5 USD (lines 10-11)"));
}

#[test]
fn a_profile_names_columns_and_values() {
    let profile = parse(SALES).profile();
    assert_eq!(profile.rows, 5);
    let by_name = |name: &str| {
        profile
            .columns
            .iter()
            .find(|c| c.name == name)
            .unwrap()
            .clone()
    };
    let amount = by_name("Amount");
    assert_eq!((amount.kind.as_str(), amount.missing), ("numbers", 1));
    assert_eq!(amount.units, ["USD"]);
    assert_eq!(
        (amount.min.as_deref(), amount.max.as_deref()),
        (Some("($50.00)"), Some("$1,200.50"))
    );
    assert_eq!(by_name("Region").distinct.unwrap(), ["North", "South"]);
    assert_eq!(by_name("Date").max.as_deref(), Some("2025-04-01"));
    let many: String = (0..40).map(|i| format!("name{i}\n")).collect();
    assert_eq!(
        parse(&format!("h\n{many}")).profile().columns[0].distinct,
        None
    );
    assert!(
        profile
            .text()
            .contains("- Amount (numbers in USD): ($50.00) to $1,200.50")
    );
}

#[test]
fn the_tool_cites_lines_of_the_file() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("s.csv"), SALES).unwrap();
    fs::write(temp.path().join("big.csv"), "a,b\n".repeat(100)).unwrap();
    let folder = Folder::open(temp.path()).unwrap();
    let args = json!({"path": "s.csv", "aggregate": {"op": "sum", "column": "Amount"}});
    let output = tool(folder.clone())
        .call(&args, &ToolContext::default())
        .unwrap();
    let sources: Vec<String> = output.sources.iter().map(ToString::to_string).collect();
    assert_eq!(sources, ["s.csv:2-4", "s.csv:6"]);
    // A part of a file would give a wrong sum.
    let limits = crate::tool::FolderLimits {
        file_bytes: 100,
        ..Default::default()
    };
    let small = folder.with_limits(limits);
    assert!(matches!(
        Table::open(&small, "big.csv"),
        Err(ToolError::TooLarge { .. })
    ));
}

#[test]
fn large_odd_files_take_no_long_time() {
    const SIZE: usize = 1 << 18;
    for piece in [
        "a,b\n",
        ",",
        "\"",
        "\"\"\n",
        "|",
        "|a|b|\n|-|-|\n",
        "\n",
        "1.1.1,",
        "x;y,z\t|\n",
        "3/4/2025,1\n",
        "a b c d e f g h",
    ] {
        let text = piece.repeat(SIZE / piece.len());
        for path in ["t.csv", "t.md"] {
            let start = std::time::Instant::now();
            if let Ok(table) = parse_as(path, &text) {
                let _ = table.profile();
            }
            assert!(
                start.elapsed().as_secs() < 60,
                "{piece:?} in {path}: {:?}",
                start.elapsed()
            );
        }
    }
}

fn cell() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z ]{0,6}", "[a-z]{1,3}[,;\"\n][a-z]{1,3}", "[0-9]{1,4}"]
}

proptest! {
    #[test]
    fn sums_and_counts_agree_with_a_naive_reading(
        rows in proptest::collection::vec((0_u8..4, -100_000_i64..100_000, cell()), 1..40),
        delimiter in prop_oneof![Just(','), Just(';'), Just('\t')],
        wanted in 0_u8..4,
    ) {
        let mut file = format!("key{delimiter}amount{delimiter}note\n");
        for (key, cents, note) in &rows {
            let sign = if *cents < 0 { "-" } else { "" };
            let (whole, part) = (cents.abs() / 100, cents.abs() % 100);
            file += &format!("k{key}{delimiter}{sign}{whole}.{part:02}{delimiter}");
            file += &format!("\"{}\"\n", note.replace('"', "\"\""));
        }
        let table = parse(&file);
        prop_assert_eq!(table.rows.len(), rows.len());
        prop_assert_eq!(table.delimiter, delimiter);
        let naive = |keep: &dyn Fn(u8) -> bool| -> (i64, usize) {
            let kept = rows.iter().filter(|(key, ..)| keep(*key));
            kept.fold((0, 0), |(sum, n), (_, cents, _)| (sum + cents, n + 1))
        };
        let value = |cents: i64| Decimal::new(cents.into(), 2).unwrap();
        let sum = json!({"op": "sum", "column": "amount"});

        let filter = json!([{"column": "key", "op": "eq", "value": format!("K{wanted}")}]);
        let result = ask(&table, json!({"filter": filter, "aggregate": sum})).unwrap();
        let (cents, count) = naive(&|key| key == wanted);
        prop_assert_eq!(result.matched, count);
        if count > 0 {
            prop_assert_eq!(&result.groups[0].value, &Cell::Number { value: value(cents), unit: None });
        }

        let result = ask(&table, json!({"group_by": "key", "aggregate": sum})).unwrap();
        for group in &result.groups {
            let key: u8 = group.key.as_ref().unwrap()[1..].parse().unwrap();
            let (cents, count) = naive(&|k| k == key);
            prop_assert_eq!(&group.value, &Cell::Number { value: value(cents), unit: None });
            prop_assert_eq!((group.count, group.lines.len()), (count, count));
            for line in &group.lines {
                let written = file.lines().nth(line - 1).unwrap();
                let expected = format!("k{key}{delimiter}");
                prop_assert!(written.starts_with(&expected), "{}: {}", line, written);
            }
        }
    }

    #[test]
    fn no_file_or_question_panics(
        file in "([a-c,;\t|\"0-9.€ -]|\n|\r|\\PC|Total){0,120}",
        value in "\\PC{0,8}",
        op in prop_oneof!["eq", "lt", "between", "contains"].prop_map(|op: String| op),
        aggregate in prop_oneof![Just("sum"), Just("rows"), Just("min"), Just("count"), Just("mean")],
        place in 0_usize..3,
    ) {
        for path in ["t.csv", "t.md"] {
            let Ok(table) = parse_as(path, &file) else { continue };
            let lines = file.lines().count().max(1);
            prop_assert!(table.rows.iter().all(|row| (1..=lines).contains(&row.line)));
            prop_assert!(table.rows.windows(2).all(|pair| pair[0].line <= pair[1].line));
            let profile = table.profile();
            let Some(column) = profile.columns.get(place) else { continue };
            let _ = ask(&table, json!({
                "filter": [{"column": column.name, "op": op, "value": value, "to": value}],
                "group_by": column.name,
                "aggregate": {"op": aggregate, "column": column.name},
                "sort": {"by": "value"},
            }));
        }
    }
}
