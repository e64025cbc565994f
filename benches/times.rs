use std::time::{Duration, Instant};

/// Times of one thing, measured again and again.
#[derive(Clone, Debug, Default)]
pub struct Times(Vec<f64>);

impl Times {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Does the work `count` times, keeps the mean time of one, and gives the time of all.
    pub fn measure(&mut self, count: u64, mut work: impl FnMut()) -> Duration {
        let start = Instant::now();
        for _ in 0..count {
            work();
        }
        let all = start.elapsed();
        self.add(all.as_secs_f64() / count.max(1) as f64);
        all
    }

    /// Keeps a time in seconds.
    pub fn add(&mut self, seconds: f64) {
        self.0.push(seconds);
    }

    /// Whether nothing was measured.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The median in seconds: of two in the middle the mean. 0 of none.
    #[must_use]
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match (sorted.get(middle), sorted.len() % 2) {
            (None, _) => 0.0,
            (Some(&one), 1) => one,
            (Some(&upper), _) => (sorted[middle - 1] + upper) / 2.0,
        }
    }

    /// The shortest in seconds; 0 of none.
    #[must_use]
    pub fn best(&self) -> f64 {
        self.0.iter().copied().reduce(f64::min).unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Times;

    #[test]
    fn medians() {
        assert_eq!(Times::new().median(), 0.0);
        assert_eq!(Times(vec![3.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(Times(vec![4.0, 1.0, 2.0, 3.0]).median(), 2.5);
        assert_eq!(Times(vec![4.0, 1.0]).best(), 1.0);
    }
}
