//! How often guesses are right, learned from checks.

/// Checks that a prior counts for.
const WEIGHT: f64 = 3.0;

/// What a new check leaves of those before it.
const KEPT: f64 = 0.97;

/// What a pass leaves of what is known: a class that is never tried goes back to its prior.
const FADE: f64 = 0.999;

/// Right and wrong guesses of one class.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Acceptance {
    prior: f64,
    right: f64,
    wrong: f64,
}

impl Acceptance {
    pub(crate) fn new(prior: f64) -> Self {
        Self {
            prior,
            right: 0.0,
            wrong: 0.0,
        }
    }

    pub(crate) fn learn(&mut self, right: bool) {
        self.right = self.right * KEPT + f64::from(u8::from(right));
        self.wrong = self.wrong * KEPT + f64::from(u8::from(!right));
    }

    pub(crate) fn fade(&mut self) {
        self.right *= FADE;
        self.wrong *= FADE;
    }

    /// The probability that the next one is right.
    pub(crate) fn rate(&self) -> f64 {
        (WEIGHT * self.prior + self.right) / (WEIGHT + self.right + self.wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_learns_and_goes_back_to_its_prior() {
        let mut acceptance = Acceptance::new(0.5);
        assert_eq!(acceptance.rate(), 0.5);
        (0..200).for_each(|_| acceptance.learn(true));
        assert!(acceptance.rate() > 0.94);
        (0..200).for_each(|_| acceptance.learn(false));
        assert!(acceptance.rate() < 0.06);
        (0..20_000).for_each(|_| acceptance.fade());
        assert!((acceptance.rate() - 0.5).abs() < 0.01);
    }
}
