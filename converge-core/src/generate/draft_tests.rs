//! Whatever a draft guesses, the text is the same.

use proptest::prelude::*;
use serde_json::json;

use super::{
    toy::{encode, end, scripted, session},
    *,
};
use crate::{
    Result, TokenId,
    constrain::Grammar,
    sample::{Dry, Mirostat, Sampling, noise},
};

/// Ways to guess.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// What the text will be.
    Right,
    /// Never what the text will be.
    Wrong,
    /// Right up to a token that changes from pass to pass.
    Partly,
    Random,
    /// More than was asked for, and no tokens of any vocabulary.
    Invalid,
    /// An end token in the middle.
    Ends,
}

const WAYS: [Way; 6] = [
    Way::Right,
    Way::Wrong,
    Way::Partly,
    Way::Random,
    Way::Invalid,
    Way::Ends,
];

struct Guess {
    way: Way,
    text: Vec<TokenId>,
    length: usize,
    passes: Vec<Checked>,
}

impl Draft for Guess {
    fn begin(&mut self, request: &Request) {
        assert!(self.passes.is_empty() && !request.prompt.is_empty());
    }

    fn propose(&mut self, place: &Place<'_>, out: &mut Vec<TokenId>) -> Result<()> {
        let said = place.history.len() - place.prompt;
        let ahead = self.text.get(said..).unwrap_or_default().iter().copied();
        let n = self.length.min(place.most);
        let nth = self.passes.len() as u64;
        let draw = |i: usize| noise::bits(nth, i as u64, 7) as TokenId % 250;
        match self.way {
            Way::Right => out.extend(ahead.take(n)),
            Way::Wrong => out.extend(ahead.map(|t| (t + 1) % 250).take(n)),
            Way::Partly => {
                out.extend(ahead.take(n));
                let at = nth as usize % n;
                if let Some(token) = out.get_mut(at) {
                    *token = (*token + 3) % 250;
                }
            }
            Way::Random => out.extend((0..n).map(draw)),
            Way::Invalid => {
                out.extend(ahead.take(2));
                out.extend([TokenId::MAX, 1 << 20, 3]);
                out.extend(0..self.length as TokenId * 100);
            }
            Way::Ends => {
                out.extend(ahead.take(1));
                out.push(end());
                out.extend([1, 2, 3]);
            }
        }
        Ok(())
    }

    fn checked(&mut self, pass: &Checked) {
        assert!(pass.accepted <= pass.drafted && pass.drafted < pass.tokens);
        self.passes.push(*pass);
    }
}

/// Runs a request with each way to guess, and compares with plain decoding: the result, and what a
/// session says after it.
fn compare(make: impl Fn() -> Session, request: &Request, length: usize) {
    let (mut plain, mut events) = (make(), Vec::new());
    let want = plain
        .generate(request, &mut |event| events.push(format!("{event:?}")))
        .unwrap();
    let mut after = request.clone();
    after.prompt.extend(&want.tokens);
    after.prompt.truncate(plain.context() - 5);
    after.prompt.push(9);
    after.grammar = None;
    after.max_tokens = 3;
    let then = make().generate(&after, &mut |_| ()).unwrap().tokens;
    for way in WAYS {
        let (mut drafted, mut seen) = (make(), Vec::new());
        let mut guess = Guess {
            way,
            text: want.tokens.clone(),
            length,
            passes: Vec::new(),
        };
        let got = drafted
            .generate_drafted(request, &mut guess, &mut |event| {
                seen.push(format!("{event:?}"));
            })
            .unwrap();
        assert_eq!(got.tokens, want.tokens, "{way:?}");
        assert_eq!(got.text, want.text, "{way:?}");
        assert_eq!(got.stop, want.stop, "{way:?}");
        assert_eq!(got.log_probs, want.log_probs, "{way:?}");
        assert_eq!(seen, events, "{way:?}");
        assert!(drafted.held().len() <= drafted.context());
        let held: Vec<_> = request.prompt.iter().chain(&got.tokens).copied().collect();
        assert!(held.starts_with(drafted.held()), "{way:?}");
        let (drafts, right) = (got.usage.drafted, got.usage.accepted);
        match way {
            Way::Wrong => assert_eq!(right, 0),
            Way::Right => {
                assert_eq!(right, drafts);
                assert_eq!(got.usage.passes, guess.passes.len());
                let free = got.usage.decoded - got.usage.forced;
                if free > 10 * length && length > 1 {
                    assert!(got.usage.passes < free / 2 + 2, "{:?}", got.usage);
                }
            }
            _ => {}
        }
        let again = drafted.generate(&after, &mut |_| ()).unwrap();
        assert_eq!(again.tokens, then, "{way:?}");
    }
}

fn kinds_of_sampling(seed: u64) -> Vec<Sampling> {
    let drawn = Sampling::at(0.8, seed);
    vec![
        Sampling::default(),
        drawn.clone(),
        Sampling {
            top_k: 20,
            top_p: 0.9,
            min_p: 0.05,
            repetition_penalty: 1.3,
            frequency_penalty: 0.2,
            presence_penalty: 0.1,
            ..drawn.clone()
        },
        Sampling {
            dry: Some(Dry::default()),
            repetition_penalty: 1.1,
            ..Sampling::default()
        },
        Sampling {
            mirostat: Some(Mirostat::default()),
            ..drawn
        },
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn drafts_never_change_a_text(
        seed in any::<u64>(),
        prompt in prop::collection::vec(0u32..250, 1..40),
        max_tokens in 0usize..70,
        context in 45usize..120,
        length in 1usize..20,
        log_probs in 0usize..2,
    ) {
        for sampling in kinds_of_sampling(seed) {
            let request = Request {
                sampling,
                max_tokens,
                log_probs: log_probs * 3,
                ..Request::new(prompt.clone())
            };
            compare(|| session(context).0, &request, length);
        }
    }
}

#[test]
fn ends_and_stop_strings_inside_a_draft_end_the_text() {
    let prompt = encode("na me");
    let mut script = encode("abcabc name: abcabc stop here and no further");
    script.push(end());
    script.extend(encode("more"));
    for stop in [vec![], vec!["bc st".to_owned()], vec!["zz".to_owned()]] {
        for max_tokens in [1, 2, 7, 200] {
            let request = Request {
                stop: stop.clone(),
                max_tokens,
                ..Request::new(prompt.clone())
            };
            for length in [1, 4, 60] {
                compare(|| scripted(400, prompt.len(), &script).0, &request, length);
            }
        }
    }
}

#[test]
fn a_grammar_holds_a_draft_too() {
    let schema = json!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "maxLength": 12 },
            "list": { "type": "array", "items": { "type": "integer" }, "maxItems": 4 },
        },
        "required": ["name", "list"],
        "additionalProperties": false,
    });
    let grammar = session(400).0.compile(&schema).unwrap();
    let regex = Grammar::regex(&session(400).0.token_env().unwrap(), "[ab]{3,40}x").unwrap();
    for grammar in [grammar, regex] {
        for sampling in kinds_of_sampling(5) {
            for (log_probs, complete) in [(0, false), (0, true), (2, false), (2, true)] {
                for max_tokens in [30, 60] {
                    let request = Request {
                        grammar: Some(grammar.clone()),
                        complete,
                        sampling: sampling.clone(),
                        max_tokens,
                        log_probs,
                        ..Request::new(encode("ab"))
                    };
                    compare(|| session(400).0, &request, 6);
                }
            }
        }
    }
}

#[test]
fn a_draft_that_fails_ends_the_generation_and_nothing_is_lost() {
    struct Fails;
    impl Draft for Fails {
        fn begin(&mut self, _: &Request) {}
        fn propose(&mut self, _: &Place<'_>, _: &mut Vec<TokenId>) -> Result<()> {
            Err(crate::CoreError::EmptyPrompt)
        }
        fn checked(&mut self, _: &Checked) {}
    }
    let mut session = session(100).0;
    let request = Request::new(encode("abc"));
    assert!(
        session
            .generate_drafted(&request, &mut Fails, &mut |_| ())
            .is_err()
    );
    let got = session.generate(&request, &mut |_| ()).unwrap();
    let cold = super::toy::session(100).0.generate(&request, &mut |_| ());
    assert_eq!(got.tokens, cold.unwrap().tokens);
}
