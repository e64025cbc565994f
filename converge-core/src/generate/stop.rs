//! Stop strings across token borders.

/// Looks for stop strings in text that comes piece by piece. Text that may be the beginning of a
/// stop string is held back.
#[derive(Clone, Debug)]
pub(crate) struct StopMatcher {
    stops: Vec<String>,
    held: String,
}

/// What a piece of text led to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Text that is certain to stand before any stop string.
    pub(crate) text: String,
    /// The stop string that appeared.
    pub(crate) stop: Option<String>,
}

impl StopMatcher {
    /// `stops` must not contain an empty string.
    pub(crate) fn new(stops: &[String]) -> Self {
        Self {
            stops: stops.to_vec(),
            held: String::new(),
        }
    }

    /// Takes in more text. The earliest stop string counts; of several at one place the longest.
    pub(crate) fn push(&mut self, text: &str) -> Found {
        self.held.push_str(text);
        let hit = self
            .stops
            .iter()
            .filter_map(|s| self.held.find(s.as_str()).map(|at| (at, s)))
            .min_by_key(|(at, s)| (*at, std::cmp::Reverse(s.len())));
        if let Some((at, stop)) = hit {
            let stop = stop.clone();
            self.held.truncate(at);
            return Found {
                text: std::mem::take(&mut self.held),
                stop: Some(stop),
            };
        }
        let keep = self
            .stops
            .iter()
            .map(|s| overlap(&self.held, s))
            .max()
            .unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        Found {
            text: std::mem::replace(&mut self.held, rest),
            stop: None,
        }
    }

    /// The text still held back, now that no more comes.
    pub(crate) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Length of the longest end of `text` that is a proper beginning of `stop`.
fn overlap(text: &str, stop: &str) -> usize {
    stop.char_indices()
        .map(|(i, _)| i)
        .filter(|&n| n > 0 && stop.get(..n).is_some_and(|head| text.ends_with(head)))
        .max()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (String, Option<String>) {
        let mut matcher =
            StopMatcher::new(&stops.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        let mut out = String::new();
        for piece in pieces {
            let found = matcher.push(piece);
            out.push_str(&found.text);
            if found.stop.is_some() {
                return (out, found.stop);
            }
        }
        out.push_str(&matcher.finish());
        (out, None)
    }

    #[test]
    fn across_borders_and_false_starts() {
        assert_eq!(
            run(&["</s>"], &["ab<", "/", "s>cd"]),
            ("ab".into(), Some("</s>".into()))
        );
        assert_eq!(run(&["</s>"], &["ab<", "/x", "<"]), ("ab</x<".into(), None));
        assert_eq!(
            run(&["aab"], &["a", "a", "a", "b"]),
            ("a".into(), Some("aab".into()))
        );
        assert_eq!(
            run(&["é!"], &["caf", "é", "s é", "!"]),
            ("cafés ".into(), Some("é!".into()))
        );
        assert_eq!(run(&[], &["a", "b"]), ("ab".into(), None));
    }

    #[test]
    fn the_earliest_wins_then_the_longest() {
        assert_eq!(run(&["b", "ab"], &["xab"]), ("x".into(), Some("ab".into())));
        assert_eq!(run(&["a", "ab"], &["xab"]), ("x".into(), Some("ab".into())));
    }

    #[test]
    fn nothing_of_a_stop_string_is_given_out_early() {
        let mut m = StopMatcher::new(&["STOP".into()]);
        assert_eq!(m.push("hi ST").text, "hi ");
        assert_eq!(m.push("O").text, "");
        assert_eq!(m.push("R").text, "STOR");
    }

    proptest! {
        #[test]
        fn cutting_the_text_elsewhere_changes_nothing(
            text in "[abc]{0,40}", stop in "[abc]{1,4}", cuts in prop::collection::vec(1usize..5, 40),
        ) {
            let mut pieces = Vec::new();
            let mut rest = text.as_str();
            for n in cuts {
                let (head, tail) = rest.split_at(n.min(rest.len()));
                pieces.push(head);
                rest = tail;
            }
            pieces.push(rest);
            let (out, found) = run(&[&stop], &pieces);
            match text.find(&stop) {
                Some(at) => {
                    prop_assert_eq!(&out, &text[..at]);
                    prop_assert_eq!(found, Some(stop));
                }
                None => {
                    prop_assert_eq!(out, text);
                    prop_assert_eq!(found, None);
                }
            }
        }
    }
}
