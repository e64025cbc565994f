//! A hundred thousand operations on sessions that share pages, against a model without any cache.

use std::sync::Arc;

use super::{
    toy::{Paged, hashed, tokenizer},
    *,
};
use crate::{
    CoreError, Result, TokenId,
    cache::{Arena, Transcript},
    chat::ChatTemplate,
    sample::{Sampler, Sampling, noise},
    tokenizer::Tokenizer,
};

const CONTEXT: usize = 600;
/// Pages of a layer that all sessions together may have: less than they would like.
const PAGES: usize = 20;
const SESSIONS: usize = 8;
const OPERATIONS: usize = 100_000;

/// A sequence of numbers that is the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 += 1;
        (noise::bits(77, self.0, 0) % n.max(1) as u64) as usize
    }

    fn token(&mut self) -> TokenId {
        self.below(5) as TokenId
    }
}

/// What a request comes to, token by token from nothing.
fn naive(request: &Request, tokenizer: &Tokenizer) -> Vec<TokenId> {
    let mut sampler = Sampler::new(&request.sampling, tokenizer).unwrap();
    let mut history = request.prompt.clone();
    while history.len() < (request.prompt.len() + request.max_tokens).min(CONTEXT) {
        let row = hashed(history.iter().copied(), tokenizer.vocab());
        let token = sampler.sample(&row, &history, None).unwrap();
        if tokenizer.is_end(token) {
            break;
        }
        history.push(token);
    }
    history.split_off(request.prompt.len())
}

struct Guess<'a>(&'a mut Dice);

impl Draft for Guess<'_> {
    fn begin(&mut self, _: &Request) {}

    fn propose(&mut self, place: &Place<'_>, out: &mut Vec<TokenId>) -> Result<()> {
        // Mostly right, as it knows the model.
        let mut text = place.history.to_vec();
        for _ in 0..self.0.below(place.most.min(5) + 1) {
            let row = hashed(text.iter().copied(), 266);
            let best = (0..266).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap() as TokenId;
            let token = if self.0.below(4) == 0 { 1 } else { best };
            text.push(token);
            out.push(token);
        }
        Ok(())
    }

    fn checked(&mut self, _: &Checked) {}
}

struct Field {
    dice: Dice,
    arena: Arc<Arena>,
    tokenizer: Arc<Tokenizer>,
    chat: Arc<ChatTemplate>,
    /// Sessions, each with a text that it may go on from.
    live: Vec<(Session, Vec<TokenId>)>,
    folder: tempfile::TempDir,
    /// Files, each with the text of its session.
    kept: Vec<Vec<TokenId>>,
    refused: usize,
}

impl Field {
    fn fresh(&self) -> Session {
        let decoder = Paged::new(&self.arena, CONTEXT, self.tokenizer.vocab());
        let (tokenizer, chat) = (Arc::clone(&self.tokenizer), Arc::clone(&self.chat));
        Session::new(Box::new(decoder), tokenizer, chat).with_prefill_chunk(100)
    }

    /// A prompt that goes on from some session's text, or from a part of it, or from nothing.
    fn prompt(&mut self) -> Vec<TokenId> {
        let mut prompt = Vec::new();
        if !self.live.is_empty() && self.dice.below(10) > 0 {
            let i = self.dice.below(self.live.len());
            prompt.clone_from(&self.live[i].1);
            if self.dice.below(3) == 0 {
                prompt.truncate(self.dice.below(prompt.len() + 1));
            }
        }
        // A few tokens mostly, a page and more sometimes.
        let most = if self.dice.below(12) == 0 { 300 } else { 6 };
        for _ in 0..=self.dice.below(most) {
            prompt.push(self.dice.token());
        }
        if prompt.len() > CONTEXT - 8 {
            prompt.truncate(self.dice.below(300) + 1);
        }
        prompt
    }

    fn request(&mut self) -> Request {
        let request = Request {
            sampling: match self.dice.below(2) {
                0 => Sampling::default(),
                _ => Sampling {
                    repetition_penalty: 1.2,
                    ..Sampling::at(0.5, self.dice.below(100) as u64)
                },
            },
            max_tokens: self.dice.below(5),
            ..Request::new(self.prompt())
        };
        if self.dice.below(40) == 0 {
            request.cancel.cancel();
        }
        request
    }

    /// Holds a result against the model without a cache, and returns the text.
    fn check(&mut self, request: &Request, result: Result<Generation>) -> Vec<TokenId> {
        let mut text = request.prompt.clone();
        match result {
            Ok(got) if got.stop == StopReason::Cancelled => {
                assert!(naive(request, &self.tokenizer).starts_with(&got.tokens));
                text.extend(got.tokens);
            }
            Ok(got) => {
                assert_eq!(got.tokens, naive(request, &self.tokenizer));
                text.extend(got.tokens);
            }
            Err(CoreError::CacheFull { .. }) => self.refused += 1,
            Err(other) => panic!("{other}"),
        }
        text
    }

    fn operation(&mut self) {
        let n = self.live.len();
        match self.dice.below(100) {
            _ if n == 0 => {
                let session = self.fresh();
                self.live.push((session, Vec::new()));
            }
            0..60 => {
                let request = self.request();
                let i = self.dice.below(n);
                let mut session = self.live.swap_remove(i).0;
                if self.dice.below(30) == 0 {
                    // A cancel in the middle.
                    let (cancel, after) = (request.cancel.clone(), self.dice.below(4));
                    let mut seen = 0;
                    let result = session.generate(&request, &mut |_| {
                        seen += 1;
                        if seen > after {
                            cancel.cancel();
                        }
                    });
                    let text = self.check(&request, result);
                    self.live.push((session, text));
                    return;
                }
                let result = match self.dice.below(2) {
                    0 => session.generate(&request, &mut |_| ()),
                    _ => {
                        session.generate_drafted(&request, &mut Guess(&mut self.dice), &mut |_| ())
                    }
                };
                let text = self.check(&request, result);
                self.live.push((session, text));
            }
            60..70 => {
                let i = self.dice.below(n);
                let (session, text) = &self.live[i];
                let fork = (session.fork().unwrap(), text.clone());
                self.live.push(fork);
            }
            70..75 => drop(self.live.swap_remove(self.dice.below(n))),
            75..77 => self.live[self.dice.below(n)].0.pin(),
            77..80 => self.live[self.dice.below(n)].0.unpin(),
            80..81 => {
                let i = self.dice.below(n);
                self.live[i].0.clear().unwrap();
            }
            81..82 => self.keep(),
            82..84 if !self.kept.is_empty() => self.take_up(),
            84..92 => self.batch(),
            _ => {
                let session = self.fresh();
                self.live.push((session, Vec::new()));
            }
        }
        if self.live.len() > SESSIONS {
            self.live.swap_remove(self.dice.below(SESSIONS));
        }
    }

    fn file(&self, i: usize) -> std::path::PathBuf {
        self.folder.path().join(i.to_string())
    }

    fn keep(&mut self) {
        let i = self.dice.below(self.live.len());
        let place = self.dice.below(4).min(self.kept.len());
        let (session, text) = &self.live[i];
        let transcript = Transcript {
            tokens: text.clone(),
            ..Transcript::default()
        };
        session.save(&self.file(place), &transcript).unwrap();
        self.kept.truncate(self.kept.len().max(place));
        if place == self.kept.len() {
            self.kept.push(text.clone());
        } else {
            self.kept[place].clone_from(text);
        }
    }

    fn take_up(&mut self) {
        let (i, file) = (
            self.dice.below(self.live.len()),
            self.dice.below(self.kept.len()),
        );
        let path = self.file(file);
        match self.live[i].0.open(&path) {
            Ok(transcript) => {
                assert_eq!(transcript.tokens, self.kept[file]);
                self.live[i].1 = transcript.tokens;
            }
            Err(CoreError::CacheFull { .. }) => self.refused += 1,
            Err(other) => panic!("{other}"),
        }
    }

    fn batch(&mut self) {
        let mut batch = Batch::new();
        let mut requests = Vec::new();
        let mut results = Vec::new();
        for _ in 0..1 + self.dice.below(4) {
            if self.live.is_empty() {
                break;
            }
            let request = self.request();
            let session = self.live.swap_remove(self.dice.below(self.live.len())).0;
            batch.join(session, request.clone());
            requests.push(request);
            if self.dice.below(2) == 0 {
                results.extend(batch.step(&mut |_, _| ()));
            }
        }
        results.extend(batch.finish(&mut |_, _| ()));
        assert_eq!(results.len(), requests.len());
        for done in results {
            let text = self.check(&requests[done.id], done.result);
            self.live.push((done.session, text));
        }
    }
}

#[test]
fn sessions_are_what_they_would_be_without_a_cache() {
    let chat = ChatTemplate::from_source("{{ messages[0].content }}", "", "").unwrap();
    let mut field = Field {
        dice: Dice(0),
        arena: Paged::arena(PAGES),
        tokenizer: Arc::new(tokenizer()),
        chat: Arc::new(chat),
        live: Vec::new(),
        folder: tempfile::tempdir().unwrap(),
        kept: Vec::new(),
        refused: 0,
    };
    for _ in 0..OPERATIONS {
        field.operation();
        assert!(field.arena.used() <= field.arena.limit());
    }
    assert_eq!(
        field.arena.peak(),
        field.arena.limit(),
        "it was full at times"
    );
    // Live sessions may well hold all there is; most operations find room nevertheless.
    let refused = 1..OPERATIONS / 10;
    assert!(refused.contains(&field.refused), "{}", field.refused);
    field.live.clear();
    assert_eq!(field.arena.used(), 0, "nothing is left behind");
}
