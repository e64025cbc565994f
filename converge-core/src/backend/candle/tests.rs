//! Tiny random models: against plain loops in f64, and against themselves cut up differently.

use std::cell::Cell;

use candle_core::quantized::{GgmlDType, gguf_file::Value};
use converge_quant::Gguf;

use super::*;
use crate::{
    TokenId,
    generate::Cancel,
    model::{
        Decoder, Logits, Rows,
        tiny::{CONTEXT, EXPERTS, HEAD_SIZE, Tiny, VOCAB},
    },
};

mod oracle;

fn load(tiny: &Tiny, mode: WeightMode) -> CandleModel {
    let (gguf, _folder) = tiny.open();
    load_at(&gguf, mode, CONTEXT).unwrap()
}

fn load_at(gguf: &Gguf, mode: WeightMode, context: usize) -> Result<CandleModel> {
    CandleModel::load(
        gguf,
        &CandleOptions {
            mode,
            context,
            ..Default::default()
        },
    )
}

/// Models of both modes, of types that are quantized and that are not, with the difference that two
/// ways to the same logits may have: a sum in another order can round an activation of 8 bits to
/// the next step.
fn models() -> Vec<(CandleModel, f32)> {
    let quantized = |mut tiny: Tiny| {
        tiny.matrices = GgmlDType::Q8_0;
        tiny
    };
    vec![
        (load(&Tiny::qwen2(), WeightMode::F32), 1e-4),
        (load(&Tiny::llama(), WeightMode::F32), 1e-4),
        (load(&Tiny::qwen2(), WeightMode::Quantized), 1e-4),
        (load(&quantized(Tiny::qwen2()), WeightMode::Quantized), 1e-1),
        (load(&quantized(Tiny::llama()), WeightMode::Quantized), 1e-1),
        (load(&quantized(Tiny::llama()), WeightMode::F32), 1e-4),
        (load(&Tiny::gemma3(), WeightMode::F32), 1e-3),
        (load(&quantized(Tiny::phi3()), WeightMode::Quantized), 1e-1),
        (load(&Tiny::qwen3moe(), WeightMode::F32), 1e-3),
    ]
}

fn tokens(n: usize) -> Vec<TokenId> {
    (0..n as TokenId)
        .map(|i| (i * i + 3 * i + 7) % VOCAB as TokenId)
        .collect()
}

fn run(decoder: &mut CandleDecoder, tokens: &[TokenId], rows: Rows) -> Logits {
    decoder.forward(tokens, rows, &Cancel::new()).unwrap()
}

fn assert_close(a: &[f32], b: &[f32], tolerance: f32, what: &str) {
    assert_eq!(a.len(), b.len(), "{what}");
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert!((a - b).abs() <= tolerance, "{what}: {a} and {b} at {i}");
    }
}

/// One model for everything that a description can say.
fn every_kind() -> Vec<(&'static str, Tiny)> {
    let with = |mut tiny: Tiny, pairs: &[(&str, Value)]| {
        pairs
            .iter()
            .for_each(|(key, value)| tiny.set(key, value.clone()));
        tiny
    };
    let text = |text: &str| Value::String(text.into());
    let scaling = |kind: &str| {
        with(
            Tiny::llama(),
            &[
                ("rope.scaling.type", text(kind)),
                ("rope.scaling.factor", Value::F32(4.0)),
                ("rope.scaling.original_context_length", Value::U32(64)),
            ],
        )
    };
    let mut per_pair = Tiny::llama();
    per_pair.add("rope_freqs.weight", &[HEAD_SIZE / 2], 3.0);
    let mut partial = with(Tiny::phi3(), &[("rope.dimension_count", Value::U32(12))]);
    partial.add("rope_factors_short.weight", &[6], 1.5);
    partial.add("rope_factors_long.weight", &[6], 4.0);
    let qkv = partial.tensors["blk.0.attn_qkv.weight"].0[0];
    partial.add("blk.0.attn_qkv.bias", &[qkv], 0.0);
    let original = |n| [("rope.scaling.original_context_length", Value::U32(n))];
    let mut kinds = Tiny::kinds();
    kinds.extend([
        ("linear", scaling("linear")),
        ("yarn", scaling("yarn")),
        ("llama3", scaling("llama3")),
        ("per pair", per_pair),
        (
            "mistral",
            with(
                Tiny::llama(),
                &[("attention.sliding_window", Value::U32(9))],
            ),
        ),
        (
            "gemma3, stretched",
            with(
                Tiny::gemma3(),
                &[
                    ("rope.scaling.type", text("linear")),
                    ("rope.scaling.factor", Value::F32(8.0)),
                ],
            ),
        ),
        (
            "phi3, windowed",
            with(Tiny::phi3(), &[("attention.sliding_window", Value::U32(9))]),
        ),
        ("phi3, long", with(partial.clone(), &original(64))),
        ("phi3, short", with(partial, &original(CONTEXT as u32))),
    ]);
    kinds
}

#[test]
fn f32_is_what_plain_loops_compute() {
    let tokens = tokens(70);
    for (name, tiny) in every_kind() {
        let (gguf, _folder) = tiny.open();
        let model = load_at(&gguf, WeightMode::F32, CONTEXT).unwrap();
        let logits = run(&mut model.decoder(), &tokens, Rows::All);
        let expected = oracle::logits(model.spec(), &tiny, CONTEXT, &tokens);
        let largest = expected.iter().fold(1f32, |max, x| max.max(x.abs()));
        assert_close(&logits.data, &expected, 1e-4 * largest, name);
    }
}

/// Blocks of 8 bits lose little; what is taken from shared tensors is the right part of them.
#[test]
fn quantized_is_close_to_f32() {
    let tokens = tokens(70);
    for (name, mut tiny) in every_kind() {
        tiny.matrices = GgmlDType::Q8_0;
        if matches!(name, "mixtral" | "qwen2moe" | "qwen3moe") {
            // All of them: the choice of some is no continuous function of the activations.
            tiny.set("expert_used_count", Value::U32(EXPERTS as u32));
        }
        let exact = run(
            &mut load(&tiny, WeightMode::F32).decoder(),
            &tokens,
            Rows::All,
        );
        let quantized = load(&tiny, WeightMode::Quantized);
        let logits = run(&mut quantized.decoder(), &tokens, Rows::All);
        let squares = |data: &mut dyn Iterator<Item = f32>| data.map(|x| x * x).sum::<f32>();
        let error = squares(&mut logits.data.iter().zip(&exact.data).map(|(a, b)| a - b));
        let ratio = (error / squares(&mut exact.data.iter().copied())).sqrt();
        assert!(ratio < 0.05, "{name}: {ratio}");
    }
}

#[test]
fn passes_may_be_cut_anywhere() {
    let tokens = tokens(300);
    for (model, tolerance) in models() {
        let whole = run(&mut model.decoder(), &tokens, Rows::All);
        assert_eq!((whole.rows(), whole.vocab), (300, VOCAB));
        for size in [1, 7, 255, 256] {
            let mut decoder = model.decoder();
            let mut data = Vec::new();
            for part in tokens.chunks(size) {
                data.extend(run(&mut decoder, part, Rows::All).data);
            }
            assert_eq!(decoder.len(), 300);
            assert_close(&data, &whole.data, tolerance, &format!("parts of {size}"));
        }
    }
}

#[test]
fn rows_asked_for_are_those_of_all() {
    let tokens = tokens(300);
    for (model, tolerance) in models() {
        let all = run(&mut model.decoder(), &tokens, Rows::All);
        let mut decoder = model.decoder();
        let none = run(&mut decoder, &tokens[..200], Rows::None);
        assert_eq!((none.rows(), none.vocab, decoder.len()), (0, VOCAB, 200));
        let last = run(&mut decoder, &tokens[200..], Rows::Last);
        assert_eq!(last.rows(), 1);
        assert_close(&last.data, all.row(299).unwrap(), tolerance, "last row");
        decoder.truncate(200).unwrap();
        let tail = run(&mut decoder, &tokens[200..], Rows::Tail(3));
        assert_close(&tail.data, &all.data[297 * VOCAB..], tolerance, "tail");
        let nothing = run(&mut decoder, &[], Rows::Last);
        assert_eq!((nothing.rows(), decoder.len()), (0, 300));
    }
}

#[test]
fn what_was_truncated_leaves_no_trace() {
    let tokens = tokens(400);
    for (model, tolerance) in models() {
        let mut decoder = model.decoder();
        let first = run(&mut decoder, &tokens, Rows::All);
        for len in [399, 256, 100, 1, 0] {
            // Something else first, so that stale keys would show.
            decoder.truncate(len).unwrap();
            run(&mut decoder, &[1, 2, 3], Rows::None);
            decoder.truncate(len).unwrap();
            decoder.truncate(len + 7).unwrap();
            assert_eq!(decoder.len(), len);
            let again = run(&mut decoder, &tokens[len..], Rows::All);
            assert_close(
                &again.data,
                &first.data[len * VOCAB..],
                tolerance,
                &format!("from {len}"),
            );
        }
    }
}

#[test]
fn decoders_share_weights_but_no_cache() {
    let model = load(&Tiny::qwen2(), WeightMode::F32);
    let (mut a, mut b) = (model.decoder(), model.decoder());
    let expected = run(&mut a, &tokens(20), Rows::Last);
    run(&mut b, &[4, 4, 4], Rows::None);
    a.truncate(0).unwrap();
    assert_eq!((a.len(), b.len()), (0, 3));
    assert!(std::ptr::eq(&*a.model().weights, &*b.model().weights));
    b.truncate(0).unwrap();
    assert_eq!(run(&mut b, &tokens(20), Rows::Last).data, expected.data);
}

#[test]
fn a_pass_beyond_the_context_is_refused() {
    let (gguf, _folder) = Tiny::qwen2().open();
    let mut decoder = load_at(&gguf, WeightMode::F32, 10).unwrap().decoder();
    assert_eq!(decoder.context(), 10);
    run(&mut decoder, &tokens(8), Rows::None);
    match decoder.forward(&[1, 2, 3], Rows::Last, &Cancel::new()) {
        Err(CoreError::ContextOverflow {
            prompt: 11,
            reserve: 0,
            context: 10,
        }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(decoder.len(), 8);
    run(&mut decoder, &[1, 2], Rows::Last);
    assert_eq!(decoder.len(), 10);
}

#[test]
fn a_context_that_was_not_trained_is_refused() {
    let (gguf, _folder) = Tiny::qwen2().open();
    for context in [0, CONTEXT + 1, usize::MAX] {
        let error = load_at(&gguf, WeightMode::F32, context).unwrap_err();
        let allowed = format!("1 to {CONTEXT}");
        assert!(error.to_string().contains(&allowed), "{error}");
    }
}

#[test]
fn a_token_outside_the_vocabulary_is_refused() {
    let mut decoder = load(&Tiny::qwen2(), WeightMode::F32).decoder();
    for id in [VOCAB as TokenId, TokenId::MAX] {
        match decoder.forward(&[1, id], Rows::Last, &Cancel::new()) {
            Err(CoreError::TokenOutOfRange {
                id: found,
                vocab: VOCAB,
            }) => assert_eq!(found, id),
            other => panic!("{other:?}"),
        }
        assert_eq!(decoder.len(), 0);
    }
}

/// Wherever a pass ends early, the next one finds the cache as it was.
#[test]
fn a_cancelled_pass_leaves_the_cache_as_it_was() {
    let tokens = tokens(400);
    for (model, tolerance) in models() {
        let mut decoder = model.decoder();
        run(&mut decoder, &tokens[..100], Rows::None);
        let expected = run(&mut decoder, &tokens[100..], Rows::All);
        let mut questions = 0usize;
        loop {
            let mut decoder = model.decoder();
            run(&mut decoder, &tokens[..100], Rows::None);
            let left = Cell::new(questions);
            let cancelled = || left.replace(left.get().saturating_sub(1)) == 0;
            match decoder.pass(&tokens[100..], Rows::All, &cancelled) {
                Err(CoreError::Cancelled) => assert_eq!(decoder.len(), 100),
                Ok(_) => break,
                Err(error) => panic!("{error}"),
            }
            let again = run(&mut decoder, &tokens[100..], Rows::All);
            assert_close(
                &again.data,
                &expected.data,
                tolerance,
                &format!("after {questions}"),
            );
            questions += 1;
        }
        // One before each layer and each part of the head.
        assert_eq!(questions, model.spec().layers.len() + 3);
    }
    let cancel = Cancel::new();
    cancel.cancel();
    let mut decoder = load(&Tiny::qwen2(), WeightMode::F32).decoder();
    let result = decoder.forward(&[1], Rows::Last, &cancel);
    assert!(matches!(result, Err(CoreError::Cancelled)));
}

#[test]
fn nothing_is_promised_bit_for_bit() {
    assert!(!load(&Tiny::qwen2(), WeightMode::F32).decoder().exact());
}
