//! What a pass costs, learned from passes.

/// The most tokens that a pass with a draft has; those that a grammar forced before it go with it.
pub(crate) const MOST: usize = 24;

/// The most tokens of a pass whose cost is known.
pub(crate) const LONGEST: usize = 64;

/// Observations that a mean remembers, about.
const MEMORY: f64 = 12.0;

/// How much the prior weighs, in observations.
const PRIOR: f64 = 0.2;

/// Seconds of a pass over so many tokens, relative to one, before any was measured: a few wait
/// for the weights, whose way from memory takes as long for one, and more wait for arithmetic.
fn prior(tokens: usize) -> f64 {
    let more = tokens.saturating_sub(1) as f64;
    f64::max(1.0 + 0.05 * more, 0.2 * tokens as f64)
}

/// A mean that forgets.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mean {
    pub(crate) value: f64,
    pub(crate) count: f64,
}

impl Mean {
    /// Takes an observation in. A lone one far off is something else on the machine, and counts
    /// as far as the mean doubles or halves.
    pub(crate) fn add(&mut self, x: f64) {
        let x = match self.count > 2.0 {
            true => x.clamp(self.value * 0.5, self.value * 2.0),
            false => x,
        };
        self.take(x);
    }

    /// Takes an observation in, however far off.
    pub(crate) fn take(&mut self, x: f64) {
        self.count = (self.count + 1.0).min(MEMORY);
        self.value += (x - self.value) / self.count;
    }
}

/// Seconds of passes by their tokens.
#[derive(Clone, Debug)]
pub(crate) struct Costs {
    seen: [Mean; LONGEST + 1],
    /// The estimates: a pass over more tokens never costs less.
    seconds: [f64; LONGEST + 1],
}

impl Costs {
    pub(crate) fn new() -> Self {
        let mut costs = Self {
            seen: [Mean::default(); LONGEST + 1],
            seconds: [0.0; LONGEST + 1],
        };
        costs.estimate();
        costs
    }

    /// A pass over `tokens` took this long.
    pub(crate) fn learn(&mut self, tokens: usize, seconds: f64) {
        if let Some(mean) = self.seen.get_mut(tokens)
            && seconds > 0.0
        {
            mean.add(seconds);
            self.estimate();
        }
    }

    /// Seconds of a pass over `tokens`, at most [`LONGEST`]. Before any was measured, one over one
    /// token takes 1.
    pub(crate) fn seconds(&self, tokens: usize) -> f64 {
        self.seconds[tokens.min(LONGEST)]
    }

    fn estimate(&mut self) {
        let known = self.seen.iter().enumerate().skip(1);
        let (sum, count) = known.fold((0.0, 0.0), |(sum, count), (m, mean)| {
            (sum + mean.count * mean.value / prior(m), count + mean.count)
        });
        let scale = if count > 0.0 { sum / count } else { 1.0 };
        let mut least = f64::INFINITY;
        for m in (1..=LONGEST).rev() {
            let Mean { value, count } = self.seen[m];
            let own = (count * value + PRIOR * scale * prior(m)) / (count + PRIOR);
            least = least.min(own);
            self.seconds[m] = least;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unmeasured_passes_follow_the_measured_ones() {
        let mut costs = Costs::new();
        assert_eq!(costs.seconds(1), 1.0);
        costs.learn(1, 0.03);
        assert!((costs.seconds(1) - 0.03).abs() < 1e-9);
        assert!((costs.seconds(8) - 0.03 * prior(8)).abs() < 1e-9);
        for _ in 0..20 {
            costs.learn(4, 0.06);
        }
        assert!((costs.seconds(4) - 0.06).abs() < 0.005);
        for m in 1..LONGEST {
            assert!(costs.seconds(m) <= costs.seconds(m + 1), "{m}");
        }
    }

    #[test]
    fn a_lone_slow_pass_is_soon_forgotten() {
        let mut costs = Costs::new();
        for _ in 0..10 {
            costs.learn(1, 0.03);
        }
        costs.learn(1, 30.0);
        assert!(costs.seconds(1) < 0.034);
        costs.learn(0, 1.0);
        costs.learn(500, 1.0);
        costs.learn(1, f64::NAN);
        assert!(costs.seconds(1) < 0.034);
    }
}
