//! The decoder description: everything an engine needs to know to compute a model.

use converge_quant::Gguf;

use crate::Result;

/// A decoder-only transformer: RMSNorm, grouped-query attention with rotary positions, and a
/// gated feed-forward network, each with a residual connection around it.
///
/// Made from a GGUF file by [`DecoderSpec::from_gguf`], which has checked that every tensor named
/// here exists and has the shape that the numbers demand.
#[derive(Clone, Debug, PartialEq)]
pub struct DecoderSpec {
    /// `general.architecture`.
    pub architecture: &'static str,
    /// Width of the residual stream.
    pub width: usize,
    /// Inner width of the feed-forward network.
    pub feed_forward: usize,
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
    /// Rotary position embedding.
    pub rope: Rope,
    /// Epsilon inside the root of every RMSNorm.
    pub norm_eps: f32,
    /// The gate's activation function in the feed-forward network.
    pub activation: Activation,
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

/// The tensors of one layer.
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
    /// Attention's output, `width × heads · head_size`.
    pub output: Projection,
    /// Norm before the feed-forward network, `width`.
    pub feed_forward_norm: String,
    /// The gate, `feed_forward × width`.
    pub gate: Projection,
    /// What the gate multiplies, `feed_forward × width`.
    pub up: Projection,
    /// Back to the residual stream, `width × feed_forward`.
    pub down: Projection,
}

/// `y = W x + b`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Projection {
    /// Tensor of `W`, `outputs × inputs`.
    pub weight: String,
    /// Tensor of `b`, `outputs`, where there is one.
    pub bias: Option<String>,
    /// Length of `y`.
    pub outputs: usize,
    /// Length of `x`.
    pub inputs: usize,
}

/// Rotary position embedding (Su et al., 2021): pair `i` of a head's elements is turned by
/// `position · base^(−2i / head_size) / factor`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Which elements form a pair.
    pub pairs: RopePairs,
    /// Base of the geometric series of frequencies.
    pub base: f32,
    /// How the frequencies are stretched for contexts beyond the pre-training's.
    pub scaling: RopeScaling,
}

/// Which elements of a head turn together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopePairs {
    /// `(2i, 2i + 1)`: the original layout; GGUF's `llama` weights are permuted for it.
    Interleaved,
    /// `(i, i + head_size / 2)`, as in GPT-NeoX.
    Halves,
}

/// Divisors of the rotary frequencies.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// All frequencies as trained.
    None,
    /// One divisor for all (position interpolation).
    Linear {
        /// The divisor.
        factor: f32,
    },
    /// A divisor per pair, from a tensor of `head_size / 2` values (Llama 3.1).
    PerPair {
        /// The tensor's name.
        tensor: String,
    },
}

/// Activation functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x · sigmoid(x)`.
    Silu,
}
