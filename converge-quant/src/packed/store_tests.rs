//! Files of packed weights: the same tiles, and what happens to files that are not what they were.

use std::{
    fs::{self, File},
    io::Write as _,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use proptest::prelude::*;
use twox_hash::XxHash3_64;

use super::*;
use crate::gguf::{Metadata, TensorSpec, Writer};

const MODES: [PackedMode; 2] = [PackedMode::Read, PackedMode::Map];

/// A model's file and a place for its tiles.
struct Place {
    dir: tempfile::TempDir,
}

/// Bytes that look like nothing in particular.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed;
    let mut byte = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..bytes).map(|_| byte()).collect()
}

/// A matrix of each type that has kernels, one that takes several chunks, and rows of different
/// numbers.
fn specs() -> Vec<TensorSpec> {
    let of = |(i, ggml_type): (usize, GgmlType)| TensorSpec {
        name: format!("tensor.{i}"),
        ggml_type,
        shape: vec![17 + i, 256],
    };
    let mut specs: Vec<_> = GgmlType::with_kernels().enumerate().map(of).collect();
    specs.push(TensorSpec {
        name: "large".to_owned(),
        ggml_type: GgmlType::Q4_K,
        shape: vec![3000, 1536],
    });
    specs
}

impl Place {
    fn new() -> Self {
        let place = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        place.write(1);
        place
    }

    fn model(&self) -> PathBuf {
        self.dir.path().join("model.gguf")
    }

    fn write(&self, seed: u64) {
        let specs = specs();
        let mut writer = Writer::create(self.model(), &Metadata::default(), &specs).unwrap();
        for (spec, seed) in specs.iter().zip(seed..) {
            writer.write(&noise(seed, spec.bytes().unwrap())).unwrap();
        }
        writer.finish().unwrap();
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join("packed")
    }

    fn store(&self, mode: PackedMode) -> PackedStore {
        PackedStore::new(&self.folder(), mode)
    }

    fn file(&self) -> PathBuf {
        let entries = self.store(PackedMode::Read).entries().unwrap();
        assert_eq!(entries.len(), 1);
        entries[0].path.clone()
    }

    /// What the folder has, by ending.
    fn endings(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder()).unwrap();
        let ending = |path: PathBuf| path.extension().unwrap().display().to_string();
        entries.map(|e| ending(e.unwrap().path())).collect()
    }

    /// The tiles of all matrices and the rows of one in two parts; whether they came from the store.
    fn load(&self, store: Option<&PackedStore>) -> (Vec<Packed>, bool) {
        let (all, writing) = self.begin(store);
        let from_store = store.is_some() && writing.is_none();
        if let Some(writing) = writing {
            writing.wait();
        }
        (all, from_store)
    }

    fn begin(&self, store: Option<&PackedStore>) -> (Vec<Packed>, Option<PackedWriting>) {
        let gguf = Gguf::open(self.model()).unwrap();
        let all_bytes: u64 = gguf.tensors().iter().map(|t| t.bytes as u64).sum();
        let mut last = 0;
        let mut tell = |done, total| {
            assert!(done <= total && total == all_bytes);
            last = done;
            ControlFlow::Continue(())
        };
        let mut matrices = Matrices::new(&gguf, store, &mut tell);
        let mut all = Vec::new();
        for info in gguf.tensors() {
            let half = info.rows() / 2;
            for rows in [0..half, half..info.rows()] {
                all.push(matrices.load(info, rows).unwrap());
            }
        }
        let writing = matrices.finish();
        assert_eq!(last, all_bytes);
        (all, writing)
    }
}

fn same(a: &[Packed], b: &[Packed]) -> bool {
    let tiles = |packed: &Packed| (packed.rows(), packed.cols(), packed.ggml_type());
    let pairs = || a.iter().zip(b);
    a.len() == b.len()
        && pairs().all(|(a, b)| tiles(a) == tiles(b))
        && pairs().all(|(a, b)| a.held.bytes() == b.held.bytes())
}

#[test]
fn tiles_come_back_bit_for_bit() {
    let place = Place::new();
    let (packed, _) = place.load(None);
    assert!(!place.folder().exists());
    for mode in MODES {
        let store = place.store(mode);
        let (first, from_store) = place.load(Some(&store));
        assert!(same(&packed, &first) && !from_store);
        let (again, from_store) = place.load(Some(&store));
        assert!(same(&packed, &again) && from_store);
        // In memory of its own, or shared with whoever maps the file.
        let mapped = again.iter().filter(|p| matches!(*p.held, Held::Mapped(_)));
        assert_eq!(mapped.count() == again.len(), mode == PackedMode::Map);
        let entries = store.entries().unwrap();
        let (path, digest) = &entries[0].sources[0];
        assert_eq!(*path, place.model().canonicalize().unwrap());
        let whole = <sha2::Sha256 as sha2::Digest>::digest(fs::read(place.model()).unwrap());
        assert_eq!(digest[..], whole[..]);
        assert_eq!(store.purge().unwrap(), 1);
        // What is mapped outlives its name.
        assert!(same(&packed, &again));
    }
}

/// A change of the tiles of any type must raise `LAYOUT`, or files of the old ones would be taken for
/// new ones; then these numbers are renewed.
#[test]
fn the_layout_has_the_version_that_it_had() {
    let mut sums = Vec::new();
    for ty in GgmlType::with_kernels() {
        let bytes = noise(7, 33 * ty.bytes_of(512).unwrap());
        let packed = Packed::from_bytes(ty, 33, 512, &bytes).unwrap();
        sums.push(format!(
            "{} {:016x}",
            ty.name(),
            XxHash3_64::oneshot(packed.held.bytes())
        ));
    }
    assert_eq!((LAYOUT, sums.join("\n").as_str()), (2, LAYOUT_2));
}

const LAYOUT_2: &str = "\
F32 0489d04ffcd0b08a
F16 e5fe1af9302a55c5
Q4_0 4c88018012d49f6a
Q4_1 1122669668b87c53
Q5_0 100dd7bf1cbb06b5
Q5_1 90552689744b7c81
Q8_0 69a150f5a3d3b3c3
Q2_K 18f99d769a6905b7
Q3_K 3434cfd1f7646563
Q4_K 3c30af898062ea29
Q5_K d0bf0d6734579299
Q6_K 04cddaab6db5f934
IQ4_NL 4c88018012d49f6a
IQ4_XS e26fecd6737136b0
BF16 e5fe1af9302a55c5
MXFP4 d831ee734142fffb";

#[test]
fn another_version_of_the_model_is_packed_and_takes_the_place() {
    let place = Place::new();
    let store = place.store(PackedMode::Read);
    let (first, _) = place.load(Some(&store));
    // The same size and header, another time.
    place.write(2);
    let (second, from_store) = place.load(Some(&store));
    assert!(!from_store && !same(&first, &second));
    assert_eq!(place.endings(), ["tiles"]);
    assert!(place.load(Some(&store)).1);
    // The time alone.
    let file = File::options().append(true).open(place.model()).unwrap();
    let then = SystemTime::now() - Duration::from_secs(60);
    file.set_modified(then).unwrap();
    assert!(!place.load(Some(&store)).1);
    assert!(place.load(Some(&store)).1);
    // The size alone.
    (&file).write_all(b"more").unwrap();
    file.set_modified(then).unwrap();
    assert!(!place.load(Some(&store)).1);
    let (third, from_store) = place.load(Some(&store));
    assert!(from_store && same(&second, &third));
    // The header alone.
    let mut bytes = fs::read(place.model()).unwrap();
    let at = bytes.windows(8).position(|w| w == b"tensor.0").unwrap();
    bytes[at..at + 8].copy_from_slice(b"tensor.x");
    fs::write(place.model(), bytes).unwrap();
    file.set_modified(then).unwrap();
    assert!(!place.load(Some(&store)).1);
    // A file of another model under this one's name.
    let (name, other) = (place.file(), Place::new());
    other.load(Some(&other.store(PackedMode::Read)));
    fs::copy(other.file(), &name).unwrap();
    let (found, from_store) = place.load(Some(&store));
    assert!(!from_store && same(&third, &found));
    assert!(place.load(Some(&store)).1);
}

#[test]
fn a_model_that_changes_before_it_is_written_is_not_kept() {
    let place = Place::new();
    let store = place.store(PackedMode::Read);
    let gguf = Gguf::open(place.model()).unwrap();
    let mut tell = |_, _| ControlFlow::Continue(());
    let mut matrices = Matrices::new(&gguf, Some(&store), &mut tell);
    matrices.load(&gguf.tensors()[0], 0..4).unwrap();
    place.write(3);
    matrices.finish().unwrap().wait();
    assert_eq!(place.endings(), [""; 0]);
}

#[test]
fn a_folder_that_cannot_be_written_costs_nothing() {
    let place = Place::new();
    let (packed, _) = place.load(None);
    // A file where the folder should be; this holds for the superuser, too.
    fs::write(place.folder(), "no folder").unwrap();
    for mode in MODES {
        let (found, from_store) = place.load(Some(&place.store(mode)));
        assert!(same(&packed, &found) && !from_store);
    }
    assert_eq!(fs::read(place.folder()).unwrap(), b"no folder");
    // A disk that is full.
    #[cfg(target_os = "linux")]
    {
        let gguf = Gguf::open(place.model()).unwrap();
        let key = key::Key::of(&gguf).unwrap();
        let slot = file::Slot::new(&gguf.tensors()[0], &(0..4));
        let matrices = [(slot, packed[0].clone())];
        let header = file::Header::new(key, vec![[0; 32]], &matrices);
        let full = File::options().write(true).open("/dev/full").unwrap();
        let failed = header.write(&matrices, &full, &mut || true).unwrap_err();
        assert_eq!(failed.kind(), std::io::ErrorKind::StorageFull);
    }
}

#[test]
fn what_is_too_large_is_not_kept_and_the_oldest_goes() {
    let (place, other) = (Place::new(), Place::new());
    let small = PackedStore::new(&place.folder(), PackedMode::Read).with_limit(1000);
    assert!(!place.load(Some(&small)).1 && !place.folder().exists());
    place.load(Some(&place.store(PackedMode::Read)));
    let bytes = fs::metadata(place.file()).unwrap().len();
    let one = PackedStore::new(&place.folder(), PackedMode::Read).with_limit(bytes * 3 / 2);
    assert!(place.load(Some(&one)).1);
    let before = place.file();
    other.load(Some(&one));
    assert_ne!(place.file(), before);
    assert!(!place.load(Some(&one)).1);
}

#[test]
fn two_writers_and_what_a_third_left() {
    let place = Place::new();
    let store = place.store(PackedMode::Read);
    fs::create_dir(place.folder()).unwrap();
    fs::write(place.folder().join("x.tiles.4000000-0.partial"), "left").unwrap();
    let (packed, one) = place.begin(Some(&store));
    let (_, two) = place.begin(Some(&store));
    for writing in [one, two] {
        writing.unwrap().wait();
    }
    assert_eq!(place.endings(), ["tiles"]);
    let (found, from_store) = place.load(Some(&store));
    assert!(from_store && same(&packed, &found));
}

#[test]
fn who_is_dropped_leaves_nothing_behind() {
    let place = Place::new();
    let store = place.store(PackedMode::Read);
    for _ in 0..5 {
        let (_, writing) = place.begin(Some(&store));
        drop(writing);
        // Complete, or not there.
        if place.folder().exists() {
            assert!(place.endings().iter().all(|ending| ending == "tiles"));
        }
    }
    // And is stopped by its caller.
    let gguf = Gguf::open(place.model()).unwrap();
    let mut calls = 0;
    let mut tell = |_, _| {
        calls += 1;
        match calls {
            5 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    };
    let mut matrices = Matrices::new(&gguf, None, &mut tell);
    let mut infos = gguf.tensors().iter();
    let failed = infos.find_map(|info| matrices.load(info, 0..info.rows()).err());
    assert!(matches!(failed, Some(QuantError::Cancelled)));
}

/// A file that is not what was written is passed over, and is right again after that.
fn is_passed_over(place: &Place, packed: &[Packed], mode: PackedMode, damaged: &[u8]) -> bool {
    let path = place.file();
    let good = fs::read(&path).unwrap();
    fs::write(&path, damaged).unwrap();
    let store = place.store(mode);
    let (found, from_store) = place.load(Some(&store));
    assert!(same(packed, &found));
    // The SHA-256 and padding may have other bytes.
    if !from_store {
        assert!(fs::read(&path).unwrap() == good);
    }
    fs::write(&path, &good).unwrap();
    !from_store
}

#[test]
fn damage_anywhere_costs_the_packing_and_no_more() {
    let place = Place::new();
    let (packed, _) = place.load(Some(&place.store(PackedMode::Read)));
    let good = fs::read(place.file()).unwrap();
    let mut cases = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 40,
        ..ProptestConfig::default()
    });
    let damage = (
        any::<prop::sample::Index>(),
        1u8..,
        any::<bool>(),
        any::<bool>(),
    );
    cases
        .run(&damage, |(at, change, early, cut)| {
            // The header is small beside the rest.
            let at = at.index(if early { 3000 } else { good.len() });
            let mut bad = good.clone();
            match cut {
                true => bad.truncate(at),
                false => bad[at] ^= change,
            }
            let mode = MODES[at % 2];
            let noticed = is_passed_over(&place, &packed, mode, &bad);
            prop_assert!(noticed || !cut);
            Ok(())
        })
        .unwrap();
    // Every field of the front, each chunk of the large matrix, and more than there should be.
    let large = good.len() - 2_500_000;
    let places = (0..36)
        .chain([40, 60, 100])
        .chain((large..good.len()).step_by(1 << 20));
    for at in places.chain([good.len() - 1]) {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert!(is_passed_over(&place, &packed, MODES[at % 2], &bad), "{at}");
    }
    for (i, bad) in [
        vec![],
        b"GGUF".to_vec(),
        vec![0; 5000],
        [&good[..], b"x"].concat(),
    ]
    .iter()
    .enumerate()
    {
        assert!(is_passed_over(&place, &packed, MODES[i % 2], bad), "{i}");
    }
}

/// Writers of this module never do that; but if somebody does, the mode that reads only warns.
#[test]
fn a_file_that_shrinks_while_it_is_read_is_a_warning() {
    let place = Place::new();
    let store = place.store(PackedMode::Read);
    let (packed, _) = place.load(Some(&store));
    let gguf = Gguf::open(place.model()).unwrap();
    let mut calls = 0;
    let path = place.file();
    let mut tell = |_, _| {
        calls += 1;
        if calls == 3 {
            let file = File::options().write(true).open(&path).unwrap();
            file.set_len(10_000).unwrap();
        }
        ControlFlow::Continue(())
    };
    let mut matrices = Matrices::new(&gguf, Some(&store), &mut tell);
    let mut found = Vec::new();
    for info in gguf.tensors() {
        let half = info.rows() / 2;
        for rows in [0..half, half..info.rows()] {
            found.push(matrices.load(info, rows).unwrap());
        }
    }
    assert!(same(&packed, &found));
    matrices.finish().unwrap().wait();
    assert!(place.load(Some(&store)).1);
}
