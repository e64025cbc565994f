use super::tests::{sampler, softmax};
use super::*;

fn options(tau: f32, eta: f32, seed: u64) -> Sampling {
    Sampling {
        mirostat: Some(Mirostat { tau, eta }),
        ..Sampling::at(1.0, seed)
    }
}

/// Logits of a text's kind: few likely tokens, a long tail, another order at each position.
fn zipf(position: u64) -> Vec<f32> {
    let mut ranks: Vec<u64> = (0..2000).collect();
    ranks.sort_by_key(|&r| noise::bits(9, position, r as u32));
    ranks
        .iter()
        .map(|&r| -1.1 * (r as f32 + 1.0).ln())
        .collect()
}

#[test]
fn it_is_the_published_algorithm() {
    let (tau, eta, seed) = (3.0f32, 0.2f32, 4);
    let mut s = sampler(options(tau, eta, seed));
    let mut bound = 2.0 * f64::from(tau);
    for position in 0..400 {
        let logits = zipf(position);
        let p = softmax(&logits, 1.0);
        let mut order: Vec<usize> = (0..p.len()).collect();
        order.sort_by(|&a, &b| p[b].total_cmp(&p[a]).then(a.cmp(&b)));
        let within = order.iter().take_while(|&&t| -p[t].log2() <= bound).count();
        order.truncate(within.max(1));
        let sum: f64 = order.iter().map(|&t| p[t]).sum();
        let row = noise::row(seed, position);
        let drawn = |&&t: &&usize| f64::from(logits[t]) + row.gumbel(t as u32);
        let &want = order
            .iter()
            .max_by(|a, b| drawn(a).total_cmp(&drawn(b)))
            .unwrap();

        let history = vec![0; position as usize];
        let got = s.sample(&logits, &history, None).unwrap();
        assert_eq!(got as usize, want, "position {position}");
        bound -= f64::from(eta) * (-(p[want] / sum).log2() - f64::from(tau));
        assert!(
            (s.state().bound - bound).abs() < 1e-9,
            "position {position}"
        );
        s.restore(State { bound });
    }
}

#[test]
fn the_surprise_of_the_text_is_the_target() {
    for tau in [1.0f32, 3.0, 5.0] {
        let mut s = sampler(options(tau, 0.1, 7));
        let n = 1500;
        let mut sum = 0.0;
        for position in 0..n {
            let logits = zipf(position);
            let history = vec![0; position as usize];
            let kept = s.candidates(&logits, &history, None).unwrap().to_vec();
            let token = s.sample(&logits, &history, None).unwrap();
            let chosen = kept
                .iter()
                .find(|c| c.token == token)
                .expect("a kept token");
            sum += cut::surprise(cut::log_total(&kept), chosen.logit);
        }
        let mean = sum / n as f64;
        assert!((mean - f64::from(tau)).abs() < 0.15, "{mean} for {tau}");
    }
}

#[test]
fn a_state_put_back_draws_the_same_again() {
    let mut s = sampler(options(2.0, 0.5, 3));
    let draw = |s: &mut Sampler, position: u64| {
        s.sample(&zipf(position), &vec![0; position as usize], None)
            .unwrap()
    };
    (0..20).for_each(|position| {
        draw(&mut s, position);
    });
    let (state, mut copy) = (s.state(), s.clone());
    let ahead: Vec<TokenId> = (20..60).map(|position| draw(&mut s, position)).collect();
    assert_ne!(s.state(), state);
    s.restore(state);
    let again: Vec<TokenId> = (20..60).map(|position| draw(&mut s, position)).collect();
    let copied: Vec<TokenId> = (20..60).map(|position| draw(&mut copy, position)).collect();
    assert_eq!(ahead, again);
    assert_eq!(ahead, copied);
    assert_eq!(s.state(), copy.state());
}

#[test]
fn a_token_without_a_choice_changes_nothing() {
    let mut s = sampler(options(2.0, 0.5, 3));
    let before = s.state();
    let only = Mask::of(2000, [77]);
    assert_eq!(s.sample(&zipf(0), &[], Some(&only)).unwrap(), 77);
    assert_eq!(s.state(), before);
    // Looking at the candidates does not either; drawing does.
    s.candidates(&zipf(0), &[], None).unwrap();
    assert_eq!(s.state(), before);
    s.sample(&zipf(0), &[], None).unwrap();
    assert_ne!(s.state(), before);
}

#[test]
fn the_likeliest_is_kept_however_low_the_bound() {
    let mut s = sampler(options(0.001, 1.0, 3));
    s.restore(State { bound: -5.0 });
    let logits = zipf(0);
    let best = (0..2000)
        .max_by(|&a, &b| logits[a].total_cmp(&logits[b]))
        .unwrap();
    assert_eq!(s.sample(&logits, &[], None).unwrap() as usize, best);
}

#[test]
fn other_cuts_and_greedy_are_refused_beside_it() {
    let base = options(5.0, 0.1, 0);
    for (with, options) in [
        (
            "temperature 0",
            Sampling {
                temperature: 0.0,
                ..base.clone()
            },
        ),
        (
            "top_k",
            Sampling {
                top_k: 40,
                ..base.clone()
            },
        ),
        (
            "typical_p",
            Sampling {
                typical_p: 0.5,
                ..base.clone()
            },
        ),
        (
            "top_p",
            Sampling {
                top_p: 0.9,
                ..base.clone()
            },
        ),
        (
            "min_p",
            Sampling {
                min_p: 0.1,
                ..base.clone()
            },
        ),
    ] {
        let got = options.validate();
        assert!(
            matches!(got, Err(CoreError::Sample(SampleError::Conflict { with: found, .. })) if found == with),
            "{with}: {got:?}"
        );
    }
    base.validate().unwrap();
}
