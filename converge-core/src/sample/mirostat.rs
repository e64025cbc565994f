use super::SampleError;
use super::options::check;

/// Mirostat 2 (Basu et al. 2021, "Mirostat: A Neural Text Decoding Algorithm that Directly Controls
/// Perplexity", arXiv 2007.14966): the surprise of the text, −log2 p of a token on average, is held
/// at a target.
///
/// Tokens more surprising than a bound are cut off. The bound begins at twice the target with every
/// request, and after each token drawn goes down by `eta` times what the token was more surprising
/// than the target, measured among the tokens kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mirostat {
    /// The target, in bits; above 0.
    pub tau: f32,
    /// How fast the bound follows; in (0, 1].
    pub eta: f32,
}

impl Default for Mirostat {
    fn default() -> Self {
        Self { tau: 5.0, eta: 0.1 }
    }
}

impl Mirostat {
    pub(super) fn validate(&self) -> Result<(), SampleError> {
        check("mirostat.tau", self.tau, |x| x > 0.0, "above 0")?;
        let part = |x| x > 0.0 && x <= 1.0;
        check("mirostat.eta", self.eta, part, "in (0, 1]")
    }

    pub(super) fn first_bound(&self) -> f64 {
        2.0 * f64::from(self.tau)
    }

    pub(super) fn next_bound(&self, bound: f64, surprise: f64) -> f64 {
        bound - f64::from(self.eta) * (surprise - f64::from(self.tau))
    }
}
