//! Files that contradict themselves, each refused with the words for it.

use candle_core::quantized::gguf_file::Value;

use super::*;
use crate::model::{
    spec::{Rope, RopePairs, RopeScaling},
    tiny::{HEAD_SIZE, HEADS, KV_HEADS, LAYERS, Tiny, VOCAB, WIDTH},
};

fn read(tiny: &Tiny) -> Result<DecoderSpec> {
    let (gguf, _folder) = tiny.open();
    DecoderSpec::from_gguf(&gguf)
}

/// The first layer's.
fn rope(spec: &DecoderSpec) -> Rope {
    spec.layers[0].rope.clone().expect("turned positions")
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
        (spec.architecture, spec.width, spec.vocab, spec.layers.len()),
        ("qwen2", WIDTH, VOCAB, LAYERS)
    );
    assert_eq!(
        (spec.heads, spec.kv_heads, spec.head_size),
        (HEADS, KV_HEADS, HEAD_SIZE)
    );
    assert_eq!(
        (rope(&spec).pairs, spec.tied_head),
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
        (rope(&spec).pairs, spec.tied_head),
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
        rope(&read(&tiny).unwrap()).scaling,
        RopeScaling::Linear { factor: 4.0 }
    );

    let mut tiny = Tiny::llama();
    tiny.add("rope_freqs.weight", &[HEAD_SIZE / 2], 1.0);
    let tensor = "rope_freqs.weight".to_owned();
    assert_eq!(
        rope(&read(&tiny).unwrap()).scaling,
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
        format!(
            "architecture `mamba` is not supported (supported: {})",
            SUPPORTED.join(", ")
        )
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
        ("rope.scaling.type", Value::String("dynamic".into())),
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

#[test]
fn windows_and_experts_that_cannot_be_are_refused() {
    let cases: [(Tiny, &str, Value, &str); 8] = [
        (
            Tiny::gemma3(),
            "attention.sliding_window",
            Value::U32(0),
            "a number above 0",
        ),
        (
            Tiny::gemma2(),
            "attention.sliding_window",
            Value::U32(0),
            "a number above 0",
        ),
        (
            Tiny::gemma3(),
            "attention.sliding_window_pattern",
            Value::U32(0),
            "a number above 0",
        ),
        (
            Tiny::phi3(),
            "rope.dimension_count",
            Value::U32(7),
            "an even number",
        ),
        (
            Tiny::phi3(),
            "rope.dimension_count",
            Value::U32(18),
            "at most the head size",
        ),
        (
            Tiny::qwen3moe(),
            "expert_count",
            Value::U32(0),
            "a number above 0",
        ),
        (
            Tiny::qwen3moe(),
            "expert_used_count",
            Value::U32(0),
            "a number above 0",
        ),
        (
            Tiny::qwen2moe(),
            "expert_used_count",
            Value::U32(5),
            "at most the 4 experts",
        ),
    ];
    for (mut tiny, key, value, expected) in cases {
        tiny.set(key, value);
        let words = read(&tiny).expect_err(key).to_string();
        assert!(words.contains(key) && words.contains(expected), "{words}");
    }
    let mut tiny = Tiny::mixtral();
    tiny.set("expert_count", Value::U32(5));
    match read(&tiny) {
        Err(CoreError::TensorShape { tensor, .. }) => {
            assert_eq!(tensor, "blk.0.ffn_gate_inp.weight");
        }
        other => panic!("{other:?}"),
    }
}

/// The layers that llama.cpp computes with a window, and those with another base.
#[test]
fn windows_are_in_the_layers_that_have_them() {
    let windows = |tiny: &Tiny| -> Vec<bool> {
        let spec = read(tiny).unwrap();
        spec.layers
            .iter()
            .map(|layer| layer.window.is_some())
            .collect()
    };
    assert_eq!(windows(&Tiny::gemma2()), [true, false, true]);
    let mut tiny = Tiny::gemma3();
    let bases: Vec<f32> = read(&tiny)
        .unwrap()
        .layers
        .iter()
        .map(|layer| layer.rope.as_ref().unwrap().base)
        .collect();
    assert_eq!(windows(&tiny), [true, true, true, true, true, false, true]);
    assert_eq!(bases, [1e4, 1e4, 1e4, 1e4, 1e4, 1e6, 1e4]);
    tiny.set("attention.sliding_window_pattern", Value::U32(2));
    assert_eq!(
        windows(&tiny),
        [true, false, true, false, true, false, true]
    );
    let listed = [false, true, true, false, false, false, true];
    let array = |listed: &[bool]| Value::Array(listed.iter().map(|&x| Value::Bool(x)).collect());
    tiny.set("attention.sliding_window_pattern", array(&listed));
    assert_eq!(windows(&tiny), listed);
    tiny.set("attention.sliding_window_pattern", array(&listed[1..]));
    assert!(read(&tiny).unwrap_err().to_string().contains("6 values"));
    let spec = read(&Tiny::smollm3()).unwrap();
    let turned: Vec<bool> = spec
        .layers
        .iter()
        .map(|layer| layer.rope.is_some())
        .collect();
    assert_eq!(turned, [true, true, true, false, true]);
}

/// More layers than there are tensors end at the first that is missing, at once.
#[test]
fn missing_tensors_are_named() {
    let words = refusal(|tiny| tiny.set("block_count", Value::U32(u32::MAX)));
    assert!(words.contains("blk.3.attn_norm.weight"), "{words}");
    for whole in [
        Tiny::qwen2(),
        Tiny::qwen2moe(),
        Tiny::qwen3(),
        Tiny::gemma3(),
        Tiny::phi3(),
    ] {
        for name in whole.tensors.keys().filter(|name| *name != "output.weight") {
            let mut tiny = whole.clone();
            tiny.tensors.remove(name);
            let words = read(&tiny).expect_err(name).to_string();
            // Without the fused tensor, separate ones are looked for.
            let expected = name.replace("attn_qkv", "attn_q");
            assert!(words.contains(&expected), "{name}: {words}");
        }
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
