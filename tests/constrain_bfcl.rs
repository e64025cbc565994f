//! Ten thousand generations held to the function schemas of the Berkeley Function Calling
//! Leaderboard: none gives an invalid call, whatever the logits and however small the budget.
//!
//! `CONVERGE_BFCL_MODEL` names the model of the real ones, `--nocapture` shows the figures.

#![cfg(test)] // so that the lints know the helpers for tests, too

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use converge_core::{
    CoreError, Result, TokenId,
    chat::{ChatTemplate, Message, RenderOptions, ToolDef},
    constrain::{CallFormat, ConstrainError, Grammar, TokenEnv},
    generate::{Batch, Cancel, Generate as _, Generation, Request, Session, StopReason},
    load,
    model::{Decoder, Logits, Rows},
    sample::{Sampling, noise},
    tokenizer::{Special, Tokenizer},
};
use converge_quant::Gguf;
use converge_tests::{
    bfcl::{Function, check, functions},
    model,
};
use rayon::prelude::*;
use serde::de::IgnoredAny;
use serde_json::Value;

const RANDOM: usize = 9500;
const REAL: usize = 500;
/// The vocabulary of the random ones.
const VOCABULARY: &str = "smollm2-135m";
/// Longest completion looked for.
const LONGEST: usize = 4000;

/// A function with its compiled schema.
struct Case {
    function: Function,
    grammar: Grammar,
    /// Tokens of a short completion.
    least: usize,
    compiled: Duration,
}

/// All functions whose schema can be held, and why the others cannot.
fn cases(env: &TokenEnv) -> (Vec<Case>, BTreeMap<String, usize>) {
    let compile = |function: Function| {
        let start = Instant::now();
        let compiled = Grammar::json_schema(env, &function.schema);
        let time = start.elapsed();
        let grammar = compiled.map_err(|error| error.to_string())?;
        let way = grammar.start().completion(LONGEST);
        let way = way.unwrap_or_else(|| panic!("no completion: {}", function.schema));
        Ok(Case {
            function,
            grammar,
            least: way.len(),
            compiled: time,
        })
    };
    let (mut cases, mut refused) = (Vec::new(), BTreeMap::new());
    let all: Vec<std::result::Result<Case, String>> =
        functions().into_par_iter().map(compile).collect();
    for case in all {
        match case {
            Ok(case) => cases.push(case),
            Err(reason) => *refused.entry(reason).or_insert(0) += 1,
        }
    }
    (cases, refused)
}

/// Says the same logits after every token.
struct Fixed {
    logits: Arc<[f32]>,
    len: usize,
}

impl Decoder for Fixed {
    fn forward(&mut self, tokens: &[TokenId], rows: Rows, _: &Cancel) -> Result<Logits> {
        self.len += tokens.len();
        Ok(Logits {
            data: self.logits.repeat(rows.of(tokens.len())),
            vocab: self.logits.len(),
        })
    }

    fn len(&self) -> usize {
        self.len
    }

    fn truncate(&mut self, len: usize) -> Result<()> {
        self.len = self.len.min(len);
        Ok(())
    }

    fn context(&self) -> usize {
        1 << 16
    }

    fn vocab(&self) -> usize {
        self.logits.len()
    }

    fn exact(&self) -> bool {
        true
    }
}

/// The text without exponents: random digits after an `e` are JSON, but beyond any float.
fn without_exponents(text: &str) -> String {
    let (mut out, mut string, mut skip, mut last) = (String::new(), false, false, ' ');
    let mut escaped = false;
    for c in text.chars() {
        if string {
            string = escaped || c != '"';
            escaped = !escaped && c == '\\';
        } else {
            skip = (skip && matches!(c, '+' | '-' | '0'..='9'))
                || (last.is_ascii_digit() && matches!(c, 'e' | 'E'));
            string = c == '"';
        }
        if string || !skip {
            out.push(c);
        }
        last = c;
    }
    out
}

fn assert_valid(function: &Function, text: &str) {
    serde_json::from_str::<IgnoredAny>(text)
        .unwrap_or_else(|error| panic!("{error}: {text} for {}", function.schema));
    let value: Value = serde_json::from_str(&without_exponents(text))
        .unwrap_or_else(|error| panic!("{error}: {text} for {}", function.schema));
    check(&function.schema, &value).unwrap_or_else(|error| panic!("{error}"));
}

/// What came of generations.
#[derive(Default)]
struct Sum {
    whole: usize,
    refused: usize,
    tokens: usize,
    forced: usize,
    closed: usize,
    closing: usize,
}

impl Sum {
    fn and(self, other: Self) -> Self {
        Self {
            whole: self.whole + other.whole,
            refused: self.refused + other.refused,
            tokens: self.tokens + other.tokens,
            forced: self.forced + other.forced,
            closed: self.closed + other.closed,
            closing: self.closing + other.closing,
        }
    }

    /// Panics unless it is a valid call within the budget, or was refused for want of one.
    fn of(case: &Case, budget: usize, result: &Result<Generation>) -> Self {
        match result {
            Ok(generation) => {
                assert_eq!(generation.stop, StopReason::GrammarDone);
                assert!(generation.tokens.len() <= budget);
                assert_valid(&case.function, &generation.text);
                Self {
                    whole: 1,
                    tokens: generation.tokens.len(),
                    forced: generation.usage.forced,
                    closed: usize::from(generation.usage.closing > 0),
                    closing: generation.usage.closing,
                    ..Self::default()
                }
            }
            Err(CoreError::Constrain(ConstrainError::Budget { least, budget: b })) => {
                assert!(*b == budget && *least > budget && budget < case.least);
                Self {
                    refused: 1,
                    ..Self::default()
                }
            }
            Err(error) => panic!("{error} for {}", case.function.schema),
        }
    }

    fn print(&self, what: &str, time: Duration) {
        println!(
            "{what}: {} whole, {} refused for their budget; {} tokens, {} forced, {} in place of \
             others in {} generations; {:.1} s",
            self.whole,
            self.refused,
            self.tokens,
            self.forced,
            self.closing,
            self.closed,
            time.as_secs_f64(),
        );
    }
}

/// A budget, one in eight of which is less than the shortest completion.
fn budget(case: &Case, seed: u64) -> usize {
    let draw = |n: u32, most: usize| (noise::bits(seed, 1, n) % most.max(1) as u64) as usize;
    match draw(0, 8) {
        0 => 1 + draw(1, case.least.saturating_sub(1)),
        n => case.least + draw(2, 1 << n),
    }
}

/// Mean, 99th percentile and maximum in microseconds.
fn figures(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let us = |time: Option<&Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1e6);
    let sum: Duration = times.iter().sum();
    format!(
        "mean {:.0} µs, 99 of 100 within {:.0} µs, all within {:.0} µs ({} times)",
        sum.as_secs_f64() * 1e6 / times.len().max(1) as f64,
        us(times.get(times.len() * 99 / 100)),
        us(times.last()),
        times.len()
    )
}

/// The time that each token of these texts takes.
fn print_times(texts: &[(&Case, Vec<TokenId>)]) {
    let (mut masks, mut commits) = (Vec::new(), Vec::new());
    for (case, tokens) in texts {
        let mut constraint = case.grammar.start();
        for &token in tokens {
            let start = Instant::now();
            let allowed = constraint.mask().unwrap().allows(token);
            masks.push(start.elapsed());
            assert!(allowed);
            let start = Instant::now();
            constraint.commit(token).unwrap();
            commits.push(start.elapsed());
        }
    }
    println!("mask: {}", figures(masks));
    println!("commit: {}", figures(commits));
}

#[test]
fn random_logits_never_give_an_invalid_call() {
    let gguf = Gguf::open(model(VOCABULARY)).unwrap();
    let tokenizer = Arc::new(Tokenizer::from_gguf(gguf.metadata()).unwrap());
    let chat = Arc::new(ChatTemplate::from_gguf(gguf.metadata()).unwrap());
    let env = TokenEnv::of(&tokenizer).unwrap();
    let start = Instant::now();
    let (cases, refused) = cases(&env);
    println!(
        "{} schemas in {:.1} s, {} refused",
        cases.len(),
        start.elapsed().as_secs_f64(),
        refused.values().sum::<usize>()
    );
    for (reason, n) in &refused {
        println!("  {n} × {reason}");
    }
    println!(
        "compile: {}",
        figures(cases.iter().map(|case| case.compiled).collect())
    );
    assert!(cases.len() > 500);

    // Flat ones wander in strings, others open and close or count.
    let biased = |marks: &[u8], by: f32| -> Arc<[f32]> {
        let logit = |id| match tokenizer.token_bytes(id) {
            bytes if !bytes.is_empty() && bytes.iter().all(|b| marks.contains(b)) => by,
            _ => 0.0,
        };
        (0..tokenizer.vocab() as TokenId).map(logit).collect()
    };
    let kinds = [
        biased(b"", 0.0),
        biased(b"\"]},", 9.0),
        biased(b"{}[]\",:", 10.0),
        biased(b"0123456789.eE-,", 9.0),
    ];
    let generate = |seed: usize, budget: usize, complete: bool| {
        let case = &cases[seed % cases.len()];
        let decoder = Fixed {
            logits: Arc::clone(&kinds[noise::bits(seed as u64, 0, 0) as usize % kinds.len()]),
            len: 0,
        };
        let mut session = Session::new(Box::new(decoder), tokenizer.clone(), chat.clone());
        let request = Request {
            grammar: Some(case.grammar.clone()),
            complete,
            max_tokens: budget,
            sampling: Sampling::at(1.0, seed as u64),
            ..Request::new(vec![0])
        };
        (case, session.generate(&request, &mut |_| ()))
    };
    let start = Instant::now();
    let sum = (0..RANDOM)
        .into_par_iter()
        .map(|seed| {
            let budget = budget(&cases[seed % cases.len()], seed as u64);
            let (case, result) = generate(seed, budget, true);
            Sum::of(case, budget, &result)
        })
        .reduce(Sum::default, Sum::and);
    sum.print("random", start.elapsed());
    assert_eq!(sum.whole + sum.refused, RANDOM);
    assert!(sum.refused > 100 && sum.closed > 1000);

    let mut texts = Vec::new();
    for complete in [false, true] {
        let start = Instant::now();
        let mut tokens = 0;
        for seed in 0..100 {
            let (case, result) = generate(seed, cases[seed % cases.len()].least + 100, complete);
            let generation = result.unwrap();
            tokens += generation.tokens.len();
            texts.push((case, generation.tokens));
        }
        println!(
            "complete: {complete}: {:.0} µs a token",
            start.elapsed().as_secs_f64() * 1e6 / tokens as f64
        );
    }
    print_times(&texts);
}

/// All functions at once, as an agent with very many tools has them.
#[test]
fn two_hundred_kilobytes_of_tools_are_held_or_refused() {
    let gguf = Gguf::open(model("qwen2.5-coder-0.5b")).unwrap();
    let tokenizer = Tokenizer::from_gguf(gguf.metadata()).unwrap();
    let env = TokenEnv::of(&tokenizer).unwrap();
    let mut bytes = 0;
    let mut tools = Vec::new();
    for (i, Function { name, schema, .. }) in functions().into_iter().enumerate() {
        if bytes >= 200_000 {
            break;
        }
        // One of them asks for an array that is one of some strings.
        if Grammar::json_schema(&env, &schema).is_err() {
            continue;
        }
        bytes += schema.to_string().len();
        tools.push(ToolDef::new(format!("{name}_{i}"), "", schema));
    }
    assert!(bytes >= 200_000, "{bytes}");
    for count in [tools.len() / 8, tools.len()] {
        let start = Instant::now();
        let grammar = Grammar::tools_or_text(&env, &tools[..count], &CallFormat::hermes());
        let compiled = start.elapsed();
        match grammar {
            Ok(grammar) => {
                let mut constraint = grammar.start();
                let last = &tools[count - 1].name;
                // The quote that ends the name is forced, together with what follows.
                let call = format!("<tool_call>\n{{\"name\": \"{last}");
                let start = Instant::now();
                for token in tokenizer.encode(&call, Special::Parse).unwrap() {
                    let mask = constraint.mask().unwrap();
                    assert!(
                        mask.allows(token),
                        "{:?} in {call:?}",
                        tokenizer.token_text(token)
                    );
                    constraint.commit(token).unwrap();
                }
                println!(
                    "{count} tools: compiled in {compiled:.0?}, {call:?} held in {:.0?}",
                    start.elapsed()
                );
            }
            Err(error) => {
                assert!(matches!(error, CoreError::Constrain(_)), "{error}");
                println!("{count} tools: refused in {compiled:.0?}: {error}");
            }
        }
    }
}

#[test]
fn a_model_never_gives_an_invalid_call() {
    static NAME: OnceLock<String> = OnceLock::new();
    let name = NAME.get_or_init(|| {
        std::env::var("CONVERGE_BFCL_MODEL").unwrap_or_else(|_| "smollm2-135m".to_owned())
    });
    let session = load(&model(name), &Default::default()).unwrap();
    let env = session.token_env().unwrap();
    let (cases, _) = cases(&env);
    let start = Instant::now();
    let mut batch = Batch::new();
    let mut sum = Sum::default();
    let mut under_way = BTreeMap::new();
    let mut next = 0;
    while next < REAL || !batch.is_empty() {
        while batch.len() < 8 && next < REAL {
            let case = &cases[(next * 7) % cases.len()];
            let budget = budget(case, next as u64);
            let Function { name, question, .. } = &case.function;
            let question: String = question.chars().take(200).collect();
            let ask = format!("{question}\nGive the arguments of {name} as JSON.");
            let chat = session.chat();
            let prompt = chat
                .encode(
                    session.tokenizer(),
                    &[Message::user(ask)],
                    &RenderOptions::default(),
                )
                .unwrap();
            let request = Request {
                grammar: Some(case.grammar.clone()),
                complete: true,
                max_tokens: budget,
                sampling: Sampling::at(if next % 2 == 0 { 0.0 } else { 1.0 }, next as u64),
                ..Request::new(prompt)
            };
            let id = batch.join(session.fork().unwrap(), request);
            under_way.insert(id, (case, budget));
            next += 1;
        }
        for finished in batch.step(&mut |_, _| ()) {
            let (case, budget) = under_way[&finished.id];
            sum = sum.and(Sum::of(case, budget, &finished.result));
        }
    }
    sum.print(name, start.elapsed());
    assert_eq!(sum.whole + sum.refused, REAL);
    assert!(sum.whole > REAL / 2);
}
