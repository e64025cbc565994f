//! Exact decimal numbers: a 127-bit integer and a power of ten. Sums, differences and products
//! are exact as long as the result has at most 38 digits; quotients, and results beyond that,
//! are rounded half to even to what fits, at most 28 digits after the point.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

use super::wide::Wide;

/// Most digits after the point.
pub const MAX_SCALE: u32 = 28;

/// An exact decimal number, `mantissa / 10^scale`, without zeros at its end: equal numbers are
/// equal in all fields.
///
/// As text and in JSON it is a plain number such as `-1200.5`; JSON holds it as a string, which
/// no reader rounds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Decimal {
    mantissa: i128,
    scale: u32,
}

/// A calculation without a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DecimalError {
    /// The result has more than 38 digits before the point.
    #[error("the result is too large")]
    Overflow,
    /// Division by zero.
    #[error("division by zero")]
    DivisionByZero,
    /// A power whose exponent is not a whole number.
    #[error("the exponent {0} is not a whole number")]
    Exponent(Decimal),
}

/// Text that is not a plain decimal number.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text:?} is not a decimal number of at most 38 digits, {MAX_SCALE} after the point")]
pub struct ParseDecimalError {
    /// The text, at most 64 bytes of it.
    pub text: String,
}

impl Decimal {
    /// 0.
    pub const ZERO: Self = Self {
        mantissa: 0,
        scale: 0,
    };
    /// 1.
    pub const ONE: Self = Self {
        mantissa: 1,
        scale: 0,
    };
    /// 100.
    pub const HUNDRED: Self = Self {
        mantissa: 100,
        scale: 0,
    };

    /// `mantissa / 10^scale`; `None` where `scale` exceeds [`MAX_SCALE`] after taking off zeros.
    pub fn new(mantissa: i128, scale: u32) -> Option<Self> {
        let (mut mantissa, mut scale) = (mantissa, scale);
        if mantissa == 0 {
            return Some(Self::ZERO);
        }
        while scale > 0 && mantissa % 10 == 0 {
            mantissa /= 10;
            scale -= 1;
        }
        // The least i128 has no absolute value.
        (scale <= MAX_SCALE && mantissa != i128::MIN).then_some(Self { mantissa, scale })
    }

    /// The integer in front of the power of ten.
    pub fn mantissa(self) -> i128 {
        self.mantissa
    }

    /// Digits after the point.
    pub fn scale(self) -> u32 {
        self.scale
    }

    /// Whether nothing stands after the point.
    pub fn is_integer(self) -> bool {
        self.scale == 0
    }

    /// Whether it is below zero.
    pub fn is_negative(self) -> bool {
        self.mantissa < 0
    }

    /// The number as an `i64`, if it is one.
    pub fn to_i64(self) -> Option<i64> {
        if self.scale == 0 {
            i64::try_from(self.mantissa).ok()
        } else {
            None
        }
    }

    /// The nearest double or a neighbour of it, for display and statistics.
    pub fn to_f64(self) -> f64 {
        self.mantissa as f64 / 10_f64.powi(self.scale as i32)
    }

    /// Without its sign.
    #[must_use]
    pub fn abs(self) -> Self {
        Self {
            mantissa: self.mantissa.saturating_abs(),
            ..self
        }
    }

    /// The sum.
    ///
    /// # Errors
    /// [`DecimalError::Overflow`].
    pub fn checked_add(self, other: Self) -> Result<Self, DecimalError> {
        let scale = self.scale.max(other.scale);
        let a = self.widened(scale);
        let b = other.widened(scale);
        let (negative, sum) = if self.is_negative() == other.is_negative() {
            (self.is_negative(), a.add(b))
        } else if a >= b {
            (self.is_negative(), a.sub(b))
        } else {
            (other.is_negative(), b.sub(a))
        };
        Self::fit(negative, sum, scale, false)
    }

    /// The difference.
    ///
    /// # Errors
    /// [`DecimalError::Overflow`].
    pub fn checked_sub(self, other: Self) -> Result<Self, DecimalError> {
        self.checked_add(-other)
    }

    /// The product.
    ///
    /// # Errors
    /// [`DecimalError::Overflow`].
    pub fn checked_mul(self, other: Self) -> Result<Self, DecimalError> {
        let product = Wide::product(self.mantissa.unsigned_abs(), other.mantissa.unsigned_abs());
        let negative = self.is_negative() != other.is_negative();
        Self::fit(negative, product, self.scale + other.scale, false)
    }

    /// The quotient, rounded half to even where it has no end within 28 digits after the point.
    ///
    /// # Errors
    /// [`DecimalError::DivisionByZero`] and [`DecimalError::Overflow`].
    pub fn checked_div(self, other: Self) -> Result<Self, DecimalError> {
        if other.mantissa == 0 {
            return Err(DecimalError::DivisionByZero);
        }
        // So that 28 digits stand behind the point whatever the scales are; 127 + 187 bits fit.
        const EXTRA: u32 = 2 * MAX_SCALE;
        let numerator = Wide::from(self.mantissa.unsigned_abs()).scaled(EXTRA);
        let (quotient, rest) = numerator.div_rem(other.mantissa.unsigned_abs());
        let negative = self.is_negative() != other.is_negative();
        Self::fit(
            negative,
            quotient,
            self.scale + EXTRA - other.scale,
            rest != 0,
        )
    }

    /// The power with a whole exponent between -100 000 and 100 000.
    ///
    /// # Errors
    /// [`DecimalError::Exponent`], [`DecimalError::Overflow`], and
    /// [`DecimalError::DivisionByZero`] for zero to a negative power.
    pub fn checked_pow(self, exponent: Self) -> Result<Self, DecimalError> {
        let Some(whole) = exponent.to_i64() else {
            return Err(DecimalError::Exponent(exponent));
        };
        if whole.unsigned_abs() > 100_000 {
            return Err(DecimalError::Overflow);
        }
        let mut left = whole.unsigned_abs();
        let mut base = self;
        let mut power = Self::ONE;
        loop {
            if left % 2 == 1 {
                power = power.checked_mul(base)?;
            }
            left /= 2;
            if left == 0 {
                break;
            }
            base = base.checked_mul(base)?;
        }
        if whole < 0 {
            Self::ONE.checked_div(power)
        } else {
            Ok(power)
        }
    }

    /// Rounded to `digits` after the point, halves away from zero (as money and spreadsheets
    /// are rounded).
    #[must_use]
    pub fn round(self, digits: u32) -> Self {
        self.rounded(digits, |half, _| half != Ordering::Less)
    }

    /// The largest integer that is not above it.
    #[must_use]
    pub fn floor(self) -> Self {
        self.rounded(0, |_, negative| negative)
    }

    /// The smallest integer that is not below it.
    #[must_use]
    pub fn ceil(self) -> Self {
        self.rounded(0, |_, negative| !negative)
    }

    /// Cuts digits off; `up` sees how what is cut compares to a half, and the sign, and says
    /// whether to go away from zero. Called only if something is cut.
    fn rounded(self, digits: u32, up: impl Fn(Ordering, bool) -> bool) -> Self {
        let Some(cut) = self.scale.checked_sub(digits).filter(|cut| *cut > 0) else {
            return self;
        };
        // At most 10^28, which fits.
        let unit = 10_i128.pow(cut);
        let (whole, rest) = (self.mantissa / unit, self.mantissa % unit);
        if rest == 0 {
            return Self::new(whole, digits).unwrap_or(self);
        }
        let away = up((rest.abs() * 2).cmp(&unit), self.is_negative());
        let step = if self.is_negative() { -1 } else { 1 };
        Self::new(if away { whole + step } else { whole }, digits).unwrap_or(self)
    }

    /// Whether this is `exact` rounded to the digits that this has, as an answer writes 33.33 for
    /// 33.333…: at least one digit, or `exact` itself.
    pub fn is_rounding_of(self, exact: Self) -> bool {
        self == exact || (self.scale >= 1 && exact.round(self.scale) == self)
    }

    fn widened(self, scale: u32) -> Wide {
        Wide::from(self.mantissa.unsigned_abs()).scaled(scale - self.scale)
    }

    /// `±magnitude / 10^scale`, and a little more if `inexact`, rounded half to even to what fits.
    fn fit(
        negative: bool,
        magnitude: Wide,
        scale: u32,
        inexact: bool,
    ) -> Result<Self, DecimalError> {
        let limit = i128::MAX.unsigned_abs();
        let mut cut = scale.saturating_sub(MAX_SCALE);
        loop {
            if cut > scale {
                return Err(DecimalError::Overflow);
            }
            let rounded = magnitude.div_pow10_half_even(cut, inexact);
            if let Some(value) = rounded.to_u128().filter(|value| *value <= limit) {
                // Below i128::MAX, so the conversion holds.
                let value = i128::try_from(value).map_err(|_| DecimalError::Overflow)?;
                let mantissa = if negative { -value } else { value };
                return Self::new(mantissa, scale - cut).ok_or(DecimalError::Overflow);
            }
            cut += 1;
        }
    }
}

impl std::ops::Neg for Decimal {
    type Output = Self;

    fn neg(self) -> Self {
        // The least i128 is never a mantissa.
        Self {
            mantissa: self.mantissa.saturating_neg(),
            ..self
        }
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.is_negative(), other.is_negative()) {
            (true, false) => return Ordering::Less,
            (false, true) => return Ordering::Greater,
            _ => {}
        }
        let scale = self.scale.max(other.scale);
        let order = self.widened(scale).cmp(&other.widened(scale));
        if self.is_negative() {
            order.reverse()
        } else {
            order
        }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl From<i64> for Decimal {
    fn from(value: i64) -> Self {
        Self {
            mantissa: value.into(),
            scale: 0,
        }
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.mantissa.unsigned_abs().to_string();
        let scale = self.scale as usize;
        let text = if scale == 0 {
            digits
        } else {
            let padded = format!("{digits:0>width$}", width = scale + 1);
            let (whole, fraction) = padded.split_at(padded.len() - scale);
            format!("{whole}.{fraction}")
        };
        f.pad_integral(!self.is_negative(), "", &text)
    }
}

impl fmt::Debug for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Decimal {
    type Err = ParseDecimalError;

    /// Reads `[+-]digits[.digits]`; at least one digit, no separators, no exponent.
    fn from_str(text: &str) -> Result<Self, ParseDecimalError> {
        let error = || ParseDecimalError {
            text: super::clip(text, 64).0.to_owned(),
        };
        let (negative, digits) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let fraction = fraction.trim_end_matches('0');
        let all = || whole.bytes().chain(fraction.bytes());
        let some = digits.bytes().any(|b| b.is_ascii_digit());
        if !some || !all().all(|b| b.is_ascii_digit()) || fraction.len() > MAX_SCALE as usize {
            return Err(error());
        }
        let mut mantissa = 0_i128;
        for digit in all() {
            mantissa = mantissa
                .checked_mul(10)
                .and_then(|value| value.checked_add(i128::from(digit - b'0')))
                .ok_or_else(error)?;
        }
        let mantissa = if negative { -mantissa } else { mantissa };
        Self::new(mantissa, fraction.len() as u32).ok_or_else(error)
    }
}

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Decimal {
    /// From a string or an integer. A fraction has to be a string: as a JSON number it may have
    /// been rounded.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Decimal;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a decimal number as a string, or an integer")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Decimal, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Decimal, E> {
                Ok(value.into())
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Decimal, E> {
                Decimal::new(value.into(), 0).ok_or_else(|| E::custom(DecimalError::Overflow))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for Decimal {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Decimal".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({"type": "string", "pattern": "^-?[0-9]{1,38}(\\.[0-9]{1,28})?$"})
    }
}

#[cfg(test)]
#[path = "decimal_tests.rs"]
mod tests;
