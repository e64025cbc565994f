//! Recipes and quantizing, on real models.

#![cfg(test)] // so that the lints know the helpers for tests, too

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::ops::ControlFlow;

use candle_core::quantized::gguf_file;
use converge_quant::format::{decode, encode};
use converge_quant::quantize::{Options, Recipe, plan, quantize};
use converge_quant::{GgmlType, Gguf, QuantError};
use converge_tests::model;

fn options(recipe: Recipe) -> Options {
    Options {
        requantize: true,
        ..Options::new(recipe)
    }
}

/// The published file was made by `llama-quantize` with this recipe: from it the recipe must give
/// every tensor the type that it has.
#[test]
fn gemmas_types_are_those_of_its_file() {
    let gguf = Gguf::open(model("gemma-3-270m")).unwrap();
    let planned = plan(&gguf, &options(Recipe::Q4KM)).unwrap();
    assert_eq!(planned.len(), gguf.tensors().len());
    for tensor in planned {
        assert_eq!(tensor.to, tensor.from, "{}", tensor.name);
    }
}

/// These were made by an older `llama-quantize`, which counted the layers in another order: as many
/// tensors of each type.
#[test]
fn qwens_types_are_as_many_as_in_their_files() {
    for name in ["qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"] {
        let gguf = Gguf::open(model(name)).unwrap();
        let planned = plan(&gguf, &options(Recipe::Q4KM)).unwrap();
        let mut counts: BTreeMap<(&str, String), i64> = BTreeMap::new();
        for tensor in &planned {
            let kind = tensor.name.trim_start_matches(|c: char| c != '_');
            *counts.entry((tensor.to.name(), kind.into())).or_default() += 1;
            *counts.entry((tensor.from.name(), kind.into())).or_default() -= 1;
        }
        counts.retain(|_, count| *count != 0);
        assert!(counts.is_empty(), "{name}: {counts:?}");
    }
}

/// What `llama-quantize` (of llama.cpp at commit 86a283532072) made of this model in single
/// precision: by kind of tensor its type, and that of the layers with more bits. Rows of 576 are no
/// whole blocks of 256, those of `ffn_down` are.
#[test]
fn smollm2s_types_are_those_of_llama_quantize() {
    const MORE: [usize; 14] = [0, 1, 2, 5, 8, 11, 14, 17, 20, 23, 26, 27, 28, 29];
    let gguf = Gguf::open(model("smollm2-135m")).unwrap();
    for (recipe, narrow, wide) in [
        (Recipe::Q4KM, GgmlType::Q5_0, GgmlType::Q4_K),
        (Recipe::Q5KM, GgmlType::Q5_1, GgmlType::Q5_K),
    ] {
        let planned = plan(&gguf, &options(recipe)).unwrap();
        assert_eq!(planned.len(), 272);
        for tensor in planned {
            let more = MORE
                .iter()
                .any(|layer| tensor.name.starts_with(&format!("blk.{layer}.")));
            let kind = tensor.name.trim_start_matches(|c: char| c != '_');
            let expected = match kind {
                "_embd.weight" => GgmlType::Q8_0,
                "_norm.weight" => GgmlType::F32,
                "_v.weight" if more => GgmlType::Q8_0,
                "_down.weight" if more => GgmlType::Q6_K,
                "_down.weight" => wide,
                _ => narrow,
            };
            assert_eq!(tensor.to, expected, "{recipe}: {}", tensor.name);
        }
    }
}

/// Small tensors stay, rows that are no whole blocks fall back, the shared head keeps its bits.
#[test]
fn other_recipes_choose_as_llama_quantize() {
    let gguf = Gguf::open(model("smollm2-135m")).unwrap();
    for (recipe, matrix, head) in [
        (Recipe::F32, GgmlType::F32, GgmlType::F32),
        (Recipe::BF16, GgmlType::BF16, GgmlType::BF16),
        (Recipe::Q8_0, GgmlType::Q8_0, GgmlType::Q8_0),
        // Rows of 576 are whole blocks of 32, not of 256: no Q6_K for the head.
        (Recipe::Q4_0, GgmlType::Q4_0, GgmlType::Q8_0),
        (Recipe::Q4KS, GgmlType::Q5_0, GgmlType::Q8_0),
        (Recipe::Q5KS, GgmlType::Q5_1, GgmlType::Q8_0),
        (Recipe::Q6K, GgmlType::Q8_0, GgmlType::Q8_0),
    ] {
        let planned = plan(&gguf, &options(recipe)).unwrap();
        let to = |name: &str| planned.iter().find(|t| t.name == name).unwrap().to;
        assert_eq!(to("blk.9.attn_q.weight"), matrix, "{recipe}");
        assert_eq!(to("blk.9.attn_norm.weight"), GgmlType::F32, "{recipe}");
        assert_eq!(to("token_embd.weight"), head, "{recipe}");
        assert_eq!(
            recipe.name().to_lowercase().parse::<Recipe>().unwrap(),
            recipe
        );
    }
    let unknown = "Q9_K".parse::<Recipe>().unwrap_err().to_string();
    assert!(unknown.contains("Q4_K_M"), "{unknown}");
    let error = plan(&gguf, &Options::new(Recipe::Q4KM)).unwrap_err();
    assert!(matches!(error, QuantError::Requantize { .. }), "{error}");
}

#[test]
fn a_quantized_file_holds_the_encoded_tensors_and_does_not_depend_on_threads() {
    let gguf = Gguf::open(model("smollm2-135m")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let options = options(Recipe::Q4KM);
    let mut paths = Vec::new();
    for threads in [1, 3] {
        let path = folder.path().join(format!("{threads}.gguf"));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        let mut calls = 0;
        let on_progress = |progress: converge_quant::quantize::Progress<'_>| {
            assert!(progress.done < progress.total && progress.index < progress.tensors);
            calls += 1;
            ControlFlow::Continue(())
        };
        let report = pool
            .build()
            .unwrap()
            .install(|| quantize(&gguf, &options, &path, on_progress))
            .unwrap();
        assert!(calls > 100, "{calls}");
        assert_eq!(report.file_bytes, fs::metadata(&path).unwrap().len());
        paths.push(path);
    }
    assert!(fs::read(&paths[0]).unwrap() == fs::read(&paths[1]).unwrap());

    // Our reader and candle's agree with what was to be written.
    let written = Gguf::open(&paths[0]).unwrap();
    let reader = File::open(&paths[0]).unwrap();
    let candle = gguf_file::Content::read(&mut &reader).unwrap();
    assert_eq!(candle.tensor_infos.len(), gguf.tensors().len());
    let kind: u32 = written.metadata().get("general.file_type").unwrap();
    assert_eq!(kind, 15);
    let tokens = "tokenizer.ggml.tokens";
    assert_eq!(
        written.metadata().value(tokens),
        gguf.metadata().value(tokens)
    );
    for name in [
        "blk.3.ffn_down.weight",
        "blk.29.attn_v.weight",
        "output_norm.weight",
    ] {
        let (from, to) = (gguf.tensor(name).unwrap(), written.tensor(name).unwrap());
        let mut numbers = vec![0.0; from.elements()];
        decode(from.ggml_type, &gguf.read(from).unwrap(), &mut numbers).unwrap();
        let mut expected = Vec::new();
        encode(to.ggml_type, &numbers, &mut expected).unwrap();
        assert!(written.read(to).unwrap() == expected, "{name}");
        let theirs = &candle.tensor_infos[name];
        assert_eq!(theirs.shape.dims(), to.shape);
        assert_eq!(candle.tensor_data_offset + theirs.offset, to.offset());
    }
    // Stopped, it leaves nothing.
    let path = folder.path().join("stopped.gguf");
    let error = quantize(&gguf, &options, &path, |progress| match progress.index {
        100 => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    assert!(matches!(error, Err(QuantError::Cancelled)));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

/// Our reader reads what candle writes.
#[test]
fn candles_files_are_read() {
    use candle_core::quantized::{GgmlDType, QTensor};
    use candle_core::{Device, Tensor};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("candle.gguf");
    let tensor = Tensor::arange(0f32, 512.0, &Device::Cpu).unwrap();
    let tensor = tensor.reshape((2, 256)).unwrap();
    let quantized = QTensor::quantize(&tensor, GgmlDType::Q8_0).unwrap();
    let name = gguf_file::Value::String("tiny".to_owned());
    let mut file = File::create(&path).unwrap();
    let (metadata, tensors) = ([("general.name", &name)], [("w", &quantized)]);
    gguf_file::write(&mut file, &metadata, &tensors).unwrap();

    let read = Gguf::open(&path).unwrap();
    assert_eq!(
        read.metadata().get::<String>("general.name").unwrap(),
        "tiny"
    );
    let info = read.tensor("w").unwrap();
    assert_eq!(info.shape, [2, 256]);
    assert!(read.read(info).unwrap() == *quantized.data().unwrap());
}
