//! Decoding blocks to f32 and encoding them, each format on one thread.
//!
//! ```text
//! cargo bench -p converge-benches --bench formats
//! ```

use converge_benches::noise;
use converge_quant::{GgmlType, format};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// Weights decoded in one iteration: a row of a 7B model's feed-forward, 16 times.
const ELEMENTS: usize = 16 * 14336;

fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    for ggml_type in GgmlType::ALL
        .iter()
        .copied()
        .filter(|one| one.is_supported())
    {
        let Some(bytes) = ggml_type.bytes_of(ELEMENTS) else {
            continue;
        };
        let blocks = noise(bytes);
        let mut out = vec![0.0_f32; ELEMENTS];
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::from_parameter(ggml_type.name()), |b| {
            b.iter(|| format::decode(ggml_type, &blocks, &mut out));
        });
    }
    group.finish();
}

/// Numbers of random bytes: spread about zero as weights are.
fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode");
    let bytes = noise(2 * ELEMENTS);
    let numbers: Vec<f32> = bytes
        .chunks_exact(2)
        .map(|two| (f32::from(two[0]) + f32::from(two[1])) / 255.0 - 1.0)
        .collect();
    for &ggml_type in GgmlType::ALL {
        let mut out = Vec::new();
        if format::encode(ggml_type, &numbers, &mut out).is_err() {
            continue;
        }
        group.throughput(Throughput::Elements(ELEMENTS as u64));
        group.bench_function(BenchmarkId::from_parameter(ggml_type.name()), |b| {
            b.iter(|| {
                out.clear();
                format::encode(ggml_type, &numbers, &mut out)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, decode, encode);
criterion_main!(benches);
