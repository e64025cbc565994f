//! Sessions that share a model: forks, batches, and what earlier requests left, on a tiny model with
//! real pages.

use std::{num::NonZeroUsize, sync::Arc};

use super::{toy::tokenizer, *};
use crate::{
    CoreError, TokenId,
    backend::cpu::{CpuModel, CpuOptions},
    cache::{SnapshotError, Store, Transcript, common},
    chat::ChatTemplate,
    model::tiny::{CONTEXT, INNER, Tiny, VOCAB, WIDTH},
    sample::{Mirostat, Sampling},
};

fn model(cache_pages: Option<usize>) -> CpuModel {
    let (gguf, _folder) = Tiny::qwen2().open();
    let mut options = CpuOptions {
        context: CONTEXT,
        threads: NonZeroUsize::new(2),
        ..CpuOptions::default()
    };
    if let Some(pages) = cache_pages {
        let arena = CpuModel::load(&gguf, &options).unwrap().arena().clone();
        options.cache_bytes = Some(pages * arena.layers() * arena.page_bytes());
    }
    CpuModel::load(&gguf, &options).unwrap()
}

fn session(model: &CpuModel) -> Session {
    let chat = ChatTemplate::from_source("{{ messages[0].content }}", "", "").unwrap();
    let decoder = Box::new(model.decoder());
    Session::new(decoder, Arc::new(tokenizer()), Arc::new(chat))
}

fn tokens(n: usize, salt: u32) -> Vec<TokenId> {
    let token = |i: u32| (i * i + salt * i + 7) % VOCAB as u32;
    (0..n as u32).map(token).collect()
}

fn request(prompt: Vec<TokenId>, seed: u64, max_tokens: usize) -> Request {
    Request {
        sampling: Sampling::at(0.9, seed),
        max_tokens,
        log_probs: 2,
        ..Request::new(prompt)
    }
}

/// Tokens and log-probabilities, bit for bit.
fn bits(generation: &Generation) -> (Vec<TokenId>, Vec<u64>) {
    let bits = generation.log_probs.iter().map(|p| p.log_prob.to_bits());
    (generation.tokens.clone(), bits.collect())
}

fn cold(request: &Request) -> (Vec<TokenId>, Vec<u64>) {
    let mut session = session(&model(None));
    bits(&session.generate(request, &mut |_| ()).unwrap())
}

#[test]
fn a_fork_goes_its_own_way() {
    let model = model(None);
    let mut parent = session(&model);
    let prompt = tokens(300, 3);
    let first = request(prompt.clone(), 1, 20);
    let said = parent.generate(&first, &mut |_| ()).unwrap();
    let used = model.arena().used();
    let mut fork = parent.fork().unwrap();
    assert_eq!(fork.held(), parent.held());
    assert_eq!(model.arena().used(), used, "a fork copies nothing");
    let mut longer = prompt.clone();
    longer.extend(&said.tokens);
    let mut other = longer.clone();
    other.extend([1, 2, 3]);
    let (a, b) = (request(longer, 1, 30), request(other, 9, 30));
    let from_fork = fork.generate(&b, &mut |_| ()).unwrap();
    let from_parent = parent.generate(&a, &mut |_| ()).unwrap();
    assert!(from_fork.usage.reused >= 318 && from_parent.usage.reused >= 318);
    assert_eq!(bits(&from_fork), cold(&b));
    assert_eq!(bits(&from_parent), cold(&a));
    // What one session left, the other takes up.
    let taken = fork.generate(&a, &mut |_| ()).unwrap();
    assert_eq!(bits(&taken), cold(&a));
    drop((parent, fork));
    assert_eq!(model.arena().used(), 0);
}

#[test]
fn a_window_that_has_passed_costs_reading_again_and_no_bit() {
    let (gguf, _folder) = Tiny::gemma2().open();
    let options = CpuOptions {
        context: CONTEXT,
        ..CpuOptions::default()
    };
    let roomy = CpuModel::load(&gguf, &options).unwrap();
    let windows = roomy.arena().windows().to_vec();
    // A whole context but for a page of each layer that sees a window.
    let pages = windows.iter().map(|w| if w.is_some() { 4 } else { 5 });
    let bytes = pages.sum::<usize>() * roomy.arena().page_bytes();
    let tight = CpuModel::load(
        &gguf,
        &CpuOptions {
            cache_bytes: Some(bytes),
            ..options
        },
    );
    let tight = tight.unwrap();
    assert!(windows.iter().flatten().count() > 0 && windows.contains(&None));
    let mut session = self::session(&tight);
    let long = request(tokens(1000, 3), 1, 90);
    let mut back = request(long.prompt[..400].to_vec(), 2, 30);
    back.prompt.extend(tokens(20, 8));
    let shared = common(&long.prompt, &back.prompt);
    // The answer to the longer prompt has made its window pass the shorter one.
    for (request, reused) in [(&long, 0), (&back, 0), (&back, 419), (&long, shared)] {
        let golden = self::session(&roomy).generate(request, &mut |_| ());
        let found = session.generate(request, &mut |_| ()).unwrap();
        assert_eq!(bits(&found), bits(&golden.unwrap()));
        assert_eq!(found.usage.reused, reused);
        assert!(tight.arena().used() <= bytes);
    }
}

#[test]
fn in_a_batch_everyone_gets_what_they_would_get_alone() {
    let model = model(None);
    let mut requests = Vec::new();
    for i in 0..8u64 {
        let prompt = tokens([3, 255, 40, 256, 300, 1, 511, 129][i as usize], i as u32);
        let mut request = request(prompt, i, [9, 30, 1, 0, 17, 40, 25, 12][i as usize]);
        request.stop = vec!["ab".to_owned()];
        requests.push(request);
    }
    let mut batch = Batch::new();
    let (mut events, mut finished) = (vec![Vec::new(); 8], Vec::new());
    let mut on_event = |id: usize, event: Event<'_>| {
        if let Event::Token(token) = event {
            events[id].push(token);
        }
    };
    // Two more join before each pass.
    for pair in requests.chunks(2) {
        for request in pair {
            batch.join(session(&model), request.clone());
        }
        finished.extend(batch.step(&mut on_event));
    }
    finished.extend(batch.finish(&mut on_event));
    assert!(batch.is_empty() && finished.len() == 8);
    for mut done in finished {
        let got = done.result.unwrap();
        assert_eq!(bits(&got), cold(&requests[done.id]), "{}", done.id);
        assert_eq!(got.tokens, events[done.id]);
        // The session is as good as new.
        let next = request(tokens(50, 77), 5, 6);
        let got = done.session.generate(&next, &mut |_| ()).unwrap();
        assert_eq!(bits(&got), cold(&next));
    }
}

#[test]
fn branches_read_their_prompt_once() {
    let model = model(None);
    let mut parent = session(&model);
    let prompt = tokens(400, 5);
    let read = Request {
        max_tokens: 0,
        ..Request::new(prompt.clone())
    };
    parent.generate(&read, &mut |_| ()).unwrap();
    let mut batch = Batch::new();
    let branch = |i: u64| Request {
        sampling: Sampling::at(0.9, 7).branch(i),
        ..request(prompt.clone(), 0, 20)
    };
    for i in 0..5 {
        batch.join(parent.fork().unwrap(), branch(i));
    }
    let mut texts = Vec::new();
    for done in batch.finish(&mut |_, _| ()) {
        let got = done.result.unwrap();
        assert_eq!((got.usage.reused, got.usage.prefilled), (399, 1));
        assert_eq!(bits(&got), cold(&branch(done.id as u64)));
        texts.push(got.tokens);
    }
    texts.dedup();
    assert_eq!(texts.len(), 5, "every branch has a noise of its own");
}

#[test]
fn what_is_wrong_with_one_request_is_nothing_to_the_others() {
    let (model, other) = (model(None), model(None));
    let mut batch = Batch::new();
    let fine = request(tokens(20, 1), 1, 10);
    let cancelled = request(tokens(30, 2), 1, 10);
    cancelled.cancel.cancel();
    batch.join(session(&model), fine.clone());
    batch.join(session(&model), Request::new(vec![]));
    batch.join(session(&other), fine.clone());
    batch.join(session(&model), request(tokens(CONTEXT + 1, 1), 1, 5));
    batch.join(session(&model), cancelled);
    batch.join(toy::session(100).0, fine.clone());
    let results: Vec<_> = batch
        .finish(&mut |_, _| ())
        .into_iter()
        .map(|f| f.result)
        .collect();
    assert_eq!(bits(results[0].as_ref().unwrap()), cold(&fine));
    assert!(matches!(results[1], Err(CoreError::EmptyPrompt)));
    assert!(matches!(results[2], Err(CoreError::ForeignCache)));
    assert!(matches!(results[3], Err(CoreError::ContextOverflow { .. })));
    assert_eq!(results[4].as_ref().unwrap().stop, StopReason::Cancelled);
    assert!(matches!(results[5], Err(CoreError::OneSequence)));
}

#[test]
fn where_there_is_no_room_earlier_requests_go_first_then_others_wait() {
    let model = model(Some(4));
    let page = model.arena().page_bytes() * model.arena().layers();
    let mut first = session(&model);
    for salt in 0..4 {
        let request = request(tokens(500, salt), 1, 5);
        let got = first.generate(&request, &mut |_| ()).unwrap();
        assert_eq!(bits(&got), cold(&request));
        assert!(model.arena().used() <= 4 * page);
    }
    // Pinned pages stay, whatever comes.
    first.clear().unwrap();
    let prefix = tokens(256, 9);
    let read = Request {
        max_tokens: 0,
        ..Request::new(prefix.clone())
    };
    first.generate(&read, &mut |_| ()).unwrap();
    first.pin();
    for salt in 0..3 {
        first
            .generate(&request(tokens(500, salt), 1, 5), &mut |_| ())
            .unwrap();
    }
    let mut back = prefix;
    back.extend(tokens(20, 3));
    let again = first.generate(&request(back, 1, 3), &mut |_| ()).unwrap();
    assert!(again.usage.reused >= 256, "{:?}", again.usage);
    first.unpin();
    first.clear().unwrap();
    drop(first);

    // Each of these needs two pages for each layer: two have room at a time.
    let requests: Vec<_> = (0..5).map(|i| request(tokens(300, i), 1, 12)).collect();
    let mut batch = Batch::new();
    for request in &requests {
        batch.join(session(&model), request.clone());
    }
    let mut seen = 0;
    while !batch.is_empty() {
        for done in batch.step(&mut |_, _| ()) {
            assert_eq!(bits(&done.result.unwrap()), cold(&requests[done.id]));
            seen += 1;
        }
        assert!(model.arena().used() <= 4 * page);
    }
    assert_eq!((seen, model.arena().used()), (5, 0));
    // What can never have room is told.
    let refused = session(&model).generate(&request(tokens(600, 1), 1, 150), &mut |_| ());
    assert!(refused.is_ok(), "three pages");
    let mut holder = session(&model);
    holder
        .generate(&request(tokens(300, 1), 1, 1), &mut |_| ())
        .unwrap();
    let refused = session(&model).generate(&request(tokens(600, 1), 1, 1), &mut |_| ());
    assert!(matches!(refused, Err(CoreError::CacheFull { .. })));
}

#[test]
fn a_session_goes_on_from_its_file_in_another_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("session");
    for sampling in [
        Sampling::default(),
        Sampling::at(0.9, 3),
        Sampling {
            mirostat: Some(Mirostat::default()),
            repetition_penalty: 1.2,
            ..Sampling::at(0.9, 3)
        },
    ] {
        let whole = Request {
            sampling,
            ..request(tokens(300, 8), 0, 60)
        };
        let expected = cold(&whole);
        let first = Request {
            max_tokens: 25,
            ..whole.clone()
        };
        let mut session = self::session(&model(None));
        let said = session.generate(&first, &mut |_| ()).unwrap();
        let rest = first.after(&said);
        let transcript = Transcript {
            tokens: rest.prompt.clone(),
            answered: rest.answered,
            sampler: rest.sampler,
        };
        session.save(&path, &transcript).unwrap();
        drop(session);

        // Another load of the same weights.
        let mut session = self::session(&model(None));
        let back = session.open(&path).unwrap();
        assert_eq!(back, transcript);
        assert_eq!(session.held(), &back.tokens[..324]);
        let rest = Request {
            prompt: back.tokens,
            answered: back.answered,
            sampler: back.sampler,
            max_tokens: 35,
            ..whole.clone()
        };
        let then = session.generate(&rest, &mut |_| ()).unwrap();
        assert_eq!((then.usage.reused, then.usage.prefilled), (324, 1));
        let (mut tokens, mut logs) = bits(&said);
        let (more, more_logs) = bits(&then);
        tokens.extend(more);
        logs.extend(more_logs);
        assert_eq!((tokens, logs), expected);
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    // Nothing but the file itself is left.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_snapshot_that_is_not_what_was_written_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("session");
    let model = model(Some(4));
    let mut session = self::session(&model);
    let prompt = tokens(300, 8);
    let read = request(prompt.clone(), 1, 0);
    session.generate(&read, &mut |_| ()).unwrap();
    let transcript = Transcript {
        tokens: prompt,
        ..Transcript::default()
    };
    session.save(&path, &transcript).unwrap();
    let good = std::fs::read(&path).unwrap();
    let mut open = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let before = session.held().to_vec();
        let result = session.open(&path);
        if result.is_err() {
            assert_eq!(session.held(), before);
        }
        match result {
            Ok(_) => None,
            Err(CoreError::Snapshot(error)) => Some(error),
            Err(other) => panic!("{other}"),
        }
    };
    assert!(open(&good).is_none());
    for at in [20, 60, 200, good.len() / 2, good.len() - 40, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 4;
        let error = open(&bad).unwrap();
        assert!(
            matches!(error, SnapshotError::Damaged { .. }),
            "{at}: {error}"
        );
    }
    for length in [0, 7, 15] {
        assert!(matches!(
            open(&good[..length]),
            Some(SnapshotError::NoSnapshot { .. })
        ));
    }
    for length in [16, 100, 2000, good.len() - 1] {
        assert!(matches!(
            open(&good[..length]),
            Some(SnapshotError::Damaged { .. })
        ));
    }
    let longer = [&good[..], &[0]].concat();
    assert!(matches!(open(&longer), Some(SnapshotError::Damaged { .. })));
    let mut version = good.clone();
    version[8] = 9;
    assert!(matches!(
        open(&version),
        Some(SnapshotError::Version { found: 9, .. })
    ));
    let mut huge = good.clone();
    huge[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(open(&huge), Some(SnapshotError::Damaged { .. })));
    std::fs::write(&path, &good).unwrap();

    let mut tiny = Tiny::qwen2();
    tiny.add("blk.1.ffn_up.weight", &[INNER, WIDTH], 0.5);
    let (gguf, _folder) = tiny.open();
    let other = CpuModel::load(
        &gguf,
        &CpuOptions {
            context: CONTEXT,
            ..CpuOptions::default()
        },
    );
    let refused = self::session(&other.unwrap()).open(&path);
    assert!(matches!(
        refused,
        Err(CoreError::Snapshot(SnapshotError::OtherModel { .. }))
    ));
    let missing = session.open(&folder.path().join("none"));
    assert!(matches!(
        missing,
        Err(CoreError::Snapshot(SnapshotError::Io { .. }))
    ));
    let nowhere = session.save(&folder.path().join("no/folder"), &transcript);
    assert!(matches!(
        nowhere,
        Err(CoreError::Snapshot(SnapshotError::Io { .. }))
    ));
    // A page that is in use elsewhere leaves no room, unless earlier requests hold it.
    let mut holder = self::session(&model);
    holder
        .generate(&request(tokens(300, 1), 1, 0), &mut |_| ())
        .unwrap();
    session.clear().unwrap();
    drop(session);
    assert!(self::session(&model).open(&path).is_ok());
    let mut third = self::session(&model);
    third
        .generate(&request(tokens(10, 1), 1, 0), &mut |_| ())
        .unwrap();
    assert!(matches!(
        third.open(&path),
        Err(CoreError::CacheFull { .. })
    ));
}

#[test]
fn beginnings_outlive_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let store = || Store::new(&folder.path().join("store"), 4 << 20).unwrap();
    let prompt = tokens(300, 8);
    let mut session = self::session(&model(None)).with_store(store());
    session
        .generate(&request(prompt.clone(), 1, 0), &mut |_| ())
        .unwrap();
    session.keep_in_store().unwrap();
    session.keep_in_store().unwrap();
    assert_eq!(store().entries().unwrap().len(), 1);

    let mut longer = prompt.clone();
    longer.truncate(280);
    longer.extend(tokens(50, 9));
    let longer = request(longer, 4, 20);
    let mut session = self::session(&model(None)).with_store(store());
    let got = session.generate(&longer, &mut |_| ()).unwrap();
    assert_eq!((got.usage.reused, bits(&got)), (280, cold(&longer)));
    // What is little is not looked for, and what is damaged is passed over.
    let mut session = self::session(&model(None)).with_store(store());
    let short = session.generate(&request(prompt[..60].to_vec(), 1, 0), &mut |_| ());
    assert_eq!(short.unwrap().usage.reused, 0);
    let path = store().entries().unwrap().remove(0).path;
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 50;
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let got = session.generate(&longer, &mut |_| ()).unwrap();
    assert_eq!(bits(&got), cold(&longer));
    assert!(got.usage.reused <= 60);

    // The least recently used go first.
    let one = std::fs::metadata(&path).unwrap().len();
    let small = Store::new(&folder.path().join("store"), one + one / 2).unwrap();
    let mut session = self::session(&model(None)).with_store(small.clone());
    session
        .generate(&request(tokens(300, 2), 1, 0), &mut |_| ())
        .unwrap();
    session.keep_in_store().unwrap();
    let left = small.entries().unwrap();
    assert_eq!(left.len(), 1);
    assert_ne!(left[0].path, path);
    assert_eq!(small.purge().unwrap(), 1);
    assert!(small.entries().unwrap().is_empty());
}
