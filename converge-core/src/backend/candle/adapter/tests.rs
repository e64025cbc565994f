//! Tiny random models of the adapted architectures, against themselves cut up differently.

use super::*;
use crate::model::tiny::{Tiny, VOCAB};

fn load(tiny: &Tiny) -> Result<AdaptedDecoder> {
    let (gguf, _folder) = tiny.open();
    let options = CandleOptions {
        context: 64,
        ..Default::default()
    };
    AdaptedDecoder::load(&gguf, &options)
}

fn run(decoder: &mut AdaptedDecoder, tokens: &[TokenId], rows: Rows) -> Vec<f32> {
    decoder.forward(tokens, rows, &Cancel::new()).unwrap().data
}

fn assert_close(a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() < 1e-4, "{a} {b}");
    }
}

#[test]
fn passes_may_be_cut_anywhere_and_failures_leave_no_trace() {
    let tokens: Vec<TokenId> = (0..24).map(|i| (i * i + 3) % VOCAB as TokenId).collect();
    let mut decoder = load(&Tiny::glm4()).unwrap();
    assert!(!decoder.exact() && !decoder.truncates());
    let expected = run(&mut decoder, &tokens, Rows::Last);
    assert_eq!(expected.len(), VOCAB);
    assert!(expected.iter().all(|x| x.is_finite()));
    // All rows, and all of it again after everything was forgotten.
    decoder.truncate(0).unwrap();
    let all = run(&mut decoder, &tokens, Rows::All);
    assert_close(&all[23 * VOCAB..], &expected);
    decoder.truncate(0).unwrap();
    let tail = run(&mut decoder, &tokens, Rows::Tail(3));
    assert_close(&tail, &all[21 * VOCAB..]);
    for at in [1, 9, 23] {
        decoder.truncate(0).unwrap();
        assert!(run(&mut decoder, &tokens[..at], Rows::None).is_empty());
        let cancel = Cancel::new();
        cancel.cancel();
        let cancelled = decoder.forward(&tokens, Rows::Last, &cancel);
        assert!(matches!(cancelled, Err(CoreError::Cancelled)));
        let outside = decoder.forward(&[VOCAB as TokenId], Rows::Last, &Cancel::new());
        assert!(matches!(outside, Err(CoreError::TokenOutOfRange { .. })));
        assert_eq!(decoder.len(), at);
        assert_close(&run(&mut decoder, &tokens[at..], Rows::Last), &expected);
    }
    let error = decoder.truncate(5).unwrap_err();
    assert!(
        matches!(error, CoreError::CannotTruncate { held: 24, len: 5 }),
        "{error}"
    );
    let beyond = decoder.forward(&[1; 41], Rows::None, &Cancel::new());
    assert!(matches!(beyond, Err(CoreError::ContextOverflow { .. })));
}

#[test]
fn numbers_that_no_model_has_are_refused() {
    let cases = [
        (Tiny::glm4(), "attention.head_count", 0),
        (Tiny::glm4(), "attention.head_count_kv", 0),
        (Tiny::glm4(), "attention.key_length", 6),
        (Tiny::glm4(), "block_count", u32::MAX),
    ];
    for (mut tiny, key, value) in cases {
        tiny.set(key, Value::U32(value));
        let error = load(&tiny).unwrap_err();
        assert!(
            matches!(&error, CoreError::ModelParameter { key: found, .. } if found.ends_with(key)),
            "{key}: {error}"
        );
    }
    let error = load(&Tiny::qwen2()).unwrap_err();
    assert!(matches!(error, CoreError::UnsupportedArchitecture { .. }));
}
