use serde_json::{Value, json};

use super::{
    toy::{encode, end, forgetful, scripted, session},
    *,
};
use crate::{
    CoreError, TokenId,
    cache::Store,
    constrain::{ConstrainError, Grammar, TokenEnv},
    model::Rows,
    sample::{SampleError, Sampling},
};

/// Runs a request; returns the result, the text of the events, and the chunks of it.
fn run(session: &mut Session, request: &Request) -> (Generation, Vec<String>) {
    let mut chunks = Vec::new();
    let mut tokens = Vec::new();
    let generation = session
        .generate(request, &mut |event| match event {
            Event::Text(text) => chunks.push(text.to_owned()),
            Event::Token(token) => tokens.push(token),
            Event::Prefill { done, total } => assert!(done <= total),
        })
        .unwrap();
    assert_eq!(chunks.concat(), generation.text, "the stream is the text");
    assert_eq!(tokens, generation.tokens, "the stream is the tokens");
    assert_eq!(generation.usage.decoded, generation.tokens.len());
    (generation, chunks)
}

fn greedy(prompt: &[TokenId], max_tokens: usize) -> Request {
    Request {
        max_tokens,
        ..Request::new(prompt.to_vec())
    }
}

/// A session that answers `prompt` with `answer` and then ends.
fn answering(prompt: &[TokenId], answer: &[TokenId]) -> Session {
    let mut script = answer.to_vec();
    script.push(end());
    scripted(4096, prompt.len(), &script).0
}

#[test]
fn a_reused_prefix_gives_the_tokens_of_a_cold_start() {
    let long: Vec<TokenId> = (0..500).map(|i| (i * 7 % 250) as TokenId).collect();
    for sampling in [Sampling::default(), Sampling::at(0.9, 11)] {
        let (mut warm, log) = session(4096);
        for (len, change) in [
            (300, None),
            (300, None),
            (500, None),
            (450, Some(200)),
            (10, None),
        ] {
            let mut prompt = long[..len].to_vec();
            if let Some(at) = change {
                prompt[at] = 255;
            }
            let request = Request {
                sampling: sampling.clone(),
                ..greedy(&prompt, 20)
            };
            let held = warm.held().to_vec();
            let (got, _) = run(&mut warm, &request);
            let (mut cold, _) = session(4096);
            let (want, _) = run(&mut cold, &request);
            assert_eq!(want.usage.reused, 0);
            assert_eq!(got.tokens, want.tokens);
            assert_eq!(got.stop, want.stop);
            let common = held.iter().zip(&prompt).take_while(|(a, b)| a == b).count();
            assert_eq!(got.usage.reused, common.min(len - 1));
            assert_eq!(got.usage.reused + got.usage.prefilled, len);
        }
        assert!(!log.lock().unwrap().truncations.is_empty());
    }
}

#[test]
fn a_conversation_appends_and_costs_only_its_new_tokens() {
    let (mut s, log) = session(4096);
    let mut context = encode("first question");
    for _ in 0..3 {
        let (g, _) = run(&mut s, &greedy(&context, 5));
        context.extend(&g.tokens);
        context.extend(encode(" next"));
    }
    let before = context.len();
    let (g, _) = run(&mut s, &greedy(&context, 5));
    assert!(
        g.usage.prefilled <= encode(" next").len() + 1,
        "{:?}",
        g.usage
    );
    assert_eq!(g.usage.reused + g.usage.prefilled, before);
    let prefills: usize = log.lock().unwrap().passes.iter().map(|p| p.0).sum();
    assert!(prefills <= before + g.tokens.len());
}

#[test]
fn prompts_go_in_chunks_with_the_head_for_the_last_row_only() {
    let (s, log) = session(4096);
    let mut s = s.with_prefill_chunk(100);
    let prompt: Vec<TokenId> = (0..250).collect();
    let mut progress = Vec::new();
    s.generate(&greedy(&prompt, 1), &mut |e| {
        if let Event::Prefill { done, total } = e {
            progress.push((done, total));
        }
    })
    .unwrap();
    assert_eq!(progress, [(0, 250), (100, 250), (200, 250), (250, 250)]);
    let passes = log.lock().unwrap().passes.clone();
    assert_eq!(
        passes,
        [(100, Rows::None), (100, Rows::None), (50, Rows::Last)]
    );
}

#[test]
fn chunks_of_any_size_give_the_same() {
    let prompt: Vec<TokenId> = (0..200).map(|i| i * 3 % 256).collect();
    let want = run(&mut session(4096).0, &greedy(&prompt, 10)).0.tokens;
    for chunk in [0, 1, 3, 199, 200, 1000] {
        let mut s = session(4096).0.with_prefill_chunk(chunk);
        assert_eq!(run(&mut s, &greedy(&prompt, 10)).0.tokens, want);
    }
}

#[test]
fn the_end_token_ends_and_is_no_part_of_the_text() {
    let prompt = encode("hi");
    let answer = encode("abc name");
    let (g, _) = run(&mut answering(&prompt, &answer), &greedy(&prompt, 100));
    assert_eq!(g.stop, StopReason::EndOfText);
    assert_eq!((g.text.as_str(), &g.tokens), ("abc name", &answer));
}

#[test]
fn characters_come_whole() {
    let prompt = encode("hi");
    let answer: Vec<TokenId> = "né€🦀!".bytes().map(TokenId::from).collect();
    let (g, chunks) = run(&mut answering(&prompt, &answer), &greedy(&prompt, 100));
    assert_eq!(g.text, "né€🦀!");
    assert_eq!(chunks, ["n", "é", "€", "🦀", "!"]);
    // Cut off inside a character: said so at the end, and not before.
    let (g, chunks) = run(&mut answering(&prompt, &answer), &greedy(&prompt, 2));
    assert_eq!(
        (g.text.as_str(), g.stop),
        ("n\u{fffd}", StopReason::MaxTokens)
    );
    assert_eq!(chunks, ["n", "\u{fffd}"]);
}

#[test]
fn stop_strings_across_tokens_are_never_given_out() {
    let prompt = encode("hi");
    let answer: Vec<TokenId> = "one<en<end>two".bytes().map(TokenId::from).collect();
    let stop = vec!["<end>".to_owned(), "zzz".to_owned()];
    let request = Request {
        stop,
        ..greedy(&prompt, 100)
    };
    let (g, chunks) = run(&mut answering(&prompt, &answer), &request);
    assert_eq!(g.stop, StopReason::StopString("<end>".into()));
    assert_eq!(g.text, "one<en");
    assert_eq!(g.tokens, answer[.."one<en<end>".len()]);
    assert_eq!(chunks, ["o", "n", "e", "<en"]);
    // What was held back comes when the text ends without the stop string.
    let half: Vec<TokenId> = "one<en".bytes().map(TokenId::from).collect();
    let (g, _) = run(&mut answering(&prompt, &half), &request);
    assert_eq!((g.text.as_str(), g.stop), ("one<en", StopReason::EndOfText));
    let empty = Request {
        stop: vec![String::new()],
        ..greedy(&prompt, 5)
    };
    let got = answering(&prompt, &half).generate(&empty, &mut |_| ());
    assert!(matches!(got, Err(CoreError::EmptyStopString)), "{got:?}");
}

#[test]
fn the_context_is_checked_before_and_kept_during() {
    let (mut s, log) = session(16);
    let prompt: Vec<TokenId> = (0..16).collect();
    let got = s.generate(&greedy(&prompt, 5), &mut |_| ());
    assert!(
        matches!(
            got,
            Err(CoreError::ContextOverflow {
                prompt: 16,
                reserve: 1,
                context: 16
            })
        ),
        "{got:?}"
    );
    assert!(
        log.lock().unwrap().passes.is_empty(),
        "nothing was computed"
    );
    let (g, _) = run(&mut s, &greedy(&prompt[..12], 100));
    assert_eq!((g.tokens.len(), g.stop), (4, StopReason::Context));
    // A prompt that fills the context can still be read.
    let (g, _) = run(&mut s, &greedy(&prompt, 0));
    assert_eq!((g.tokens.len(), g.stop), (0, StopReason::MaxTokens));
    assert_eq!(s.held(), prompt);
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let (mut s, _) = session(64);
    let mut refused = |r: &Request| s.generate(r, &mut |_| ()).unwrap_err();
    assert!(matches!(refused(&greedy(&[], 5)), CoreError::EmptyPrompt));
    assert!(matches!(
        refused(&greedy(&[1, 90_000], 5)),
        CoreError::TokenOutOfRange { id: 90_000, .. }
    ));
    let sampling = Sampling {
        top_p: 2.0,
        ..Sampling::default()
    };
    let bad = Request {
        sampling,
        ..greedy(&[1], 5)
    };
    assert!(matches!(
        refused(&bad),
        CoreError::Sample(SampleError::Option { name: "top_p", .. })
    ));
    let foreign = TokenEnv::new(vec![vec![b'1'], vec![]], &[1], |_| vec![0]).unwrap();
    let grammar = Some(Grammar::json_schema(&foreign, &json!({"const": 1})).unwrap());
    let bad = Request {
        grammar,
        ..greedy(&[1], 5)
    };
    assert!(matches!(
        refused(&bad),
        CoreError::ForeignGrammar { grammar: 2, .. }
    ));
}

#[test]
fn cancelling_leaves_the_partial_text_and_a_usable_session() {
    let prompt: Vec<TokenId> = (0..300).map(|i| i % 200).collect();
    let want = run(&mut session(4096).0, &greedy(&prompt, 10)).0.tokens;
    // In the first chunk of the prompt, in a later one, in the fourth token.
    for (pass, tokens) in [(0, 0), (2, 0), (6, 4)] {
        let (mut s, log) = session(4096);
        let request = greedy(&prompt, 10);
        log.lock().unwrap().cancel_at = Some((pass, request.cancel.clone()));
        let (g, _) = run(&mut s, &request);
        assert_eq!(g.stop, StopReason::Cancelled);
        assert_eq!(g.tokens, want[..tokens], "pass {pass}");
        let (again, _) = run(&mut s, &greedy(&prompt, 10));
        assert_eq!(again.tokens, want);
        assert!(
            pass == 0 || again.usage.reused > 0,
            "what was computed is kept"
        );
    }
    let (mut s, log) = session(4096);
    let request = greedy(&prompt, 10);
    request.cancel.cancel();
    assert_eq!(run(&mut s, &request).0.stop, StopReason::Cancelled);
    assert!(log.lock().unwrap().passes.is_empty());
}

#[test]
fn cancelling_from_the_event_stops_within_one_token() {
    let (mut s, _) = session(4096);
    let request = greedy(&[1, 2, 3], 50);
    let mut seen = 0;
    let g = s
        .generate(&request, &mut |event| {
            if let Event::Token(_) = event {
                seen += 1;
                if seen == 3 {
                    request.cancel.cancel();
                }
            }
        })
        .unwrap();
    assert_eq!((g.tokens.len(), g.stop), (3, StopReason::Cancelled));
}

#[test]
fn a_session_is_usable_after_an_error() {
    let prompt: Vec<TokenId> = (0..200).collect();
    let want = run(&mut session(4096).0, &greedy(&prompt, 8)).0.tokens;
    for pass in [0, 1, 2, 5] {
        let (mut s, log) = session(4096);
        log.lock().unwrap().fail_at = Some(pass);
        assert!(s.generate(&greedy(&prompt, 8), &mut |_| ()).is_err());
        assert_eq!(
            run(&mut s, &greedy(&prompt, 8)).0.tokens,
            want,
            "pass {pass}"
        );
    }
    let (mut s, log) = session(4096);
    log.lock().unwrap().broken_at = Some(4);
    let got = s.generate(&greedy(&prompt, 8), &mut |_| ());
    assert!(
        matches!(
            got,
            Err(CoreError::Sample(SampleError::Logit { token: 3, .. }))
        ),
        "{got:?}"
    );
    assert_eq!(run(&mut s, &greedy(&prompt, 8)).0.tokens, want);
}

#[test]
fn seeds_and_positions_decide_the_noise() {
    let prompt = encode("some words");
    let sample = |seed| {
        let sampling = Sampling::at(1.0, seed);
        run(
            &mut session(4096).0,
            &Request {
                sampling,
                ..greedy(&prompt, 30)
            },
        )
        .0
        .tokens
    };
    assert_eq!(sample(3), sample(3));
    assert_ne!(sample(3), sample(4));
}

#[test]
fn tokens_of_a_padded_head_are_never_chosen() {
    let (mut s, _) = session(4096);
    let vocab = s.tokenizer().vocab() as TokenId;
    let sampling = Sampling::at(50.0, 1);
    let stop = Vec::new();
    let (g, _) = run(
        &mut s,
        &Request {
            sampling,
            stop,
            ..greedy(&[1], 800)
        },
    );
    assert!(g.tokens.iter().all(|&t| t < vocab));
}

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": {"enum": ["abc", "abd", "name"]},
            "list": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
        },
        "required": ["name", "list"],
        "additionalProperties": false,
    })
}

#[test]
fn a_grammar_holds_whatever_the_model_wants() {
    for seed in 0..20 {
        let (mut s, _) = session(4096);
        let grammar = Some(s.compile(&schema()).unwrap());
        let sampling = if seed == 0 {
            Sampling::default()
        } else {
            Sampling::at(1.5, seed)
        };
        let (g, _) = run(
            &mut s,
            &Request {
                grammar,
                sampling,
                ..greedy(&encode("go"), 100)
            },
        );
        assert_eq!(g.stop, StopReason::GrammarDone);
        let value: Value = serde_json::from_str(&g.text).unwrap();
        assert!(["abc", "abd", "name"].contains(&value["name"].as_str().unwrap()));
        assert!(value["list"].as_array().unwrap().len() <= 3);
    }
}

#[test]
fn forced_tokens_cost_no_pass_and_change_nothing() {
    let prompt = encode("go");
    for seed in 0..10 {
        let (mut s, log) = session(4096);
        let grammar = Some(s.compile(&schema()).unwrap());
        let request = Request {
            grammar,
            sampling: Sampling::at(1.0, seed),
            ..greedy(&prompt, 100)
        };
        let (g, _) = run(&mut s, &request);
        let passes = log.lock().unwrap().passes.len();
        assert!(g.usage.forced > 3, "{:?}", g.usage);
        assert!(
            passes + g.usage.forced <= g.tokens.len() + 1,
            "{passes} passes, {:?}",
            g.usage
        );
        // With log-probabilities every token has its own pass, and the tokens are the same.
        let (slow, _) = run(
            &mut session(4096).0,
            &Request {
                log_probs: 2,
                ..request
            },
        );
        assert_eq!(slow.tokens, g.tokens);
        assert_eq!(
            (slow.usage.forced, slow.log_probs.len()),
            (0, g.tokens.len())
        );
    }
}

#[test]
fn forced_tokens_keep_to_the_limits() {
    let prompt = encode("go");
    let whole = {
        let (mut s, _) = session(4096);
        let grammar = Some(s.compile(&schema()).unwrap());
        run(
            &mut s,
            &Request {
                grammar,
                ..greedy(&prompt, 100)
            },
        )
        .0
        .tokens
    };
    for n in 0..whole.len() {
        let (mut s, _) = session(4096);
        let grammar = Some(s.compile(&schema()).unwrap());
        let (g, _) = run(
            &mut s,
            &Request {
                grammar: grammar.clone(),
                ..greedy(&prompt, n)
            },
        );
        assert_eq!(
            (&g.tokens[..], g.stop),
            (&whole[..n], StopReason::MaxTokens)
        );
        if n > 0 {
            let (mut s, _) = session(prompt.len() + n);
            let (g, _) = run(
                &mut s,
                &Request {
                    grammar,
                    ..greedy(&prompt, 100)
                },
            );
            assert_eq!((&g.tokens[..], g.stop), (&whole[..n], StopReason::Context));
        }
    }
}

#[test]
fn a_text_that_has_to_be_complete_is_so_within_any_limit() {
    let prompt = encode("go");
    let (mut refused, mut closed) = (0, 0);
    for (n, seed) in (1..50).flat_map(|n| (0..4).map(move |seed| (n, seed))) {
        // Either limit may be the one that is reached.
        for (context, max_tokens) in [(4096, n), (prompt.len() + n, 4096)] {
            let (mut s, log) = session(context);
            let request = Request {
                grammar: Some(s.compile(&schema()).unwrap()),
                complete: true,
                sampling: Sampling::at(1.5, seed),
                ..greedy(&prompt, max_tokens)
            };
            match s.generate(&request, &mut |_| {}) {
                Ok(g) => {
                    assert_eq!(g.stop, StopReason::GrammarDone);
                    assert!(g.tokens.len() <= n);
                    serde_json::from_str::<Value>(&g.text).unwrap();
                    closed += g.usage.closing;
                }
                Err(CoreError::Constrain(ConstrainError::Budget { least, budget })) => {
                    assert!(least > n && budget == n);
                    assert_eq!(log.lock().unwrap().passes.len(), 0);
                    refused += 1;
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
    assert!(refused > 0 && closed > 0, "{refused} {closed}");
}

#[test]
fn a_grammar_without_a_way_on_is_an_error_and_not_free_text() {
    let (mut s, _) = session(4096);
    let grammar = Some(s.compile(&json!({"const": 12})).unwrap());
    let logit_bias = (0..256).map(|t| (t, f32::NEG_INFINITY)).collect();
    let sampling = Sampling {
        logit_bias,
        ..Sampling::default()
    };
    // Log-probabilities, so that nothing is forced and the mask meets the bias.
    let request = Request {
        grammar,
        sampling,
        log_probs: 1,
        ..greedy(&[1], 9)
    };
    let got = s.generate(&request, &mut |_| ());
    assert!(
        matches!(got, Err(CoreError::Sample(SampleError::NothingAllowed))),
        "{got:?}"
    );
    let unsupported = s.compile(&json!({"not": {}}));
    assert!(
        matches!(
            unsupported,
            Err(CoreError::Constrain(ConstrainError::Schema { .. }))
        ),
        "{unsupported:?}"
    );
}

#[test]
fn log_probs_are_those_of_the_model() {
    let prompt = encode("some words");
    let sampling = Sampling {
        temperature: 0.5,
        top_k: 3,
        repetition_penalty: 1.3,
        ..Sampling::at(0.5, 9)
    };
    let request = Request {
        sampling,
        log_probs: 4,
        ..greedy(&prompt, 12)
    };
    let (mut s, _) = session(4096);
    let (g, _) = run(&mut s, &request);
    assert_eq!(g.log_probs.len(), g.tokens.len());
    for (entry, token) in g.log_probs.iter().zip(&g.tokens) {
        assert_eq!((entry.token, entry.top.len()), (*token, 4));
        assert!(entry.top.windows(2).all(|w| w[0].1 >= w[1].1));
        assert!(entry.log_prob <= entry.top[0].1);
    }
    let sum: f64 = g.log_probs.iter().map(|l| l.log_prob).sum();
    let scores = s
        .score(&prompt, std::slice::from_ref(&g.tokens), &Cancel::new())
        .unwrap();
    assert!(
        (f64::from(scores[0]) - sum).abs() < 1e-3,
        "{scores:?} {sum}"
    );
}

#[test]
fn scores_share_the_prompt_and_leave_it_in_the_cache() {
    let prompt: Vec<TokenId> = (0..150).collect();
    let long: Vec<TokenId> = (0..100).map(|i| i * 5 % 256).collect();
    let continuations = [vec![7], vec![7, 8, 9], Vec::new(), long, vec![7, 8, 10]];
    let (mut s, log) = session(4096);
    let scores = s.score(&prompt, &continuations, &Cancel::new()).unwrap();
    assert_eq!(s.held(), prompt);
    assert_eq!(scores[2], 0.0);
    for (continuation, &score) in continuations.iter().zip(&scores) {
        let alone =
            session(4096)
                .0
                .score(&prompt, std::slice::from_ref(continuation), &Cancel::new());
        assert_eq!(alone.unwrap()[0].to_bits(), score.to_bits());
        // The same sum, one token at a time.
        let (mut one, mut sum) = (session(4096).0, 0.0);
        for i in 0..continuation.len() {
            let context = [&prompt[..], &continuation[..i]].concat();
            sum += one
                .score(&context, &[vec![continuation[i]]], &Cancel::new())
                .unwrap()[0];
        }
        assert!((sum - score).abs() < 1e-2, "{sum} {score}");
    }
    let of_prompt: usize = log.lock().unwrap().passes.iter().take(2).map(|p| p.0).sum();
    assert_eq!(of_prompt, 150);
    assert!(
        log.lock().unwrap().passes[2..]
            .iter()
            .all(|p| p.1 == Rows::All)
    );
}

#[test]
fn a_decoder_that_keeps_no_part_gives_the_same_and_computes_more() {
    let prompt: Vec<TokenId> = (0..20).collect();
    let continuations = [vec![7], vec![7, 8, 9], Vec::new(), vec![7, 8, 10]];
    let (mut whole, mut parts) = (forgetful(64), session(64));
    // The prompt once more after each continuation that left something behind it.
    let scores = whole.0.score(&prompt, &continuations, &Cancel::new());
    let expected = parts.0.score(&prompt, &continuations, &Cancel::new());
    assert_eq!(scores.unwrap(), expected.unwrap());

    for (prompt, reused) in [(&prompt[..], 0), (&prompt[..12], 0), (&[5, 6][..], 0)] {
        let request = greedy(prompt, 6);
        let (found, _) = run(&mut whole.0, &request);
        assert_eq!(found.tokens, run(&mut parts.0, &request).0.tokens);
        assert_eq!(found.usage.reused, reused);
    }
    // What goes on from the last one is not computed again.
    let grown = [whole.0.held(), &[3, 4]].concat();
    let (found, _) = run(&mut whole.0, &greedy(&grown, 2));
    assert_eq!(found.usage.reused, grown.len() - 2);
    assert!(whole.1.lock().unwrap().truncations.iter().all(|&n| n == 0));
}

#[test]
fn what_has_no_pages_is_kept_in_no_store_and_needs_none() {
    let mut session = answering(&[1, 2, 3], &[4, 5]);
    session
        .generate(&greedy(&[1, 2, 3], 2), &mut |_| ())
        .unwrap();
    assert!(session.cache().is_none());
    session.keep_in_store().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let session = session.with_store(Store::new(folder.path(), u64::MAX).unwrap());
    let refused = session.keep_in_store();
    assert!(
        matches!(refused, Err(CoreError::OneSequence)),
        "{refused:?}"
    );
}

#[test]
fn scores_are_checked() {
    let (mut s, log) = session(16);
    let prompt: Vec<TokenId> = (0..14).collect();
    let got = s.score(&prompt, &[vec![1], vec![1, 2, 3]], &Cancel::new());
    assert!(
        matches!(got, Err(CoreError::ContextOverflow { reserve: 3, .. })),
        "{got:?}"
    );
    let got = s.score(&prompt, &[vec![60_000]], &Cancel::new());
    assert!(
        matches!(got, Err(CoreError::TokenOutOfRange { id: 60_000, .. })),
        "{got:?}"
    );
    assert!(matches!(
        s.score(&[], &[], &Cancel::new()),
        Err(CoreError::EmptyPrompt)
    ));
    let cancel = Cancel::new();
    cancel.cancel();
    assert!(matches!(
        s.score(&prompt, &[], &cancel),
        Err(CoreError::Cancelled)
    ));
    assert!(log.lock().unwrap().passes.is_empty());
}

#[test]
fn the_trait_is_object_safe_and_can_move_to_a_thread() {
    fn check<T: Send + ?Sized>() {}
    check::<dyn Generate>();
    check::<Request>();
    let mut boxed: Box<dyn Generate> = Box::new(session(64).0);
    let g = std::thread::spawn(move || boxed.generate(&greedy(&[1, 2], 3), &mut |_| ()).unwrap());
    assert_eq!(g.join().unwrap().tokens.len(), 3);
}
