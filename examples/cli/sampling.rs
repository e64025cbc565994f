use converge_core::sample::{Dry, Mirostat, Sampling};

/// How tokens are chosen: the options of every program that draws.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Sampling")]
pub struct SamplingArgs {
    /// 0 always takes the likeliest token, 1 draws as the model says
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    temperature: f32,
    /// Keep this many of the likeliest tokens; 0 keeps all
    #[arg(long, value_name = "N", default_value_t = 0)]
    top_k: usize,
    /// Keep the fewest of the most typical tokens whose probabilities reach this sum
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    typical_p: f32,
    /// Keep the fewest tokens whose probabilities reach this sum
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    top_p: f32,
    /// Keep tokens at least this many times as likely as the likeliest
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    min_p: f32,
    /// Hold the surprise of the text at so many bits a token (mirostat 2), instead of the above
    #[arg(long, value_name = "BITS")]
    mirostat: Option<f32>,
    /// How fast --mirostat follows
    #[arg(long, value_name = "X", requires = "mirostat", default_value_t = Mirostat::default().eta)]
    mirostat_eta: f32,
    /// Divide the logits of tokens that occurred; 1 is off
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    repetition_penalty: f32,
    /// Subtract this from a logit for each time the token occurred
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    frequency_penalty: f32,
    /// Subtract this from the logits of tokens that occurred
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    presence_penalty: f32,
    /// How many of the last tokens these three penalties look at
    #[arg(long, value_name = "N", default_value_t = 64)]
    penalty_window: usize,
    /// Subtract this from the logit of a token that goes on with a repetition (DRY); 0.8 is usual
    #[arg(long, value_name = "X")]
    dry: Option<f32>,
    /// How many times as much --dry is for each token that the repetition is longer
    #[arg(long, value_name = "X", requires = "dry", default_value_t = Dry::default().base)]
    dry_base: f32,
    /// The shortest repetition that counts, in tokens
    #[arg(long, value_name = "N", requires = "dry", default_value_t = Dry::default().allowed_length)]
    dry_length: usize,
    /// How many of the last tokens --dry looks at [default: all]
    #[arg(long, value_name = "N", requires = "dry")]
    dry_window: Option<usize>,
    /// A text that ends a repetition, as in --stop; may be repeated [default: \n : " *]
    #[arg(long, value_name = "TEXT", requires = "dry")]
    dry_breaker: Vec<String>,
    /// The same seed gives the same answer
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

impl SamplingArgs {
    /// The options as the library has them.
    ///
    /// # Errors
    /// Those of [`Sampling::validate`].
    pub fn sampling(&self) -> converge_core::Result<Sampling> {
        let sampling = Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            typical_p: self.typical_p,
            top_p: self.top_p,
            min_p: self.min_p,
            mirostat: self.mirostat.map(|tau| Mirostat {
                tau,
                eta: self.mirostat_eta,
            }),
            repetition_penalty: self.repetition_penalty,
            frequency_penalty: self.frequency_penalty,
            presence_penalty: self.presence_penalty,
            penalty_window: self.penalty_window,
            dry: self.dry.map(|multiplier| self.dry(multiplier)),
            logit_bias: Vec::new(),
            seed: self.seed,
        };
        sampling.validate()?;
        Ok(sampling)
    }

    fn dry(&self, multiplier: f32) -> Dry {
        let usual = Dry::default();
        let own = self.dry_breaker.iter().map(|text| super::unescape(text));
        Dry {
            multiplier,
            base: self.dry_base,
            allowed_length: self.dry_length,
            window: self.dry_window.unwrap_or(usual.window),
            breakers: match self.dry_breaker.is_empty() {
                true => usual.breakers,
                false => own.collect(),
            },
        }
    }
}
