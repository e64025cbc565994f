use candle_core::Device;

use super::*;
use crate::{
    CoreError,
    backend::candle::{CandleModel, CandleOptions, WeightMode},
    model::{
        Decoder as _, Rows,
        tiny::{CONTEXT, Tiny},
    },
};

#[test]
fn pooling_takes_what_it_says() {
    let expected = [
        (Pooling::First, vec![0.6, 0.0, 0.0, 0.8]),
        (Pooling::Last, vec![0.0, -1.0, 0.0, 0.0]),
    ];
    let rows = [3.0, 0.0, 0.0, 4.0, 0.0, -4.0, 0.0, 0.0];
    for (pooling, expected) in expected {
        assert_eq!(pooling.pool(&rows, 4), expected);
    }
    let mean = Pooling::Mean.pool(&rows, 4);
    let length = 41f32.sqrt();
    for (x, expected) in mean.iter().zip([3.0, -4.0, 0.0, 4.0]) {
        assert!((x - expected / length).abs() < 1e-6, "{mean:?}");
    }
    for pooling in [Pooling::Mean, Pooling::First, Pooling::Last] {
        assert_eq!(pooling.pool(&[0.0; 8], 4), [0.0; 4]);
        assert_eq!(pooling.pool(&[], 4), [0.0; 4]);
    }
}

#[test]
fn lengths_are_checked_before_anything_is_computed() {
    assert!(check_lengths(&[1, 8], 8).is_ok());
    let too_long = check_lengths(&[1, 9], 8).unwrap_err();
    assert!(matches!(
        too_long,
        EmbedError::TooLong {
            text: 1,
            tokens: 9,
            limit: 8
        }
    ));
    let empty = check_lengths(&[0], 8).unwrap_err();
    assert!(matches!(empty, EmbedError::Empty { text: 0 }));
}

/// What the hidden states are of, the head makes logits of: and they leave the cache alone.
#[test]
fn hidden_states_are_what_the_head_sees() {
    let (gguf, _folder) = Tiny::qwen2().open();
    let options = CandleOptions {
        mode: WeightMode::F32,
        context: CONTEXT,
        device: Device::Cpu,
    };
    let model = CandleModel::load(&gguf, &options).unwrap();
    let width = model.spec().width;
    let tokens = [1, 5, 2, 7, 3];
    let cancel = Cancel::new();
    let mut decoder = model.decoder();
    decoder.forward(&[4, 4], Rows::None, &cancel).unwrap();
    let states = decoder.hidden(&tokens, &cancel).unwrap();
    assert_eq!(states.len(), tokens.len() * width);
    assert_eq!(decoder.len(), 2);
    let logits = decoder.forward(&tokens, Rows::All, &cancel).unwrap();
    let head = converge_quant::candle::tensor(
        &gguf,
        &model.spec().head.weight,
        candle_core::DType::F32,
        &Device::Cpu,
    );
    let head: Vec<Vec<f32>> = head.unwrap().to_vec2().unwrap();
    for (row, state) in states.chunks(width).enumerate() {
        for (weights, &logit) in head.iter().zip(logits.row(row).unwrap()) {
            let product: f32 = weights.iter().zip(state).map(|(w, x)| w * x).sum();
            assert!((product - logit).abs() < 1e-3, "{product} {logit}");
        }
    }
    let cancelled = Cancel::new();
    cancelled.cancel();
    let error = decoder.hidden(&tokens, &cancelled).unwrap_err();
    assert!(matches!(error, CoreError::Cancelled), "{error}");
}
