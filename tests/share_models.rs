//! On real models: a text is the same, and every logit of it, however its keys and values came to be
//! where they are.

#![cfg(test)] // so that the lints know the helpers for tests, too

use std::{path::Path, sync::Arc};

use converge_core::{
    backend::cpu::{CpuModel, CpuOptions},
    cache::Transcript,
    chat::{ChatTemplate, Message, RenderOptions},
    generate::{Batch, Generate as _, Generation, Request, Session},
    sample::Sampling,
    tokenizer::Tokenizer,
};
use converge_quant::{Gguf, kernels::KvType};
use serde_json::json;

const TOKENS: usize = 24;
const TEXT: &str = "The mill keeps a book of every warp that was ever beamed there, with its \
                    length in ells, the yarn and its dyer, the weaver and the day on which the \
                    cloth came down. ";

struct Model {
    weights: CpuModel,
    tokenizer: Arc<Tokenizer>,
    chat: Arc<ChatTemplate>,
}

impl Model {
    fn load(name: &str, kv: KvType) -> Self {
        let gguf = Gguf::open(converge_tests::model(name)).unwrap();
        let options = CpuOptions {
            context: 1024,
            kv,
            ..CpuOptions::default()
        };
        Self {
            weights: CpuModel::load(&gguf, &options).unwrap(),
            tokenizer: Arc::new(Tokenizer::from_gguf(gguf.metadata()).unwrap()),
            chat: Arc::new(ChatTemplate::from_gguf(gguf.metadata()).unwrap()),
        }
    }

    fn session(&self) -> Session {
        let decoder = Box::new(self.weights.decoder());
        Session::new(decoder, self.tokenizer.clone(), self.chat.clone())
    }

    /// Questions about some of the text, so long that pages end within them.
    fn prompts(&self) -> Vec<Vec<u32>> {
        let question = |n: usize| {
            let text = TEXT.repeat(n) + "What is in the book? Answer in two sentences.";
            let messages = [Message::user(text)];
            let options = RenderOptions::default();
            self.chat
                .encode(&self.tokenizer, &messages, &options)
                .unwrap()
        };
        [1, 6, 7].map(question).into()
    }
}

/// Tokens, and the bits of a sum over all logits of each.
fn bits(generation: &Generation) -> (Vec<u32>, Vec<u64>) {
    let logs = generation.log_probs.iter();
    let logs = logs.flat_map(|p| [p.log_prob.to_bits(), p.top[1].1.to_bits()]);
    (generation.tokens.clone(), logs.collect())
}

fn run(session: &mut Session, request: &Request) -> (Vec<u32>, Vec<u64>) {
    bits(&session.generate(request, &mut |_| ()).unwrap())
}

/// All ways to come by the same text.
fn compare(
    name: &str,
    model: &Model,
    folder: &Path,
    request: &Request,
    others: &[Request],
    batches: &[usize],
) {
    let cold = run(&mut model.session(), request);
    assert!(!cold.0.is_empty(), "{name}");
    let same = |way: &str, found: (Vec<u32>, Vec<u64>)| {
        assert!(
            found == cold,
            "{name}: {way}: {:?} for {:?}",
            found.0,
            cold.0
        );
    };

    // What was there before is another text with the same beginning, then the same text again.
    let mut session = model.session();
    for other in others {
        run(&mut session, other);
    }
    same("reused", run(&mut session, request));
    same("reused again", run(&mut session, request));
    let mut cut = request.clone();
    cut.prompt.truncate(request.prompt.len() / 2);
    run(&mut session, &cut);
    same("cut back and read again", run(&mut session, request));
    same("forked", run(&mut session.fork().unwrap(), request));

    // From a file, in the middle of the prompt and in the middle of the answer.
    let path = folder.join("session");
    let mut half = request.clone();
    half.max_tokens = TOKENS / 2;
    let mut session = model.session();
    let begun = session.generate(&half, &mut |_| ()).unwrap();
    let rest = half.after(&begun);
    let transcript = Transcript {
        tokens: rest.prompt.clone(),
        answered: rest.answered,
        sampler: rest.sampler,
    };
    session.save(&path, &transcript).unwrap();
    let mut restored = model.session();
    let back = restored.open(&path).unwrap();
    let rest = Request {
        prompt: back.tokens,
        answered: back.answered,
        sampler: back.sampler,
        max_tokens: TOKENS - begun.tokens.len(),
        ..request.clone()
    };
    let (mut tokens, mut logs) = bits(&begun);
    if begun.tokens.len() == TOKENS / 2 {
        let more = run(&mut restored, &rest);
        tokens.extend(more.0);
        logs.extend(more.1);
    }
    same("restored", (tokens, logs));
    same("restored, from the prompt", run(&mut restored, request));

    for &n in batches {
        let mut batch = Batch::new();
        let id = batch.join(model.session(), request.clone());
        for i in 0..n {
            // Forks have read most of their prompts: they decode while the other one still reads.
            let other = others[i % others.len()].clone();
            batch.join(session.fork().unwrap(), other);
        }
        let mut done = batch.finish(&mut |_, _| ()).into_iter();
        let mine = done.find(|done| done.id == id).unwrap().result.unwrap();
        same(&format!("with {n} others"), bits(&mine));
    }
}

fn check(name: &str) {
    check_with(name, &Model::load(name, KvType::F16), &[1, 3, 8]);
}

/// How numbers are stored is the same for all models: the small ones stand for the others.
fn check_q8_0(name: &str) {
    check_with(name, &Model::load(name, KvType::Q8_0), &[2]);
}

fn check_with(name: &str, model: &Model, batches: &[usize]) {
    let folder = tempfile::tempdir().unwrap();
    let schema = json!({
        "type": "object",
        "properties": {
            "answer": { "type": "string", "maxLength": 60 },
            "pages": { "type": "integer" },
        },
        "required": ["answer", "pages"],
        "additionalProperties": false,
    });
    let grammar = model.session().compile(&schema).unwrap();
    let prompts = model.prompts();
    let request = |prompt: usize, sampling: &Sampling, held: bool| Request {
        sampling: sampling.clone(),
        grammar: held.then(|| grammar.clone()),
        max_tokens: TOKENS,
        log_probs: 2,
        ..Request::new(prompts[prompt].clone())
    };
    let others: Vec<Request> = [0, 2]
        .map(|prompt| Request {
            max_tokens: 5,
            ..request(prompt, &Sampling::at(1.0, 5), false)
        })
        .into();
    for sampling in [Sampling::default(), Sampling::at(0.8, 11)] {
        for held in [false, true] {
            compare(
                name,
                model,
                folder.path(),
                &request(1, &sampling, held),
                &others,
                batches,
            );
        }
    }
}

#[test]
fn smollm2_says_the_same_however_it_came_there() {
    check("smollm2-135m");
    check_q8_0("smollm2-135m");
}

#[test]
fn gemma_says_the_same_however_it_came_there() {
    check("gemma-3-270m");
    check_q8_0("gemma-3-270m");
}

#[test]
fn qwen_of_half_a_billion_says_the_same_however_it_came_there() {
    check("qwen2.5-coder-0.5b");
}

#[test]
fn qwen_of_one_and_a_half_billion_says_the_same_however_it_came_there() {
    check("qwen2.5-coder-1.5b");
}
