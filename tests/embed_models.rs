//! Sentence embeddings of all-MiniLM-L6-v2 against BERT in plain loops over f64.

#![cfg(test)]

use std::{collections::HashMap, f64::consts::FRAC_1_SQRT_2};

use candle_core::{DType, Device, Tensor, safetensors};
use converge_core::{
    CoreError,
    embed::{BertEmbedder, EmbedError, Embedder as _, Pooling, similarity},
    generate::Cancel,
};
use tokenizers::Tokenizer;

const HEADS: usize = 12;

fn load() -> BertEmbedder {
    BertEmbedder::load(&converge_tests::model("all-minilm-l6-v2"), &Device::Cpu).unwrap()
}

fn embed(embedder: &BertEmbedder, texts: &[&str]) -> Vec<Vec<f32>> {
    embedder.embed(texts, &Cancel::new()).unwrap()
}

#[test]
fn vectors_are_those_of_plain_loops() {
    let embedder = load();
    assert_eq!((embedder.dimensions(), embedder.limit()), (384, 256));
    assert_eq!(embedder.pooling(), Pooling::Mean);
    let bert = Plain::load();
    let long = "Der Pächter zahlt 東京 (naïve) 3.50 €, unless otherwise agreed. ".repeat(8);
    let texts = ["This is an example sentence", "x", &long];
    for (text, vector) in texts.iter().zip(embed(&embedder, &texts)) {
        let expected = bert.embed(text);
        let worst = vector
            .iter()
            .zip(&expected)
            .map(|(&x, expected)| (f64::from(x) - expected).abs())
            .fold(0.0, f64::max);
        assert!(worst < 2e-6, "{worst} for {text}");
    }
}

/// The values that sentence-transformers prints for its own example.
#[test]
fn the_example_of_sentence_transformers_comes_out() {
    let vectors = embed(&load(), &["This is an example sentence"]);
    let expected = [0.067657, 0.063496, 0.048713, 0.079305, 0.037448];
    for (x, expected) in vectors[0].iter().zip(expected) {
        assert!((x - expected).abs() < 5e-6, "{:?}", &vectors[0][..5]);
    }
}

#[test]
fn what_means_the_same_is_close() {
    let embedder = load();
    let texts = [
        "How do I reset my password?",
        "I forgot my login credentials and need new ones.",
        "The lease ends on 31 March 2027.",
        "The rental contract expires in spring 2027.",
        "She plays the violin in an orchestra.",
        "A musician performs with a string instrument.",
    ];
    let vectors = embed(&embedder, &texts);
    for (i, a) in vectors.iter().enumerate() {
        let length: f64 = a.iter().map(|&x| f64::from(x).powi(2)).sum();
        assert!((length - 1.0).abs() < 1e-6, "{length}");
        for (j, b) in vectors.iter().enumerate() {
            assert_eq!(similarity(a, b).to_bits(), similarity(b, a).to_bits());
            // The partner is closer than any other.
            if i != j && i ^ 1 != j {
                assert!(similarity(a, &vectors[i ^ 1]) > similarity(a, b), "{i} {j}");
            }
        }
    }
    // Alone or among others: the same bits.
    for (text, vector) in texts.iter().zip(&vectors) {
        assert_eq!(&embed(&embedder, &[text])[0], vector);
    }
    assert!(embed(&embedder, &[]).is_empty());
}

#[test]
fn limits_and_cancellation_are_typed() {
    let embedder = load();
    let fits = "word ".repeat(254);
    assert_eq!(embedder.tokens(&fits).unwrap(), 256);
    assert_eq!(embed(&embedder, &[&fits]).len(), 1);
    let long = "word ".repeat(255);
    let error = embedder.embed(&["a", &long], &Cancel::new()).unwrap_err();
    let CoreError::Embed(EmbedError::TooLong {
        text,
        tokens,
        limit,
    }) = error
    else {
        panic!("{error}");
    };
    assert_eq!((text, tokens, limit), (1, 257, 256));
    let cancel = Cancel::new();
    cancel.cancel();
    let error = embedder.embed(&["a"], &cancel).unwrap_err();
    assert!(matches!(error, CoreError::Cancelled), "{error}");
}

#[test]
fn folders_that_are_no_model_are_refused() {
    let whole = converge_tests::model("all-minilm-l6-v2");
    let refused = |change: &dyn Fn(&std::path::Path), word: &str| {
        let dir = tempfile::tempdir().unwrap();
        let pooling = dir.path().join("1_Pooling");
        std::fs::create_dir(&pooling).unwrap();
        for name in ["config.json", "tokenizer.json", "1_Pooling/config.json"] {
            std::fs::copy(whole.join(name), dir.path().join(name)).unwrap();
        }
        change(dir.path());
        let error = BertEmbedder::load(dir.path(), &Device::Cpu).unwrap_err();
        let error = error.to_string();
        assert!(error.contains(word), "{word}: {error}");
    };
    let write = |name: &'static str, text: &'static str| {
        move |dir: &std::path::Path| std::fs::write(dir.join(name), text).unwrap()
    };
    refused(&|_| {}, "model.safetensors");
    refused(&write("model.safetensors", "no weights"), "");
    refused(&write("config.json", "{}"), "vocab_size");
    refused(&write("tokenizer.json", "{}"), "tokenizer.json");
    refused(&write("1_Pooling/config.json", "{}"), "pooling_mode");
    let both = r#"{"pooling_mode_mean_tokens": true, "pooling_mode_max_tokens": true}"#;
    refused(&write("1_Pooling/config.json", both), "several");
    refused(
        &|dir| {
            let path = dir.join("config.json");
            let text = std::fs::read_to_string(&path).unwrap();
            let text = text.replace("\"num_attention_heads\": 12", "\"num_attention_heads\": 0");
            std::fs::write(&path, text).unwrap();
        },
        "num_attention_heads",
    );
}

/// BERT, mean pooling and length 1, one product at a time.
struct Plain {
    weights: HashMap<String, Tensor>,
    tokenizer: Tokenizer,
}

impl Plain {
    fn load() -> Self {
        let folder = converge_tests::model("all-minilm-l6-v2");
        let mut tokenizer = Tokenizer::from_file(folder.join("tokenizer.json")).unwrap();
        tokenizer.with_truncation(None).unwrap();
        tokenizer.with_padding(None);
        Self {
            weights: safetensors::load(folder.join("model.safetensors"), &Device::Cpu).unwrap(),
            tokenizer,
        }
    }

    fn values(&self, name: &str) -> Vec<f64> {
        let tensor = self.weights[name].to_dtype(DType::F64).unwrap();
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    fn linear(&self, name: &str, rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let weight = self.values(&format!("{name}.weight"));
        let bias = self.values(&format!("{name}.bias"));
        let row = |x: &Vec<f64>| {
            let outputs = weight.chunks(x.len()).zip(&bias);
            outputs.map(|(w, b)| dot(w, x) + b).collect()
        };
        rows.iter().map(row).collect()
    }

    fn norm(&self, name: &str, rows: &mut [Vec<f64>]) {
        let weight = self.values(&format!("{name}.weight"));
        let bias = self.values(&format!("{name}.bias"));
        for row in rows {
            let n = row.len() as f64;
            let mean = row.iter().sum::<f64>() / n;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
            for ((x, w), b) in row.iter_mut().zip(&weight).zip(&bias) {
                *x = (*x - mean) / (variance + 1e-12).sqrt() * w + b;
            }
        }
    }

    fn embed(&self, text: &str) -> Vec<f64> {
        let encoding = self.tokenizer.encode(text, true).unwrap();
        let table = |name: &str| self.values(&format!("embeddings.{name}_embeddings.weight"));
        let (words, positions, types) = (table("word"), table("position"), table("token_type"));
        let width = self.values("embeddings.LayerNorm.bias").len();
        let mut x: Vec<Vec<f64>> = encoding
            .get_ids()
            .iter()
            .enumerate()
            .map(|(position, &id)| {
                (0..width)
                    .map(|i| words[id as usize * width + i] + positions[position * width + i])
                    .zip(&types)
                    .map(|(x, kind)| x + kind)
                    .collect()
            })
            .collect();
        self.norm("embeddings.LayerNorm", &mut x);
        for layer in 0..6 {
            let name = |part: &str| format!("encoder.layer.{layer}.{part}");
            let of = |part: &str| self.linear(&name(&format!("attention.self.{part}")), &x);
            let (query, key, value) = (of("query"), of("key"), of("value"));
            let size = width / HEADS;
            let mixed: Vec<Vec<f64>> = query
                .iter()
                .map(|query| {
                    let heads = (0..HEADS).map(|head| head * size..(head + 1) * size);
                    let heads = heads.flat_map(|head| {
                        let scale = (size as f64).sqrt();
                        let scores = key
                            .iter()
                            .map(|key| dot(&query[head.clone()], &key[head.clone()]) / scale);
                        let powers: Vec<f64> = scores.map(f64::exp).collect();
                        let sum: f64 = powers.iter().sum();
                        head.map(|i| {
                            let parts = powers.iter().zip(&value).map(|(p, v)| p * v[i]);
                            parts.sum::<f64>() / sum
                        })
                        .collect::<Vec<_>>()
                    });
                    heads.collect()
                })
                .collect();
            add(
                &mut x,
                &self.linear(&name("attention.output.dense"), &mixed),
            );
            self.norm(&name("attention.output.LayerNorm"), &mut x);
            let mut inner = self.linear(&name("intermediate.dense"), &x);
            inner.iter_mut().flatten().for_each(|x| *x = gelu(*x));
            add(&mut x, &self.linear(&name("output.dense"), &inner));
            self.norm(&name("output.LayerNorm"), &mut x);
        }
        let sums: Vec<f64> = (0..width)
            .map(|i| x.iter().map(|row| row[i]).sum())
            .collect();
        let length = dot(&sums, &sums).sqrt();
        sums.iter().map(|x| x / length).collect()
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(rows: &mut [Vec<f64>], parts: &[Vec<f64>]) {
    for (x, part) in rows.iter_mut().flatten().zip(parts.iter().flatten()) {
        *x += part;
    }
}

/// `x · Φ(x)`, with the error function summed from its series.
fn gelu(x: f64) -> f64 {
    let z = x * FRAC_1_SQRT_2;
    if z.abs() > 5.0 {
        return x.max(0.0);
    }
    let (mut term, mut sum, mut n) = (z, z, 0.0);
    while term.abs() > 1e-17 * sum.abs() {
        n += 1.0;
        term *= -z * z / n;
        sum += term / (2.0 * n + 1.0);
        if n > 200.0 {
            break;
        }
    }
    0.5 * x * (1.0 + std::f64::consts::FRAC_2_SQRT_PI * sum)
}
