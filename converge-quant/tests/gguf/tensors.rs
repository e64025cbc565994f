//! Tensors of well-formed files.

use converge_quant::gguf::{Fault, Field};
use converge_quant::{GgmlType, Gguf, QuantError};

use crate::builder::{Bytes, code, valid};

fn floats(bytes: &[u8]) -> Vec<f32> {
    let floats = bytes.chunks_exact(4);
    floats
        .map(|raw| f32::from_le_bytes(raw.try_into().unwrap()))
        .collect()
}

#[test]
fn tensors_of_both_versions_are_read() {
    for version in [2, 3] {
        let (_directory, path) = valid(version).file();
        let gguf = Gguf::open(&path).unwrap();
        assert_eq!(gguf.version(), version);
        assert_eq!(gguf.path(), path);
        assert_eq!(gguf.file_bytes(), std::fs::metadata(&path).unwrap().len());
        let names: Vec<&str> = gguf.tensors().iter().map(|t| t.name.as_str()).collect();
        assert_eq!(names, ["matrix", "vector", "blocks"]);

        let matrix = gguf.tensor("matrix").unwrap();
        assert_eq!(matrix.shape, [3, 2]);
        assert_eq!((matrix.rows(), matrix.cols()), (3, 2));
        let all = gguf.read(matrix).unwrap();
        assert_eq!(floats(&all), [10.0, 11.0, 20.0, 21.0, 30.0, 31.0]);
        let mut rows = vec![1, 2, 3];
        gguf.read_rows(matrix, 1..3, &mut rows).unwrap();
        assert_eq!(floats(&rows), [20.0, 21.0, 30.0, 31.0]);
        gguf.read_rows(matrix, 3..3, &mut rows).unwrap();
        assert!(rows.is_empty());

        let vector = gguf.tensor("vector").unwrap();
        assert_eq!((vector.rows(), vector.cols()), (1, 4));
        assert_eq!(floats(&gguf.read(vector).unwrap()), [1.0, 2.0, 3.0, 4.0]);

        let blocks = gguf.tensor("blocks").unwrap();
        assert_eq!(blocks.ggml_type, GgmlType::Q4_0);
        assert_eq!((blocks.row_bytes(), blocks.bytes()), (18, 36));
        assert_eq!(gguf.read(blocks).unwrap(), [0xa5; 36]);
    }
}

#[test]
fn threads_read_one_file_at_once() {
    let (_directory, path) = valid(3).file();
    let gguf = Gguf::open(&path).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let gguf = &gguf;
            scope.spawn(move || {
                for turn in 0..200 {
                    let info = &gguf.tensors()[(thread + turn) % 3];
                    let bytes = gguf.read(info).unwrap();
                    match info.name.as_str() {
                        "matrix" => assert_eq!(floats(&bytes)[5], 31.0),
                        "vector" => assert_eq!(floats(&bytes)[3], 4.0),
                        _ => assert_eq!(bytes, [0xa5; 36]),
                    }
                }
            });
        }
    });
}

#[test]
fn requests_beyond_a_file_are_refused() {
    let (_directory, path) = valid(3).file();
    let gguf = Gguf::open(&path).unwrap();
    assert!(gguf.find("nothing").is_none());
    assert!(matches!(
        gguf.tensor("nothing"),
        Err(QuantError::MissingTensor { name, .. }) if name == "nothing"
    ));
    let matrix = gguf.tensor("matrix").unwrap();
    for (start, end) in [(2, 4), (4, 4), (3, 2), (0, usize::MAX)] {
        assert!(matches!(
            gguf.read_rows(matrix, start..end, &mut Vec::new()),
            Err(QuantError::RowRange { rows: 3, .. })
        ));
    }
    let mut foreign = matrix.clone();
    foreign.shape = vec![1 << 40, 1 << 20];
    assert!(matches!(
        gguf.read(&foreign),
        Err(QuantError::ForeignTensor { tensor }) if tensor == "matrix"
    ));
    foreign.shape = vec![usize::MAX, usize::MAX, 3];
    assert!(gguf.read(&foreign).is_err());
}

#[test]
fn a_file_cut_after_opening_is_an_error() {
    let (_directory, path) = valid(3).file();
    let gguf = Gguf::open(&path).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(100).unwrap();
    for info in gguf.tensors() {
        assert!(matches!(gguf.read(info), Err(QuantError::Io { .. })));
    }
}

#[test]
fn every_known_type_opens_and_unsupported_ones_are_named() {
    for &ggml_type in GgmlType::ALL {
        let row = ggml_type.block_len() as u64;
        let (_directory, path) = Bytes::header(1, 0)
            .tensor("weights", &[row, 3], ggml_type.code(), 0)
            .align(32)
            .raw(&vec![7; 3 * ggml_type.block_bytes()])
            .file();
        let gguf = Gguf::open(&path).unwrap();
        let info = gguf.tensor("weights").unwrap();
        assert_eq!(info.ggml_type, ggml_type);
        assert_eq!(gguf.read(info).unwrap().len(), 3 * ggml_type.block_bytes());
        match info.check_supported() {
            Ok(()) => assert!(ggml_type.is_supported()),
            Err(error) => {
                assert!(!ggml_type.is_supported());
                let text = error.to_string();
                let name = format!("stored as {ggml_type};");
                assert!(
                    text.contains("\"weights\"") && text.contains(&name),
                    "{text}"
                );
                assert!(text.contains("Q4_K") && text.contains("MXFP4"), "{text}");
            }
        }
    }
}

#[test]
fn a_file_without_tensors_may_end_after_its_header() {
    let (_directory, path) = Bytes::header(0, 1).key("a", code::U8).u8(1).file();
    let gguf = Gguf::open(&path).unwrap();
    assert!(gguf.tensors().is_empty());
    assert_eq!(gguf.metadata().get::<u8>("a").unwrap(), 1);
}

#[test]
fn four_dimensions_are_reversed() {
    let (_directory, path) = Bytes::header(1, 0)
        .tensor("t", &[2, 3, 4, 5], 24, 0)
        .align(32)
        .raw(&[0; 120])
        .file();
    let gguf = Gguf::open(&path).unwrap();
    let info = gguf.tensor("t").unwrap();
    assert_eq!(info.shape, [5, 4, 3, 2]);
    assert_eq!((info.rows(), info.cols(), info.elements()), (60, 2, 120));
}

#[test]
fn errors_read_well() {
    let bytes = Bytes::header(1, 0);
    let at = bytes.len() + 9 + 12;
    let (_directory, path) = bytes.tensor("t", &[32], 99, 0).file();
    let error = Gguf::open(&path).unwrap_err();
    assert!(matches!(
        &error,
        QuantError::Malformed {
            field: Field::TensorType { .. },
            fault: Fault::UnknownTensorType { code: 99 },
            ..
        }
    ));
    let expected = format!(
        "{}: byte {at}: type of tensor \"t\": unknown tensor type 99",
        path.display()
    );
    assert_eq!(error.to_string(), expected);
}
