//! Unsigned integers of 384 bits, as wide as products and scaled numerators of [`Decimal`] get
//! (127 + 94 bits for scaled sums, 254 for products, 127 + 187 for numerators).
//!
//! [`Decimal`]: super::decimal::Decimal

/// Limbs of 32 bits, the least first.
const LIMBS: usize = 12;

/// An unsigned integer. Operations keep within 384 bits by the bounds named at each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Wide([u32; LIMBS]);

impl From<u128> for Wide {
    fn from(value: u128) -> Self {
        let mut limbs = [0; LIMBS];
        for (i, limb) in limbs.iter_mut().take(4).enumerate() {
            *limb = (value >> (32 * i)) as u32;
        }
        Self(limbs)
    }
}

impl Ord for Wide {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.iter().rev().cmp(other.0.iter().rev())
    }
}

impl PartialOrd for Wide {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Wide {
    /// `a · b`, at most 256 bits.
    pub(super) fn product(a: u128, b: u128) -> Self {
        let (a, b) = (Self::from(a), Self::from(b));
        let mut limbs = [0_u32; LIMBS];
        for (i, x) in a.0.iter().take(4).enumerate() {
            let mut carry = 0_u64;
            for (limb, y) in limbs[i..].iter_mut().zip(&b.0) {
                let sum = u64::from(*x) * u64::from(*y) + u64::from(*limb) + carry;
                *limb = sum as u32;
                carry = sum >> 32;
            }
        }
        Self(limbs)
    }

    /// `self · 10^power`, for results within 384 bits.
    pub(super) fn scaled(mut self, power: u32) -> Self {
        for _ in 0..power {
            let mut carry = 0_u64;
            for limb in &mut self.0 {
                let product = u64::from(*limb) * 10 + carry;
                *limb = product as u32;
                carry = product >> 32;
            }
        }
        self
    }

    /// `self + other`, for operands below 383 bits.
    pub(super) fn add(mut self, other: Self) -> Self {
        let mut carry = 0_u64;
        for (a, b) in self.0.iter_mut().zip(&other.0) {
            let sum = u64::from(*a) + u64::from(*b) + carry;
            *a = sum as u32;
            carry = sum >> 32;
        }
        self
    }

    /// `self - other`, for `other <= self`.
    pub(super) fn sub(mut self, other: Self) -> Self {
        let mut borrow = 0_i64;
        for (a, b) in self.0.iter_mut().zip(&other.0) {
            let difference = i64::from(*a) - i64::from(*b) + borrow;
            *a = difference as u32;
            borrow = difference >> 32;
        }
        self
    }

    /// Quotient and remainder by a `divisor` that is not 0 (schoolbook, bit by bit).
    pub(super) fn div_rem(self, divisor: u128) -> (Self, u128) {
        let mut quotient = [0_u32; LIMBS];
        let mut rest = 0_u128;
        for bit in (0..32 * LIMBS).rev() {
            let carry = rest >> 127 == 1;
            rest = (rest << 1) | u128::from(self.0[bit / 32] >> (bit % 32) & 1);
            if carry || rest >= divisor {
                rest = rest.wrapping_sub(divisor);
                quotient[bit / 32] |= 1 << (bit % 32);
            }
        }
        (Self(quotient), rest)
    }

    /// `self / 10^power`, rounded half to even; `more` says that the true number is a little
    /// larger than `self`.
    pub(super) fn div_pow10_half_even(self, power: u32, more: bool) -> Self {
        let mut quotient = self;
        let mut last = 0_u64;
        let mut sticky = more;
        for _ in 0..power {
            sticky |= last != 0;
            last = 0;
            for limb in quotient.0.iter_mut().rev() {
                let value = (last << 32) | u64::from(*limb);
                *limb = (value / 10) as u32;
                last = value % 10;
            }
        }
        let odd = quotient.0[0] & 1 == 1;
        if last > 5 || last == 5 && (sticky || odd) {
            quotient = quotient.add(Self::from(1));
        }
        quotient
    }

    /// The value, if it fits.
    pub(super) fn to_u128(self) -> Option<u128> {
        if self.0[4..].iter().any(|limb| *limb != 0) {
            return None;
        }
        Some(
            self.0[..4]
                .iter()
                .rev()
                .fold(0, |value, limb| (value << 32) | u128::from(*limb)),
        )
    }
}
