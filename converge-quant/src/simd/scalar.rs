//! Plain arrays: what the vectors of every machine must compute, and the path of machines that have
//! none of ours.

use std::array::from_fn;

use half::f16;

use super::{LANES, Simd};

/// Arrays of sixteen; runs everywhere.
#[derive(Clone, Copy)]
pub(crate) struct Scalar(());

impl Scalar {
    pub(crate) fn new() -> Self {
        Self(())
    }
}

#[inline(always)]
fn zip(a: [f32; LANES], b: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
    from_fn(|i| f(a[i], b[i]))
}

/// Halves onto halves until one is left.
#[inline(always)]
fn fold(mut a: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            a[i] = f(a[i], a[i + half]);
        }
        half /= 2;
    }
    a[0]
}

#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

impl Simd for Scalar {
    type F = [f32; LANES];
    type I = [i32; LANES];
    type B = [u8; 4 * LANES];

    const TOKENS: usize = 1;
    const QUERIES: usize = 4;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        [x; LANES]
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        from_fn(|i| a[i].mul_add(b[i], c[i]))
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, larger)
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn round(self, a: Self::F) -> Self::F {
        a.map(f32::round_ties_even)
    }
    #[inline(always)]
    fn power_of_two(self, n: Self::F) -> Self::F {
        n.map(|n| f32::from_bits(((n as i32 + 127) as u32) << 23))
    }
    #[inline(always)]
    fn abs(self, a: Self::F) -> Self::F {
        a.map(f32::abs)
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::F {
        // SAFETY: sixteen `f32` are readable.
        unsafe { from.cast::<Self::F>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(self, a: Self::F, to: *mut f32) {
        // SAFETY: sixteen `f32` are writable.
        unsafe { to.cast::<Self::F>().write_unaligned(a) }
    }
    #[inline(always)]
    unsafe fn load_f16(self, from: *const u16) -> Self::F {
        // SAFETY: sixteen `u16` are readable.
        let bits = unsafe { from.cast::<[u16; LANES]>().read_unaligned() };
        bits.map(|bits| f16::from_bits(bits).to_f32())
    }
    #[inline(always)]
    unsafe fn splat_f16(self, from: *const u16) -> Self::F {
        // SAFETY: one `u16` is readable.
        let bits = unsafe { from.read_unaligned() };
        [f16::from_bits(bits).to_f32(); LANES]
    }
    #[inline(always)]
    unsafe fn load_bf16(self, from: *const u16) -> Self::F {
        // SAFETY: sixteen `u16` are readable.
        let bits = unsafe { from.cast::<[u16; LANES]>().read_unaligned() };
        bits.map(|bits| f32::from_bits(u32::from(bits) << 16))
    }
    #[inline(always)]
    unsafe fn load_i8(self, from: *const u8) -> Self::F {
        // SAFETY: sixteen bytes are readable.
        unsafe { from.cast::<[i8; LANES]>().read_unaligned() }.map(f32::from)
    }
    #[inline(always)]
    unsafe fn store_i8(self, a: Self::F, to: *mut i8) {
        let bytes = a.map(|x| x.round_ties_even() as i8);
        // SAFETY: sixteen bytes are writable.
        unsafe { to.cast::<[i8; LANES]>().write_unaligned(bytes) }
    }

    #[inline(always)]
    fn ints(self, x: i32) -> Self::I {
        [x; LANES]
    }
    #[inline(always)]
    fn to_f32(self, a: Self::I) -> Self::F {
        a.map(|x| x as f32)
    }
    #[cfg(test)]
    #[inline(always)]
    unsafe fn store_ints(self, a: Self::I, to: *mut i32) {
        // SAFETY: sixteen `i32` are writable.
        unsafe { to.cast::<Self::I>().write_unaligned(a) }
    }
    #[inline(always)]
    unsafe fn load_u8(self, from: *const u8) -> Self::I {
        // SAFETY: sixteen bytes are readable.
        unsafe { from.cast::<[u8; LANES]>().read_unaligned() }.map(i32::from)
    }
    #[inline(always)]
    fn low_nibble(self, a: Self::I) -> Self::I {
        a.map(|x| x & 15)
    }
    #[inline(always)]
    fn high_part(self, a: Self::I) -> Self::I {
        a.map(|x| x >> 4)
    }
    #[inline(always)]
    fn dot4<const WIDE: bool>(self, sum: Self::I, weights: Self::B, a: i32) -> Self::I {
        let a = a.to_le_bytes().map(|a| i32::from(a.cast_signed()));
        from_fn(|i| (0..4).fold(sum[i], |sum, j| sum + i32::from(weights[4 * i + j]) * a[j]))
    }
    #[inline(always)]
    fn dot2(self, sum: Self::I, weights: Self::I, a: i32) -> Self::I {
        let halves = |x: i32| [i32::from(x as i16), x >> 16];
        let [a0, a1] = halves(a);
        from_fn(|i| {
            let [w0, w1] = halves(weights[i]);
            sum[i] + w0 * a0 + w1 * a1
        })
    }

    #[inline(always)]
    fn prefetch(self, _: *const u8) {}
    #[inline(always)]
    fn prefetch_second(self, _: *const u8) {}
    #[inline(always)]
    unsafe fn load_bytes(self, from: *const u8) -> Self::B {
        // SAFETY: sixty-four bytes are readable.
        unsafe { from.cast::<Self::B>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store_bytes(self, a: Self::B, to: *mut u8) {
        // SAFETY: sixty-four bytes are writable.
        unsafe { to.cast::<Self::B>().write_unaligned(a) }
    }
    #[inline(always)]
    fn bytes(self, x: u8) -> Self::B {
        [x; 4 * LANES]
    }
    #[inline(always)]
    fn and(self, a: Self::B, b: Self::B) -> Self::B {
        from_fn(|i| a[i] & b[i])
    }
    #[inline(always)]
    fn or(self, a: Self::B, b: Self::B) -> Self::B {
        from_fn(|i| a[i] | b[i])
    }
    #[inline(always)]
    fn shift_right<const N: u32>(self, a: Self::B) -> Self::B {
        a.map(|x| x >> N)
    }
    #[inline(always)]
    fn shift_left<const N: u32>(self, a: Self::B) -> Self::B {
        a.map(|x| x << N)
    }
    #[inline(always)]
    fn look_up(self, table: &[u8; 16], indices: Self::B) -> Self::B {
        indices.map(|i| table[usize::from(i) % table.len()])
    }

    #[inline(always)]
    fn sum(self, a: Self::F) -> f32 {
        fold(a, |a, b| a + b)
    }
    #[inline(always)]
    fn largest(self, a: Self::F) -> f32 {
        fold(a, larger)
    }
}
