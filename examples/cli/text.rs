/// A size for people: `98.4 MB`, in powers of 1000.
pub fn bytes(n: u64) -> String {
    let mut value = n as f64;
    let mut unit = "B";
    for next in ["kB", "MB", "GB", "TB"] {
        if value < 999.5 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    match unit {
        "B" => format!("{n} B"),
        _ if value < 9.995 => format!("{value:.2} {unit}"),
        _ if value < 99.95 => format!("{value:.1} {unit}"),
        _ => format!("{value:.0} {unit}"),
    }
}

/// An error and its causes in one line. A cause that the line before already tells is left out.
pub fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        let cause = cause.split_whitespace().collect::<Vec<_>>().join(" ");
        if line.contains(&cause) {
            continue;
        }
        if !line.is_empty() {
            line += ": ";
        }
        line += &cause;
    }
    line
}

/// `\n`, `\t` and `\\` as a shell leaves them, as the characters that they stand for.
pub fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, chars.clone().next()) {
            ('\\', Some('n')) => out.push('\n'),
            ('\\', Some('t')) => out.push('\t'),
            ('\\', Some('\\')) => out.push('\\'),
            _ => {
                out.push(c);
                continue;
            }
        }
        chars.next();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn sizes_keep_three_digits() {
        for (n, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.00 kB"),
            (98_362_432, "98.4 MB"),
            (999_600, "1.00 MB"),
            (1_117_320_768, "1.12 GB"),
            (491_400_064, "491 MB"),
        ] {
            assert_eq!(bytes(n), text);
        }
    }

    #[test]
    fn an_error_is_one_line_without_repetition() {
        let error = Err::<(), _>(anyhow::anyhow!("no\nspace"))
            .context("a.gguf: no space")
            .context("fetching a")
            .unwrap_err();
        assert_eq!(one_line(&error), "fetching a: a.gguf: no space");
    }
}
