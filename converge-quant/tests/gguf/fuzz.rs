//! Whatever happens to a file, opening and reading it ends in a value or a typed error.

use std::fs;
use std::path::Path;

use converge_quant::{Gguf, QuantError};
use proptest::prelude::*;

use crate::builder::valid;

/// Opens and reads everything; that it returns is what is tested.
fn use_all(path: &Path) -> Result<(), QuantError> {
    let gguf = Gguf::open(path)?;
    for info in gguf.tensors() {
        let bytes = gguf.read(info)?;
        assert_eq!(bytes.len(), info.bytes());
        assert_eq!(info.rows() * info.row_bytes(), info.bytes());
    }
    Ok(())
}

#[test]
fn cut_at_every_byte() {
    let bytes = valid(3).0;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cut.gguf");
    for len in 0..bytes.len() {
        fs::write(&path, &bytes[..len]).unwrap();
        match use_all(&path) {
            Err(QuantError::Malformed { offset, .. }) => assert!(offset <= len as u64),
            other => panic!("cut at {len}: {other:?}"),
        }
    }
    fs::write(&path, &bytes).unwrap();
    use_all(&path).unwrap();
}

#[test]
fn every_byte_changed_to_every_extreme() {
    let bytes = valid(3).0;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("changed.gguf");
    for at in 0..bytes.len() {
        for value in [0x00, 0x01, 0x7f, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[at] = value;
            fs::write(&path, &changed).unwrap();
            if let Err(error) = use_all(&path) {
                assert!(matches!(
                    error,
                    QuantError::Malformed { .. } | QuantError::PartName { .. }
                ));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn bits_flipped(flips in prop::collection::vec((any::<prop::sample::Index>(), 0u8..8), 1..12)) {
        let mut bytes = valid(3).0;
        for (at, bit) in flips {
            bytes[at.index(valid(3).0.len())] ^= 1 << bit;
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), &bytes).unwrap();
        use_all(file.path()).ok();
    }

    #[test]
    fn noise_after_the_magic(noise in prop::collection::vec(any::<u8>(), 0..400), counts in any::<[u8; 2]>()) {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend_from_slice(&u64::from(counts[0]).to_le_bytes());
        bytes.extend_from_slice(&u64::from(counts[1]).to_le_bytes());
        bytes.extend_from_slice(&noise);
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), &bytes).unwrap();
        use_all(file.path()).ok();
    }
}
