//! Files that contradict themselves, each refused with the words for it.

use candle_core::quantized::gguf_file::Value;

use super::*;
use crate::model::{
    spec::{RopePairs, RopeScaling},
    tiny::{HEAD_SIZE, HEADS, INNER, KV_HEADS, LAYERS, Tiny, VOCAB, WIDTH},
};

fn read(tiny: &Tiny) -> Result<DecoderSpec> {
    let (gguf, _folder) = tiny.open();
    DecoderSpec::from_gguf(&gguf)
}

/// The error's words for a file changed by `change`.
fn refusal(change: impl FnOnce(&mut Tiny)) -> String {
    let mut tiny = Tiny::qwen2();
    change(&mut tiny);
    read(&tiny).expect_err("a contradiction").to_string()
}

#[test]
fn describes_qwen2_and_llama() {
    let spec = read(&Tiny::qwen2()).unwrap();
    assert_eq!(
        (
            spec.architecture,
            spec.width,
            spec.feed_forward,
            spec.vocab,
            spec.layers.len()
        ),
        ("qwen2", WIDTH, INNER, VOCAB, LAYERS)
    );
    assert_eq!(
        (spec.heads, spec.kv_heads, spec.head_size),
        (HEADS, KV_HEADS, HEAD_SIZE)
    );
    assert_eq!(
        (spec.rope.pairs, spec.tied_head),
        (RopePairs::Halves, false)
    );
    assert_eq!(
        spec.layers[1].key.bias.as_deref(),
        Some("blk.1.attn_k.bias")
    );
    assert_eq!(
        spec.kv_bytes(10),
        10 * LAYERS * 2 * KV_HEADS * HEAD_SIZE * 4
    );

    let spec = read(&Tiny::llama()).unwrap();
    assert_eq!(
        (spec.rope.pairs, spec.tied_head),
        (RopePairs::Interleaved, true)
    );
    assert_eq!(spec.head.weight, "token_embd.weight");
    assert_eq!(spec.layers[1].key.bias, None);
}

#[test]
fn takes_scaling_of_rotary_frequencies() {
    let mut tiny = Tiny::llama();
    tiny.set("rope.scaling.type", Value::String("linear".into()));
    tiny.set("rope.scaling.factor", Value::F32(4.0));
    assert_eq!(
        read(&tiny).unwrap().rope.scaling,
        RopeScaling::Linear { factor: 4.0 }
    );

    let mut tiny = Tiny::llama();
    tiny.add("rope_freqs.weight", &[HEAD_SIZE / 2], 1.0);
    let tensor = "rope_freqs.weight".to_owned();
    assert_eq!(
        read(&tiny).unwrap().rope.scaling,
        RopeScaling::PerPair { tensor }
    );
}

#[test]
fn an_unknown_architecture_is_named_with_the_supported_ones() {
    let words = refusal(|tiny| {
        tiny.metadata
            .insert("general.architecture".into(), Value::String("mamba".into()));
    });
    assert_eq!(
        words,
        "architecture `mamba` is not supported (supported: llama, qwen2)"
    );
}

#[test]
fn impossible_parameters_are_refused() {
    let cases: [(&str, Value, &str); 15] = [
        (
            "attention.head_count",
            Value::U32(0),
            "`qwen2.attention.head_count` is 0",
        ),
        (
            "attention.head_count",
            Value::U32(5),
            "a divisor of the 5 query heads",
        ),
        (
            "attention.head_count_kv",
            Value::U32(0),
            "`qwen2.attention.head_count_kv` is 0",
        ),
        (
            "attention.head_count_kv",
            Value::U32(3),
            "a divisor of the 4 query heads",
        ),
        (
            "embedding_length",
            Value::U32(0),
            "`qwen2.embedding_length` is 0",
        ),
        (
            "embedding_length",
            Value::U32(66),
            "a divisor of the width 66",
        ),
        ("embedding_length", Value::U32(u32::MAX - 7), "at most"),
        ("block_count", Value::U32(0), "`qwen2.block_count` is 0"),
        (
            "context_length",
            Value::U32(0),
            "`qwen2.context_length` is 0",
        ),
        ("attention.key_length", Value::U32(0), "even size above 0"),
        ("attention.key_length", Value::U32(15), "even size above 0"),
        ("attention.key_length", Value::U64(u64::MAX - 1), "at most"),
        (
            "attention.layer_norm_rms_epsilon",
            Value::F32(f32::NAN),
            "finite number above 0",
        ),
        ("rope.freq_base", Value::F32(0.0), "finite number above 0"),
        (
            "rope.freq_base",
            Value::F32(f32::INFINITY),
            "finite number above 0",
        ),
    ];
    for (key, value, expected) in cases {
        let words = refusal(|tiny| tiny.set(key, value));
        assert!(words.contains(expected), "{key}: {words}");
    }
}

#[test]
fn missing_and_mistyped_parameters_are_named() {
    for key in [
        "attention.head_count",
        "embedding_length",
        "feed_forward_length",
        "block_count",
    ] {
        let words = refusal(|tiny| tiny.remove(key));
        assert!(words.contains(&format!("qwen2.{key}")), "{words}");
        let words = refusal(|tiny| tiny.set(key, Value::String("many".into())));
        assert!(words.contains(&format!("qwen2.{key}")), "{words}");
        let words = refusal(|tiny| tiny.set(key, Value::I32(-4)));
        assert!(words.contains(&format!("qwen2.{key}")), "{words}");
    }
}

#[test]
fn unsupported_variants_are_named() {
    for (key, value) in [
        ("expert_count", Value::U32(8)),
        ("attention.value_length", Value::U32(8)),
        ("rope.dimension_count", Value::U32(8)),
        ("rope.scaling.type", Value::String("yarn".into())),
    ] {
        let mut tiny = Tiny::qwen2();
        tiny.set(key, value);
        match read(&tiny) {
            Err(CoreError::UnsupportedFeature { key: found, .. }) => {
                assert_eq!(found, format!("qwen2.{key}"));
            }
            other => panic!("{key}: {other:?}"),
        }
    }
}

/// More layers than there are tensors end at the first that is missing, at once.
#[test]
fn missing_tensors_are_named() {
    let words = refusal(|tiny| tiny.set("block_count", Value::U32(u32::MAX)));
    assert!(words.contains("blk.3.attn_norm.weight"), "{words}");
    for name in Tiny::qwen2()
        .tensors
        .into_keys()
        .filter(|name| name != "output.weight")
    {
        let words = refusal(|tiny| {
            tiny.tensors.remove(&name);
        });
        assert!(words.contains(&name), "{name}: {words}");
    }
}

#[test]
fn every_shape_is_checked() {
    for (name, (shape, _)) in Tiny::qwen2().tensors {
        for axis in 0..shape.len() {
            let mut wrong = shape.clone();
            wrong[axis] += 32;
            let mut tiny = Tiny::qwen2();
            tiny.add(&name, &wrong, 0.0);
            match read(&tiny) {
                Err(CoreError::TensorShape {
                    tensor,
                    expected,
                    found,
                }) => {
                    // The vocabulary is as large as its table; then the head is what differs.
                    if name == "token_embd.weight" && axis == 0 {
                        assert_eq!((&*tensor, expected[0]), ("output.weight", wrong[0]));
                    } else {
                        assert_eq!((&tensor, &found), (&name, &wrong));
                        assert_eq!(found.len(), expected.len());
                    }
                }
                other => panic!("{name} {wrong:?}: {other:?}"),
            }
        }
    }
}
