//! Sessions, grammars and scores on a real model.

#![cfg(test)] // so that the lints know the helpers for tests, too

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use converge_core::{
    LoadOptions, TokenId,
    backend::candle::{CandleModel, CandleOptions, WeightMode},
    chat::{ChatTemplate, Message, RenderOptions},
    constrain::{Grammar, TokenEnv},
    generate::{Cancel, Event, Generate, Request, Session, StopReason},
    load,
    sample::Sampling,
    tokenizer::{Special, Tokenizer},
};
use converge_quant::Gguf;
use converge_tests::model as file;
use serde_json::{Value, json};

struct Model {
    weights: CandleModel,
    tokenizer: Arc<Tokenizer>,
    chat: Arc<ChatTemplate>,
    env: TokenEnv,
}

/// Loaded once for all tests of this file, in f32: there a batch and its tokens one by one agree
/// far beyond what could change a greedy choice.
fn model() -> &'static Model {
    static MODEL: OnceLock<Model> = OnceLock::new();
    MODEL.get_or_init(|| {
        let gguf = Gguf::open(file("smollm2-135m")).unwrap();
        let options = CandleOptions {
            mode: WeightMode::F32,
            context: 1024,
            ..CandleOptions::default()
        };
        let tokenizer = Tokenizer::from_gguf(gguf.metadata()).unwrap();
        let env = TokenEnv::of(&tokenizer).unwrap();
        Model {
            weights: CandleModel::load(&gguf, &options).unwrap(),
            chat: Arc::new(ChatTemplate::from_gguf(gguf.metadata()).unwrap()),
            tokenizer: Arc::new(tokenizer),
            env,
        }
    })
}

/// One test at a time: together they would only wait for each other's threads.
fn alone() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

fn session() -> Session {
    let m = model();
    Session::new(
        Box::new(m.weights.decoder()),
        m.tokenizer.clone(),
        m.chat.clone(),
    )
    .with_token_env(m.env.clone())
}

/// A user's question in the model's own format.
fn ask(question: &str) -> Vec<TokenId> {
    let text = format!("<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n");
    model().tokenizer.encode(&text, Special::Parse).unwrap()
}

fn plain(text: &str) -> Vec<TokenId> {
    model().tokenizer.encode(text, Special::Text).unwrap()
}

#[test]
fn a_file_becomes_a_session_in_one_call() {
    let _alone = alone();
    let path = file("smollm2-135m");
    let options = LoadOptions {
        context: 64,
        ..LoadOptions::default()
    };
    let mut s = load(&path, &options).unwrap();
    assert_eq!((s.context(), s.exact()), (64, true));
    let options = RenderOptions::default();
    let text = s
        .chat()
        .render(&[Message::user("Hello!")], &options)
        .unwrap();
    let prompt = s.tokenizer().encode(&text, Special::Parse).unwrap();
    let g = s
        .generate(
            &Request {
                max_tokens: 12,
                ..Request::new(prompt)
            },
            &mut |_| (),
        )
        .unwrap();
    assert!(!g.text.is_empty() && g.usage.decode_seconds > 0.0);
    for (context, file) in [
        (0, &path),
        (1 << 40, &path),
        (64, &path.with_extension("missing")),
    ] {
        let options = LoadOptions {
            context,
            ..LoadOptions::default()
        };
        assert!(load(file, &options).is_err());
    }
}

#[test]
fn it_answers_and_streams_what_it_answers() {
    let _alone = alone();
    let mut s = session();
    let request = Request {
        max_tokens: 40,
        ..Request::new(ask("What is the capital of France?"))
    };
    let mut streamed = String::new();
    let g = s
        .generate(&request, &mut |event| {
            if let Event::Text(text) = event {
                streamed.push_str(text);
            }
        })
        .unwrap();
    assert!(g.text.contains("Paris"), "{}", g.text);
    assert_eq!(streamed, g.text);
    assert_eq!(g.stop, StopReason::EndOfText);
    assert_eq!(model().tokenizer.decode(&g.tokens, true), g.text);
}

#[test]
fn a_reused_cache_gives_what_a_cold_one_gives() {
    let _alone = alone();
    let (a, b) = (
        ask("Count from one to five."),
        ask("Count from one to seven."),
    );
    let cold = |prompt: &Vec<TokenId>| {
        let request = Request {
            max_tokens: 24,
            ..Request::new(prompt.clone())
        };
        session().generate(&request, &mut |_| ()).unwrap()
    };
    let mut warm = session();
    for prompt in [&a, &b, &b, &a] {
        let request = Request {
            max_tokens: 24,
            ..Request::new(prompt.clone())
        };
        let g = warm.generate(&request, &mut |_| ()).unwrap();
        assert_eq!(g.tokens, cold(prompt).tokens);
    }
    // A conversation: the second turn reads its own tokens only.
    let first = cold(&a);
    let mut context = a.clone();
    context.extend(&first.tokens);
    let mut s = session();
    s.generate(
        &Request {
            max_tokens: 24,
            ..Request::new(a.clone())
        },
        &mut |_| (),
    )
    .unwrap();
    context.extend(plain(" And"));
    let request = Request {
        max_tokens: 8,
        ..Request::new(context.clone())
    };
    let g = s.generate(&request, &mut |_| ()).unwrap();
    assert!(g.usage.prefilled <= 3, "{:?}", g.usage);
    assert_eq!(
        g.tokens,
        session().generate(&request, &mut |_| ()).unwrap().tokens
    );
}

/// The calls of an agent: a few templates in turn, each with another end.
#[test]
fn prompts_in_turn_go_on_from_what_each_left() {
    let _alone = alone();
    let options = LoadOptions {
        context: 1024,
        ..LoadOptions::default()
    };
    let mut turns = load(&file("smollm2-135m"), &options).unwrap();
    let mut cold = load(&file("smollm2-135m"), &options)
        .unwrap()
        .without_prefixes();
    let long = "Loom 3 stood still for a week in November, so the engineer was called. ".repeat(25);
    let ends = ["Who was called?", "Which loom?", "In which month?"];
    for (round, end) in ends.iter().enumerate() {
        for place in ["Kelderby", "Orrick"] {
            let prompt = ask(&format!("Minutes of {place}. {long} {end}"));
            let request = Request {
                max_tokens: 12,
                ..Request::new(prompt.clone())
            };
            cold.clear().unwrap();
            let expected = cold.generate(&request, &mut |_| ()).unwrap();
            let found = turns.generate(&request, &mut |_| ()).unwrap();
            assert_eq!(found.tokens, expected.tokens);
            assert_eq!(expected.usage.reused, 0);
            if round > 0 {
                assert!(found.usage.prefilled < 30, "{:?}", found.usage);
            }
        }
    }
}

fn contract_schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "customer_name": {"type": "string", "maxLength": 30},
            "monthly_fee": {"type": "integer", "minimum": 0, "maximum": 9999},
            "currency": {"enum": ["EUR", "USD"]},
            "active": {"type": "boolean"},
        },
        "required": ["customer_name", "monthly_fee", "currency", "active"],
        "additionalProperties": false,
    })
}

#[test]
fn json_is_held_and_forced_tokens_change_nothing() {
    let _alone = alone();
    let prompt = ask(
        "Extract as JSON: The contract with Harbour Mills is active and costs 250 EUR a month.",
    );
    let grammar = session().compile(&contract_schema()).unwrap();
    for seed in 0..3 {
        let sampling = match seed {
            0 => Sampling::default(),
            _ => Sampling {
                temperature: 1.2,
                top_p: 0.95,
                seed,
                ..Sampling::default()
            },
        };
        let request = Request {
            grammar: Some(grammar.clone()),
            max_tokens: 120,
            sampling,
            ..Request::new(prompt.clone())
        };
        let g = session().generate(&request, &mut |_| ()).unwrap();
        assert_eq!(g.stop, StopReason::GrammarDone, "{}", g.text);
        let value: Value = serde_json::from_str(&g.text).unwrap();
        assert!(value["monthly_fee"].as_u64().unwrap() <= 9999);
        assert_eq!(value.as_object().unwrap().len(), 4);
        assert!(g.usage.forced >= 12, "{:?} {}", g.usage, g.text);
        // Token by token, as log-probabilities want it, it comes out the same.
        let slow = Request {
            log_probs: 1,
            ..request
        };
        assert_eq!(
            session().generate(&slow, &mut |_| ()).unwrap().tokens,
            g.tokens
        );
    }
}

#[test]
fn wholly_forced_text_is_tokenized_canonically() {
    let _alone = alone();
    let m = model();
    let text = r#"{"customer_name":"Harbour Mills Ltd.","note":"The fee is 1,200 € per month."}"#;
    let schema = json!({"const": serde_json::from_str::<Value>(text).unwrap()});
    let grammar = Some(Grammar::json_schema(&m.env, &schema).unwrap());
    let request = Request {
        grammar,
        ..Request::new(ask("Say it."))
    };
    let g = session().generate(&request, &mut |_| ()).unwrap();
    assert_eq!((g.text.as_str(), g.stop), (text, StopReason::GrammarDone));
    assert_eq!(g.tokens, plain(text));
    assert_eq!(g.usage.forced, g.tokens.len());
}

const CONTRACT: &str = "Contract 17/B with Harbour Mills. \"The monthly fee\" is 250 EUR,\npayable in \
     advance.\nIt ends on 31 March 2027 unless either party gives notice three months before. The \
     supplier delivers twelve looms — café blue — to the old mill by the river.\n";

#[test]
fn a_quote_is_a_substring_of_its_source() {
    let _alone = alone();
    let source: String = (0..40).map(|i| format!("§{i} {CONTRACT}")).collect();
    let schema = json!({
        "type": "object",
        "properties": {
            "quote": {"type": "string", "minLength": 10, "maxLength": 120, "x-substring": {"words": source}},
            "found": {"type": "boolean"},
        },
        "required": ["quote", "found"],
    });
    let m = model();
    let grammar = Grammar::json_schema(&m.env, &schema).unwrap();
    let prompt = ask(&format!(
        "{CONTRACT}\nQuote the sentence that says when the contract ends."
    ));
    for seed in 0..3 {
        let sampling = match seed {
            0 => Sampling::default(),
            _ => Sampling {
                temperature: 1.5,
                seed,
                ..Sampling::default()
            },
        };
        let request = Request {
            grammar: Some(grammar.clone()),
            max_tokens: 150,
            sampling,
            ..Request::new(prompt.clone())
        };
        let g = session().generate(&request, &mut |_| ()).unwrap();
        assert_eq!(g.stop, StopReason::GrammarDone);
        let value: Value = serde_json::from_str(&g.text).unwrap();
        let quote = value["quote"].as_str().unwrap();
        assert!(source.contains(quote), "{quote:?}");
        assert!((10..=120).contains(&quote.chars().count()), "{quote:?}");
    }
}

#[test]
fn scores_prefer_what_is_true() {
    let _alone = alone();
    let mut s = session();
    let prompt = plain("The capital of France is");
    let continuations: Vec<Vec<TokenId>> = [" Paris.", " Berlin.", " a banana."]
        .iter()
        .map(|t| plain(t))
        .collect();
    let scores = s.score(&prompt, &continuations, &Cancel::new()).unwrap();
    assert!(scores[0] > scores[1] && scores[1] > scores[2], "{scores:?}");
    assert_eq!(s.held(), prompt);
    // The same sums as log-probabilities along the way.
    let request = Request {
        max_tokens: 4,
        log_probs: 1,
        ..Request::new(prompt.clone())
    };
    let g = s.generate(&request, &mut |_| ()).unwrap();
    let sum: f64 = g.log_probs.iter().map(|l| l.log_prob).sum();
    let score = s.score(&prompt, &[g.tokens], &Cancel::new()).unwrap()[0];
    assert!((f64::from(score) - sum).abs() < 1e-3, "{score} {sum}");
}

#[test]
fn a_cancel_ends_a_long_prompt_and_the_session_goes_on() {
    let _alone = alone();
    let mut s = session();
    let prompt: Vec<TokenId> = plain(&CONTRACT.repeat(10));
    let request = Request {
        max_tokens: 5,
        ..Request::new(prompt)
    };
    let cancel = request.cancel.clone();
    let g = s
        .generate(&request, &mut |event| {
            if let Event::Prefill { done, .. } = event
                && done > 0
            {
                cancel.cancel();
            }
        })
        .unwrap();
    assert_eq!(
        (g.stop, g.tokens.len(), s.held().len()),
        (StopReason::Cancelled, 0, 128)
    );
    let g = s.generate(
        &Request {
            max_tokens: 5,
            ..Request::new(ask("Hello"))
        },
        &mut |_| (),
    );
    assert!(!g.unwrap().text.is_empty());
}
