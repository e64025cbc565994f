//! The decoder description: everything an engine needs to know to compute a model.

use std::ops::Range;

use converge_quant::Gguf;

use crate::Result;

/// A decoder-only transformer: RMSNorm, grouped-query attention with rotary positions, and a
/// gated feed-forward network, dense or of experts, each with a residual connection around it.
///
/// Made from a GGUF file by [`DecoderSpec::from_gguf`], which has checked that every tensor named
/// here exists and has the shape that the numbers demand.
///
/// ```text
/// x = embedding_scale · embedding[token]
/// x = x + residual_scale · post_norm(attention(norm(x)))       each layer
/// x = x + residual_scale · post_norm(feed_forward(norm(x)))
/// logits = softcap(logit_scale · head(output_norm(x)))
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct DecoderSpec {
    /// `general.architecture`.
    pub architecture: &'static str,
    /// Width of the residual stream.
    pub width: usize,
    /// Size of the vocabulary.
    pub vocab: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Elements of one head of queries, keys or values; even.
    pub head_size: usize,
    /// The context length that the model was trained for.
    pub trained_context: usize,
    /// Epsilon inside the root of every RMSNorm.
    pub norm_eps: f32,
    /// The gate's activation function in the feed-forward networks.
    pub activation: Activation,
    /// What embeddings are multiplied by.
    pub embedding_scale: f32,
    /// What a query's product with a key is multiplied by.
    pub attention_scale: f32,
    /// Bound of the scaled scores before the softmax: `cap · tanh(score / cap)`.
    pub attention_softcap: Option<f32>,
    /// What is added to the residual stream is multiplied by this.
    pub residual_scale: f32,
    /// What the head's outputs are multiplied by.
    pub logit_scale: f32,
    /// Bound of the logits: `cap · tanh(logit / cap)`.
    pub logit_softcap: Option<f32>,
    /// Tensor of token embeddings, `vocab × width`.
    pub embedding: String,
    /// The layers, first to last.
    pub layers: Vec<Layer>,
    /// Tensor of the last norm's weights, `width`.
    pub output_norm: String,
    /// The head, `vocab × width`: the embedding's tensor where `tied_head`.
    pub head: Projection,
    /// Whether the head is the transposed embedding.
    pub tied_head: bool,
}

impl DecoderSpec {
    /// Reads the description of a file's model and checks every tensor's presence and shape.
    ///
    /// # Errors
    /// [`UnsupportedArchitecture`](crate::CoreError::UnsupportedArchitecture) and
    /// [`UnsupportedFeature`](crate::CoreError::UnsupportedFeature) for what is not known,
    /// [`ModelParameter`](crate::CoreError::ModelParameter) and
    /// [`TensorShape`](crate::CoreError::TensorShape) for a file that contradicts itself, and the
    /// reader's errors for what is missing.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self> {
        super::arch::describe(gguf)
    }

    /// Query heads that share one key and value head.
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Bytes of an f32 KV cache that holds `positions`.
    pub fn kv_bytes(&self, positions: usize) -> usize {
        [
            self.layers.len(),
            self.kv_heads,
            self.head_size,
            2 * size_of::<f32>(),
        ]
        .into_iter()
        .fold(positions, usize::saturating_mul)
    }
}

/// One layer: its tensors, and how its attention sees positions.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// Norm before attention, `width`.
    pub attention_norm: String,
    /// Queries, `heads · head_size × width`.
    pub query: Projection,
    /// Keys, `kv_heads · head_size × width`.
    pub key: Projection,
    /// Values, `kv_heads · head_size × width`.
    pub value: Projection,
    /// Norm of every query head before it is turned, `head_size`.
    pub query_norm: Option<String>,
    /// Norm of every key head before it is turned, `head_size`.
    pub key_norm: Option<String>,
    /// Rotary position embedding; `None` where the layer uses no positions.
    pub rope: Option<Rope>,
    /// The most positions that a query sees, its own included; `None` for all. Above 0.
    pub window: Option<usize>,
    /// Attention's output, `width × heads · head_size`.
    pub output: Projection,
    /// Norm of attention's output, `width`.
    pub post_attention_norm: Option<String>,
    /// Norm before the feed-forward network, `width`.
    pub feed_forward_norm: String,
    /// The feed-forward network.
    pub feed_forward: FeedForward,
    /// Norm of the feed-forward network's output, `width`.
    pub post_feed_forward_norm: Option<String>,
}

/// What a layer does with each position by itself.
#[derive(Clone, Debug, PartialEq)]
pub enum FeedForward {
    /// One network for all tokens.
    Dense(Gated),
    /// Each token goes through the few networks that a router chooses for it.
    Experts(Experts),
}

/// `down(activation(gate x) · (up x))`.
#[derive(Clone, Debug, PartialEq)]
pub struct Gated {
    /// The gate, `inner × width`.
    pub gate: Projection,
    /// What the gate multiplies, `inner × width`.
    pub up: Projection,
    /// Back to the residual stream, `width × inner`.
    pub down: Projection,
}

/// A mixture of experts: `Σ p_e · expert_e(x)` over the `used` experts of the largest
/// `p = softmax(router x)`, plus what is shared.
#[derive(Clone, Debug, PartialEq)]
pub struct Experts {
    /// One logit per expert, `experts × width`.
    pub router: Projection,
    /// The experts.
    pub experts: Vec<Gated>,
    /// How many a token goes through: 1 to the number of experts.
    pub used: usize,
    /// Whether the chosen probabilities are divided by their sum.
    pub normalised: bool,
    /// What every token goes through besides.
    pub shared: Option<SharedExpert>,
}

/// `sigmoid(gate x) · network(x)`.
#[derive(Clone, Debug, PartialEq)]
pub struct SharedExpert {
    /// Its network.
    pub network: Gated,
    /// The logit of its share, `1 × width`.
    pub gate: Projection,
}

/// `y = W x + b`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Projection {
    /// The tensor that `W` is in, row length `inputs`.
    pub weight: String,
    /// The tensor's row that is the first of `W`, counted over all its dimensions but the last:
    /// other than 0 where projections or experts share a tensor.
    pub first_row: usize,
    /// Tensor of `b`, as many elements as `weight` has rows, where there is one.
    pub bias: Option<String>,
    /// Length of `y`.
    pub outputs: usize,
    /// Length of `x`.
    pub inputs: usize,
}

impl Projection {
    /// The rows of the tensors that belong to this projection.
    pub fn rows(&self) -> Range<usize> {
        self.first_row..self.first_row.saturating_add(self.outputs)
    }
}

/// Rotary position embedding (Su et al., 2021): pair `i` of the first `size` elements of a head is
/// turned by `position · base^(−2i / size)`, changed as `scaling` says.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Which elements form a pair.
    pub pairs: RopePairs,
    /// Elements of a head that are turned: even, at most the head size. The others stay.
    pub size: usize,
    /// Base of the geometric series of frequencies.
    pub base: f32,
    /// How the frequencies are stretched for contexts beyond the pre-training's.
    pub scaling: RopeScaling,
}

/// Which of a head's first `size` elements turn together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopePairs {
    /// `(2i, 2i + 1)`: the original layout; GGUF's `llama` weights are permuted for it.
    Interleaved,
    /// `(i, i + size / 2)`, as in GPT-NeoX.
    Halves,
}

/// How rotary frequencies differ from those of the plain series.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// All frequencies as trained.
    None,
    /// One divisor for all (position interpolation, Chen et al., 2023).
    Linear {
        /// The divisor.
        factor: f32,
    },
    /// A divisor per pair, from a tensor of `size / 2` values (how Llama 3.1 comes as GGUF).
    PerPair {
        /// The tensor's name.
        tensor: String,
    },
    /// Llama 3.1's rule: wavelengths beyond `original_context / low_frequency_factor` are
    /// divided, those below `original_context / high_frequency_factor` are not.
    Llama3 {
        /// The divisor.
        factor: f32,
        /// Turns in the original context below which a frequency is divided.
        low_frequency_factor: f32,
        /// Turns above which it is not; more than `low_frequency_factor`.
        high_frequency_factor: f32,
        /// The context of the pre-training.
        original_context: usize,
    },
    /// YaRN (Peng et al., 2023): as `Llama3`, over the index of the pair, and all turned vectors
    /// are lengthened.
    Yarn {
        /// The divisor.
        factor: f32,
        /// Turns in the original context from which a frequency is not divided.
        beta_fast: f32,
        /// Turns up to which it is divided in full.
        beta_slow: f32,
        /// The context of the pre-training.
        original_context: usize,
        /// What turned queries and keys are multiplied by.
        attention_factor: f32,
    },
    /// LongRoPE (Ding et al., 2024): a divisor per pair, one set for contexts up to the original
    /// and one for longer ones. The set is chosen by the context that a model is loaded with.
    LongRope {
        /// Tensor of `size / 2` divisors for contexts up to `original_context`.
        short: String,
        /// Tensor of `size / 2` divisors for longer ones.
        long: String,
        /// The context of the pre-training.
        original_context: usize,
        /// What turned queries and keys are multiplied by.
        attention_factor: f32,
    },
}

/// Activation functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x · sigmoid(x)`.
    Silu,
    /// `x · Φ(x)` by the tanh formula of Hendrycks and Gimpel (2016).
    GeluTanh,
}
