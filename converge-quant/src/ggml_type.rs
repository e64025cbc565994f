//! The tensor types of ggml: code, name and block geometry.

use std::fmt;

/// How the elements of a tensor are stored.
///
/// Codes, names and block sizes are those of `enum ggml_type` in ggml's `ggml.h`. Types that this
/// crate cannot decode are listed too, so that a file that holds one can be opened and inspected,
/// and so that an error can name it; [`GgmlType::is_supported`] tells the two apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(non_camel_case_types, reason = "the names of ggml: Q4_K, IQ2_XXS")]
#[non_exhaustive]
pub enum GgmlType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of a single-precision number.
    BF16,
    /// IEEE double precision (not decoded).
    F64,
    /// Signed byte (not decoded).
    I8,
    /// Signed 16-bit integer (not decoded).
    I16,
    /// Signed 32-bit integer (not decoded).
    I32,
    /// Signed 64-bit integer (not decoded).
    I64,
    /// 4 bits, blocks of 32 with an f16 scale.
    Q4_0,
    /// 4 bits, blocks of 32 with an f16 scale and minimum.
    Q4_1,
    /// 5 bits, blocks of 32 with an f16 scale.
    Q5_0,
    /// 5 bits, blocks of 32 with an f16 scale and minimum.
    Q5_1,
    /// 8 bits, blocks of 32 with an f16 scale.
    Q8_0,
    /// 8 bits with the block's sum, an activation type (not decoded).
    Q8_1,
    /// 2 bits, super-blocks of 256.
    Q2_K,
    /// 3 bits, super-blocks of 256.
    Q3_K,
    /// 4 bits, super-blocks of 256.
    Q4_K,
    /// 5 bits, super-blocks of 256.
    Q5_K,
    /// 6 bits, super-blocks of 256.
    Q6_K,
    /// 8 bits, super-blocks of 256 with an f32 scale.
    Q8_K,
    /// 1.5625 bits from a codebook (not decoded).
    IQ1_S,
    /// 1.75 bits from a codebook (not decoded).
    IQ1_M,
    /// 2.0625 bits from a codebook (not decoded).
    IQ2_XXS,
    /// 2.3125 bits from a codebook (not decoded).
    IQ2_XS,
    /// 2.5625 bits from a codebook (not decoded).
    IQ2_S,
    /// 3.0625 bits from a codebook (not decoded).
    IQ3_XXS,
    /// 3.4375 bits from a codebook (not decoded).
    IQ3_S,
    /// 4 bits through a table of 16 levels, blocks of 32.
    IQ4_NL,
    /// 4 bits through a table of 16 levels, super-blocks of 256.
    IQ4_XS,
    /// Ternary, 1.6875 bits (not decoded).
    TQ1_0,
    /// Ternary, 2.0625 bits (not decoded).
    TQ2_0,
    /// OCP microscaling 4-bit floats, blocks of 32 with one shared exponent.
    MXFP4,
    /// NVIDIA's 4-bit floats, blocks of 64 with four 8-bit scales (not decoded).
    NVFP4,
    /// One bit, blocks of 128 (not decoded).
    Q1_0,
}

/// What ggml says of one type.
struct Facts {
    code: u32,
    name: &'static str,
    block_len: usize,
    block_bytes: usize,
    supported: bool,
}

impl GgmlType {
    /// Every type known here, in the order of their codes.
    pub const ALL: &'static [Self] = &[
        Self::F32,
        Self::F16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q8_1,
        Self::Q2_K,
        Self::Q3_K,
        Self::Q4_K,
        Self::Q5_K,
        Self::Q6_K,
        Self::Q8_K,
        Self::IQ2_XXS,
        Self::IQ2_XS,
        Self::IQ3_XXS,
        Self::IQ1_S,
        Self::IQ4_NL,
        Self::IQ3_S,
        Self::IQ2_S,
        Self::IQ4_XS,
        Self::I8,
        Self::I16,
        Self::I32,
        Self::I64,
        Self::F64,
        Self::IQ1_M,
        Self::BF16,
        Self::TQ1_0,
        Self::TQ2_0,
        Self::MXFP4,
        Self::NVFP4,
        Self::Q1_0,
    ];

    const fn facts(self) -> Facts {
        let (code, name, block_len, block_bytes, supported) = match self {
            Self::F32 => (0, "F32", 1, 4, true),
            Self::F16 => (1, "F16", 1, 2, true),
            Self::Q4_0 => (2, "Q4_0", 32, 18, true),
            Self::Q4_1 => (3, "Q4_1", 32, 20, true),
            Self::Q5_0 => (6, "Q5_0", 32, 22, true),
            Self::Q5_1 => (7, "Q5_1", 32, 24, true),
            Self::Q8_0 => (8, "Q8_0", 32, 34, true),
            Self::Q8_1 => (9, "Q8_1", 32, 36, false),
            Self::Q2_K => (10, "Q2_K", 256, 84, true),
            Self::Q3_K => (11, "Q3_K", 256, 110, true),
            Self::Q4_K => (12, "Q4_K", 256, 144, true),
            Self::Q5_K => (13, "Q5_K", 256, 176, true),
            Self::Q6_K => (14, "Q6_K", 256, 210, true),
            Self::Q8_K => (15, "Q8_K", 256, 292, true),
            Self::IQ2_XXS => (16, "IQ2_XXS", 256, 66, false),
            Self::IQ2_XS => (17, "IQ2_XS", 256, 74, false),
            Self::IQ3_XXS => (18, "IQ3_XXS", 256, 98, false),
            Self::IQ1_S => (19, "IQ1_S", 256, 50, false),
            Self::IQ4_NL => (20, "IQ4_NL", 32, 18, true),
            Self::IQ3_S => (21, "IQ3_S", 256, 110, false),
            Self::IQ2_S => (22, "IQ2_S", 256, 82, false),
            Self::IQ4_XS => (23, "IQ4_XS", 256, 136, true),
            Self::I8 => (24, "I8", 1, 1, false),
            Self::I16 => (25, "I16", 1, 2, false),
            Self::I32 => (26, "I32", 1, 4, false),
            Self::I64 => (27, "I64", 1, 8, false),
            Self::F64 => (28, "F64", 1, 8, false),
            Self::IQ1_M => (29, "IQ1_M", 256, 56, false),
            Self::BF16 => (30, "BF16", 1, 2, true),
            Self::TQ1_0 => (34, "TQ1_0", 256, 54, false),
            Self::TQ2_0 => (35, "TQ2_0", 256, 66, false),
            Self::MXFP4 => (39, "MXFP4", 32, 17, true),
            Self::NVFP4 => (40, "NVFP4", 64, 36, false),
            Self::Q1_0 => (41, "Q1_0", 128, 18, false),
        };
        Facts {
            code,
            name,
            block_len,
            block_bytes,
            supported,
        }
    }

    /// The code that stands for this type in a GGUF file.
    #[must_use]
    pub const fn code(self) -> u32 {
        self.facts().code
    }

    /// The type a code stands for, `None` if ggml never gave it out or has withdrawn it.
    #[must_use]
    pub fn from_code(code: u32) -> Option<Self> {
        Self::ALL.iter().copied().find(|ty| ty.code() == code)
    }

    /// ggml's name, such as `Q4_K`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.facts().name
    }

    /// Elements in a block; 1 for the plain number types. A row is always whole blocks.
    #[must_use]
    pub const fn block_len(self) -> usize {
        self.facts().block_len
    }

    /// Bytes in a block.
    #[must_use]
    pub const fn block_bytes(self) -> usize {
        self.facts().block_bytes
    }

    /// Bits that an element takes, scales included.
    #[must_use]
    pub fn bits_per_element(self) -> f64 {
        let facts = self.facts();
        facts.block_bytes as f64 * 8.0 / facts.block_len as f64
    }

    /// Whether this crate decodes the type.
    #[must_use]
    pub const fn is_supported(self) -> bool {
        self.facts().supported
    }

    /// The types this crate decodes, in the order of their codes.
    pub fn supported() -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(|ty| ty.is_supported())
    }

    /// Whether there are kernels for weights of the type: for all that this crate decodes but
    /// Q8_K, which no file stores weights in.
    #[must_use]
    pub const fn has_kernels(self) -> bool {
        self.is_supported() && !matches!(self, Self::Q8_K)
    }

    /// The types of weights that there are kernels for, in the order of their codes.
    pub fn with_kernels() -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(|ty| ty.has_kernels())
    }

    /// Bytes that `elements` elements take: `None` if they are not whole blocks or the product
    /// does not fit.
    #[must_use]
    pub const fn bytes_of(self, elements: usize) -> Option<usize> {
        let facts = self.facts();
        if !elements.is_multiple_of(facts.block_len) {
            return None;
        }
        (elements / facts.block_len).checked_mul(facts.block_bytes)
    }
}

impl fmt::Display for GgmlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_ascending_and_lead_back() {
        for pair in GgmlType::ALL.windows(2) {
            assert!(pair[0].code() < pair[1].code(), "{pair:?}");
        }
        for &ty in GgmlType::ALL {
            assert_eq!(GgmlType::from_code(ty.code()), Some(ty));
        }
        for withdrawn in [4, 5, 31, 32, 33, 36, 37, 38, 1000, u32::MAX] {
            assert_eq!(GgmlType::from_code(withdrawn), None);
        }
    }

    #[test]
    fn bytes_are_checked() {
        assert_eq!(GgmlType::Q4_K.bytes_of(512), Some(288));
        assert_eq!(GgmlType::Q4_K.bytes_of(500), None);
        assert_eq!(GgmlType::F32.bytes_of(usize::MAX), None);
        assert!((GgmlType::Q4_0.bits_per_element() - 4.5).abs() < f64::EPSILON);
    }
}
