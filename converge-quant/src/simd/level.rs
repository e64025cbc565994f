//! Which instructions kernels use.

use std::sync::OnceLock;

/// Environment variable that names a level, to compare or to debug: `scalar`, `avx2`, `avx512`.
const VARIABLE: &str = "CONVERGE_CPU";

/// A set of instructions that kernels are compiled for. Results are the same on each, bit for bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Level {
    /// No vectors but what the compiler finds.
    Scalar,
    /// AVX2, FMA and F16C (x86-64 since about 2013).
    Avx2,
    /// AVX-512 F, BW, DQ, VL and VNNI (x86-64 since about 2019).
    Avx512,
}

impl Level {
    /// All levels, the slowest first.
    pub const ALL: [Self; 3] = [Self::Scalar, Self::Avx2, Self::Avx512];

    /// The name that the environment variable `CONVERGE_CPU` takes.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }

    /// Whether this machine has the instructions.
    #[must_use]
    pub fn is_available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c");
            match self {
                Self::Scalar => true,
                Self::Avx2 => avx2,
                Self::Avx512 => {
                    avx2 && is_x86_feature_detected!("avx512f")
                        && is_x86_feature_detected!("avx512bw")
                        && is_x86_feature_detected!("avx512dq")
                        && is_x86_feature_detected!("avx512vl")
                        && is_x86_feature_detected!("avx512vnni")
                }
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            self == Self::Scalar
        }
    }

    /// The levels of this machine, the slowest first.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|level| level.is_available())
    }

    /// The level to use: the one that `CONVERGE_CPU` names if this machine has it, else the
    /// fastest. Decided at the first call.
    #[must_use]
    pub fn detect() -> Self {
        static LEVEL: OnceLock<Level> = OnceLock::new();
        *LEVEL.get_or_init(|| {
            let named = std::env::var(VARIABLE).ok();
            let asked = Self::available().find(|level| named.as_deref() == Some(level.name()));
            asked
                .or_else(|| Self::available().last())
                .unwrap_or(Self::Scalar)
        })
    }
}
