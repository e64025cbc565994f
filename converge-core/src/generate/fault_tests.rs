//! The faults that speculation is prone to: each changes the text of a toy model, so comparing texts
//! finds them.

use super::{
    toy::{hashed, session, tokenizer},
    *,
};
use crate::{
    TokenId,
    sample::{Sampler, Sampling},
};

const TOKENS: usize = 40;
const DRAFT: usize = 5;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    /// The logits of the token after the one that counts.
    RowOffByOne,
    /// Penalties do not know the tokens that the pass has given so far.
    StalePenalties,
    /// Wrong guesses stay in the cache.
    NoRollback,
    /// All tokens of a pass get the noise of its first.
    ReusedNoise,
}

/// Decoding with guesses as a session does it, in few lines and with a fault. `text` is what plain
/// decoding gives: guesses are right up to a place that changes from pass to pass.
fn decode(fault: Fault, prompt: &[TokenId], sampling: &Sampling, text: &[TokenId]) -> Vec<TokenId> {
    let sampler = &mut Sampler::new(sampling, &tokenizer()).unwrap();
    let vocab = tokenizer().vocab();
    let mut history = prompt.to_vec();
    let mut cache = prompt[..prompt.len() - 1].to_vec();
    while history.len() < prompt.len() + text.len() {
        let said = history.len() - prompt.len();
        let (start, first) = (cache.len(), history.len());
        let mut pass = vec![*history.last().unwrap()];
        pass.extend(text[said..].iter().take(DRAFT));
        let wrong = 1 + said % DRAFT;
        if let Some(guess) = pass.get_mut(wrong) {
            *guess = (*guess + 3) % 200;
        }
        cache.extend(&pass);
        let mut keep = start;
        for i in 0..pass.len() {
            keep = start + i + 1;
            let row = match fault {
                Fault::RowOffByOne => (keep + 1).min(cache.len()),
                _ => keep,
            };
            let mut seen = history.clone();
            match fault {
                Fault::StalePenalties => seen[first..].fill(history[first - 1]),
                Fault::ReusedNoise => drop(seen.drain(..history.len() - first)),
                _ => {}
            }
            let logits = hashed(cache[..row].iter().copied(), vocab);
            let token = sampler.sample(&logits, &seen, None).unwrap();
            history.push(token);
            if pass.get(i + 1) != Some(&token) {
                break;
            }
        }
        if fault != Fault::NoRollback {
            cache.truncate(keep);
        }
    }
    history[prompt.len()..][..text.len()].to_vec()
}

#[test]
fn each_fault_of_speculation_changes_the_text() {
    let mut found = [0; 4];
    for seed in 0..24 {
        let prompt: Vec<TokenId> = (0..9).map(|i| i * 7 + seed).collect();
        let sampling = Sampling {
            repetition_penalty: 4.0,
            ..Sampling::at(0.9, u64::from(seed))
        };
        let mut request = Request::new(prompt.clone());
        request.sampling = sampling.clone();
        request.max_tokens = TOKENS;
        let text = session(200)
            .0
            .generate(&request, &mut |_| ())
            .unwrap()
            .tokens;
        assert_eq!(decode(Fault::None, &prompt, &sampling, &text), text);
        let faults = [
            Fault::RowOffByOne,
            Fault::StalePenalties,
            Fault::NoRollback,
            Fault::ReusedNoise,
        ];
        for (found, fault) in found.iter_mut().zip(faults) {
            *found += u32::from(decode(fault, &prompt, &sampling, &text) != text);
        }
    }
    assert!(found.iter().all(|&n| n > 2), "{found:?}");
}
