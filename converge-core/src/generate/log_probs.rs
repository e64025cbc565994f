//! Log-probabilities of a row of logits.

use crate::{
    Result, TokenId,
    generate::TokenLogProbs,
    sample::{SampleError, math},
};

/// The log-probability of `token` in the softmax of `logits`, by log-sum-exp in f64.
///
/// # Errors
/// [`SampleError::Logit`] where the row is broken,
/// [`TokenOutOfRange`](crate::CoreError::TokenOutOfRange).
pub fn log_prob(logits: &[f32], token: TokenId) -> Result<f64> {
    let normalizer = normalizer(logits)?;
    at(logits, token).map(|logit| logit - normalizer)
}

/// The log-probability of `token` and of the `n` likeliest tokens.
///
/// # Errors
/// As [`log_prob`].
pub fn top_log_probs(logits: &[f32], token: TokenId, n: usize) -> Result<TokenLogProbs> {
    let normalizer = normalizer(logits)?;
    let mut ids: Vec<TokenId> = (0..logits.len() as TokenId).collect();
    let of = |id: TokenId| {
        logits
            .get(id as usize)
            .copied()
            .unwrap_or(f32::NEG_INFINITY)
    };
    let order = |&a: &TokenId, &b: &TokenId| of(b).total_cmp(&of(a)).then(a.cmp(&b));
    if n > 0 && n < ids.len() {
        ids.select_nth_unstable_by(n - 1, order);
    }
    ids.truncate(n);
    ids.sort_unstable_by(order);
    Ok(TokenLogProbs {
        token,
        log_prob: at(logits, token)? - normalizer,
        top: ids
            .into_iter()
            .map(|id| (id, f64::from(of(id)) - normalizer))
            .collect(),
    })
}

fn at(logits: &[f32], token: TokenId) -> Result<f64> {
    logits
        .get(token as usize)
        .map(|&x| f64::from(x))
        .ok_or(crate::CoreError::TokenOutOfRange {
            id: token,
            vocab: logits.len(),
        })
}

fn normalizer(logits: &[f32]) -> Result<f64> {
    let broken = |x: f32| x.is_nan() || x == f32::INFINITY;
    match logits.iter().position(|&x| broken(x)) {
        Some(i) => Err(SampleError::Logit {
            token: i as TokenId,
            value: logits.get(i).copied().unwrap_or(f32::NAN),
        }
        .into()),
        None => Ok(math::log_sum_exp(logits)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_sum_to_one() {
        let logits: Vec<f32> = (0..500)
            .map(|i| ((i * 31) % 97) as f32 * 0.2 - 4.0)
            .collect();
        let sum: f64 = (0..500).map(|t| log_prob(&logits, t).unwrap().exp()).sum();
        assert!((sum - 1.0).abs() < 1e-12, "{sum}");
    }

    #[test]
    fn the_top_is_ordered_and_ties_go_by_id() {
        let got = top_log_probs(&[0.0, 2.0, 1.0, 2.0], 2, 3).unwrap();
        assert_eq!(got.top.iter().map(|t| t.0).collect::<Vec<_>>(), [1, 3, 2]);
        assert_eq!(got.top[2].1, got.log_prob);
        assert_eq!(top_log_probs(&[0.0, 1.0], 0, 9).unwrap().top.len(), 2);
        assert!(top_log_probs(&[0.0, 1.0], 0, 0).unwrap().top.is_empty());
    }

    #[test]
    fn broken_rows_and_ids_are_errors() {
        assert!(log_prob(&[0.0, f32::NAN], 0).is_err());
        assert!(log_prob(&[0.0], 1).is_err());
    }
}
