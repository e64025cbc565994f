//! Each instruction set against the plain arrays.

use super::*;

/// All that a set of numbers gives.
struct Everything<'a>(
    &'a [f32; LANES],
    &'a [f32; LANES],
    &'a [u8; 64],
    &'a [u8; 64],
    &'a [u16; LANES],
);

impl Kernel for Everything<'_> {
    type Output = (Vec<u32>, Vec<i32>, Vec<u8>);

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Self::Output {
        let Self(a, b, c, d, halves) = self;
        let mut floats = Vec::new();
        let mut ints = Vec::new();
        let mut bytes = Vec::new();
        let mut out = [0.0; LANES];
        let mut whole = [0; LANES];
        let mut raw = [0; 64];
        let mut small = [0i8; LANES];
        // SAFETY: every array has as many elements as are read or written.
        unsafe {
            let (a, b) = (simd.load(a.as_ptr()), simd.load(b.as_ptr()));
            for x in [
                simd.add(a, b),
                simd.sub(a, b),
                simd.mul(a, b),
                simd.div(a, b),
                simd.fma(a, b, a),
                simd.max(a, b),
                simd.min(a, b),
                simd.round(a),
                simd.abs(a),
                simd.power_of_two(simd.round(b)),
                simd.load_i8(c.as_ptr()),
                simd.load_bf16(c.as_ptr().cast()),
                simd.to_f32(simd.load_u8(d.as_ptr())),
            ] {
                simd.store(x, out.as_mut_ptr());
                floats.extend(out.map(f32::to_bits));
            }
            floats.push(simd.sum(a).to_bits());
            floats.push(simd.largest(a).to_bits());
            simd.store(simd.load_f16(halves.as_ptr()), out.as_mut_ptr());
            floats.extend(out.map(f32::to_bits));
            simd.store(simd.splat_f16(halves.as_ptr()), out.as_mut_ptr());
            floats.extend(out.map(f32::to_bits));
            simd.store_i8(simd.round(b), small.as_mut_ptr());
            bytes.extend(small.map(i8::cast_unsigned));

            let word = i32::from_le_bytes([c[0], c[1], c[2], c[3]]);
            let (c, d) = (simd.load_bytes(c.as_ptr()), simd.load_bytes(d.as_ptr()));
            let small = simd.and(d, simd.bytes(0x7f));
            let lanes = simd.load_u8(raw.as_ptr());
            for x in [
                simd.dot4::<true>(simd.ints(7), d, word & 0x7f7f_7f7f),
                simd.dot4::<true>(simd.ints(7), d, word | 1),
                simd.dot4::<false>(simd.ints(-7), small, word & 0x7f7f_7f7f),
                simd.dot2(simd.ints(3), simd.ints(0x0102_fff0), word),
                simd.low_nibble(simd.ints(word)),
                simd.high_part(simd.ints(word & 0xffff)),
                lanes,
            ] {
                simd.store_ints(x, whole.as_mut_ptr());
                ints.extend(whole);
            }
            let table = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 255];
            let low = simd.bytes(0x0f);
            for x in [
                simd.and(c, d),
                simd.or(c, d),
                simd.and(simd.shift_right::<3>(c), simd.bytes(0x1f)),
                simd.and(simd.shift_left::<4>(c), simd.bytes(0xf0)),
                simd.look_up(&table, simd.and(d, low)),
            ] {
                simd.store_bytes(x, raw.as_mut_ptr());
                bytes.extend(raw);
            }
        }
        (floats, ints, bytes)
    }
}

#[test]
fn every_level_gives_the_bits_of_the_plain_arrays() {
    let mut state = 1u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32
    };
    for _ in 0..500 {
        let a: [f32; LANES] = std::array::from_fn(|_| (next() as f32 / 1e9 - 1.0) * 3e4);
        let b: [f32; LANES] = std::array::from_fn(|_| next() as f32 / 1e7 - 107.0);
        let c: [u8; 64] = std::array::from_fn(|_| next() as u8);
        let d: [u8; 64] = std::array::from_fn(|_| next() as u8);
        // Every half that is a number.
        let halves: [u16; LANES] = std::array::from_fn(|_| (next() & 0xbfff) as u16);
        let golden = dispatch(Level::Scalar, Everything(&a, &b, &c, &d, &halves));
        for level in Level::available() {
            let found = dispatch(level, Everything(&a, &b, &c, &d, &halves));
            let other = found.0.iter().zip(&golden.0).position(|(a, b)| a != b);
            assert_eq!(other, None, "floats of {level:?}");
            assert_eq!(found.1, golden.1, "integers of {level:?}");
            assert_eq!(found.2, golden.2, "bytes of {level:?}");
        }
    }
}
