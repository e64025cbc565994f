//! Tiles of plain numbers: element 0 of sixteen rows, element 1 of sixteen rows, …

use half::{bf16, f16};

use super::ROWS;
use crate::GgmlType;

/// Puts a row of numbers of `N` bytes into a tile.
pub(super) fn pack_row<const N: usize>(from: &[u8], row: usize, to: &mut [u8]) {
    let places = to.as_chunks_mut::<N>().0.iter_mut().skip(row).step_by(ROWS);
    for (to, from) in places.zip(from.as_chunks::<N>().0) {
        *to = *from;
    }
}

pub(super) fn decode_row(ty: GgmlType, tile: &[u8], row: usize, out: &mut [f32]) {
    fn each<const N: usize>(
        tile: &[u8],
        row: usize,
        out: &mut [f32],
        decode: impl Fn([u8; N]) -> f32,
    ) {
        let numbers = tile.as_chunks::<N>().0.iter().skip(row).step_by(ROWS);
        for (out, number) in out.iter_mut().zip(numbers) {
            *out = decode(*number);
        }
    }
    match ty {
        GgmlType::F32 => each(tile, row, out, f32::from_le_bytes),
        GgmlType::F16 => each(tile, row, out, |bytes| f16::from_le_bytes(bytes).to_f32()),
        _ => each(tile, row, out, |bytes| bf16::from_le_bytes(bytes).to_f32()),
    }
}
