//! Tiny random models: against candle's engine in f32, and against themselves cut up differently.

use candle_core::quantized::GgmlDType;
use converge_quant::Level;

use super::*;
use crate::{
    TokenId,
    backend::candle::{CandleModel, CandleOptions, WeightMode},
    generate::Cancel,
    model::{
        Decoder, Rows,
        tiny::{CONTEXT, Tiny, VOCAB},
    },
};

/// One model for each thing that layers can have.
fn kinds() -> Vec<(&'static str, Tiny)> {
    vec![
        ("llama", Tiny::llama()),
        ("mixtral", Tiny::mixtral()),
        ("qwen2", Tiny::qwen2()),
        ("qwen2moe", Tiny::qwen2moe()),
        ("qwen3", Tiny::qwen3()),
        ("qwen3moe", Tiny::qwen3moe()),
        ("gemma2", Tiny::gemma2()),
        ("gemma3", Tiny::gemma3()),
        ("phi3", Tiny::phi3()),
    ]
}

fn load(tiny: &Tiny, threads: usize, level: Level) -> CpuModel {
    let (gguf, _folder) = tiny.open();
    let options = CpuOptions {
        context: CONTEXT,
        threads: NonZeroUsize::new(threads),
        level,
    };
    CpuModel::load(&gguf, &options).unwrap()
}

fn tokens(n: usize) -> Vec<TokenId> {
    (0..n as TokenId)
        .map(|i| (i * i + 3 * i + 7) % VOCAB as TokenId)
        .collect()
}

/// Logits of all rows, in passes over so many tokens.
fn logits(decoder: &mut dyn Decoder, tokens: &[TokenId], chunk: usize) -> Vec<u32> {
    let cancel = Cancel::new();
    let passes = tokens.chunks(chunk);
    passes
        .flat_map(|tokens| {
            let logits = decoder.forward(tokens, Rows::All, &cancel).unwrap();
            logits.data.into_iter().map(f32::to_bits)
        })
        .collect()
}

#[test]
fn logits_are_those_of_the_decoded_weights() {
    for (name, tiny) in kinds() {
        let (gguf, _folder) = tiny.open();
        let options = CandleOptions {
            mode: WeightMode::F32,
            context: CONTEXT,
            ..CandleOptions::default()
        };
        let tokens = tokens(300);
        let mut candle = CandleModel::load(&gguf, &options).unwrap().decoder();
        let expected = logits(&mut candle, &tokens, 300);
        let found = logits(&mut load(&tiny, 2, Level::detect()).decoder(), &tokens, 300);
        assert_eq!(found.len(), expected.len());
        // Keys and values are halves here. Where two experts are all but equal, that may choose the
        // other one for a token.
        let rows = found.chunks(VOCAB).zip(expected.chunks(VOCAB));
        let far = rows.filter(|(found, expected)| {
            let pairs = found.iter().zip(*expected);
            let differs = |(a, b): (&u32, &u32)| (f32::from_bits(*a) - f32::from_bits(*b)).abs();
            pairs.map(differs).any(|difference| difference > 5e-3)
        });
        let allowed = if name.contains("moe") || name == "mixtral" {
            6
        } else {
            0
        };
        assert!(far.count() <= allowed, "{name}");
    }
}

#[test]
fn bits_do_not_depend_on_passes_threads_or_instructions() {
    for (name, mut tiny) in kinds() {
        tiny.matrices = GgmlDType::Q8_0;
        let tokens = tokens(530);
        let golden = logits(&mut load(&tiny, 1, Level::detect()).decoder(), &tokens, 530);
        for (threads, chunk) in [(1, 1), (2, 7), (4, 33), (2, 255), (3, 256), (2, 257)] {
            for level in Level::available() {
                let mut decoder = load(&tiny, threads, level).decoder();
                assert!(
                    logits(&mut decoder, &tokens, chunk) == golden,
                    "{name}: passes of {chunk} on {threads} threads with {}",
                    level.name()
                );
            }
        }
    }
}

#[test]
fn what_is_truncated_leaves_no_trace() {
    for (name, tiny) in kinds() {
        let model = load(&tiny, 2, Level::detect());
        let tokens = tokens(300);
        let mut straight = model.decoder();
        let golden = logits(&mut straight, &tokens, 50);
        let mut decoder = model.decoder();
        let cancel = Cancel::new();
        decoder
            .forward(&tokens[..200], Rows::None, &cancel)
            .unwrap();
        decoder.truncate(90).unwrap();
        decoder
            .forward(&tokens[..150], Rows::Last, &cancel)
            .unwrap();
        decoder.truncate(90).unwrap();
        assert_eq!(decoder.len(), 90);
        let rest = logits(&mut decoder, &tokens[90..], 17);
        assert!(rest == golden[90 * VOCAB..], "{name}");
        // One row alone is that row of all.
        decoder.truncate(299).unwrap();
        let last = decoder
            .forward(&tokens[299..], Rows::Last, &cancel)
            .unwrap();
        let last: Vec<u32> = last.data.into_iter().map(f32::to_bits).collect();
        assert!(last == golden[299 * VOCAB..], "{name}");
    }
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let mut decoder = load(&Tiny::qwen2(), 1, Level::detect()).decoder();
    let cancel = Cancel::new();
    let tokens = tokens(CONTEXT);
    decoder.forward(&tokens[..10], Rows::None, &cancel).unwrap();
    assert!(matches!(
        decoder.forward(&tokens, Rows::Last, &cancel),
        Err(CoreError::ContextOverflow { .. })
    ));
    assert!(matches!(
        decoder.forward(&[VOCAB as TokenId], Rows::Last, &cancel),
        Err(CoreError::TokenOutOfRange { .. })
    ));
    let stopped = Cancel::new();
    stopped.cancel();
    assert!(matches!(
        decoder.forward(&tokens[10..20], Rows::Last, &stopped),
        Err(CoreError::Cancelled)
    ));
    assert_eq!(decoder.len(), 10);
    let rest = logits(&mut decoder, &tokens[10..20], 3);
    let mut fresh = load(&Tiny::qwen2(), 1, Level::detect()).decoder();
    let all = logits(&mut fresh, &tokens[..20], 20);
    assert!(rest == all[10 * VOCAB..]);
    assert!(decoder.exact());
}

#[test]
fn two_decoders_share_weights_and_threads() {
    let model = load(&Tiny::llama(), 2, Level::detect());
    let tokens = tokens(120);
    let golden = logits(&mut model.decoder(), &tokens, 120);
    std::thread::scope(|scope| {
        for chunk in [1, 5, 40] {
            let (model, tokens, golden) = (&model, &tokens, &golden);
            scope.spawn(move || {
                assert!(&logits(&mut model.decoder(), tokens, chunk) == golden);
            });
        }
    });
}

#[test]
fn pages_are_taken_up_where_they_were_left() {
    for (name, tiny) in kinds() {
        let model = load(&tiny, 2, Level::detect());
        let (first, cancel) = (tokens(300), Cancel::new());
        let mut other = first[..270].to_vec();
        other.extend(tokens(40));
        let golden = logits(&mut model.decoder(), &other, 64);

        let mut decoder = model.decoder();
        decoder.forward(&first, Rows::None, &cancel).unwrap();
        let pages = decoder.pages().unwrap();
        // Both go on from the same pages, in another order than they were made in.
        let mut fork = model.decoder();
        assert!(fork.restore(&pages, 270), "{name}");
        let rest = logits(&mut fork, &other[270..], 7);
        assert!(rest == golden[270 * VOCAB..], "{name}");
        let more = logits(&mut decoder, &tokens(20), 20);
        let mut all = first.clone();
        all.extend(tokens(20));
        let straight = logits(&mut model.decoder(), &all, 320);
        assert!(more == straight[300 * VOCAB..], "{name}");
        // The pages themselves are as they were.
        assert!(decoder.restore(&pages, 300), "{name}");
        assert!(logits(&mut decoder, &tokens(20), 3) == more, "{name}");
    }
}

#[test]
fn pages_of_another_model_are_refused() {
    let cancel = Cancel::new();
    let mut qwen = load(&Tiny::qwen2(), 1, Level::detect()).decoder();
    let mut gemma = load(&Tiny::gemma2(), 1, Level::detect()).decoder();
    qwen.forward(&tokens(9), Rows::None, &cancel).unwrap();
    gemma.forward(&tokens(9), Rows::None, &cancel).unwrap();
    let pages = qwen.pages().unwrap();
    assert!(!gemma.restore(&pages, 5));
    assert_eq!(gemma.len(), 9);
    // Nor are more positions than there are pages for.
    assert!(!qwen.restore(&pages, 257));
    assert!(!qwen.restore(&pages, CONTEXT + 1));
    assert!(qwen.restore(&pages, 9));
}
