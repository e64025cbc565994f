//! Which instructions kernels use.

use crate::{QuantError, Result};

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

    /// The level to use: the one that the environment variable `CONVERGE_CPU` names, or the fastest
    /// of this machine where it is not set or empty.
    ///
    /// # Errors
    /// [`QuantError::UnknownLevel`] for another name and [`QuantError::NoSuchInstructions`] for a
    /// level that this machine lacks.
    pub fn detect() -> Result<Self> {
        let named = std::env::var_os(VARIABLE).unwrap_or_default();
        Self::named(&named.to_string_lossy())
    }

    /// The level of that name, which this machine must have; the fastest for an empty one.
    fn named(name: &str) -> Result<Self> {
        if name.is_empty() {
            return Ok(Self::available().last().unwrap_or(Self::Scalar));
        }
        let level = Self::ALL.into_iter().find(|level| level.name() == name);
        let level = level.ok_or_else(|| QuantError::UnknownLevel {
            variable: VARIABLE,
            found: name.to_owned(),
        })?;
        level.checked()
    }

    /// The level, if this machine has it.
    ///
    /// # Errors
    /// [`QuantError::NoSuchInstructions`].
    pub fn checked(self) -> Result<Self> {
        match self.is_available() {
            true => Ok(self),
            false => Err(QuantError::NoSuchInstructions { level: self }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_level_of_this_machine_or_an_error() {
        for level in Level::ALL {
            match (Level::named(level.name()), level.is_available()) {
                (Ok(found), true) => assert_eq!(found, level),
                (Err(QuantError::NoSuchInstructions { level: found }), false) => {
                    assert_eq!(found, level);
                }
                (found, available) => panic!("{level:?}, available {available}: {found:?}"),
            }
        }
        assert_eq!(Level::named("").ok(), Level::available().last());
        for wrong in ["AVX2", "avx-512", " avx2", "0"] {
            let error = Level::named(wrong).unwrap_err();
            let QuantError::UnknownLevel { found, .. } = &error else {
                panic!("{wrong}: {error:?}");
            };
            assert_eq!(found, wrong);
            let said = error.to_string();
            assert!(
                said.contains("CONVERGE_CPU") && said.contains("scalar"),
                "{said}"
            );
            assert_eq!(said.lines().count(), 1);
        }
    }
}
