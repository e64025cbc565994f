//! The promise of the CPU engine on real models: the bits of a token's logits depend on the tokens
//! before it, and on nothing else.

use std::num::NonZeroUsize;

use converge_core::{
    TokenId,
    backend::cpu::{CpuDecoder, CpuModel, CpuOptions},
    generate::Cancel,
    model::{Decoder as _, Rows},
};
use converge_quant::{Gguf, Level};

/// Past sixteen pages of the KV cache.
const CONTEXT: usize = 4160;

fn load(name: &str, threads: usize, level: impl Into<Option<Level>>) -> CpuModel {
    let gguf = Gguf::open(converge_tests::model(name)).unwrap();
    let options = CpuOptions {
        context: CONTEXT,
        threads: NonZeroUsize::new(threads),
        level: level.into(),
        ..CpuOptions::default()
    };
    CpuModel::load(&gguf, &options).unwrap()
}

/// Tokens from all over the vocabulary.
fn tokens(vocab: usize, n: usize) -> Vec<TokenId> {
    (0..n as u64)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 7) as usize % (vocab / 2) + 100)
        .map(|id| id as TokenId)
        .collect()
}

/// The bits of all rows of one pass.
fn pass(decoder: &mut CpuDecoder, tokens: &[TokenId]) -> Vec<u32> {
    let logits = decoder.forward(tokens, Rows::All, &Cancel::new()).unwrap();
    logits.data.iter().map(|x| x.to_bits()).collect()
}

/// Takes tokens in without logits, in chunks as a session does.
fn prefill(decoder: &mut CpuDecoder, tokens: &[TokenId]) {
    for chunk in tokens.chunks(512) {
        decoder.forward(chunk, Rows::None, &Cancel::new()).unwrap();
    }
}

/// Passes of each of `sizes` over `tokens[from..to]` against single tokens.
fn check(decoder: &mut CpuDecoder, tokens: &[TokenId], from: usize, to: usize, sizes: &[usize]) {
    let vocab = decoder.vocab();
    decoder.truncate(from).unwrap();
    let golden: Vec<u32> = tokens[from..to]
        .iter()
        .flat_map(|token| pass(decoder, std::slice::from_ref(token)))
        .collect();
    for &size in sizes {
        decoder.truncate(from).unwrap();
        for (index, chunk) in tokens[from..to].chunks(size).enumerate() {
            let at = index * size * vocab;
            assert!(
                pass(decoder, chunk) == golden[at..at + chunk.len() * vocab],
                "a pass of {} tokens at position {}",
                chunk.len(),
                from + index * size
            );
        }
    }
}

#[test]
fn a_pass_gives_the_bits_of_single_tokens() {
    let all: Vec<usize> = (2..=33).collect();
    let some = [2, 3, 5, 8, 16, 17, 33];
    for name in ["smollm2-135m", "gemma-3-270m", "qwen2.5-coder-0.5b"] {
        let mut decoder = load(name, 2, None).decoder();
        let tokens = tokens(decoder.vocab(), CONTEXT);
        // Every size at every offset it can begin at.
        if name == "smollm2-135m" {
            check(&mut decoder, &tokens, 0, 66, &all);
        }
        // Around the ends of pages, and of gemma's window.
        for border in [256, 512, 4096] {
            let from = border - 20;
            let done = decoder.len().min(from);
            decoder.truncate(done).unwrap();
            prefill(&mut decoder, &tokens[done..from]);
            check(&mut decoder, &tokens, from, border + 13, &some);
        }
    }
}

#[test]
fn threads_and_instructions_change_no_bit() {
    let name = "smollm2-135m";
    let mut golden = None;
    for level in Level::available() {
        for threads in [1, 2, 4] {
            let mut decoder = load(name, threads, level).decoder();
            let tokens = tokens(decoder.vocab(), 40);
            let mut bits = pass(&mut decoder, &tokens[..25]);
            for token in &tokens[25..] {
                bits.extend(pass(&mut decoder, std::slice::from_ref(token)));
            }
            let golden = golden.get_or_insert_with(|| bits.clone());
            assert!(bits == *golden, "{} on {threads} threads", level.name());
        }
    }
}

/// What the system says of its processor: a level that it has and the library does not see would
/// leave kernels untested.
#[test]
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn every_instruction_set_of_the_machine_is_tested() {
    let said = std::fs::read_to_string("/proc/cpuinfo").unwrap();
    let has = |flag: &str| said.split_whitespace().any(|word| word == flag);
    let names: Vec<_> = Level::available().map(Level::name).collect();
    assert!(names.contains(&"scalar"));
    assert_eq!(names.contains(&"avx2"), has("avx2") && has("fma"));
    assert_eq!(names.contains(&"avx512"), has("avx512_vnni"));
}
