use std::sync::OnceLock;

use proptest::prelude::*;

use super::*;

/// Bytes and a few words; made once.
pub(super) fn tokenizer() -> &'static Tokenizer {
    static TOKENIZER: OnceLock<Tokenizer> = OnceLock::new();
    TOKENIZER.get_or_init(crate::generate::toy::tokenizer)
}

pub(super) fn sampler(options: Sampling) -> Sampler {
    Sampler::new(&options, tokenizer()).unwrap()
}

fn kept(options: Sampling, logits: &[f32]) -> Vec<TokenId> {
    let mut ids: Vec<_> = sampler(options)
        .candidates(logits, &[], None)
        .unwrap()
        .iter()
        .map(|c| c.token)
        .collect();
    ids.sort_unstable();
    ids
}

pub(super) fn softmax(logits: &[f32], temperature: f64) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let e: Vec<f64> = logits
        .iter()
        .map(|&x| (f64::from(x - max) / temperature).exp())
        .collect();
    let sum: f64 = e.iter().sum();
    e.iter().map(|x| x / sum).collect()
}

/// Chi-square of `draws` against `expected` probabilities; cells of fewer than 10 are pooled.
fn chi_square(counts: &[u64], expected: &[f64], draws: u64) -> (f64, f64) {
    let (mut chi, mut cells, mut pool) = (0.0, 0.0, (0.0, 0.0));
    for (&n, &p) in counts.iter().zip(expected) {
        let (n, e) = (n as f64, p * draws as f64);
        if e < 10.0 {
            pool = (pool.0 + n, pool.1 + e);
        } else {
            chi += (n - e).powi(2) / e;
            cells += 1.0;
        }
    }
    if pool.1 > 1.0 {
        chi += (pool.0 - pool.1).powi(2) / pool.1;
        cells += 1.0;
    }
    (chi, cells - 1.0)
}

#[test]
fn a_million_draws_follow_softmax() {
    let logits: Vec<f32> = (0..40)
        .map(|i| ((i * 37 % 41) as f32) * 0.17 - 3.0)
        .collect();
    let draws = 1_000_000u64;
    for (temperature, seed) in [(1.0f32, 1u64), (0.7, 42)] {
        let mut s = sampler(Sampling::at(temperature, seed));
        let mut counts = vec![0u64; logits.len()];
        let history: Vec<TokenId> = vec![0; draws as usize];
        for n in 0..draws as usize {
            let token = s.sample(&logits, &history[..n], None).unwrap();
            counts[token as usize] += 1;
        }
        let (chi, freedom) = chi_square(&counts, &softmax(&logits, f64::from(temperature)), draws);
        // Mean plus four standard deviations of a chi-square variable.
        let limit = freedom + 4.0 * (2.0 * freedom).sqrt();
        assert!(
            chi < limit,
            "T {temperature}: chi-square {chi:.1} above {limit:.1}"
        );
        // A sampler without noise, or with too little, would have a value near zero or a huge one.
        assert!(
            chi > freedom - 4.0 * (2.0 * freedom).sqrt(),
            "too regular: {chi:.1}"
        );
    }
}

#[test]
fn the_draws_after_cuts_follow_the_renormalised_softmax() {
    let logits: Vec<f32> = (0..16).map(|i| -(i as f32) * 0.3).collect();
    let options = Sampling {
        temperature: 1.0,
        top_k: 8,
        top_p: 0.9,
        min_p: 0.1,
        seed: 5,
        ..<_>::default()
    };
    let ids = kept(options.clone(), &logits);
    assert!(ids.len() > 2 && ids.len() < 8, "{ids:?}");
    let part: Vec<f32> = ids.iter().map(|&t| logits[t as usize]).collect();
    let mut s = sampler(options);
    let draws = 200_000u64;
    let mut counts = vec![0u64; ids.len()];
    let history = vec![0; draws as usize];
    for n in 0..draws as usize {
        let token = s.sample(&logits, &history[..n], None).unwrap();
        counts[ids.iter().position(|&t| t == token).expect("a kept token")] += 1;
    }
    let (chi, freedom) = chi_square(&counts, &softmax(&part, 1.0), draws);
    assert!(chi < freedom + 4.0 * (2.0 * freedom).sqrt(), "{chi}");
}

#[test]
fn greedy_takes_the_lowest_of_equals() {
    let mut s = sampler(Sampling::default());
    assert_eq!(s.sample(&[1.0, 3.0, 3.0, 2.0], &[], None).unwrap(), 1);
    assert_eq!(s.sample(&[-0.0, 0.0], &[], None).unwrap(), 0);
    assert_eq!(s.sample(&[f32::NEG_INFINITY, -1e30], &[], None).unwrap(), 1);
}

#[test]
fn the_same_seed_gives_the_same_tokens_and_another_seed_others() {
    let logits = [0.0f32; 50];
    let draw = |seed| -> Vec<TokenId> {
        let mut s = sampler(Sampling::at(1.0, seed));
        (0..40)
            .map(|n| s.sample(&logits, &vec![0; n], None).unwrap())
            .collect()
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}

#[test]
fn pinned_draws() {
    // These fix the noise for good: a change here breaks replay of recorded runs.
    let logits: Vec<f32> = (0..1000).map(|i| (i % 7) as f32 * 0.25).collect();
    let mut s = sampler(Sampling::at(1.0, 2024));
    let drawn: Vec<TokenId> = (0..8)
        .map(|n| s.sample(&logits, &vec![1; n * 11], None).unwrap())
        .collect();
    assert_eq!(drawn, PINNED);
}
const PINNED: [TokenId; 8] = [419, 901, 816, 391, 104, 652, 972, 686];

#[test]
fn leaving_out_hopeless_draws_changes_nothing() {
    let logits: Vec<f32> = (0..3000)
        .map(|i| ((i * 7919) % 1000) as f32 * 0.01)
        .collect();
    for n in 0..300 {
        let row = noise::row(77, n as u64);
        let want = (0..logits.len() as TokenId)
            .map(|t| Candidate {
                token: t,
                logit: f64::from(logits[t as usize]) + row.gumbel(t),
            })
            .min_by(Candidate::order)
            .unwrap();
        let got = sampler(Sampling::at(1.0, 77))
            .sample(&logits, &vec![0; n], None)
            .unwrap();
        assert_eq!(got, want.token);
    }
}

#[test]
fn top_sets_break_ties_by_id() {
    let flat = [1.0f32; 6];
    let at = Sampling::at(1.0, 0);
    assert_eq!(
        kept(
            Sampling {
                top_k: 3,
                ..at.clone()
            },
            &flat
        ),
        [0, 1, 2]
    );
    assert_eq!(
        kept(
            Sampling {
                top_p: 0.5,
                ..at.clone()
            },
            &flat
        ),
        [0, 1, 2]
    );
    assert_eq!(
        kept(
            Sampling {
                min_p: 1.0,
                ..at.clone()
            },
            &flat
        ),
        [0, 1, 2, 3, 4, 5]
    );
    assert_eq!(
        kept(
            Sampling {
                top_p: 1e-9,
                ..at.clone()
            },
            &[0.0, 2.0, 2.0]
        ),
        [1]
    );
    assert_eq!(kept(at, &flat).len(), 6);
}

#[test]
fn typical_leaves_out_what_is_too_likely_too() {
    let at = |p, probabilities: &[f32]| {
        let logits: Vec<f32> = probabilities.iter().map(|p| p.ln()).collect();
        kept(
            Sampling {
                typical_p: p,
                ..Sampling::at(1.0, 0)
            },
            &logits,
        )
    };
    // Entropy 1.33, surprises 0.92 and 1.61.
    assert_eq!(at(0.5, &[0.4, 0.2, 0.2, 0.2]), [1, 2, 3]);
    assert_eq!(at(0.3, &[0.4, 0.2, 0.2, 0.2]), [1, 2]);
    assert_eq!(at(0.5, &[0.97, 0.01, 0.01, 0.01]), [0]);
    assert_eq!(at(1.0, &[0.97, 0.01, 0.01, 0.01]), [0, 1, 2, 3]);
}

#[test]
fn penalties_are_those_of_the_formulas() {
    let logits = [2.0f32, -2.0, 1.0, 0.5];
    let options = Sampling {
        temperature: 1.0,
        repetition_penalty: 2.0,
        frequency_penalty: 0.25,
        presence_penalty: 0.125,
        penalty_window: 3,
        ..<_>::default()
    };
    let mut s = sampler(options.clone());
    // The window holds 1, 0, 0; token 3 lies before it.
    let got: Vec<f64> = s
        .candidates(&logits, &[3, 1, 0, 0], None)
        .unwrap()
        .iter()
        .map(|c| c.logit)
        .collect();
    assert_eq!(
        got,
        [2.0 / 2.0 - 0.5 - 0.125, -2.0 * 2.0 - 0.25 - 0.125, 1.0, 0.5]
    );
    let mut off = sampler(Sampling {
        penalty_window: 0,
        ..options
    });
    let got: Vec<f64> = off
        .candidates(&logits, &[3, 1, 0, 0], None)
        .unwrap()
        .iter()
        .map(|c| c.logit)
        .collect();
    assert_eq!(got, [2.0, -2.0, 1.0, 0.5]);
}

#[test]
fn bias_bans_and_prefers() {
    let logits = [3.0f32, 2.0, 1.0];
    let with = |bias: Vec<(TokenId, f32)>| Sampling {
        logit_bias: bias,
        ..<_>::default()
    };
    let pick = |o| sampler(o).sample(&logits, &[], None);
    assert_eq!(pick(with(vec![(0, f32::NEG_INFINITY)])).unwrap(), 1);
    assert_eq!(pick(with(vec![(2, 5.0)])).unwrap(), 2);
    let all = (0..3).map(|t| (t, f32::NEG_INFINITY)).collect();
    assert!(matches!(
        pick(with(all)),
        Err(CoreError::Sample(SampleError::NothingAllowed))
    ));
    assert!(matches!(
        pick(with(vec![(3, 1.0)])),
        Err(CoreError::TokenOutOfRange { id: 3, vocab: 3 })
    ));
}

#[test]
fn a_mask_leaves_only_its_tokens() {
    let mask = Mask::of(70, [2, 69]);
    let mut logits = vec![5.0f32; 80];
    logits[2] = 1.0;
    logits[69] = 2.0;
    for options in [
        Sampling::default(),
        Sampling::at(1.0, 3),
        Sampling::at(9.0, 4),
    ] {
        for n in 0..50 {
            let token = sampler(options.clone())
                .sample(&logits, &vec![0; n], Some(&mask))
                .unwrap();
            assert!(
                token == 69 || (token == 2 && options.temperature > 0.0),
                "{token}"
            );
        }
    }
    let none = Mask::of(80, []);
    assert!(matches!(
        sampler(Sampling::default()).sample(&logits, &[], Some(&none)),
        Err(CoreError::Sample(SampleError::NothingAllowed))
    ));
}

#[test]
fn broken_logits_are_errors() {
    for (bad, at) in [(f32::NAN, 1u32), (f32::INFINITY, 2)] {
        let mut logits = [0.0f32; 4];
        logits[at as usize] = bad;
        for options in [Sampling::default(), Sampling::at(1.0, 3)] {
            let got = sampler(options).sample(&logits, &[], None);
            assert!(
                matches!(got, Err(CoreError::Sample(SampleError::Logit { token, .. })) if token == at),
                "{got:?}"
            );
        }
    }
    assert!(matches!(
        sampler(Sampling::default()).sample(&[], &[], None),
        Err(CoreError::Sample(SampleError::NothingAllowed))
    ));
}

#[test]
fn options_out_of_range_are_refused() {
    let dry = |dry| Sampling {
        dry: Some(dry),
        ..<_>::default()
    };
    let mirostat = |tau, eta| Sampling {
        mirostat: Some(Mirostat { tau, eta }),
        ..Sampling::at(1.0, 0)
    };
    let bad: [(&str, Sampling); 14] = [
        (
            "typical_p",
            Sampling {
                typical_p: 0.0,
                ..<_>::default()
            },
        ),
        (
            "dry.multiplier",
            dry(Dry {
                multiplier: -1.0,
                ..<_>::default()
            }),
        ),
        (
            "dry.base",
            dry(Dry {
                base: 0.5,
                ..<_>::default()
            }),
        ),
        (
            "dry.allowed_length",
            dry(Dry {
                allowed_length: 0,
                ..<_>::default()
            }),
        ),
        ("mirostat.tau", mirostat(0.0, 0.1)),
        ("mirostat.eta", mirostat(5.0, 1.5)),
        (
            "temperature",
            Sampling {
                temperature: -1.0,
                ..<_>::default()
            },
        ),
        (
            "temperature",
            Sampling {
                temperature: f32::NAN,
                ..<_>::default()
            },
        ),
        (
            "top_p",
            Sampling {
                top_p: 0.0,
                ..<_>::default()
            },
        ),
        (
            "top_p",
            Sampling {
                top_p: 1.5,
                ..<_>::default()
            },
        ),
        (
            "min_p",
            Sampling {
                min_p: -0.1,
                ..<_>::default()
            },
        ),
        (
            "repetition_penalty",
            Sampling {
                repetition_penalty: 0.0,
                ..<_>::default()
            },
        ),
        (
            "frequency_penalty",
            Sampling {
                frequency_penalty: f32::INFINITY,
                ..<_>::default()
            },
        ),
        (
            "presence_penalty",
            Sampling {
                presence_penalty: f32::NAN,
                ..<_>::default()
            },
        ),
    ];
    for (field, options) in bad {
        let got = Sampler::new(&options, tokenizer());
        assert!(
            matches!(got, Err(CoreError::Sample(SampleError::Option { name, .. })) if name == field),
            "{field}: {got:?}"
        );
    }
    let empty = dry(Dry {
        breakers: vec!["\n".into(), String::new()],
        ..<_>::default()
    });
    assert!(matches!(
        Sampler::new(&empty, tokenizer()),
        Err(CoreError::Sample(SampleError::EmptyBreaker))
    ));
    let bias = Sampling {
        logit_bias: vec![(7, f32::NAN)],
        ..<_>::default()
    };
    assert!(matches!(
        Sampler::new(&bias, tokenizer()),
        Err(CoreError::Sample(SampleError::Bias { token: 7, .. }))
    ));
}

/// Logits with many ties, so that the order by id is exercised.
fn logits() -> impl Strategy<Value = Vec<f32>> {
    prop::collection::vec((-12i32..12).prop_map(|x| x as f32 * 0.5), 1..300)
}

/// Ids by falling logit, then rising id.
fn ranked(logits: &[f32]) -> Vec<TokenId> {
    let mut ids: Vec<TokenId> = (0..logits.len() as TokenId).collect();
    ids.sort_by(|&a, &b| {
        logits[b as usize]
            .total_cmp(&logits[a as usize])
            .then(a.cmp(&b))
    });
    ids
}

proptest! {
    #[test]
    fn top_k_keeps_the_first_k(logits in logits(), k in 1usize..310) {
        let mut want: Vec<_> = ranked(&logits).into_iter().take(k).collect();
        want.sort_unstable();
        prop_assert_eq!(kept(Sampling { top_k: k, ..Sampling::at(0.8, 0) }, &logits), want);
    }

    #[test]
    fn top_p_keeps_the_fewest_that_reach_it(logits in logits(), p in 0.01f32..1.0, k in 0usize..40) {
        let got = kept(Sampling { top_p: p, top_k: k, ..Sampling::at(1.0, 0) }, &logits);
        let mut order = ranked(&logits);
        if k > 0 {
            order.truncate(k);
        }
        let of_order: Vec<f32> = order.iter().map(|&t| logits[t as usize]).collect();
        let p_of = softmax(&of_order, 1.0);
        let mut head: Vec<_> = order[..got.len()].to_vec();
        head.sort_unstable();
        prop_assert_eq!(&got, &head);
        let sum: f64 = p_of[..got.len()].iter().sum();
        let without: f64 = p_of[..got.len() - 1].iter().sum();
        prop_assert!(sum >= f64::from(p) - 1e-9);
        prop_assert!(without < f64::from(p) + 1e-9);
    }

    #[test]
    fn typical_keeps_the_fewest_of_the_nearest_to_the_entropy(
        logits in logits(), p in 0.01f32..1.0, k in 0usize..40,
    ) {
        let got = kept(Sampling { typical_p: p, top_k: k, ..Sampling::at(1.0, 0) }, &logits);
        let mut ids = ranked(&logits);
        if k > 0 {
            ids.truncate(k);
        }
        let of_ids: Vec<f32> = ids.iter().map(|&t| logits[t as usize]).collect();
        let p_of = softmax(&of_ids, 1.0);
        let entropy: f64 = p_of.iter().map(|p| -p * p.ln()).sum();
        let mut far: Vec<(f64, f64, TokenId)> = ids
            .iter()
            .zip(&p_of)
            .map(|(&t, &p)| ((-p.ln() - entropy).abs(), p, t))
            .collect();
        far.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.2.cmp(&b.2)));
        // Rounding may order near ties otherwise: the set is held by its mass and its distances.
        let is_kept = |t: &TokenId| got.contains(t);
        type Far = Vec<(f64, f64, TokenId)>;
        let (inside, outside): (Far, Far) = far.iter().partition(|x| is_kept(&x.2));
        let mass: f64 = inside.iter().map(|x| x.1).sum();
        let furthest = inside.iter().map(|x| x.0).fold(0.0, f64::max);
        let nearest = outside.iter().map(|x| x.0).fold(f64::INFINITY, f64::min);
        prop_assert!(mass >= f64::from(p) - 1e-9);
        prop_assert!(furthest <= nearest + 1e-9);
        let last = inside.iter().filter(|x| x.0 > furthest - 1e-9).map(|x| x.1).fold(0.0, f64::max);
        prop_assert!(mass - last < f64::from(p) + 1e-9);
    }

    /// A bias of nothing takes the long way.
    #[test]
    fn the_likeliest_is_found_as_among_candidates(
        mut logits in prop::collection::vec(-3i8..3, 1..300),
        out in prop::collection::vec(0usize..300, 0..200),
        masked in any::<bool>(),
    ) {
        out.iter().for_each(|&i| if let Some(x) = logits.get_mut(i) { *x = i8::MIN });
        let logit = |&x: &i8| if x == i8::MIN { f32::NEG_INFINITY } else { f32::from(x) };
        let logits: Vec<f32> = logits.iter().map(logit).collect();
        let allowed = (0..logits.len() as TokenId).filter(|t| t % 3 == 1);
        let mask = masked.then(|| Mask::of(logits.len(), allowed));
        let long = Sampling { logit_bias: vec![(0, 0.0)], ..Sampling::default() };
        let sample = |options| sampler(options).sample(&logits, &[], mask.as_ref());
        prop_assert_eq!(sample(Sampling::default()).ok(), sample(long).ok());
    }

    #[test]
    fn min_p_keeps_by_the_ratio_to_the_best(logits in logits(), p in 0.001f32..1.0) {
        let got = kept(Sampling { min_p: p, ..Sampling::at(1.0, 0) }, &logits);
        let max = logits.iter().copied().fold(f32::MIN, f32::max);
        for (t, &l) in logits.iter().enumerate() {
            let ratio = f64::from(l - max).exp();
            if (ratio - f64::from(p)).abs() > 1e-9 {
                prop_assert_eq!(got.contains(&(t as TokenId)), ratio >= f64::from(p));
            }
        }
    }

    #[test]
    fn the_token_drawn_is_a_kept_one(
        logits in logits(), seed: u64, k in 0usize..20, p in 0.1f32..=1.0, n in 0usize..100,
    ) {
        let options =
            Sampling { top_k: k, top_p: p, min_p: 0.02, ..Sampling::at(1.3, seed) };
        let token = sampler(options.clone()).sample(&logits, &vec![0; n], None).unwrap();
        prop_assert!(kept(options, &logits).contains(&token));
    }
}
