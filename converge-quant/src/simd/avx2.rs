//! AVX2 with FMA and F16C: two registers for sixteen lanes.

use std::arch::x86_64::*;

use super::{Kernel, Simd};

/// Proof that the machine has AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

/// # Safety
/// The machine has AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx2(()))
}

/// One intrinsic for both halves.
macro_rules! both {
    ($f:path, $($a:expr),+) => {{
        // SAFETY: an `Avx2` exists only inside `run`, whose caller has checked the features.
        unsafe { [$f($($a[0]),+), $f($($a[1]),+)] }
    }};
}

// Functions, not closures: a closure does not inherit the target features, and is called.
/// # Safety
/// The machine has AVX2.
#[inline(always)]
unsafe fn power_of_two_half(n: __m256) -> __m256 {
    // SAFETY: called with an `Avx2` at hand.
    unsafe {
        let biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
        _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
    }
}

#[inline(always)]
fn dot4_half(sum: __m256i, weights: __m256i, a: __m256i) -> __m256i {
    // SAFETY: called with the proof at hand.
    unsafe {
        let pairs = _mm256_maddubs_epi16(weights, a);
        _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
    }
}

#[inline(always)]
fn dot4_wide_half(sum: __m256i, weights: __m256i, even: __m256i, a: __m256i) -> __m256i {
    // SAFETY: called with the proof at hand.
    unsafe {
        let sum = dot4_half(sum, _mm256_and_si256(even, weights), a);
        dot4_half(sum, _mm256_andnot_si256(even, weights), a)
    }
}

#[inline(always)]
fn dot2_half(sum: __m256i, weights: __m256i, a: __m256i) -> __m256i {
    // SAFETY: called with the proof at hand.
    unsafe { _mm256_add_epi32(sum, _mm256_madd_epi16(weights, a)) }
}

// SAFETY, for every block below that names no other: an `Avx2` exists only inside `run`, whose
// caller has checked the features.
impl Simd for Avx2 {
    type F = [__m256; 2];
    type I = [__m256i; 2];
    type B = [__m256i; 2];

    const TOKENS: usize = 4;
    const QUERIES: usize = 6;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        // SAFETY: see above.
        unsafe { [_mm256_set1_ps(x); 2] }
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        both!(_mm256_add_ps, a, b)
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        both!(_mm256_sub_ps, a, b)
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        both!(_mm256_mul_ps, a, b)
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        both!(_mm256_div_ps, a, b)
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        both!(_mm256_fmadd_ps, a, b, c)
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        both!(_mm256_max_ps, a, b)
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        both!(_mm256_min_ps, a, b)
    }
    #[inline(always)]
    fn round(self, a: Self::F) -> Self::F {
        const MODE: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        both!(_mm256_round_ps::<MODE>, a)
    }
    #[inline(always)]
    fn power_of_two(self, n: Self::F) -> Self::F {
        both!(power_of_two_half, n)
    }
    #[inline(always)]
    fn abs(self, a: Self::F) -> Self::F {
        // SAFETY: see above.
        unsafe {
            let sign = _mm256_set1_ps(-0.0);
            [_mm256_andnot_ps(sign, a[0]), _mm256_andnot_ps(sign, a[1])]
        }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::F {
        // SAFETY: see above; sixteen `f32` are readable.
        unsafe { [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))] }
    }
    #[inline(always)]
    unsafe fn store(self, a: Self::F, to: *mut f32) {
        // SAFETY: see above; sixteen `f32` are writable.
        unsafe {
            _mm256_storeu_ps(to, a[0]);
            _mm256_storeu_ps(to.add(8), a[1]);
        }
    }
    #[inline(always)]
    unsafe fn load_f16(self, from: *const u16) -> Self::F {
        // SAFETY: see above; sixteen `u16` are readable.
        unsafe {
            [
                _mm256_cvtph_ps(_mm_loadu_si128(from.cast())),
                _mm256_cvtph_ps(_mm_loadu_si128(from.add(8).cast())),
            ]
        }
    }
    #[inline(always)]
    unsafe fn splat_f16(self, from: *const u16) -> Self::F {
        // SAFETY: see above; one `u16` is readable.
        unsafe {
            let bits = from.read_unaligned().cast_signed();
            [_mm256_cvtph_ps(_mm_set1_epi16(bits)); 2]
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, from: *const u16) -> Self::F {
        // SAFETY: see above; sixteen `u16` are readable.
        unsafe {
            let (low, high) = (
                _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast())),
                _mm256_cvtepu16_epi32(_mm_loadu_si128(from.add(8).cast())),
            );
            [
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(low)),
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(high)),
            ]
        }
    }
    #[inline(always)]
    unsafe fn load_i8(self, from: *const u8) -> Self::F {
        // SAFETY: see above; sixteen bytes are readable.
        unsafe {
            [
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast()))),
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.add(8).cast()))),
            ]
        }
    }
    #[inline(always)]
    unsafe fn store_i8(self, a: Self::F, to: *mut i8) {
        // SAFETY: see above; sixteen bytes are writable.
        unsafe {
            let words = _mm256_packs_epi32(_mm256_cvtps_epi32(a[0]), _mm256_cvtps_epi32(a[1]));
            let words = _mm256_permute4x64_epi64::<0b1101_1000>(words);
            let (low, high) = (
                _mm256_castsi256_si128(words),
                _mm256_extracti128_si256::<1>(words),
            );
            _mm_storeu_si128(to.cast(), _mm_packs_epi16(low, high));
        }
    }

    #[inline(always)]
    fn ints(self, x: i32) -> Self::I {
        // SAFETY: see above.
        unsafe { [_mm256_set1_epi32(x); 2] }
    }
    #[inline(always)]
    fn to_f32(self, a: Self::I) -> Self::F {
        both!(_mm256_cvtepi32_ps, a)
    }
    #[cfg(test)]
    #[inline(always)]
    unsafe fn store_ints(self, a: Self::I, to: *mut i32) {
        // SAFETY: see above; sixteen `i32` are writable.
        unsafe { self.store_bytes(a, to.cast()) }
    }
    #[inline(always)]
    unsafe fn load_u8(self, from: *const u8) -> Self::I {
        // SAFETY: see above; sixteen bytes are readable.
        unsafe {
            [
                _mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast())),
                _mm256_cvtepu8_epi32(_mm_loadl_epi64(from.add(8).cast())),
            ]
        }
    }
    #[inline(always)]
    fn low_nibble(self, a: Self::I) -> Self::I {
        // SAFETY: see above.
        let low = unsafe { [_mm256_set1_epi32(15); 2] };
        both!(_mm256_and_si256, a, low)
    }
    #[inline(always)]
    fn high_part(self, a: Self::I) -> Self::I {
        both!(_mm256_srli_epi32::<4>, a)
    }
    #[inline(always)]
    fn dot4<const WIDE: bool>(self, sum: Self::I, weights: Self::B, a: i32) -> Self::I {
        // SAFETY: see above.
        unsafe {
            let a = _mm256_set1_epi32(a);
            if !WIDE {
                return [
                    dot4_half(sum[0], weights[0], a),
                    dot4_half(sum[1], weights[1], a),
                ];
            }
            // A pair of products may exceed 16 bits, one does not: even bytes, then odd ones.
            let even = _mm256_set1_epi16(0x00ff);
            [
                dot4_wide_half(sum[0], weights[0], even, a),
                dot4_wide_half(sum[1], weights[1], even, a),
            ]
        }
    }
    #[inline(always)]
    fn dot2(self, sum: Self::I, weights: Self::I, a: i32) -> Self::I {
        // SAFETY: see above.
        let a = unsafe { _mm256_set1_epi32(a) };
        [
            dot2_half(sum[0], weights[0], a),
            dot2_half(sum[1], weights[1], a),
        ]
    }

    #[inline(always)]
    fn prefetch(self, at: *const u8) {
        // SAFETY: a hint, which faults at no address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }
    #[inline(always)]
    fn prefetch_second(self, at: *const u8) {
        // SAFETY: a hint, which faults at no address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
    }
    #[inline(always)]
    unsafe fn load_bytes(self, from: *const u8) -> Self::B {
        // SAFETY: see above; sixty-four bytes are readable.
        unsafe {
            [
                _mm256_loadu_si256(from.cast()),
                _mm256_loadu_si256(from.add(32).cast()),
            ]
        }
    }
    #[inline(always)]
    unsafe fn store_bytes(self, a: Self::B, to: *mut u8) {
        // SAFETY: see above; sixty-four bytes are writable.
        unsafe {
            _mm256_storeu_si256(to.cast(), a[0]);
            _mm256_storeu_si256(to.add(32).cast(), a[1]);
        }
    }
    #[inline(always)]
    fn bytes(self, x: u8) -> Self::B {
        // SAFETY: see above.
        unsafe { [_mm256_set1_epi8(x.cast_signed()); 2] }
    }
    #[inline(always)]
    fn and(self, a: Self::B, b: Self::B) -> Self::B {
        both!(_mm256_and_si256, a, b)
    }
    #[inline(always)]
    fn or(self, a: Self::B, b: Self::B) -> Self::B {
        both!(_mm256_or_si256, a, b)
    }
    #[inline(always)]
    fn shift_right<const N: u32>(self, a: Self::B) -> Self::B {
        // SAFETY: see above.
        unsafe {
            let count = _mm_cvtsi32_si128(N.cast_signed());
            [_mm256_srl_epi16(a[0], count), _mm256_srl_epi16(a[1], count)]
        }
    }
    #[inline(always)]
    fn shift_left<const N: u32>(self, a: Self::B) -> Self::B {
        // SAFETY: see above.
        unsafe {
            let count = _mm_cvtsi32_si128(N.cast_signed());
            [_mm256_sll_epi16(a[0], count), _mm256_sll_epi16(a[1], count)]
        }
    }
    #[inline(always)]
    fn look_up(self, table: &[u8; 16], indices: Self::B) -> Self::B {
        // SAFETY: see above; the table has the sixteen bytes that are read.
        unsafe {
            let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
            [
                _mm256_shuffle_epi8(table, indices[0]),
                _mm256_shuffle_epi8(table, indices[1]),
            ]
        }
    }

    #[inline(always)]
    fn sum(self, a: Self::F) -> f32 {
        // SAFETY: see above.
        unsafe {
            let a = _mm256_add_ps(a[0], a[1]);
            let a = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_add_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)))
        }
    }
    #[inline(always)]
    fn largest(self, a: Self::F) -> f32 {
        // SAFETY: see above.
        unsafe {
            let a = _mm256_max_ps(a[0], a[1]);
            let a = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_max_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_max_ss(a, _mm_movehdup_ps(a)))
        }
    }
}
