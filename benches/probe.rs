//! What the machine can do at best, measured when it is asked.
//!
//! A probe repeats its work for about a quarter of a second and takes the fastest time: a limit is
//! what the machine reaches when nobody disturbs it.

use std::{hint::black_box, time::Instant};

use converge_quant::{
    GgmlType, Level, Packed, Pool, QuantError, Result, format,
    kernels::{self, Activations},
};
use memmap2::MmapMut;

use crate::{Times, numbers};

/// Seconds that a probe takes, about.
const SECONDS: f64 = 0.25;

/// Bytes that are streamed: much more than caches hold.
const STREAM: usize = 256 << 20;

/// Bytes that a thread sums at a time.
const CHUNK: usize = 1 << 20;

/// Bytes of a matrix that stays in a core's own cache beside its activations.
const CACHED: usize = 256 << 10;

/// Length of the cached matrix' rows: that of a 1.5B model's hidden state.
const COLS: usize = 1536;

/// Activations of a cached product, at most this many tokens of them.
const CACHED_TOKENS: usize = 64;

/// Multiply-adds of one vector of the raw probe.
const VECTOR: usize = 64;

/// Vectors of one call of the raw probe.
const VECTORS: usize = 1 << 20;

/// Repeats `work` for about [`SECONDS`], after one time that is not counted, and gives the fastest
/// in seconds.
fn fastest(mut work: impl FnMut()) -> f64 {
    work();
    let mut times = Times::new();
    let start = Instant::now();
    while times.is_empty() || start.elapsed().as_secs_f64() < SECONDS {
        times.measure(1, &mut work);
    }
    times.best()
}

/// A buffer much larger than the caches, to stream from.
pub struct Stream(MmapMut);

impl Stream {
    /// Makes the buffer: in large pages where the system has them, as the engine's weights are.
    ///
    /// # Errors
    /// The system's, where it has not so much memory.
    pub fn new() -> std::io::Result<Self> {
        let mut memory = MmapMut::map_anon(STREAM)?;
        // Only a wish: where the system has no large pages, small ones do.
        #[cfg(target_os = "linux")]
        let _ = memory.advise(memmap2::Advice::HugePage);
        // Pages that were never written to are all the same one.
        memory.fill(1);
        Ok(Self(memory))
    }

    /// Bytes per second that the pool's threads sum from memory.
    #[must_use]
    pub fn bandwidth(&self, pool: &Pool) -> f64 {
        let vectors = Level::Avx512.is_available();
        let seconds = fastest(|| {
            pool.run(STREAM / CHUNK, &|i| {
                let chunk = &self.0[i * CHUNK..(i + 1) * CHUNK];
                black_box(sum(chunk, vectors));
            });
        });
        STREAM as f64 / seconds
    }
}

/// The sum of all words of eight bytes.
fn sum(bytes: &[u8], vectors: bool) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if vectors {
        // SAFETY: the caller found `Level::Avx512` available on this machine: AVX-512 F is part of it.
        return unsafe { x86::sum(bytes) };
    }
    let _ = vectors;
    let words = bytes.as_chunks::<8>().0;
    words
        .iter()
        .fold(0, |sum, word| sum.wrapping_add(u64::from_ne_bytes(*word)))
}

/// 8-bit multiply-adds per second with nothing beside them: independent `vpdpbusd` on registers
/// of 64 bytes on all threads of the pool; without AVX-512 VNNI what the compiler makes of plain
/// integers.
#[must_use]
pub fn raw(pool: &Pool) -> f64 {
    let vectors = Level::Avx512.is_available();
    let seconds = fastest(|| {
        pool.run(pool.threads(), &|_| {
            black_box(multiply_add(black_box(3), vectors));
        });
    });
    (pool.threads() * VECTORS * VECTOR) as f64 / seconds
}

/// [`VECTORS`] times [`VECTOR`] multiply-adds.
fn multiply_add(seed: i8, vectors: bool) -> i32 {
    #[cfg(target_arch = "x86_64")]
    if vectors {
        // SAFETY: the caller found AVX-512 F and VNNI on this machine: they are part of
        // `Level::Avx512`, and a level is detected only where it is available.
        return unsafe { x86::multiply_add(seed) };
    }
    let _ = vectors;
    let weights = black_box([seed; VECTOR]);
    let mut sums = [0_i32; VECTOR];
    for _ in 0..VECTORS {
        let activations = black_box(i32::from(seed));
        for (sum, &weight) in sums.iter_mut().zip(&weights) {
            *sum = sum.wrapping_add(i32::from(weight) * activations);
        }
    }
    sums.into_iter().fold(0, i32::wrapping_add)
}

/// Multiply-adds per second of the kernels for weights of type `ty` where memory is no limit: each
/// thread multiplies a matrix of its own, which stays in its cache, with `tokens` tokens (at most
/// 64 are taken), and waits for no other.
///
/// # Errors
/// [`QuantError::NoKernel`] for a type without kernels.
pub fn mix(pool: &Pool, level: Level, ty: GgmlType, tokens: usize) -> Result<f64> {
    let tokens = tokens.clamp(1, CACHED_TOKENS);
    let row = ty.bytes_of(COLS).unwrap_or(CACHED);
    let rows = (CACHED / row.max(1)).next_multiple_of(16).max(16);
    let x = numbers(tokens * COLS);
    let alone = Pool::new(1);
    let cached = (0..pool.threads())
        .map(|_| {
            let matrix = matrix(ty, rows, COLS)?;
            let mut activations = Activations::new();
            activations.set(&alone, level, &x, COLS, &[&matrix])?;
            Ok((matrix, activations))
        })
        .collect::<Result<Vec<_>>>()?;
    let work = tokens * rows * COLS;
    // Long enough that waking the threads does not count.
    let repeat = (200_000_000 / work).max(1);
    let failed = std::sync::Mutex::new(None);
    let seconds = fastest(|| {
        pool.run(cached.len(), &|i| {
            let (matrix, activations) = &cached[i];
            // Threads are not shared by pools: one of a single thread is the caller.
            let alone = Pool::new(1);
            let mut out = vec![0.0; tokens * rows];
            for _ in 0..repeat {
                if let Err(error) = kernels::matmul(&alone, level, matrix, activations, &mut out) {
                    *failed.lock().unwrap_or_else(|lock| lock.into_inner()) = Some(error);
                }
                black_box(&mut out);
            }
        });
    });
    match failed.into_inner().unwrap_or_else(|lock| lock.into_inner()) {
        Some(error) => Err(error),
        None => Ok((cached.len() * repeat * work) as f64 / seconds),
    }
}

/// A packed matrix of type `ty` with random weights; zeros where the type has no encoder. Sixteen
/// rows are made and repeated.
///
/// # Errors
/// [`QuantError::NoKernel`] for a type without kernels, [`QuantError::PartialRow`] where `cols`
/// are no whole blocks.
pub fn matrix(ty: GgmlType, rows: usize, cols: usize) -> Result<Packed> {
    let row_bytes = ty.bytes_of(cols).ok_or(QuantError::PartialRow {
        ggml_type: ty,
        numbers: cols,
        block_len: ty.block_len(),
    })?;
    let mut some = Vec::new();
    match format::encode(ty, &numbers(16 * cols), &mut some) {
        Err(QuantError::NoEncoder { .. }) => some = vec![0; 16 * row_bytes],
        done => done?,
    }
    let bytes: Vec<u8> = some.into_iter().cycle().take(rows * row_bytes).collect();
    Packed::from_bytes(ty, rows, cols, &bytes)
}

/// The probes' loops in AVX-512.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m512i, _mm512_add_epi32, _mm512_add_epi64, _mm512_dpbusd_epi32, _mm512_loadu_si512,
        _mm512_reduce_add_epi32, _mm512_reduce_add_epi64, _mm512_set1_epi8, _mm512_setzero_si512,
    };

    use super::VECTORS;

    /// Sums under way at a time: more than an addition's latency needs.
    const SUMS: usize = 8;

    /// Sums at a time of the multiply-adds: four or five cycles at two of them in a cycle, and some
    /// to spare.
    const PRODUCTS: usize = 16;

    /// The sum of all words of eight bytes; a rest shorter than 512 bytes is left out.
    ///
    /// # Safety
    /// - The machine has AVX-512 F.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn sum(bytes: &[u8]) -> u64 {
        let mut sums = [_mm512_setzero_si512(); SUMS];
        for vectors in bytes.as_chunks::<64>().0.as_chunks::<SUMS>().0 {
            for (sum, vector) in sums.iter_mut().zip(vectors) {
                // SAFETY: `vector` is 64 readable bytes, and the load asks for no alignment.
                let words: __m512i = unsafe { _mm512_loadu_si512(vector.as_ptr().cast()) };
                *sum = _mm512_add_epi64(*sum, words);
            }
        }
        let zero = _mm512_setzero_si512();
        let sum = sums.into_iter().fold(zero, |a, b| _mm512_add_epi64(a, b));
        _mm512_reduce_add_epi64(sum).cast_unsigned()
    }

    /// `VECTORS` independent `vpdpbusd`.
    ///
    /// # Safety
    /// - The machine has AVX-512 F and VNNI.
    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) unsafe fn multiply_add(seed: i8) -> i32 {
        let weights = _mm512_set1_epi8(seed);
        let activations = _mm512_set1_epi8(seed.wrapping_neg());
        let mut sums = [_mm512_setzero_si512(); PRODUCTS];
        for _ in 0..VECTORS / PRODUCTS {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, weights, activations);
            }
        }
        let zero = _mm512_setzero_si512();
        let sum = sums.into_iter().fold(zero, |a, b| _mm512_add_epi32(a, b));
        _mm512_reduce_add_epi32(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_give_the_same() {
        let bytes = crate::noise(4096);
        let with = Level::Avx512.is_available();
        assert_eq!(sum(&bytes, false), sum(&bytes, with));
    }

    #[test]
    fn the_raw_probe_multiplies_and_adds() {
        // Each of the lanes sums four products.
        let expected = |product: i32| {
            let all = i32::try_from(VECTORS * VECTOR).unwrap();
            all.wrapping_mul(product)
        };
        assert_eq!(multiply_add(3, false), expected(9));
        if Level::Avx512.is_available() {
            assert_eq!(multiply_add(3, true), expected(-9));
        }
    }

    #[test]
    fn every_type_with_kernels_has_a_matrix() {
        for ty in [GgmlType::Q4_K, GgmlType::IQ4_XS, GgmlType::F32] {
            let matrix = matrix(ty, 48, 256).unwrap();
            assert_eq!((matrix.rows(), matrix.cols()), (48, 256));
        }
        assert!(matrix(GgmlType::Q4_K, 16, 100).is_err());
    }
}
