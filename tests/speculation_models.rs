//! Speculation on real models: the tokens of plain decoding, whoever guesses.

#![cfg(test)] // so that the lints know the helpers for tests, too

use converge_core::{
    LoadOptions, TokenId,
    chat::{Message, RenderOptions},
    generate::{Checked, Draft, Generate as _, Generation, Place, Request, Session},
    load,
    sample::Sampling,
};
use converge_quant::Gguf;
use converge_spec::{Drafter, ModelDrafter, Speculative, SuffixDrafter};
use converge_tests::model as file;
use serde_json::{Value, json};

fn options() -> LoadOptions {
    LoadOptions {
        context: 1024,
        ..LoadOptions::default()
    }
}

fn session(name: &str) -> Session {
    load(&file(name), &options()).unwrap()
}

fn suffix() -> Box<dyn Drafter> {
    Box::new(SuffixDrafter::new())
}

fn model(name: &str, session: &Session, frequent: Option<usize>) -> Box<dyn Drafter> {
    let gguf = Gguf::open(file(name)).unwrap();
    let drafter = ModelDrafter::load(&gguf, &options(), session.tokenizer()).unwrap();
    match frequent {
        Some(frequent) => Box::new(drafter.with_frequent(frequent)),
        None => Box::new(drafter),
    }
}

fn ask(session: &Session, question: &str) -> Vec<TokenId> {
    let messages = [Message::user(question)];
    let options = RenderOptions::default();
    let chat = session.chat();
    chat.encode(session.tokenizer(), &messages, &options)
        .unwrap()
}

const EDIT: &str = "Rename `total` to `sum` and give back the whole function, nothing else:\n\n\
    ```python\ndef total(rows):\n    result = 0\n    for row in rows:\n        if row.kind == \
    \"sale\":\n            result += row.amount * row.price\n        elif row.kind == \"return\":\n\
    \u{20}           result -= row.amount * row.price\n    return result\n```";

const LIST: &str = "Write the numbers from one to thirty in words, each on a line of its own.";

const STORY: &str = "Tell a story of a fox and a clock in five sentences.";

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "title": { "type": "string", "maxLength": 40 },
            "steps": {
                "type": "array",
                "minItems": 3,
                "maxItems": 5,
                "items": {
                    "type": "object",
                    "properties": {
                        "tool": { "enum": ["search", "read", "write"] },
                        "path": { "type": "string", "maxLength": 30 },
                    },
                    "required": ["tool", "path"],
                    "additionalProperties": false,
                },
            },
        },
        "required": ["title", "steps"],
        "additionalProperties": false,
    })
}

/// Questions, ways to sample and grammars.
fn requests(session: &Session, max_tokens: usize) -> Vec<Request> {
    let penalized = Sampling {
        repetition_penalty: 1.1,
        ..Sampling::at(0.8, 7)
    };
    let grammar = session.compile(&schema()).unwrap();
    let cases = [
        (EDIT, Sampling::default(), None),
        (EDIT, Sampling::at(0.8, 3), None),
        (LIST, Sampling::default(), None),
        (STORY, penalized.clone(), None),
        (
            "Plan how to tidy a folder.",
            Sampling::default(),
            Some(&grammar),
        ),
        ("Plan how to sort letters.", penalized, Some(&grammar)),
    ];
    let request = |(question, sampling, grammar): (&str, Sampling, Option<&_>)| {
        let mut request = Request::new(ask(session, question));
        request.sampling = sampling;
        request.grammar = grammar.cloned();
        request.max_tokens = max_tokens;
        request
    };
    cases.map(request).into()
}

fn plain(session: &mut Session, requests: &[Request]) -> Vec<Generation> {
    let generate = |request| session.generate(request, &mut |_| ()).unwrap();
    requests.iter().map(generate).collect()
}

/// All requests one after the other, as an agent makes them.
fn check(mut speculative: Speculative, requests: &[Request], want: &[Generation]) -> Speculative {
    for (i, (request, want)) in requests.iter().zip(want).enumerate() {
        let got = speculative.generate(request, &mut |_| ()).unwrap();
        assert_eq!(got.tokens, want.tokens, "request {i}");
        assert_eq!(
            (&got.text, &got.stop),
            (&want.text, &want.stop),
            "request {i}"
        );
    }
    speculative
}

#[test]
fn smollm2_says_the_same_whoever_guesses() {
    const NAME: &str = "smollm2-135m";
    let mut target = session(NAME);
    let requests = requests(&target, 100);
    let want = plain(&mut target, &requests);
    let itself = || model(NAME, &session(NAME), None);
    let narrowed = || model(NAME, &session(NAME), Some(2000));
    for drafters in [
        vec![suffix()],
        vec![itself()],
        vec![narrowed()],
        vec![suffix(), itself()],
    ] {
        target.clear().unwrap();
        let speculative = Speculative::new(target, drafters).with_length(5);
        let speculative = check(speculative, &requests, &want);
        let stats = speculative.stats();
        assert!(stats.tokens > stats.passes, "{stats:?}");
        target = speculative.into_session();
    }
}

#[test]
fn a_model_that_drafts_for_itself_is_right_whatever_the_noise() {
    const NAME: &str = "smollm2-135m";
    let target = session(NAME);
    let mut request = Request::new(ask(&target, STORY));
    request.sampling = Sampling::at(1.0, 11);
    request.max_tokens = 80;
    let drafters = vec![model(NAME, &target, None)];
    let mut speculative = Speculative::new(target, drafters).with_length(5);
    speculative.generate(&request, &mut |_| ()).unwrap();
    let source = &speculative.stats().sources[0];
    assert_eq!(source.drafted, source.accepted, "{source:?}");
}

/// How a made-up source guesses, knowing the text that comes.
#[derive(Clone, Copy, Debug)]
enum Guess {
    Right,
    Wrong,
    Random,
    Nothing,
    /// The right tokens, and many more than asked for.
    TooMany,
    /// A right token, then ids that no vocabulary has.
    Invalid,
}

/// A made-up source.
struct MadeUp<'a> {
    guess: Guess,
    text: &'a [TokenId],
    vocab: TokenId,
}

impl Draft for MadeUp<'_> {
    fn begin(&mut self, _: &Request) {}

    fn propose(&mut self, place: &Place<'_>, out: &mut Vec<TokenId>) -> converge_core::Result<()> {
        let next = self.text.get(place.history.len() - place.prompt..);
        let next = next.unwrap_or_default().iter().copied();
        match self.guess {
            Guess::Right => out.extend(next.take(9)),
            Guess::Wrong => out.extend(next.take(5).map(|id| (id + 1) % self.vocab)),
            Guess::Random => {
                let seed = place.history.iter().fold(7, |a: u32, &b| {
                    a.wrapping_mul(31).wrapping_add(b) // any id will do
                });
                out.extend((0..seed % 7).map(|i| seed.wrapping_mul(i + 1) % self.vocab));
            }
            Guess::Nothing => {}
            Guess::TooMany => out.extend(next.chain([1; 300])),
            Guess::Invalid => out.extend(next.take(1).chain([self.vocab, TokenId::MAX])),
        }
        Ok(())
    }

    fn checked(&mut self, _: &Checked) {}
}

/// Requests about many things, greedy and seeded, free and held to a schema by turns.
fn many(session: &Session, count: usize) -> Vec<Request> {
    const TASKS: [&str; 10] = [
        "Tell a story about",
        "Explain to a child",
        "List ten facts about",
        "Write a letter about",
        "Write a short poem on",
        "Give instructions for",
        "Compare two kinds of",
        "Describe the history of",
        "Write a dialogue about",
        "Plan a day with",
    ];
    const THINGS: [&str; 20] = [
        "a loom",
        "the sea",
        "bread",
        "bees",
        "a clock",
        "paper",
        "a bridge",
        "salt",
        "winter",
        "trains",
        "maps",
        "a garden",
        "glass",
        "horses",
        "music",
        "rivers",
        "a library",
        "tea",
        "stones",
        "the moon",
    ];
    let grammar = session.compile(&schema()).unwrap();
    let request = |i: usize| {
        let question = format!("{} {}.", TASKS[i % 10], THINGS[i / 10 % 20]);
        let mut request = Request::new(ask(session, &question));
        request.max_tokens = 64;
        // Ten and four have no common turn with the tasks this way.
        let way = (i + i / 10) % 4;
        if way % 2 == 1 {
            request.sampling = Sampling::at(0.8, i as u64);
        }
        request.grammar = (way >= 2).then(|| grammar.clone());
        request
    };
    (0..count).map(request).collect()
}

/// What comes after a generation, with the bits of its log-probabilities: cache and sampler are as
/// they would be without drafts.
fn after(session: &mut Session, request: &Request, generation: &Generation) -> Vec<u64> {
    let mut next = Request::new([&request.prompt[..], &generation.tokens].concat());
    next.max_tokens = 3;
    next.log_probs = 1;
    let next = session.generate(&next, &mut |_| ()).unwrap();
    next.log_probs
        .iter()
        .map(|p| p.log_prob.to_bits())
        .collect()
}

#[test]
fn two_hundred_prompts_get_the_same_answers_whoever_guesses() {
    const NAME: &str = "smollm2-135m";
    let mut target = session(NAME);
    let vocab = target.tokenizer().vocab() as TokenId;
    let requests = many(&target, 200);
    let want = plain(&mut target, &requests);
    target.clear().unwrap();
    let pairs = requests.iter().zip(&want);
    let follows: Vec<_> = pairs
        .map(|(request, want)| after(&mut target, request, want))
        .collect();
    for guess in [
        Guess::Right,
        Guess::Wrong,
        Guess::Random,
        Guess::Nothing,
        Guess::TooMany,
        Guess::Invalid,
    ] {
        for ((request, want), follows) in requests.iter().zip(&want).zip(&follows) {
            let mut draft = MadeUp {
                guess,
                text: &want.tokens,
                vocab,
            };
            let got = target.generate_drafted(request, &mut draft, &mut |_| ());
            let got = got.unwrap();
            assert_eq!(
                (&got.tokens, &got.stop),
                (&want.tokens, &want.stop),
                "{guess:?}"
            );
            assert_eq!(&after(&mut target, request, &got), follows, "{guess:?}");
        }
    }
    // The real ones: drafts at every pass, and those of the controller.
    let models = || vec![suffix(), model(NAME, &session(NAME), Some(2000))];
    let checked = |target: Session, drafters, length, every| {
        let mut target = target;
        target.clear().unwrap();
        let mut speculative = Speculative::new(target, drafters);
        if let Some(length) = length {
            speculative = speculative.with_length(length);
        }
        // A model of the same size costs as much as it saves: some prompts for it.
        let some = |i: &usize| i.is_multiple_of(every);
        let (few, want): (Vec<_>, Vec<_>) = (0..requests.len())
            .filter(some)
            .map(|i| (requests[i].clone(), want[i].clone()))
            .unzip();
        check(speculative, &few, &want).into_session()
    };
    target = checked(target, vec![suffix()], None, 1);
    target = checked(target, vec![suffix()], Some(6), 1);
    target = checked(target, models(), None, 5);
    checked(target, models(), Some(4), 5);
}

#[test]
fn the_half_billion_drafts_for_the_larger_one() {
    let mut target = session("qwen2.5-coder-1.5b");
    let mut all = requests(&target, 64);
    all.extend(many(&target, 18));
    let want = plain(&mut target, &all);
    let draft = |target: &Session| model("qwen2.5-coder-0.5b", target, Some(32_768));
    let drafters = vec![draft(&target)];
    let speculative = Speculative::new(target, drafters).with_length(4);
    let speculative = check(speculative, &all, &want);
    let source = &speculative.stats().sources[0];
    assert!(source.accepted > 0, "{source:?}");
    target = speculative.into_session();
    target.clear().unwrap();
    let drafters = vec![suffix(), draft(&target)];
    check(Speculative::new(target, drafters), &all, &want);
}
