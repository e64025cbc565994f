//! Vectors of sixteen lanes, the same on every machine.
//!
//! Kernels are written once over [`Simd`]: sixteen `f32`, sixteen `i32` and sixty-four bytes, with
//! operations whose results the IEEE standard or integer arithmetic fix to the bit. So a kernel
//! gives the same bits on AVX-512, on AVX2 and on the plain arrays of [`Scalar`], which run
//! everywhere and state what the others must do.
//!
//! ```text
//!   dispatch(level, kernel)          kernel: a struct with its operands
//!        │ the level was detected once
//!        ▼
//!   #[target_feature] avx512(kernel) → kernel.run(Avx512)    inlined, so it compiles to
//!                     avx2(kernel)   → kernel.run(Avx2)      that instruction set
//!                                      kernel.run(Scalar)
//! ```

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod level;
mod scalar;
#[cfg(test)]
mod tests;

pub use level::Level;
use scalar::Scalar;

/// Lanes of a vector.
pub(crate) const LANES: usize = 16;

/// The operations that kernels are made of. A value of the type is proof that the machine has the
/// instructions: only [`dispatch`] makes one.
///
/// # Safety
/// Methods that take pointers read or write as many elements as their names say, unaligned: the
/// caller keeps them inside one allocation.
pub(crate) trait Simd: Copy {
    /// Sixteen `f32`.
    type F: Copy;
    /// Sixteen `i32`.
    type I: Copy;
    /// Sixty-four bytes: four for each of the sixteen lanes.
    type B: Copy;

    /// Tokens whose sums fit the registers beside a block of weights.
    const TOKENS: usize;
    /// Queries whose products with keys fit the registers, at most 16.
    const QUERIES: usize;

    fn splat(self, x: f32) -> Self::F;
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a · b + c`, rounded once.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The larger of each pair; `b` where one is no number.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// The smaller of each pair; `b` where one is no number.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// The nearest integer, even ones at halves.
    fn round(self, a: Self::F) -> Self::F;
    /// `2^n` of whole `n` from −126 to 127.
    fn power_of_two(self, n: Self::F) -> Self::F;
    /// The absolute value.
    fn abs(self, a: Self::F) -> Self::F;

    unsafe fn load(self, from: *const f32) -> Self::F;
    unsafe fn store(self, a: Self::F, to: *mut f32);
    /// Sixteen halves as `f32`.
    unsafe fn load_f16(self, from: *const u16) -> Self::F;
    /// One half as `f32`, sixteen times.
    unsafe fn splat_f16(self, from: *const u16) -> Self::F;
    /// Sixteen upper halves of `f32`.
    unsafe fn load_bf16(self, from: *const u16) -> Self::F;
    /// Sixteen integers of 8 bits with a sign, as `f32`.
    unsafe fn load_i8(self, from: *const u8) -> Self::F;
    /// Converts to integers, which must lie in the range of `i8`, and writes them.
    unsafe fn store_i8(self, a: Self::F, to: *mut i8);

    fn ints(self, x: i32) -> Self::I;
    fn to_f32(self, a: Self::I) -> Self::F;
    #[cfg(test)]
    unsafe fn store_ints(self, a: Self::I, to: *mut i32);
    /// Sixteen integers of 8 bits without a sign.
    unsafe fn load_u8(self, from: *const u8) -> Self::I;
    /// The low four bits of each lane.
    fn low_nibble(self, a: Self::I) -> Self::I;
    /// Each lane's bits from the fifth on.
    fn high_part(self, a: Self::I) -> Self::I;
    /// To each lane: the product of its bytes without a sign with the four bytes of `a` with one,
    /// summed. `WIDE` where bytes of the weights may exceed 127.
    fn dot4<const WIDE: bool>(self, sum: Self::I, weights: Self::B, a: i32) -> Self::I;
    /// To each lane: the product of its two `i16` with the two of `a`, summed.
    fn dot2(self, sum: Self::I, weights: Self::I, a: i32) -> Self::I;

    /// Asks for a cache line ahead of its use, into the nearest cache; any address will do.
    fn prefetch(self, at: *const u8);
    /// The same into the second cache.
    fn prefetch_second(self, at: *const u8);
    unsafe fn load_bytes(self, from: *const u8) -> Self::B;
    unsafe fn store_bytes(self, a: Self::B, to: *mut u8);
    fn bytes(self, x: u8) -> Self::B;
    fn and(self, a: Self::B, b: Self::B) -> Self::B;
    fn or(self, a: Self::B, b: Self::B) -> Self::B;
    /// Shifts right; what falls in from the neighbouring byte is left to be masked out.
    fn shift_right<const N: u32>(self, a: Self::B) -> Self::B;
    /// Shifts left; likewise.
    fn shift_left<const N: u32>(self, a: Self::B) -> Self::B;
    /// The table's entry for each byte, which must be below 16.
    fn look_up(self, table: &[u8; 16], indices: Self::B) -> Self::B;

    /// The sum of all lanes: halves are added to halves, four times.
    fn sum(self, a: Self::F) -> f32;
    /// The largest of all lanes.
    fn largest(self, a: Self::F) -> f32;
}

/// Work that is compiled for each instruction set.
pub(crate) trait Kernel {
    /// What it gives.
    type Output;

    /// Does the work. Must be `#[inline(always)]`, as all that it calls with `simd`.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Runs a kernel with the instructions of `level`, or with none where the machine lacks them.
pub(crate) fn dispatch<K: Kernel>(level: Level, kernel: K) -> K::Output {
    match level {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the machine has what the level stands for.
        Level::Avx512 if level.is_available() => unsafe { avx512::run(kernel) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Level::Avx2 if level.is_available() => unsafe { avx2::run(kernel) },
        _ => kernel.run(Scalar::new()),
    }
}
