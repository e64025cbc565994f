//! What cuts off unlikely tokens.
//!
//! Each takes candidates in any order that the logits alone determine. What is kept does not depend
//! on that order, and what the kept ones sum up to is computed in an order of their own.

use std::cmp::Ordering;

use super::{Candidate, math};

/// Keeps the `k` most likely; 0 keeps all.
pub(super) fn top_k(kept: &mut Vec<Candidate>, k: usize) {
    if k == 0 || k >= kept.len() {
        return;
    }
    kept.select_nth_unstable_by(k - 1, Candidate::order);
    kept.truncate(k);
    // Selection leaves an order of its own: sums below must not depend on it.
    kept.sort_unstable_by(Candidate::order);
}

/// Keeps the fewest of the most likely whose probabilities reach `p`; 1 keeps all.
pub(super) fn top_p(kept: &mut Vec<Candidate>, p: f64) {
    if p >= 1.0 {
        return;
    }
    let max = max(kept);
    let mass = |c: &Candidate| math::exp(c.logit - max);
    let goal = p * kept.iter().map(mass).sum::<f64>();
    fewest(kept, Candidate::order, mass, goal);
}

/// A candidate as typical sampling sees it.
#[derive(Clone, Copy)]
struct Typical {
    candidate: Candidate,
    probability: f64,
    /// How far its surprise is from the entropy.
    distance: f64,
}

impl Typical {
    fn order(a: &Self, b: &Self) -> Ordering {
        let nearer = a.distance.total_cmp(&b.distance);
        nearer.then(a.candidate.token.cmp(&b.candidate.token))
    }
}

/// Keeps the fewest of the most typical whose probabilities reach `p`; 1 keeps all.
pub(super) fn typical(kept: &mut Vec<Candidate>, p: f64) {
    if p >= 1.0 {
        return;
    }
    let total = log_total(kept);
    let entropy: f64 = kept
        .iter()
        .map(|c| math::exp(c.logit - total) * (total - c.logit))
        .sum();
    let mut items: Vec<Typical> = kept
        .iter()
        .map(|&candidate| Typical {
            candidate,
            probability: math::exp(candidate.logit - total),
            distance: (total - candidate.logit - entropy).abs(),
        })
        .collect();
    fewest(&mut items, Typical::order, |t| t.probability, p);
    kept.clear();
    kept.extend(items.iter().map(|t| t.candidate));
}

/// Keeps those at least `ratio` times as likely as the most likely; 0 keeps all.
pub(super) fn min_p(kept: &mut Vec<Candidate>, ratio: f64) {
    if ratio == 0.0 {
        return;
    }
    let max = max(kept);
    kept.retain(|c| math::exp(c.logit - max) >= ratio);
}

/// Keeps those whose surprise is at most `bound` bits, and the most likely in any case.
pub(super) fn surprising(kept: &mut Vec<Candidate>, bound: f64) {
    let total = log_total(kept);
    let Some(best) = kept.iter().copied().min_by(Candidate::order) else {
        return;
    };
    kept.retain(|c| c.token == best.token || surprise(total, c.logit) <= bound);
}

/// ln Σ exp(logit).
pub(super) fn log_total(candidates: &[Candidate]) -> f64 {
    math::log_sum_exp_of(candidates.iter().map(|c| c.logit))
}

/// −log2 of the probability that a logit has, given [`log_total`]; in bits.
pub(super) fn surprise(log_total: f64, logit: f64) -> f64 {
    (log_total - logit) * std::f64::consts::LOG2_E
}

fn max(candidates: &[Candidate]) -> f64 {
    let logits = candidates.iter().map(|c| c.logit);
    logits.fold(f64::NEG_INFINITY, f64::max)
}

/// Leaves of `items`, in `order`, the fewest whose masses reach `goal`.
fn fewest<T>(
    items: &mut Vec<T>,
    order: impl Fn(&T, &T) -> Ordering,
    mass: impl Fn(&T) -> f64,
    goal: f64,
) {
    // Few items hold nearly all the mass: order a growing head instead of everything.
    let mut head = 64;
    loop {
        head = head.min(items.len());
        if head < items.len() {
            items.select_nth_unstable_by(head - 1, &order);
        }
        if let Some(first) = items.get_mut(..head) {
            first.sort_unstable_by(&order);
        }
        let mut sum = 0.0;
        let reached = items.iter().take(head).position(|item| {
            sum += mass(item);
            sum >= goal
        });
        if let Some(last) = reached {
            items.truncate(last + 1);
            return;
        }
        if head == items.len() {
            return;
        }
        head *= 8;
    }
}
