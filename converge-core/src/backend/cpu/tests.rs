//! Tiny random models: against candle's engine in f32, and against themselves cut up differently.

use candle_core::quantized::GgmlDType;
use converge_quant::Level;

use super::*;
use crate::{
    TokenId,
    backend::candle::{CandleModel, CandleOptions, WeightMode},
    generate::Cancel,
    model::{
        Decoder, Part, Rows,
        tiny::{CONTEXT, Tiny, VOCAB},
    },
};

fn load(tiny: &Tiny, threads: usize, level: impl Into<Option<Level>>) -> CpuModel {
    load_as(KvType::F16, tiny, threads, level)
}

fn load_as(kv: KvType, tiny: &Tiny, threads: usize, level: impl Into<Option<Level>>) -> CpuModel {
    let (gguf, _folder) = tiny.open();
    let options = CpuOptions {
        context: CONTEXT,
        threads: NonZeroUsize::new(threads),
        level: level.into(),
        kv,
        ..CpuOptions::default()
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
            let bits: Vec<u32> = logits.data.iter().map(|x| x.to_bits()).collect();
            // What is left in its place must not show.
            decoder.reuse(logits);
            bits
        })
        .collect()
}

#[test]
fn a_narrow_head_gives_the_bits_of_the_whole_one() {
    for (name, tiny) in Tiny::kinds() {
        let mut decoder = load(&tiny, 2, None).decoder();
        let tokens = tokens(12);
        let whole = logits(&mut decoder, &tokens, 5);
        for (first, also) in [
            (0, &[][..]),
            (0, &[40]),
            (9, &[3, 49, 48]),
            (17, &[20, 4000]),
            (50, &[]),
        ] {
            decoder.truncate(0).unwrap();
            assert!(decoder.narrow_head(first, also));
            let narrow = logits(&mut decoder, &tokens, 5);
            let mut silent = 0;
            for (i, (&found, &whole)) in narrow.iter().zip(&whole).enumerate() {
                let token = i % VOCAB;
                if f32::from_bits(found) == f32::NEG_INFINITY {
                    silent += 1;
                    assert!(
                        token >= first && !also.contains(&(token as TokenId)),
                        "{name} {token}"
                    );
                } else {
                    assert_eq!(found, whole, "{name} {first} {token}");
                }
            }
            assert_eq!(silent > 0, first < 34, "{name} {first}");
        }
    }
}

#[test]
fn logits_are_those_of_the_decoded_weights() {
    for (name, tiny) in Tiny::kinds() {
        let (gguf, _folder) = tiny.open();
        let options = CandleOptions {
            mode: WeightMode::F32,
            context: CONTEXT,
            ..CandleOptions::default()
        };
        let tokens = tokens(300);
        let mut candle = CandleModel::load(&gguf, &options).unwrap().decoder();
        let expected = logits(&mut candle, &tokens, 300);
        let found = logits(&mut load(&tiny, 2, None).decoder(), &tokens, 300);
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
    let types = [KvType::F16, KvType::Q8_0];
    let kinds = Tiny::kinds().into_iter();
    for ((name, mut tiny), kv) in kinds.flat_map(|kind| types.map(|kv| (kind.clone(), kv))) {
        tiny.matrices = GgmlDType::Q8_0;
        let tokens = tokens(530);
        let golden = logits(&mut load_as(kv, &tiny, 1, None).decoder(), &tokens, 530);
        let passes = [(2, 7), (2, 257), (1, 1), (4, 33), (2, 255), (3, 256)];
        // The passes differ in more than the cache's type changes.
        let some = if kv == KvType::F16 { 6 } else { 2 };
        for (threads, chunk) in passes.into_iter().take(some) {
            for level in Level::available() {
                let mut decoder = load_as(kv, &tiny, threads, level).decoder();
                assert!(
                    logits(&mut decoder, &tokens, chunk) == golden,
                    "{name}, {kv:?}: passes of {chunk} on {threads} threads with {}",
                    level.name()
                );
            }
        }
    }
}

#[test]
fn keys_and_values_of_eight_bits_cost_little_of_the_logits() {
    for (name, tiny) in Tiny::kinds() {
        // A choice of experts may turn over with the last digits.
        if name.contains("moe") || name == "mixtral" {
            continue;
        }
        let tokens = tokens(300);
        let of = |kv| logits(&mut load_as(kv, &tiny, 2, None).decoder(), &tokens, 300);
        let (halves, bytes) = (of(KvType::F16), of(KvType::Q8_0));
        let pairs = halves.iter().zip(&bytes);
        let differ = |(a, b): (&u32, &u32)| (f32::from_bits(*a) - f32::from_bits(*b)).abs();
        let most = pairs.map(differ).fold(0.0, f32::max);
        assert!(0.0 < most && most < 0.2, "{name}: {most}");
    }
}

#[test]
fn what_is_truncated_leaves_no_trace() {
    for (name, tiny) in Tiny::kinds() {
        let model = load(&tiny, 2, None);
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
        // Some rows alone are those rows of all.
        for rows in [Rows::Last, Rows::Tail(1), Rows::Tail(4), Rows::Tail(90)] {
            decoder.truncate(280).unwrap();
            let last = decoder.forward(&tokens[280..], rows, &cancel).unwrap();
            assert_eq!(last.rows(), rows.of(20));
            let last: Vec<u32> = last.data.into_iter().map(f32::to_bits).collect();
            assert!(last == golden[(300 - rows.of(20)) * VOCAB..], "{name}");
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let mut decoder = load(&Tiny::qwen2(), 1, None).decoder();
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
    let mut fresh = load(&Tiny::qwen2(), 1, None).decoder();
    let all = logits(&mut fresh, &tokens[..20], 20);
    assert!(rest == all[10 * VOCAB..]);
    assert!(decoder.exact());
}

#[test]
fn two_decoders_share_weights_and_threads() {
    let model = load(&Tiny::llama(), 2, None);
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
    for (name, tiny) in Tiny::kinds() {
        let model = load(&tiny, 2, None);
        let (first, cancel) = (tokens(300), Cancel::new());
        let mut other = first[..270].to_vec();
        other.extend(tokens(40));
        let golden = logits(&mut model.decoder(), &other, 64);

        let mut decoder = model.decoder();
        decoder.forward(&first, Rows::None, &cancel).unwrap();
        let pages = decoder.cache().unwrap().clone();
        // Both go on from the same pages, in another order than they were made in.
        let mut fork = model.decoder();
        assert!(fork.cache_mut().unwrap().take_up(&pages, 270), "{name}");
        let rest = logits(&mut fork, &other[270..], 7);
        assert!(rest == golden[270 * VOCAB..], "{name}");
        let more = logits(&mut decoder, &tokens(20), 20);
        let mut all = first.clone();
        all.extend(tokens(20));
        let straight = logits(&mut model.decoder(), &all, 320);
        assert!(more == straight[300 * VOCAB..], "{name}");
        // The pages themselves are as they were.
        assert!(decoder.cache_mut().unwrap().take_up(&pages, 300), "{name}");
        assert!(logits(&mut decoder, &tokens(20), 3) == more, "{name}");
    }
}

#[test]
fn pages_of_another_model_are_refused() {
    let cancel = Cancel::new();
    let mut qwen = load(&Tiny::qwen2(), 1, None).decoder();
    let mut gemma = load(&Tiny::gemma2(), 1, None).decoder();
    qwen.forward(&tokens(9), Rows::None, &cancel).unwrap();
    gemma.forward(&tokens(9), Rows::None, &cancel).unwrap();
    let pages = qwen.cache().unwrap().clone();
    assert!(!gemma.cache_mut().unwrap().take_up(&pages, 5));
    assert_eq!(gemma.len(), 9);
    let mut part = [Part {
        cache: &mut pages.clone(),
        tokens: &[1],
        rows: Rows::Last,
    }];
    let refused = gemma.forward_parts(&mut part, &cancel);
    assert!(matches!(refused, Err(CoreError::ForeignCache)));
    // Nor are more positions than it has.
    assert!(!qwen.cache_mut().unwrap().take_up(&pages, 10));
    assert!(qwen.cache_mut().unwrap().take_up(&pages, 9));
}

#[test]
fn sequences_of_one_pass_get_the_bits_of_their_own() {
    for (name, tiny) in Tiny::kinds() {
        let model = load(&tiny, 2, None);
        let cancel = Cancel::new();
        let all = tokens(320);
        // Some are in the middle of a page, one begins, one shares its pages with another.
        let lengths = [255, 0, 31, 300];
        let ahead = [3, 9, 1, 7];
        let rows = [Rows::Last, Rows::None, Rows::All, Rows::Tail(2)];
        let mut caches: Vec<_> = lengths
            .map(|held| {
                let mut decoder = model.decoder();
                decoder.forward(&all[..held], Rows::None, &cancel).unwrap();
                decoder.cache().unwrap().clone()
            })
            .into();
        caches.push(caches[3].clone());
        let sizes = || {
            lengths
                .iter()
                .zip(ahead)
                .zip(rows)
                .chain([((&300, 12), Rows::Last)])
        };
        let mut parts: Vec<_> = caches
            .iter_mut()
            .zip(sizes())
            .map(|(cache, ((&held, ahead), rows))| Part {
                cache,
                tokens: &all[held..held + ahead],
                rows,
            })
            .collect();
        let together = model.decoder().forward_parts(&mut parts, &cancel).unwrap();
        for (i, (((&held, ahead), rows), found)) in sizes().zip(&together).enumerate() {
            assert_eq!(caches[i].len(), held + ahead);
            let mut alone = model.decoder();
            alone.forward(&all[..held], Rows::None, &cancel).unwrap();
            let tokens = &all[held..held + ahead];
            let expected = alone.forward(tokens, rows, &cancel).unwrap();
            assert_eq!(found.rows(), rows.of(ahead));
            assert!(found.data == expected.data, "{name}: part {i}");
            // And what they hold after it is the same.
            let mut after = model.decoder();
            *after.cache_mut().unwrap() = caches[i].clone();
            let next = |decoder: &mut dyn Decoder| logits(decoder, &all[..5], 5);
            assert!(next(&mut after) == next(&mut alone), "{name}: part {i}");
        }
    }
}

#[test]
fn caches_are_bounded_together() {
    let (gguf, _folder) = Tiny::qwen2().open();
    let page = load(&Tiny::qwen2(), 1, None).arena().page_bytes();
    let layers = load(&Tiny::qwen2(), 1, None).spec().layers.len();
    let options = CpuOptions {
        context: CONTEXT,
        cache_bytes: Some(3 * layers * page),
        ..CpuOptions::default()
    };
    let model = CpuModel::load(&gguf, &options).unwrap();
    let (mut first, mut second) = (model.decoder(), model.decoder());
    let (tokens, cancel) = (tokens(300), Cancel::new());
    first.forward(&tokens, Rows::None, &cancel).unwrap();
    let refused = second.forward(&tokens, Rows::None, &cancel);
    assert!(matches!(refused, Err(CoreError::CacheFull { .. })));
    assert_eq!((second.len(), model.arena().used()), (0, 2 * layers * page));
    second.forward(&tokens[..256], Rows::None, &cancel).unwrap();
    drop(first);
    second.forward(&tokens[..1], Rows::None, &cancel).unwrap();
    drop(second);
    assert_eq!(model.arena().used(), 0);
}
