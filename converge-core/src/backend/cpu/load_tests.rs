//! Loading: packed weights kept on disk, progress, and files that change under it.

use std::{
    fs::{self, File},
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use candle_core::quantized::GgmlDType;
use converge_quant::PackedMode;

use super::*;
use crate::{
    TokenId,
    model::{
        Decoder as _, Rows,
        tiny::{CONTEXT, FILE, Tiny, VOCAB},
    },
};

const MODES: [PackedMode; 2] = [PackedMode::Read, PackedMode::Map];

fn options() -> CpuOptions {
    CpuOptions {
        context: CONTEXT,
        threads: NonZeroUsize::new(1),
        ..CpuOptions::default()
    }
}

fn kept_in(folder: &Path, mode: PackedMode) -> CpuOptions {
    CpuOptions {
        packed: Some(PackedStore::new(&folder.join("packed"), mode)),
        ..options()
    }
}

fn logits(model: &CpuModel) -> Vec<u32> {
    let tokens: Vec<TokenId> = (0..40).map(|i| (i * i + 5) % VOCAB as TokenId).collect();
    let cancel = Cancel::new();
    let logits = model
        .decoder()
        .forward(&tokens, Rows::All, &cancel)
        .unwrap();
    logits.data.into_iter().map(f32::to_bits).collect()
}

/// Whether its matrices came from the disk.
fn was_kept(model: &CpuModel) -> bool {
    model.shared.writing.is_none()
}

#[test]
fn logits_have_the_same_bits_with_packed_weights_from_disk() {
    for (name, mut tiny) in Tiny::kinds() {
        for matrices in [GgmlDType::F32, GgmlDType::Q8_0] {
            tiny.matrices = matrices;
            let (gguf, folder) = tiny.open();
            let packed = logits(&CpuModel::load(&gguf, &options()).unwrap());
            let first = CpuModel::load(&gguf, &kept_in(folder.path(), MODES[0])).unwrap();
            assert!(!was_kept(&first), "{name}");
            assert!(logits(&first) == packed, "{name}");
            first.settle();
            for mode in MODES {
                let again = CpuModel::load(&gguf, &kept_in(folder.path(), mode)).unwrap();
                assert!(was_kept(&again), "{name} {mode:?}");
                assert!(logits(&again) == packed, "{name} {mode:?}");
                assert_eq!(again.weight_bytes(), first.weight_bytes());
            }
        }
    }
}

#[test]
fn damage_changes_no_logit() {
    let (gguf, folder) = Tiny::qwen2moe().open();
    let packed = logits(&CpuModel::load(&gguf, &options()).unwrap());
    let options = |mode| kept_in(folder.path(), mode);
    CpuModel::load(&gguf, &options(MODES[0])).unwrap().settle();
    let entries = options(MODES[0]).packed.unwrap().entries().unwrap();
    let path = &entries[0].path;
    let good = fs::read(path).unwrap();
    for i in 0..24 {
        let mut bad = good.clone();
        let at = i * good.len() / 24;
        match i % 3 {
            0 => bad.truncate(at),
            _ => bad[at] ^= 0x40,
        }
        // Another file, as a disk that forgets would have it: the old one may still be mapped.
        fs::remove_file(path).unwrap();
        fs::write(path, bad).unwrap();
        let model = CpuModel::load(&gguf, &options(MODES[i % 2])).unwrap();
        assert!(logits(&model) == packed, "{at}");
        model.settle();
    }
    let model = CpuModel::load(&gguf, &options(PackedMode::Map)).unwrap();
    assert!(was_kept(&model));
}

#[test]
fn progress_goes_up_to_the_end_and_loading_can_be_cancelled() {
    let (gguf, folder) = Tiny::mixtral().open();
    CpuModel::load(&gguf, &kept_in(folder.path(), MODES[0]))
        .unwrap()
        .settle();
    let with_store = MODES.map(|mode| kept_in(folder.path(), mode));
    for options in with_store.into_iter().chain([options()]) {
        let told = Arc::new(Mutex::new(Vec::new()));
        let to = Arc::clone(&told);
        let mut telling = CpuOptions {
            progress: Some(Progress::new(move |done, total| {
                to.lock().unwrap().push((done, total));
            })),
            ..options.clone()
        };
        CpuModel::load(&gguf, &telling).unwrap();
        let told = told.lock().unwrap();
        let total = gguf.tensors().iter().map(|t| t.bytes() as u64).sum();
        assert!(told.is_sorted() && told.len() > 20);
        assert!(told.iter().all(|&(_, all)| all == total));
        assert_eq!(told.last(), Some(&(total, total)));

        let cancel = Cancel::new();
        let (calls, stop) = (AtomicUsize::new(0), cancel.clone());
        telling.cancel = cancel;
        telling.progress = Some(Progress::new(move |_, _| {
            if calls.fetch_add(1, Ordering::Relaxed) == 3 {
                stop.cancel();
            }
        }));
        let cancelled = CpuModel::load(&gguf, &telling);
        assert!(matches!(cancelled, Err(CoreError::Cancelled)));
    }
}

/// The mode that maps nothing: whatever becomes of the model's file, there is a model or an error.
#[test]
fn a_file_that_is_cut_or_changed_while_it_is_loaded_crashes_nothing() {
    let tiny = Tiny::qwen2();
    let calls = Arc::new(AtomicUsize::new(0));
    let counting = CpuOptions {
        progress: Some({
            let calls = Arc::clone(&calls);
            Progress::new(move |_, _| {
                calls.fetch_add(1, Ordering::Relaxed);
            })
        }),
        ..options()
    };
    let (gguf, _folder) = tiny.open();
    CpuModel::load(&gguf, &counting).unwrap();
    // At every step of the way.
    let (mut refused, mut loaded) = (0, 0);
    for at in 0..calls.load(Ordering::Relaxed) {
        for length in [Some(0), Some(3000), None] {
            let (gguf, folder) = tiny.open();
            let path = folder.path().join(FILE);
            let step = AtomicUsize::new(0);
            let changing = CpuOptions {
                progress: Some(Progress::new(move |_, _| {
                    if step.fetch_add(1, Ordering::Relaxed) == at {
                        let file = File::options().write(true).open(&path).unwrap();
                        change(&file, length);
                    }
                })),
                ..kept_in(folder.path(), PackedMode::Read)
            };
            match CpuModel::load(&gguf, &changing) {
                Ok(model) => {
                    loaded += 1;
                    logits(&model);
                    // Weights of two versions are not kept.
                    model.settle();
                    let store = changing.packed.unwrap();
                    assert!(store.entries().unwrap().is_empty(), "{at} {length:?}");
                }
                Err(CoreError::Quant(QuantError::Io { .. })) => refused += 1,
                Err(other) => panic!("{other}"),
            }
        }
    }
    assert!(refused > 20 && loaded > 20, "{refused} {loaded}");
    // And from another thread, at any moment.
    for length in [Some(0), Some(3000), None] {
        for round in 0..10 {
            let (gguf, folder) = tiny.open();
            let path = folder.path().join(FILE);
            let file = File::options().write(true).open(path).unwrap();
            let go = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| {
                    while !go.load(Ordering::Acquire) {
                        std::hint::spin_loop();
                    }
                    thread::sleep(std::time::Duration::from_micros(round * 150));
                    change(&file, length);
                });
                go.store(true, Ordering::Release);
                if let Ok(model) = CpuModel::load(&gguf, &options()) {
                    logits(&model);
                }
            });
        }
    }
}

/// Cuts a file, or writes over its middle.
fn change(mut file: &File, length: Option<u64>) {
    use std::io::{Seek as _, SeekFrom, Write as _};
    match length {
        Some(length) => file.set_len(length).unwrap(),
        None => {
            let middle = file.metadata().unwrap().len() / 2;
            file.seek(SeekFrom::Start(middle)).unwrap();
            file.write_all(&[0xff; 4000]).unwrap();
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn pinned_threads_compute_the_same() {
    let (gguf, _folder) = Tiny::qwen2().open();
    let free = logits(&CpuModel::load(&gguf, &options()).unwrap());
    let cores = thread::available_parallelism().unwrap();
    let mut pinned = CpuOptions {
        threads: Some(cores),
        pin: true,
        ..options()
    };
    assert!(logits(&CpuModel::load(&gguf, &pinned).unwrap()) == free);
    pinned.threads = NonZeroUsize::new(1023);
    let refused = CpuModel::load(&gguf, &pinned);
    assert!(matches!(
        refused,
        Err(CoreError::Quant(QuantError::Pin { .. }))
    ));
}
