//! What speculation did.

/// Figures since the beginning, or since they were last taken.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// Passes of the model after which tokens were chosen.
    pub passes: usize,
    /// Of these, passes without a guess.
    pub plain_passes: usize,
    /// Tokens chosen after them: those that a grammar forced left out, ends of texts not.
    pub tokens: usize,
    /// Seconds of the passes.
    pub pass_seconds: f64,
    /// Seconds that guessing took.
    pub draft_seconds: f64,
    /// Seconds that a pass over one token takes, by those that there were and by what longer ones
    /// tell; `None` before the first pass.
    pub plain_seconds: Option<f64>,
    /// Each source of guesses.
    pub sources: Vec<SourceStats>,
}

/// Figures of one source.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SourceStats {
    /// Its name.
    pub name: &'static str,
    /// Passes that checked its guesses.
    pub passes: usize,
    /// Guesses checked: in the pass, right or wrong. What a grammar forces after a guess is among them.
    pub drafted: usize,
    /// Guesses that were right.
    pub accepted: usize,
    /// Seconds that it took to guess, also where nothing came of it.
    pub seconds: f64,
    /// By position in the draft, guesses in passes and those that were right.
    pub positions: Vec<Position>,
}

/// Guesses at one position of a draft.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// In passes.
    pub drafted: usize,
    /// Right.
    pub accepted: usize,
}

impl Stats {
    /// Tokens per pass.
    pub fn tokens_per_pass(&self) -> f64 {
        self.tokens as f64 / self.passes.max(1) as f64
    }

    /// Tokens per second.
    pub fn speed(&self) -> f64 {
        let seconds = self.pass_seconds + self.draft_seconds;
        match seconds > 0.0 {
            true => self.tokens as f64 / seconds,
            false => 0.0,
        }
    }

    /// Tokens per second that there would have been without guesses.
    pub fn plain_speed(&self) -> Option<f64> {
        self.plain_seconds.map(|seconds| 1.0 / seconds)
    }
}

impl SourceStats {
    /// A pass had `drafted` guesses, of which the first `accepted` were right.
    pub(crate) fn checked(&mut self, drafted: usize, accepted: usize) {
        self.passes += 1;
        self.drafted += drafted;
        self.accepted += accepted;
        if self.positions.len() < drafted {
            self.positions.resize(drafted, Position::default());
        }
        for (i, position) in self.positions.iter_mut().take(drafted).enumerate() {
            position.drafted += 1;
            position.accepted += usize::from(i < accepted);
        }
    }
}
