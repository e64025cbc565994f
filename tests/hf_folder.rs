//! Folders as Hugging Face publishes them, made here from the GGUF files of real models: turned
//! back into GGUF, they must have the tokenizer and the weights that they were made from.

#![cfg(test)] // so that the lints know the helpers for tests, too

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use converge_core::chat::ChatTemplate;
use converge_core::model::DecoderSpec;
use converge_core::tokenizer::{Special, Tokenizer};
use converge_quant::hf::{Folder, FolderFault};
use converge_quant::quantize::{Options, Recipe, quantize};
use converge_quant::{GgmlType, Gguf, QuantError, format};
use converge_tests::model;
use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize_to_file};
use serde_json::{Map, Value, json};

/// Rows and numbers of a tensor; a vector has no rows.
#[derive(Clone)]
struct Weights {
    shape: Vec<usize>,
    numbers: Vec<f32>,
}

const LAYERS: usize = 2;

/// The first layers of a model, by GGUF name, rounded to brain floats.
fn real(gguf: &Gguf) -> BTreeMap<String, Weights> {
    let kept = |name: &str| {
        let layer = name
            .strip_prefix("blk.")
            .and_then(|rest| rest.split('.').next());
        layer.is_none_or(|layer| layer.parse::<usize>().unwrap() < LAYERS)
    };
    let tensors = gguf.tensors().iter().filter(|info| kept(&info.name));
    tensors
        .map(|info| {
            let mut numbers = vec![0.0; info.elements()];
            format::decode(info.ggml_type, &gguf.read(info).unwrap(), &mut numbers).unwrap();
            for number in &mut numbers {
                *number = half::bf16::from_f32(*number).to_f32();
            }
            let shape = info.shape.clone();
            (info.name.clone(), Weights { shape, numbers })
        })
        .collect()
}

/// Made-up weights of the shapes of Qwen2 with a small width.
fn made_up(vocab: usize, width: usize, heads: usize, kv_heads: usize) -> BTreeMap<String, Weights> {
    let head = width / heads;
    let mut tensors = vec![
        ("token_embd.weight".to_owned(), vec![vocab, width]),
        ("output_norm.weight".to_owned(), vec![width]),
    ];
    for layer in 0..LAYERS {
        for (name, shape) in [
            ("attn_norm.weight", vec![width]),
            ("attn_q.weight", vec![width, width]),
            ("attn_q.bias", vec![width]),
            ("attn_k.weight", vec![kv_heads * head, width]),
            ("attn_k.bias", vec![kv_heads * head]),
            ("attn_v.weight", vec![kv_heads * head, width]),
            ("attn_v.bias", vec![kv_heads * head]),
            ("attn_output.weight", vec![width, width]),
            ("ffn_norm.weight", vec![width]),
            ("ffn_gate.weight", vec![3 * width, width]),
            ("ffn_up.weight", vec![3 * width, width]),
            ("ffn_down.weight", vec![width, 3 * width]),
        ] {
            tensors.push((format!("blk.{layer}.{name}"), shape));
        }
    }
    let mut state = 1u32;
    let mut draw = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f32::from((state >> 24) as u8) / 256.0 - 0.5
    };
    let fill = |(name, shape): (String, Vec<usize>)| {
        let numbers = (0..shape.iter().product()).map(|_| draw()).collect();
        (name, Weights { shape, numbers })
    };
    tensors.into_iter().map(fill).collect()
}

fn published(name: &str) -> String {
    let (prefix, rest) = match name.strip_prefix("blk.") {
        Some(rest) => rest.split_once('.').unwrap(),
        None => ("", name),
    };
    let (module, kind) = rest.rsplit_once('.').unwrap();
    let module = match module {
        "token_embd" => return "model.embed_tokens.weight".to_owned(),
        "output_norm" => return "model.norm.weight".to_owned(),
        "output" => return "lm_head.weight".to_owned(),
        "attn_norm" => "input_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_output" => "self_attn.o_proj",
        "ffn_norm" => "post_attention_layernorm",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        other => panic!("{other}"),
    };
    format!("model.layers.{prefix}.{module}.{kind}")
}

/// Rows of neighbours (rotated together) as the halves of each head.
fn halves(weights: &Weights, heads: usize) -> Weights {
    let rows = weights.shape[0];
    let cols = weights.numbers.len() / rows;
    let half = rows / heads / 2;
    let mut numbers = Vec::new();
    for head in 0..heads {
        for side in 0..2 {
            for pair in 0..half {
                let row = head * 2 * half + 2 * pair + side;
                numbers.extend(&weights.numbers[row * cols..(row + 1) * cols]);
            }
        }
    }
    let shape = weights.shape.clone();
    Weights { shape, numbers }
}

/// Writes the weights, in as many files as asked for.
fn write_weights(folder: &Path, tensors: &BTreeMap<String, Weights>, parts: usize) {
    let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, weights)| {
            let mut bytes = Vec::new();
            format::encode(GgmlType::BF16, &weights.numbers, &mut bytes).unwrap();
            (name.clone(), weights.shape.clone(), bytes)
        })
        .collect();
    let mut map = Map::new();
    for (part, bytes) in bytes.chunks(bytes.len().div_ceil(parts)).enumerate() {
        let file = match parts {
            1 => "model.safetensors".to_owned(),
            _ => format!("model-{:05}-of-{parts:05}.safetensors", part + 1),
        };
        let views = bytes.iter().map(|(name, shape, bytes)| {
            let view = TensorView::new(Dtype::BF16, shape.clone(), bytes).unwrap();
            (name.as_str(), view)
        });
        serialize_to_file(views, None, &folder.join(&file)).unwrap();
        map.extend(bytes.iter().map(|(name, ..)| (name.clone(), json!(file))));
    }
    if parts > 1 {
        let index = json!({"metadata": {}, "weight_map": map}).to_string();
        fs::write(folder.join("model.safetensors.index.json"), index).unwrap();
    }
}

/// The tokenizer of a GGUF file in the form of `tokenizer.json`.
fn write_tokenizer(folder: &Path, gguf: &Gguf, pre_tokenizer: &Value, merges_as_lists: bool) {
    let metadata = gguf.metadata();
    let tokens = metadata.get_strs("tokenizer.ggml.tokens").unwrap();
    let kinds: Vec<i32> = metadata.get("tokenizer.ggml.token_type").unwrap();
    let mut vocab = Map::new();
    let mut added = Vec::new();
    for (id, (token, kind)) in tokens.iter().zip(kinds).enumerate() {
        match kind {
            1 => drop(vocab.insert(token.to_owned(), json!(id))),
            3 | 4 => added.push(json!({"id": id, "content": token, "special": kind == 3})),
            5 => {}
            other => panic!("{other}"),
        }
    }
    let merges = metadata.get_strs("tokenizer.ggml.merges").unwrap().iter();
    let merges: Vec<Value> = merges
        .map(|merge| match merges_as_lists {
            true => json!(Vec::from_iter(merge.split(' '))),
            false => json!(merge),
        })
        .collect();
    let json = json!({
        "added_tokens": added, "pre_tokenizer": pre_tokenizer,
        "model": {"type": "BPE", "vocab": vocab, "merges": merges},
    });
    fs::write(folder.join("tokenizer.json"), json.to_string()).unwrap();
    let token = |key: &str| {
        let id: Option<usize> = metadata.find(key).unwrap();
        id.map(|id| tokens.get(id).unwrap())
    };
    let template: &str = metadata.get("tokenizer.chat_template").unwrap();
    let more = json!({
        "bos_token": token("tokenizer.ggml.bos_token_id"),
        "eos_token": {"content": token("tokenizer.ggml.eos_token_id")},
        "pad_token": token("tokenizer.ggml.padding_token_id"),
        "unk_token": token("tokenizer.ggml.unknown_token_id"),
        "add_bos_token": metadata.find::<bool>("tokenizer.ggml.add_bos_token").unwrap(),
        "chat_template": template,
    });
    fs::write(folder.join("tokenizer_config.json"), more.to_string()).unwrap();
}

/// Turns the folder into a GGUF file that keeps the numbers, and holds it against what it was made
/// from.
fn comes_back(folder: &Path, gguf: &Gguf, tensors: &BTreeMap<String, Weights>) -> Gguf {
    let to = folder.join("model.gguf");
    let source = Folder::open(folder).unwrap();
    quantize(&source, &Options::new(Recipe::BF16), &to, |_| {
        ControlFlow::Continue(())
    })
    .unwrap();
    let back = Gguf::open(&to).unwrap();
    assert_eq!(back.tensors().len(), tensors.len());
    for (name, weights) in tensors {
        let info = back.tensor(name).unwrap();
        assert_eq!(info.shape, weights.shape, "{name}");
        let mut numbers = vec![0.0; info.elements()];
        format::decode(info.ggml_type, &back.read(info).unwrap(), &mut numbers).unwrap();
        assert!(numbers == weights.numbers, "{name}");
    }
    for key in [
        "model",
        "pre",
        "tokens",
        "token_type",
        "merges",
        "bos_token_id",
        "eos_token_id",
        "padding_token_id",
        "unknown_token_id",
        "add_bos_token",
    ] {
        let key = format!("tokenizer.ggml.{key}");
        assert!(
            back.metadata().value(&key) == gguf.metadata().value(&key),
            "{key}"
        );
    }
    let text = "Naïve 🦙 code: fn main() { 12345 }\n";
    let tokens = |gguf: &Gguf| {
        let tokenizer = Tokenizer::from_gguf(gguf.metadata()).unwrap();
        tokenizer.encode(text, Special::Text).unwrap()
    };
    assert_eq!(tokens(&back), tokens(gguf));
    ChatTemplate::from_gguf(back.metadata()).unwrap();
    back
}

#[test]
fn llama_comes_back() {
    let gguf = Gguf::open(model("smollm2-135m")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let tensors = real(&gguf);
    let mut published_tensors = BTreeMap::new();
    for (name, weights) in &tensors {
        let weights = match name {
            name if name.ends_with("attn_q.weight") => halves(weights, 9),
            name if name.ends_with("attn_k.weight") => halves(weights, 3),
            _ => weights.clone(),
        };
        published_tensors.insert(published(name), weights);
    }
    write_weights(folder.path(), &published_tensors, 3);
    let split = json!({"type": "Sequence", "pretokenizers": [
        {"type": "Digits", "individual_digits": true},
        {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
    ]});
    write_tokenizer(folder.path(), &gguf, &split, false);
    let config = json!({
        "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536,
        "num_hidden_layers": LAYERS, "num_attention_heads": 9, "num_key_value_heads": 3,
        "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 100_000,
        "tie_word_embeddings": true, "rope_scaling": null, "bos_token_id": 1, "eos_token_id": [2],
    });
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let back = comes_back(folder.path(), &gguf, &tensors);
    for key in [
        "general.architecture",
        "llama.context_length",
        "llama.embedding_length",
        "llama.feed_forward_length",
        "llama.attention.head_count",
        "llama.attention.head_count_kv",
        "llama.attention.layer_norm_rms_epsilon",
        "llama.rope.freq_base",
        "llama.rope.dimension_count",
        "llama.vocab_size",
    ] {
        assert_eq!(
            back.metadata().value(key),
            gguf.metadata().value(key),
            "{key}"
        );
    }
    let spec = DecoderSpec::from_gguf(&back).unwrap();
    assert!(spec.tied_head && spec.layers.len() == LAYERS);

    // Llama 3's stretched waves become a tensor; other kinds become keys.
    let with = |scaling: Value| {
        let mut config = config.clone();
        config["rope_scaling"] = scaling;
        fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        Folder::open(folder.path())
    };
    let stretched = with(json!({
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 1024,
    }));
    let to = folder.path().join("stretched.gguf");
    let options = Options::new(Recipe::Q8_0);
    quantize(&stretched.unwrap(), &options, &to, |_| {
        ControlFlow::Continue(())
    })
    .unwrap();
    let stretched = Gguf::open(&to).unwrap();
    let info = stretched.tensor("rope_freqs.weight").unwrap();
    assert_eq!(
        (info.shape.as_slice(), info.ggml_type),
        (&[32][..], GgmlType::F32)
    );
    let mut factors = vec![0.0; 32];
    format::decode(GgmlType::F32, &stretched.read(info).unwrap(), &mut factors).unwrap();
    assert_eq!((factors[0], factors[31]), (1.0, 8.0));
    assert!(factors.is_sorted());
    let linear = with(json!({"type": "linear", "factor": 4.0})).unwrap();
    let metadata = converge_quant::quantize::Source::metadata(&linear);
    assert_eq!(
        metadata.get::<String>("llama.rope.scaling.type").unwrap(),
        "linear"
    );
    let error = with(json!({"rope_type": "dynamic", "factor": 2.0}))
        .unwrap_err()
        .to_string();
    for words in ["config.json", "rope_scaling.rope_type", "dynamic", "yarn"] {
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn qwen2_comes_back_and_what_is_wrong_is_named() {
    let gguf = Gguf::open(model("qwen2.5-coder-0.5b")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let tensors = made_up(151_936, 64, 4, 2);
    let published_tensors: BTreeMap<String, Weights> = tensors
        .iter()
        .map(|(name, weights)| (published(name), weights.clone()))
        .collect();
    write_weights(folder.path(), &published_tensors, 1);
    let split = json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "behavior": "Isolated", "invert": false, "pattern": {"Regex":
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"}},
        {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false},
    ]});
    write_tokenizer(folder.path(), &gguf, &split, true);
    let config = json!({
        "model_type": "qwen2", "hidden_size": 64, "intermediate_size": 192,
        "num_hidden_layers": LAYERS, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "rope_theta": 1_000_000.0,
        "tie_word_embeddings": true, "use_sliding_window": false,
    });
    fs::write(path("config.json"), config.to_string()).unwrap();
    let back = comes_back(folder.path(), &gguf, &tensors);
    assert_eq!(DecoderSpec::from_gguf(&back).unwrap().kv_heads, 2);

    let fails = |file: &str, content: &str| {
        let before = fs::read(path(file)).unwrap();
        fs::write(path(file), content).unwrap();
        let error = Folder::open(folder.path()).unwrap_err();
        fs::write(path(file), before).unwrap();
        assert!(error.to_string().contains(file), "{error}");
        match error {
            QuantError::Folder { field, fault, .. } => (field, fault),
            other => panic!("{other}"),
        }
    };
    let (field, fault) = fails("config.json", r#"{"model_type": "gpt_bigcode"}"#);
    assert!(field == "model_type" && fault.to_string().contains("llama and qwen2"));
    let (field, fault) = fails("config.json", r#"{"model_type": "qwen2"}"#);
    assert_eq!(
        (field.as_str(), fault),
        ("num_attention_heads", FolderFault::Missing)
    );
    let (_, fault) = fails("config.json", "{");
    assert!(matches!(fault, FolderFault::Syntax { .. }), "{fault}");
    let mut zero = config.clone();
    zero["num_attention_heads"] = json!(0);
    let (_, fault) = fails("config.json", &zero.to_string());
    assert!(matches!(fault, FolderFault::WrongType { .. }), "{fault}");
    for (json, expected) in [
        (r#"{"model": {"type": "Unigram"}}"#, "model.type"),
        (
            r#"{"model": {"type": "BPE", "merges": ["one"], "vocab": {}}}"#,
            "model.merges",
        ),
        (
            r#"{"model": {"type": "BPE", "merges": [], "vocab": {"a": 999999}}}"#,
            "model.vocab",
        ),
        (
            r#"{"model": {"type": "BPE", "merges": [], "vocab": {}}}"#,
            "pre_tokenizer",
        ),
    ] {
        let (field, fault) = fails("tokenizer.json", json);
        assert_eq!(field, expected, "{fault}");
    }
    for (header, data) in [
        ("", 0),
        ("{", 0),
        (
            r#"{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}"#,
            3,
        ),
    ] {
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        file.extend(vec![0; data]);
        let content = String::from_utf8(file).unwrap();
        let (_, fault) = fails("model.safetensors", &content);
        assert!(
            matches!(fault, FolderFault::Syntax { .. } | FolderFault::Size { .. }),
            "{fault}"
        );
    }
    let (_, fault) = fails(
        "model.safetensors",
        "\u{7f}\u{7f}\u{7f}\u{7f}\u{7f}\u{7f}\u{7f}\u{7f}",
    );
    assert!(matches!(fault, FolderFault::Size { .. }), "{fault}");
}
