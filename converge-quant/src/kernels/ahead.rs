//! How weights, and on Zen 5 keys and values, are asked for from memory before their use: speed only,
//! never a result.
//!
//! Processors differ in how many cache lines may be on their way to the nearest cache at a time, and
//! in what their own look-ahead does: the way that suits Zen 5 costs Zen 4 a third of its speed, and
//! the other way round.

use std::sync::LazyLock;

use crate::{
    packed::{TileFormat, VECTOR},
    simd::Simd,
};

/// Not at all: an earlier panel has brought the tile into the caches.
pub(super) const NONE: u8 = 0;

/// Beside the machine's own look-ahead. It streams weights best for few tokens, set going by lines
/// asked for shortly before their use: those from further on would take the few places for lines on
/// their way (24 on Zen 4), and it would stop. With more tokens a unit takes so long that it does not
/// reach the next, and lines from further on are asked for, too.
pub(super) const BESIDE: u8 = 1;

/// Instead of it: all lines, from far ahead, into the nearest cache. On Zen 5.
pub(super) const INSTEAD: u8 = 2;

/// Tokens of a panel up to which the machine's look-ahead reaches the next unit.
const FEW: usize = 2;

/// Bytes from weights to those that are asked for.
const SHORT: usize = 1024;
const LONG: usize = 6144;

/// The same where all lines are asked for, and from keys and values. Under load memory answers late, so
/// lines are asked for from farther on; not with many tokens, whose activations need the nearest cache.
const FAR: usize = 8192;
const FARTHER: usize = 16384;

/// Tokens of a panel up to which lines come from farther on.
const FARTHER_FEW: usize = 4;

/// The way for this machine.
pub(super) fn way() -> u8 {
    static WAY: LazyLock<u8> = LazyLock::new(|| match is_zen5() {
        true => INSTEAD,
        false => BESIDE,
    });
    *WAY
}

/// Whether this is an AMD processor of family 26 or later.
#[cfg(target_arch = "x86_64")]
fn is_zen5() -> bool {
    use std::arch::x86_64::__cpuid;

    let maker = __cpuid(0);
    let name = [maker.ebx, maker.edx, maker.ecx].map(u32::to_le_bytes);
    let signature = __cpuid(1).eax;
    let family = (signature >> 8 & 0xf) + (signature >> 20 & 0xff);
    name.as_flattened() == b"AuthenticAMD" && family >= 26
}

#[cfg(not(target_arch = "x86_64"))]
fn is_zen5() -> bool {
    false
}

/// Asks for what block `i` of a unit will be some way ahead. The next tile mostly follows this one.
#[inline(always)]
pub(super) fn ask<S: Simd, T: TileFormat, const N: usize, const WAY: u8>(
    simd: S,
    unit: *const u8,
    i: usize,
) {
    // Units follow each other from a border of lines on, so that offsets tell where lines begin.
    const { assert!(T::BYTES.is_multiple_of(VECTOR)) };
    if WAY == NONE {
        return;
    }
    let (from, to) = (i * T::BYTES / T::BLOCKS, (i + 1) * T::BYTES / T::BLOCKS);
    let mut at = from.next_multiple_of(VECTOR);
    while at < to {
        if WAY == INSTEAD {
            let far = if N <= FARTHER_FEW { FARTHER } else { FAR };
            simd.prefetch(unit.wrapping_add(far + at));
        } else if N <= FEW {
            simd.prefetch_second(unit.wrapping_add(SHORT + at));
        } else {
            simd.prefetch_second(unit.wrapping_add(LONG + at));
            simd.prefetch(unit.wrapping_add(SHORT + at));
        }
        at += VECTOR;
    }
}

/// Whether keys and values are asked for: where the machine's own look-ahead is not enough.
#[inline(always)]
pub(super) fn is_far() -> bool {
    way() == INSTEAD
}

/// Asks for what comes long after a place of keys or values, which are read in ascending order.
#[inline(always)]
pub(super) fn ask_far<S: Simd>(simd: S, at: *const u8) {
    simd.prefetch(at.wrapping_add(FAR));
}
