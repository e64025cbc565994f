use proptest::prelude::*;

use super::tests::{sampler, tokenizer};
use super::*;

/// Options that look at every token and at no breaker.
fn plain() -> Dry {
    Dry {
        multiplier: 1.0,
        base: 1.1,
        breakers: Vec::new(),
        ..Dry::default()
    }
}

/// What is subtracted from each of 300 logits after a history.
fn penalties(options: &Dry, history: &[TokenId]) -> Vec<(TokenId, f64)> {
    let mut logits = vec![0.0; 300];
    dry::Repetitions::new(options, tokenizer()).penalize(history, &mut logits);
    let found = logits.iter().enumerate().filter(|(_, x)| **x != 0.0);
    found.map(|(t, x)| (t as TokenId, -x)).collect()
}

fn breakers(list: &[&str]) -> Dry {
    Dry {
        breakers: list.iter().map(|&b| b.to_owned()).collect(),
        ..plain()
    }
}

#[test]
fn the_penalty_is_that_of_the_formula() {
    let after = |options: &Dry, history: &[TokenId]| penalties(options, history);
    assert_eq!(after(&plain(), &[0, 1]), []);
    assert_eq!(after(&plain(), &[0, 1, 2, 0, 1]), [(2, 1.0)]);
    let (base, twice) = (
        f64::from(1.1f32),
        Dry {
            multiplier: 2.0,
            ..plain()
        },
    );
    assert_eq!(after(&twice, &[5, 0, 1, 2, 5, 0, 1]), [(2, 2.0 * base)]);
    // The longest stretch counts, and each token has its own.
    let history = [7, 0, 1, 2, 0, 1, 2, 0, 1, 3, 7, 0, 1];
    assert_eq!(after(&plain(), &history), [(2, base), (3, 1.0)]);
    let longer = Dry {
        allowed_length: 4,
        ..plain()
    };
    assert_eq!(after(&longer, &[0, 1, 2, 3, 4, 0, 1]), []);
    // What the window does not reach is not seen.
    let window = |window| Dry { window, ..plain() };
    assert_eq!(after(&window(5), &[0, 1, 2, 0, 1]), [(2, 1.0)]);
    assert_eq!(after(&window(4), &[0, 1, 2, 0, 1]), []);
    assert_eq!(after(&window(0), &[0, 1, 2, 0, 1]), []);
}

#[test]
fn breakers_stand_in_the_text_whatever_its_tokens_are() {
    let [ab, c, p, q, r, end] = [256u32, 99, 112, 113, 114, 264];
    assert_eq!(tokenizer().token_text(ab), "ab");
    assert_eq!(tokenizer().token_text(end), "<|im_end|>");
    let base = f64::from(1.1f32);
    // ab and c are followed by p, q: with a breaker across the two, p and q alone are the stretch.
    let history = [ab, c, p, q, r, ab, c, p, q];
    assert_eq!(penalties(&plain(), &history), [(r, base * base)]);
    for breaker in ["bc", "abc", "c"] {
        assert_eq!(
            penalties(&breakers(&["zz", breaker]), &history),
            [(r, 1.0)],
            "{breaker}"
        );
    }
    assert_eq!(penalties(&breakers(&["b"]), &history), [(r, base)]);
    // One that was begun only is none.
    assert_eq!(penalties(&breakers(&["qx"]), &history), [(r, base * base)]);
    // A token that brings a breaker is let off, here only where it completes one.
    let history = [p, q, ab, c, r, p, q, ab];
    assert_eq!(penalties(&plain(), &history), [(c, base)]);
    assert_eq!(penalties(&breakers(&["bc"]), &history), []);
    assert_eq!(penalties(&breakers(&["rc"]), &history), [(c, base)]);
    // Control tokens are what they are written as.
    let history = [end, p, q, r, end, p, q];
    assert_eq!(penalties(&plain(), &history), [(r, base)]);
    assert_eq!(penalties(&breakers(&["im_end"]), &history), [(r, 1.0)]);
}

#[test]
fn no_repetition_leaves_nothing_to_choose() {
    let dry = Dry {
        multiplier: 1e30,
        base: 1e30,
        allowed_length: 1,
        ..plain()
    };
    let history = vec![3; 5000];
    for temperature in [0.0, 1.0, 1e-30] {
        let options = Sampling {
            dry: Some(dry.clone()),
            ..Sampling::at(temperature, 1)
        };
        let only = Mask::of(10, [3]);
        let mut s = sampler(options);
        assert_eq!(s.sample(&[1.0; 10], &history, Some(&only)).unwrap(), 3);
        assert_ne!(s.sample(&[1.0; 10], &history, None).unwrap(), 3);
    }
}

/// As published: from each place that holds the last token, back as far as both agree.
fn published(options: &Dry, history: &[TokenId], is_breaker: impl Fn(TokenId) -> bool) -> Vec<f64> {
    let mut longest = vec![0; 300];
    let from = history.len().saturating_sub(options.window);
    let h = &history[from..];
    let Some(&last) = h.last().filter(|&&t| !is_breaker(t)) else {
        return vec![0.0; 300];
    };
    for i in (0..h.len() - 1).filter(|&i| h[i] == last) {
        let next = h[i + 1];
        if is_breaker(next) {
            continue;
        }
        let mut n = 1;
        while n <= i && h[i - n] == h[h.len() - 1 - n] && !is_breaker(h[i - n]) {
            n += 1;
        }
        longest[next as usize] = n.max(longest[next as usize]);
    }
    let penalty = |&n: &usize| match n >= options.allowed_length {
        true => {
            let more = (n - options.allowed_length) as i32;
            f64::from(options.multiplier) * f64::from(options.base).powi(more)
        }
        false => 0.0,
    };
    longest.iter().map(penalty).collect()
}

proptest! {
    #[test]
    fn it_is_the_published_algorithm(
        text in "[ab;]{0,60}|[abc]{0,80}|(abcab;){0,9}[abc;]{0,8}",
        allowed_length in 1usize..5,
        window in prop::sample::select(vec![usize::MAX, 40, 7]),
        multiplier in 0.0f32..3.0,
    ) {
        let history: Vec<TokenId> = text.bytes().map(TokenId::from).collect();
        let options = Dry { multiplier, base: 1.3, allowed_length, window, ..breakers(&[";"]) };
        let want = published(&options, &history, |t| t == u32::from(b';'));
        let mut got = vec![0.0; 300];
        dry::Repetitions::new(&options, tokenizer()).penalize(&history, &mut got);
        for (token, (got, want)) in got.iter().zip(&want).enumerate() {
            prop_assert!((got + want).abs() <= 1e-9 * want, "{token}: {got} {want}");
        }
    }
}
