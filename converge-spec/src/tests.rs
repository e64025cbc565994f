//! Whatever is guessed, the text is that of plain decoding.

use converge_core::{
    Result, TokenId,
    constrain::Grammar,
    generate::{Generate as _, Generation, Place, Request, Session, StopReason},
    sample::{Sampling, noise},
};
use proptest::prelude::*;
use serde_json::json;

use crate::{
    Drafter, Gate, Guess, ModelDrafter, SpecError, Speculative, SuffixDrafter,
    toy::{self, END, Toy},
};

/// Ways to guess that know the text, and spoil it.
#[derive(Clone, Copy, Debug)]
enum Way {
    Right,
    Wrong,
    Partly,
    Random,
    Nothing,
    TooLong,
    Invalid,
}

const WAYS: [Way; 7] = [
    Way::Right,
    Way::Wrong,
    Way::Partly,
    Way::Random,
    Way::Nothing,
    Way::TooLong,
    Way::Invalid,
];

/// Guesses in such a way.
struct Known {
    way: Way,
    text: Vec<TokenId>,
    passes: u64,
}

impl Drafter for Known {
    fn name(&self) -> &'static str {
        "known"
    }

    fn priors(&self) -> &[f64] {
        // So sure that the controller never refuses.
        &[0.999]
    }

    fn commit(&mut self, _: &[TokenId]) {}

    fn propose(&mut self, place: &Place<'_>, gate: &mut Gate<'_>) -> Result<()> {
        self.passes += 1;
        let ahead = self.text.get(place.history.len()..).unwrap_or_default();
        let mut guess = |token: TokenId| gate.push(Guess { token, class: 0 });
        match self.way {
            Way::Right => ahead.iter().for_each(|&t| guess(t)),
            Way::Wrong => ahead.iter().for_each(|&t| guess((t + 1) % END)),
            Way::Partly => {
                let wrong = self.passes as usize % 5;
                let spoil = |(i, &t): (usize, &u32)| if i == wrong { (t + 1) % END } else { t };
                ahead.iter().enumerate().map(spoil).for_each(guess);
            }
            Way::Random => {
                (0..9).for_each(|i| guess((noise::bits(self.passes, i, 3) % 8) as TokenId));
            }
            Way::Nothing => {}
            Way::TooLong => (0..500).for_each(|i| guess(ahead.get(i).copied().unwrap_or(0))),
            Way::Invalid => [ahead.first().copied().unwrap_or(1), 8, TokenId::MAX, END]
                .into_iter()
                .for_each(guess),
        }
        Ok(())
    }
}

fn known(way: Way, text: &[TokenId]) -> Box<dyn Drafter> {
    Box::new(Known {
        way,
        text: text.to_vec(),
        passes: 0,
    })
}

fn model(own: Option<u64>, context: usize) -> Box<dyn Drafter> {
    let decoder = Box::new(Toy::new(context, own, true));
    let tokenizer = toy::tokenizer;
    Box::new(ModelDrafter::new(decoder, tokenizer(), &tokenizer()).unwrap())
}

/// All sources: those that know the text, those that learn it, models that agree with it always,
/// often, and up to a full cache, and several at once.
fn sources(text: &[TokenId]) -> Vec<Vec<Box<dyn Drafter>>> {
    let suffix = || -> Box<dyn Drafter> { Box::new(SuffixDrafter::new()) };
    let mut all: Vec<Vec<Box<dyn Drafter>>> = WAYS.map(|way| vec![known(way, text)]).into();
    all.extend([
        vec![suffix()],
        vec![model(None, 1000)],
        vec![model(Some(5), 1000)],
        vec![model(Some(5), 20)],
        vec![suffix(), model(Some(6), 1000), known(Way::Partly, text)],
        vec![],
    ]);
    all
}

fn generate(
    session: &mut impl converge_core::generate::Generate,
    request: &Request,
) -> (Generation, Vec<String>) {
    let mut events = Vec::new();
    let generation = session.generate(request, &mut |event| events.push(format!("{event:?}")));
    (generation.unwrap(), events)
}

/// Compares each source with plain decoding: what comes, what is held afterwards, and the next
/// generation of the same session with one from scratch.
fn compare(make: impl Fn() -> Session, request: &Request) -> Generation {
    let (want, events) = generate(&mut make(), request);
    let text = [request.prompt.as_slice(), &want.tokens].concat();
    let mut next = request.clone();
    next.prompt = text.clone();
    next.prompt.truncate(make().context() - 4);
    next.prompt.push(1);
    next.max_tokens = 3;
    let (then, _) = generate(&mut make(), &next);
    for (i, drafters) in sources(&text).into_iter().enumerate() {
        let mut speculative = Speculative::new(make(), drafters);
        let (got, seen) = generate(&mut speculative, request);
        assert_eq!(got.tokens, want.tokens, "source {i}");
        assert_eq!(
            (&got.text, &got.stop, &got.log_probs, &seen),
            (&want.text, &want.stop, &want.log_probs, &events),
            "source {i}"
        );
        let held = speculative.session().held();
        assert!(
            text.starts_with(held),
            "source {i} holds {held:?} of {text:?}"
        );
        let (after, _) = generate(&mut speculative, &next);
        assert_eq!(after.tokens, then.tokens, "source {i}");
        let stats = speculative.stats();
        let sum = |f: fn(&crate::SourceStats) -> usize| stats.sources.iter().map(f).sum::<usize>();
        assert!(stats.tokens <= stats.passes + sum(|s| s.accepted));
        let chosen = |g: &Generation| g.usage.decoded - g.usage.forced;
        // Ends of texts are chosen, too.
        let tokens = chosen(&got) + chosen(&after);
        assert!((tokens..=tokens + 2).contains(&stats.tokens));
        assert!(sum(|s| s.accepted) <= sum(|s| s.drafted));
        assert_eq!(stats.passes, stats.plain_passes + sum(|s| s.passes));
    }
    want
}

fn options() -> impl Strategy<Value = Sampling> {
    let drawn =
        (any::<u64>(), 0.3f32..1.5, any::<bool>()).prop_map(|(seed, temperature, penal)| {
            Sampling {
                repetition_penalty: if penal { 1.2 } else { 1.0 },
                frequency_penalty: if penal { 0.1 } else { 0.0 },
                top_p: 0.95,
                ..Sampling::at(temperature, seed)
            }
        });
    prop_oneof![Just(Sampling::default()), drawn]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_text_is_that_of_plain_decoding(
        prompt in prop::collection::vec(0u32..7, 1..12),
        sampling in options(),
        max_tokens in 0usize..70,
        context in 20usize..100,
        ends in any::<bool>(),
        stop in prop::option::of("[ab,12]{2,3}"),
        held in any::<bool>(),
        log_probs in 0usize..2,
    ) {
        let mut request = Request::new(prompt);
        request.sampling = sampling;
        request.max_tokens = max_tokens;
        request.stop.extend(stop);
        request.log_probs = log_probs;
        if held {
            let schema = json!({ "type": "array", "items": { "type": "integer" }, "minItems": 3 });
            let env = toy::session(context, ends).token_env().unwrap();
            request.grammar = Some(Grammar::json_schema(&env, &schema).unwrap());
        }
        compare(|| toy::session(context, ends), &request);
    }
}

#[test]
fn every_way_to_end_is_met_inside_drafts() {
    let mut met = Vec::new();
    for seed in 0..40 {
        for (max_tokens, stop, context) in [
            (60, "", 200),
            (200, "12", 200),
            (200, "", 50),
            (200, "", 400),
        ] {
            let mut request = Request::new(vec![0, 1, 2]);
            request.sampling = Sampling::at(0.9, seed);
            request.max_tokens = max_tokens;
            request
                .stop
                .extend((!stop.is_empty()).then(|| stop.to_owned()));
            met.push(compare(|| toy::session(context, seed % 2 == 0), &request).stop);
        }
    }
    for want in [
        StopReason::EndOfText,
        StopReason::MaxTokens,
        StopReason::Context,
        StopReason::StopString("12".to_owned()),
    ] {
        assert!(met.contains(&want), "{want:?}");
    }
}

#[test]
fn guesses_save_passes() {
    let mut request = Request::new(vec![0, 1, 2]);
    request.max_tokens = 120;
    let make = || toy::session(400, false);
    let (want, _) = generate(&mut make(), &request);
    let text = [request.prompt.as_slice(), &want.tokens].concat();
    let passes = |drafters| {
        let mut speculative = Speculative::new(make(), drafters);
        generate(&mut speculative, &request);
        speculative.take_stats().passes
    };
    assert_eq!(passes(vec![]), 120);
    assert!(passes(vec![known(Way::Right, &text)]) < 40);
    // Texts of so few tokens repeat themselves.
    assert!(passes(vec![Box::new(SuffixDrafter::new())]) < 90);
}

#[test]
fn models_of_other_vocabularies_are_refused() {
    let same = toy::tokenizer();
    let first = same.token_text(8).into_owned();
    for (tokens, id, draft, target) in [
        (
            &["a", "b", "]", "[", ",", "1", "2", "<|end|>"][..],
            2,
            "]",
            "[",
        ),
        (
            &["a", "b", "[", "]", ",", "1", "2", "<|end|>", "z"],
            8,
            "z",
            first.as_str(),
        ),
    ] {
        let decoder = Box::new(Toy::new(10, None, true));
        match ModelDrafter::new(decoder, toy::tokenizer_of(tokens), &same) {
            Err(SpecError::Vocabulary {
                id: i,
                draft: d,
                target: t,
            }) => {
                assert_eq!((i, d.as_str(), t.as_str()), (id, draft, target));
            }
            other => panic!("{other:?}"),
        }
    }
}
