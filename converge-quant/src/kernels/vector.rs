//! What happens to each row between the products.

use super::{math, matmul::fits};
use crate::{
    QuantError, Result,
    simd::{Kernel, LANES, Level, Simd, dispatch},
    threads::{Parts, Pool},
};

/// Numbers that a thread takes at least, where a row may be split.
const CHUNK: usize = 4096;

/// A function of each number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// `x · sigmoid(x)`.
    Silu,
    /// `x · Φ(x)` by the tanh formula of Hendrycks and Gimpel (2016).
    GeluTanh,
}

/// RMSNorm (Zhang and Sennrich, 2019) of each row of `width` numbers:
/// `out = x / √(mean(x²) + eps) · weight`.
///
/// # Errors
/// [`QuantError::OperandLength`] where `x` are no whole rows of the weights' length, or `out` has
/// another length than `x`.
pub fn rms_norm(
    pool: &Pool,
    level: Level,
    x: &[f32],
    weight: &[f32],
    eps: f32,
    out: &mut [f32],
) -> Result<()> {
    let width = weight.len();
    whole_rows(x, width)?;
    fits("normed numbers", x.len(), out.len())?;
    let parts = Parts::new(out);
    each_row(pool, x.len() / width, width, &|row| {
        // SAFETY: each row is one call's, and `out` is borrowed until the region ends.
        let out = unsafe { parts.part(row * width, width) };
        let x = &x[row * width..][..width];
        dispatch(
            level,
            Norm {
                x,
                weight,
                eps,
                out,
            },
        );
    });
    Ok(())
}

/// RMSNorm of each row where it lies.
///
/// # Errors
/// As [`rms_norm`].
pub fn rms_norm_in_place(
    pool: &Pool,
    level: Level,
    x: &mut [f32],
    weight: &[f32],
    eps: f32,
) -> Result<()> {
    let width = weight.len();
    whole_rows(x, width)?;
    let rows = x.len() / width;
    let parts = Parts::new(x);
    each_row(pool, rows, width, &|row| {
        // SAFETY: each row is one call's, and `x` is borrowed until the region ends.
        let x = unsafe { parts.part(row * width, width) };
        dispatch(level, NormInPlace { x, weight, eps });
    });
    Ok(())
}

/// `gate = activation(gate) · up`.
///
/// # Errors
/// [`QuantError::OperandLength`] for different lengths.
pub fn gate(
    pool: &Pool,
    level: Level,
    activation: Activation,
    gate: &mut [f32],
    up: &[f32],
) -> Result<()> {
    fits("what the gate multiplies", gate.len(), up.len())?;
    each_chunk(pool, gate, &|at, gate| {
        let up = &up[at..][..gate.len()];
        dispatch(
            level,
            Gate {
                activation,
                gate,
                up,
            },
        );
    });
    Ok(())
}

/// `x = x + scale · part`.
///
/// # Errors
/// [`QuantError::OperandLength`] for different lengths.
pub fn add_scaled(
    pool: &Pool,
    level: Level,
    x: &mut [f32],
    part: &[f32],
    scale: f32,
) -> Result<()> {
    fits("what is added", x.len(), part.len())?;
    each_chunk(pool, x, &|at, x| {
        let part = &part[at..][..x.len()];
        dispatch(level, Add { x, part, scale });
    });
    Ok(())
}

/// `x = scale · x`, then bounded to `±cap` by `cap · tanh(x / cap)` where there is one.
pub fn scale_and_bound(pool: &Pool, level: Level, x: &mut [f32], scale: f32, cap: Option<f32>) {
    if scale == 1.0 && cap.is_none() {
        return;
    }
    each_chunk(pool, x, &|_, x| dispatch(level, Bound { x, scale, cap }));
}

/// Adds `bias` to each row of `x`.
///
/// # Errors
/// [`QuantError::OperandLength`] where `x` are no whole rows of that length.
pub fn add_bias(pool: &Pool, x: &mut [f32], bias: &[f32]) -> Result<()> {
    whole_rows(x, bias.len())?;
    let rows = x.len() / bias.len();
    let parts = Parts::new(x);
    each_row(pool, rows, bias.len(), &|row| {
        // SAFETY: each row is one call's, and `x` is borrowed until the region ends.
        let row = unsafe { parts.part(row * bias.len(), bias.len()) };
        for (x, bias) in row.iter_mut().zip(bias) {
            *x += bias;
        }
    });
    Ok(())
}

fn whole_rows(x: &[f32], width: usize) -> Result<()> {
    if width > 0 && x.len().is_multiple_of(width) {
        return Ok(());
    }
    Err(QuantError::OperandLength {
        operand: "rows",
        expected: x.len().next_multiple_of(width.max(1)),
        found: x.len(),
    })
}

/// Calls `work` with each row: on this thread where that is little.
pub(super) fn each_row(pool: &Pool, rows: usize, width: usize, work: &(dyn Fn(usize) + Sync)) {
    let group = (CHUNK / width).max(1);
    pool.run(rows.div_ceil(group), &|i| {
        (i * group..((i + 1) * group).min(rows)).for_each(work);
    });
}

/// Calls `work` with each part of `x` and where it begins, a multiple of [`LANES`].
fn each_chunk(pool: &Pool, x: &mut [f32], work: &(dyn Fn(usize, &mut [f32]) + Sync)) {
    let len = x.len();
    let parts = Parts::new(x);
    pool.run(len.div_ceil(CHUNK), &|i| {
        let at = i * CHUNK;
        // SAFETY: each part is one call's, and `x` is borrowed until the region ends.
        work(at, unsafe { parts.part(at, CHUNK.min(len - at)) });
    });
}

/// What becomes of each number. A method, as a closure might not be inlined, and then not be compiled
/// for the instruction set.
trait Each {
    /// What becomes of sixteen numbers that begin at element `at`; must be `#[inline(always)]`.
    fn each<S: Simd>(&self, simd: S, at: usize, x: S::F) -> S::F;
}

/// Replaces all of `x`, sixteen at a time; the last may be fewer.
#[inline(always)]
fn map<S: Simd, E: Each>(simd: S, x: &mut [f32], each: &E) {
    let len = x.len();
    let (whole, rest) = x.as_chunks_mut::<LANES>();
    for (i, x) in whole.iter_mut().enumerate() {
        // SAFETY: sixteen numbers are there.
        unsafe {
            let y = each.each(simd, i * LANES, simd.load(x.as_ptr()));
            simd.store(y, x.as_mut_ptr());
        }
    }
    if !rest.is_empty() {
        let mut padded = [0.0; LANES];
        padded[..rest.len()].copy_from_slice(rest);
        // SAFETY: sixteen numbers are there.
        unsafe {
            let y = each.each(simd, len - rest.len(), simd.load(padded.as_ptr()));
            simd.store(y, padded.as_mut_ptr());
        }
        rest.copy_from_slice(&padded[..rest.len()]);
    }
}

/// Sixteen numbers from `at` on; zeros past the end.
#[inline(always)]
pub(super) fn load<S: Simd>(simd: S, x: &[f32], at: usize) -> S::F {
    let from = &x[at..];
    if from.len() >= LANES {
        // SAFETY: sixteen numbers are there.
        return unsafe { simd.load(from.as_ptr()) };
    }
    let mut padded = [0.0; LANES];
    padded[..from.len()].copy_from_slice(from);
    // SAFETY: as above.
    unsafe { simd.load(padded.as_ptr()) }
}

/// What a row is multiplied by to be of size 1: lane `i` sums the squares of elements `16j + i`.
#[inline(always)]
fn inverse_size<S: Simd>(simd: S, x: &[f32], eps: f32) -> f32 {
    let mut sum = simd.splat(0.0);
    for at in (0..x.len()).step_by(LANES) {
        let x = load(simd, x, at);
        sum = simd.fma(x, x, sum);
    }
    1.0 / (simd.sum(sum) / x.len() as f32 + eps).sqrt()
}

struct Norm<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    eps: f32,
    out: &'a mut [f32],
}

impl Kernel for Norm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let size = inverse_size(simd, self.x, self.eps);
        self.out.copy_from_slice(self.x);
        map(
            simd,
            self.out,
            &Weighted {
                size,
                weight: self.weight,
            },
        );
    }
}

struct Weighted<'a> {
    size: f32,
    weight: &'a [f32],
}

impl Each for Weighted<'_> {
    #[inline(always)]
    fn each<S: Simd>(&self, simd: S, at: usize, x: S::F) -> S::F {
        let x = simd.mul(x, simd.splat(self.size));
        simd.mul(x, load(simd, self.weight, at))
    }
}

struct NormInPlace<'a> {
    x: &'a mut [f32],
    weight: &'a [f32],
    eps: f32,
}

impl Kernel for NormInPlace<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let size = inverse_size(simd, self.x, self.eps);
        map(
            simd,
            self.x,
            &Weighted {
                size,
                weight: self.weight,
            },
        );
    }
}

struct Gate<'a> {
    activation: Activation,
    gate: &'a mut [f32],
    up: &'a [f32],
}

impl Kernel for Gate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        gate_piece(simd, self.activation, self.gate, self.up);
    }
}

/// [`gate`] of some numbers.
#[inline(always)]
pub(super) fn gate_piece<S: Simd>(simd: S, activation: Activation, gate: &mut [f32], up: &[f32]) {
    match activation {
        Activation::Silu => map(simd, gate, &Silu(up)),
        Activation::GeluTanh => map(simd, gate, &GeluTanh(up)),
    }
}

struct Silu<'a>(&'a [f32]);

impl Each for Silu<'_> {
    #[inline(always)]
    fn each<S: Simd>(&self, simd: S, at: usize, x: S::F) -> S::F {
        simd.mul(math::silu(simd, x), load(simd, self.0, at))
    }
}

struct GeluTanh<'a>(&'a [f32]);

impl Each for GeluTanh<'_> {
    #[inline(always)]
    fn each<S: Simd>(&self, simd: S, at: usize, x: S::F) -> S::F {
        simd.mul(math::gelu_tanh(simd, x), load(simd, self.0, at))
    }
}

struct Add<'a> {
    x: &'a mut [f32],
    part: &'a [f32],
    scale: f32,
}

impl Kernel for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        map(simd, self.x, &Added(self.part, self.scale));
    }
}

struct Added<'a>(&'a [f32], f32);

impl Each for Added<'_> {
    #[inline(always)]
    fn each<S: Simd>(&self, simd: S, at: usize, x: S::F) -> S::F {
        simd.fma(load(simd, self.0, at), simd.splat(self.1), x)
    }
}

struct Bound<'a> {
    x: &'a mut [f32],
    scale: f32,
    cap: Option<f32>,
}

impl Kernel for Bound<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        map(simd, self.x, &Bounded(self.scale, self.cap));
    }
}

struct Bounded(f32, Option<f32>);

impl Each for Bounded {
    #[inline(always)]
    fn each<S: Simd>(&self, simd: S, _: usize, x: S::F) -> S::F {
        let x = simd.mul(x, simd.splat(self.0));
        match self.1 {
            Some(cap) => math::bounded(simd, x, cap),
            None => x,
        }
    }
}
