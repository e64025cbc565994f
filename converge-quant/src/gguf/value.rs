//! Values of metadata, and how Rust types are had from them.

/// A value of the metadata.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// Unsigned, 8 bits.
    U8(u8),
    /// Signed, 8 bits.
    I8(i8),
    /// Unsigned, 16 bits.
    U16(u16),
    /// Signed, 16 bits.
    I16(i16),
    /// Unsigned, 32 bits.
    U32(u32),
    /// Signed, 32 bits.
    I32(i32),
    /// Unsigned, 64 bits.
    U64(u64),
    /// Signed, 64 bits.
    I64(i64),
    /// Single precision.
    F32(f32),
    /// Double precision.
    F64(f64),
    /// True or false.
    Bool(bool),
    /// Text.
    String(String),
    /// Many values of one type.
    Array(Array),
}

/// An array of the metadata.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Array {
    /// Unsigned, 8 bits.
    U8(Vec<u8>),
    /// Signed, 8 bits.
    I8(Vec<i8>),
    /// Unsigned, 16 bits.
    U16(Vec<u16>),
    /// Signed, 16 bits.
    I16(Vec<i16>),
    /// Unsigned, 32 bits.
    U32(Vec<u32>),
    /// Signed, 32 bits.
    I32(Vec<i32>),
    /// Unsigned, 64 bits.
    U64(Vec<u64>),
    /// Signed, 64 bits.
    I64(Vec<i64>),
    /// Single precision.
    F32(Vec<f32>),
    /// Double precision.
    F64(Vec<f64>),
    /// True or false.
    Bool(Vec<bool>),
    /// Text.
    String(Strings),
    /// Arrays, which need not be of one type.
    Array(Vec<Array>),
}

/// Many strings in one piece of memory: a vocabulary has hundreds of thousands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Strings {
    text: String,
    ends: Vec<usize>,
}

impl Strings {
    /// `ends` must be ascending character borders of `text`, the last its length.
    pub(crate) fn from_parts(text: String, ends: Vec<usize>) -> Self {
        Self { text, ends }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The string at `index`.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&str> {
        let end = *self.ends.get(index)?;
        let start = match index {
            0 => 0,
            _ => *self.ends.get(index - 1)?,
        };
        self.text.get(start..end)
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        let mut start = 0;
        self.ends.iter().map(move |&end| {
            let one = self.text.get(start..end).unwrap_or_default();
            start = end;
            one
        })
    }
}

impl<S: AsRef<str>> FromIterator<S> for Strings {
    fn from_iter<I: IntoIterator<Item = S>>(strings: I) -> Self {
        let mut all = Self::default();
        for one in strings {
            all.text.push_str(one.as_ref());
            all.ends.push(all.text.len());
        }
        all
    }
}

macro_rules! from {
    ($($ty:ty, $value:ident => $made:expr);* $(;)?) => {$(
        impl From<$ty> for Value {
            fn from($value: $ty) -> Self {
                $made
            }
        }
    )*};
}
from!(
    u32, v => Self::U32(v);
    i32, v => Self::I32(v);
    u64, v => Self::U64(v);
    i64, v => Self::I64(v);
    f32, v => Self::F32(v);
    f64, v => Self::F64(v);
    bool, v => Self::Bool(v);
    &str, v => Self::String(v.to_owned());
    String, v => Self::String(v);
    Array, v => Self::Array(v);
    Strings, v => Self::Array(Array::String(v));
    Vec<f32>, v => Self::Array(Array::F32(v));
    Vec<i32>, v => Self::Array(Array::I32(v));
    Vec<u32>, v => Self::Array(Array::U32(v));
);

impl Value {
    /// The name of the value's type, as errors say it.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::U8(_) => "u8",
            Self::I8(_) => "i8",
            Self::U16(_) => "u16",
            Self::I16(_) => "i16",
            Self::U32(_) => "u32",
            Self::I32(_) => "i32",
            Self::U64(_) => "u64",
            Self::I64(_) => "i64",
            Self::F32(_) => "f32",
            Self::F64(_) => "f64",
            Self::Bool(_) => "bool",
            Self::String(_) => "string",
            Self::Array(array) => array.type_name(),
        }
    }

    fn integer(&self) -> Option<i128> {
        Some(match *self {
            Self::U8(v) => v.into(),
            Self::I8(v) => v.into(),
            Self::U16(v) => v.into(),
            Self::I16(v) => v.into(),
            Self::U32(v) => v.into(),
            Self::I32(v) => v.into(),
            Self::U64(v) => v.into(),
            Self::I64(v) => v.into(),
            _ => return None,
        })
    }
}

impl Array {
    /// The name of the array's type, as errors say it.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::U8(_) => "array of u8",
            Self::I8(_) => "array of i8",
            Self::U16(_) => "array of u16",
            Self::I16(_) => "array of i16",
            Self::U32(_) => "array of u32",
            Self::I32(_) => "array of i32",
            Self::U64(_) => "array of u64",
            Self::I64(_) => "array of i64",
            Self::F32(_) => "array of f32",
            Self::F64(_) => "array of f64",
            Self::Bool(_) => "array of bool",
            Self::String(_) => "array of strings",
            Self::Array(_) => "array of arrays",
        }
    }

    /// How many values it has.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::U8(v) => v.len(),
            Self::I8(v) => v.len(),
            Self::U16(v) => v.len(),
            Self::I16(v) => v.len(),
            Self::U32(v) => v.len(),
            Self::I32(v) => v.len(),
            Self::U64(v) => v.len(),
            Self::I64(v) => v.len(),
            Self::F32(v) => v.len(),
            Self::F64(v) => v.len(),
            Self::Bool(v) => v.len(),
            Self::String(v) => v.len(),
            Self::Array(v) => v.len(),
        }
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn integers(&self) -> Option<Box<dyn Iterator<Item = i128> + '_>> {
        Some(match self {
            Self::U8(v) => Box::new(v.iter().map(|&v| v.into())),
            Self::I8(v) => Box::new(v.iter().map(|&v| v.into())),
            Self::U16(v) => Box::new(v.iter().map(|&v| v.into())),
            Self::I16(v) => Box::new(v.iter().map(|&v| v.into())),
            Self::U32(v) => Box::new(v.iter().map(|&v| v.into())),
            Self::I32(v) => Box::new(v.iter().map(|&v| v.into())),
            Self::U64(v) => Box::new(v.iter().map(|&v| v.into())),
            Self::I64(v) => Box::new(v.iter().map(|&v| v.into())),
            _ => return None,
        })
    }
}

/// Why a value is not what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mismatch {
    /// It has another type.
    Type,
    /// It is an integer that the type asked for cannot hold.
    Range {
        /// The integer.
        found: i128,
    },
}

/// What a value of the metadata can be read as.
///
/// Any integer type reads any other as long as the number fits; `f32` reads `f64` too, rounded;
/// nothing else is converted. Borrowing types (`&str`, `&Strings`, `&[f32]` …) read without a copy
/// and only the very type.
pub trait FromValue<'a>: Sized {
    /// What is expected, as errors say it.
    const EXPECTED: &'static str;

    /// Reads a value.
    ///
    /// # Errors
    /// Why it is not what was asked for.
    fn from_value(value: &'a Value) -> Result<Self, Mismatch>;
}

macro_rules! integer {
    ($($ty:ty, $name:literal, $array:literal);*) => {$(
        impl FromValue<'_> for $ty {
            const EXPECTED: &'static str = $name;
            fn from_value(value: &Value) -> Result<Self, Mismatch> {
                let found = value.integer().ok_or(Mismatch::Type)?;
                Self::try_from(found).map_err(|_| Mismatch::Range { found })
            }
        }
        impl FromValue<'_> for Vec<$ty> {
            const EXPECTED: &'static str = $array;
            fn from_value(value: &Value) -> Result<Self, Mismatch> {
                let Value::Array(array) = value else { return Err(Mismatch::Type) };
                let integers = array.integers().ok_or(Mismatch::Type)?;
                integers
                    .map(|found| <$ty>::try_from(found).map_err(|_| Mismatch::Range { found }))
                    .collect()
            }
        }
    )*};
}
integer!(
    u8, "an integer of 8 bits, unsigned", "an array of integers of 8 bits, unsigned";
    u16, "an integer of 16 bits, unsigned", "an array of integers of 16 bits, unsigned";
    u32, "an integer of 32 bits, unsigned", "an array of integers of 32 bits, unsigned";
    u64, "an integer of 64 bits, unsigned", "an array of integers of 64 bits, unsigned";
    usize, "an integer that can be a size", "an array of integers that can be sizes";
    i32, "an integer of 32 bits", "an array of integers of 32 bits";
    i64, "an integer of 64 bits", "an array of integers of 64 bits"
);

impl FromValue<'_> for f32 {
    const EXPECTED: &'static str = "a float";
    fn from_value(value: &Value) -> Result<Self, Mismatch> {
        match *value {
            Value::F32(v) => Ok(v),
            Value::F64(v) => Ok(v as f32),
            _ => Err(Mismatch::Type),
        }
    }
}

impl FromValue<'_> for Vec<f32> {
    const EXPECTED: &'static str = "an array of floats";
    fn from_value(value: &Value) -> Result<Self, Mismatch> {
        match value {
            Value::Array(Array::F32(v)) => Ok(v.clone()),
            Value::Array(Array::F64(v)) => Ok(v.iter().map(|&v| v as f32).collect()),
            _ => Err(Mismatch::Type),
        }
    }
}

impl FromValue<'_> for bool {
    const EXPECTED: &'static str = "a boolean";
    fn from_value(value: &Value) -> Result<Self, Mismatch> {
        match *value {
            Value::Bool(v) => Ok(v),
            _ => Err(Mismatch::Type),
        }
    }
}

impl FromValue<'_> for String {
    const EXPECTED: &'static str = <&str>::EXPECTED;
    fn from_value(value: &Value) -> Result<Self, Mismatch> {
        <&str>::from_value(value).map(str::to_owned)
    }
}

impl FromValue<'_> for Vec<String> {
    const EXPECTED: &'static str = <&Strings>::EXPECTED;
    fn from_value(value: &Value) -> Result<Self, Mismatch> {
        <&Strings>::from_value(value).map(|all| all.iter().map(str::to_owned).collect())
    }
}

macro_rules! same {
    ($($ty:ty, $pattern:pat => $out:expr, $name:literal);*) => {$(
        impl<'a> FromValue<'a> for $ty {
            const EXPECTED: &'static str = $name;
            fn from_value(value: &'a Value) -> Result<Self, Mismatch> {
                match value {
                    $pattern => Ok($out),
                    _ => Err(Mismatch::Type),
                }
            }
        }
    )*};
}
same!(
    &'a str, Value::String(v) => v, "a string";
    &'a Strings, Value::Array(Array::String(v)) => v, "an array of strings";
    &'a Array, Value::Array(v) => v, "an array";
    &'a [f32], Value::Array(Array::F32(v)) => v, "an array of f32";
    &'a [i32], Value::Array(Array::I32(v)) => v, "an array of i32";
    &'a [u32], Value::Array(Array::U32(v)) => v, "an array of u32";
    Vec<bool>, Value::Array(Array::Bool(v)) => v.clone(), "an array of booleans"
);
