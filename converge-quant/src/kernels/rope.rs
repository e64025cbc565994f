//! Rotary positions (Su et al., 2021).

use super::{matmul::fits, vector::each_row};
use crate::{
    Result,
    threads::{Parts, Pool},
};

/// Which elements of a head turn together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairs {
    /// `(2i, 2i + 1)`.
    Interleaved,
    /// `(i, i + size / 2)` of the `size` elements that turn.
    Halves,
}

/// Cosines and sines of consecutive positions: `positions × pairs`, times what turned vectors are
/// lengthened by.
#[derive(Clone, Debug, Default)]
pub struct Turns {
    /// Cosines.
    pub cos: Vec<f32>,
    /// Sines.
    pub sin: Vec<f32>,
}

/// Turns the first `2 · pairs` elements of every head of `size` elements. `x` has a row of heads for
/// each position of `turns`.
///
/// # Errors
/// [`QuantError::OperandLength`](crate::QuantError::OperandLength) where shapes do not fit.
pub fn rotate(
    pool: &Pool,
    x: &mut [f32],
    positions: usize,
    size: usize,
    pairs: Pairs,
    turns: &Turns,
) -> Result<()> {
    if positions == 0 {
        return fits("heads to turn", 0, x.len());
    }
    let n = turns.cos.len() / positions;
    fits("sines", turns.cos.len(), turns.sin.len())?;
    fits("cosines", n * positions, turns.cos.len())?;
    fits("elements that turn", (2 * n).min(size), 2 * n)?;
    let row = x.len() / positions;
    fits(
        "heads to turn",
        (row / size.max(1)) * size * positions,
        x.len(),
    )?;
    if n == 0 || row == 0 {
        return Ok(());
    }
    let parts = Parts::new(x);
    each_row(pool, positions, row, &|position| {
        // SAFETY: each row is one call's, and `x` is borrowed until the region ends.
        let row = unsafe { parts.part(position * row, row) };
        let at = position * n..(position + 1) * n;
        let (cos, sin) = (&turns.cos[at.clone()], &turns.sin[at]);
        for head in row.chunks_exact_mut(size) {
            turn(&mut head[..2 * n], pairs, cos, sin);
        }
    });
    Ok(())
}

/// Turns the elements of a head.
fn turn(head: &mut [f32], pairs: Pairs, cos: &[f32], sin: &[f32]) {
    let turns = cos.iter().zip(sin);
    match pairs {
        Pairs::Halves => {
            let (a, b) = head.split_at_mut(cos.len());
            for ((a, b), (cos, sin)) in a.iter_mut().zip(b).zip(turns) {
                (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
            }
        }
        Pairs::Interleaved => {
            for ([a, b], (cos, sin)) in head.as_chunks_mut().0.iter_mut().zip(turns) {
                (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
            }
        }
    }
}
