//! BERT as candle-transformers has it, with the pooling of sentence-transformers.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};
use rayon::prelude::*;
use serde::{Deserialize, de::DeserializeOwned};
use tokenizers::Tokenizer;

use super::{EmbedError, Embedder, Pooling, check_lengths};
use crate::{CoreError, Result, TokenId, generate::Cancel};

/// What a description may weigh. The largest, a tokenizer of many languages, has 20 MB.
const MAX_JSON: u64 = 256 << 20;

/// A sentence-embedding model of BERT's kind, such as all-MiniLM-L6-v2.
///
/// ```no_run
/// use converge_core::{
///     embed::{BertEmbedder, Embedder as _, similarity},
///     generate::Cancel,
///     hub,
/// };
///
/// let folder = hub::resolve("all-minilm-l6-v2")?.path;
/// let embedder = BertEmbedder::load(&folder, &candle_core::Device::Cpu)?;
/// let texts = ["A dog runs in the park.", "A puppy is running outside."];
/// let vectors = embedder.embed(&texts, &Cancel::new())?;
/// assert!(similarity(&vectors[0], &vectors[1]) > 0.5);
/// # Ok::<_, converge_core::CoreError>(())
/// ```
pub struct BertEmbedder {
    model: BertModel,
    tokenizer: Tokenizer,
    tokenizer_path: PathBuf,
    pooling: Pooling,
    dimensions: usize,
    limit: usize,
}

/// `1_Pooling/config.json` of sentence-transformers.
#[derive(Default, Deserialize)]
#[serde(default)]
struct PoolingConfig {
    pooling_mode_cls_token: bool,
    pooling_mode_mean_tokens: bool,
    pooling_mode_max_tokens: bool,
    pooling_mode_mean_sqrt_len_tokens: bool,
    pooling_mode_lasttoken: bool,
}

/// `sentence_bert_config.json` of sentence-transformers.
#[derive(Deserialize)]
struct SentenceConfig {
    max_seq_length: Option<usize>,
}

impl BertEmbedder {
    /// Loads a folder as sentence-transformers writes it: `config.json`, `tokenizer.json` and
    /// `model.safetensors`, with `1_Pooling/config.json` and `sentence_bert_config.json` where the
    /// model has them. Without the former the mean is taken, without the latter a text may be as
    /// long as the model has positions.
    ///
    /// # Errors
    /// [`EmbedError`] for files that are missing or say what is not supported, candle's for weights
    /// that do not fit them.
    pub fn load(folder: &Path, device: &Device) -> Result<Self> {
        let config_path = folder.join("config.json");
        let config: Config = json(&config_path)?;
        check(&config, &config_path)?;
        let pooling = pooling(&folder.join("1_Pooling").join("config.json"))?;
        let sentence: Option<SentenceConfig> =
            optional(json(&folder.join("sentence_bert_config.json")))?;
        let positions = config.max_position_embeddings;
        let limit = sentence
            .and_then(|config| config.max_seq_length)
            .map_or(positions, |most| most.min(positions));

        let tokenizer_path = folder.join("tokenizer.json");
        let unusable = |source| EmbedError::Tokenizer {
            path: tokenizer_path.clone(),
            source,
        };
        let mut tokenizer =
            Tokenizer::from_bytes(read(&tokenizer_path, MAX_JSON)?).map_err(unusable)?;
        // The file asks for both; a text is neither cut nor filled up here.
        tokenizer.with_truncation(None).map_err(unusable)?;
        tokenizer.with_padding(None);

        let weights = read(&folder.join("model.safetensors"), u64::MAX)?;
        let weights = VarBuilder::from_buffered_safetensors(weights, DType::F32, device)?;
        Ok(Self {
            model: BertModel::load(weights, &config)?,
            tokenizer,
            tokenizer_path,
            pooling,
            dimensions: config.hidden_size,
            limit,
        })
    }

    /// How the tokens' vectors become one.
    pub fn pooling(&self) -> Pooling {
        self.pooling
    }

    fn ids(&self, text: &str) -> Result<Vec<TokenId>, EmbedError> {
        match self.tokenizer.encode_fast(text, true) {
            Ok(encoding) => Ok(encoding.get_ids().to_vec()),
            Err(source) => {
                let path = self.tokenizer_path.clone();
                Err(EmbedError::Tokenizer { path, source })
            }
        }
    }

    fn one(&self, ids: &[TokenId]) -> Result<Vec<f32>> {
        let ids = Tensor::new(ids, &self.model.device)?.unsqueeze(0)?;
        let rows = self.model.forward(&ids, &ids.zeros_like()?, None)?;
        let rows: Vec<f32> = rows.flatten_all()?.to_vec1()?;
        Ok(self.pooling.pool(&rows, self.dimensions))
    }
}

impl Embedder for BertEmbedder {
    fn dimensions(&self) -> usize {
        self.dimensions
    }

    fn limit(&self) -> usize {
        self.limit
    }

    fn tokens(&self, text: &str) -> Result<usize> {
        Ok(self.ids(text)?.len())
    }

    fn embed(&self, texts: &[&str], cancel: &Cancel) -> Result<Vec<Vec<f32>>> {
        let texts = texts
            .par_iter()
            .map(|text| self.ids(text))
            .collect::<Result<Vec<_>, _>>()?;
        let lengths: Vec<usize> = texts.iter().map(Vec::len).collect();
        check_lengths(&lengths, self.limit)?;
        // A thread for each text: one alone is too small a product for several.
        texts
            .par_iter()
            .map(|ids| match cancel.is_cancelled() {
                true => Err(CoreError::Cancelled),
                false => self.one(ids),
            })
            .collect()
    }
}

impl std::fmt::Debug for BertEmbedder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BertEmbedder")
            .field("dimensions", &self.dimensions)
            .field("limit", &self.limit)
            .field("pooling", &self.pooling)
            .finish_non_exhaustive()
    }
}

/// Refuses numbers that candle's model would divide by, or that leave no room for a text.
fn check(config: &Config, path: &Path) -> Result<(), EmbedError> {
    let wrong = |key, found: usize, expected| EmbedError::Parameter {
        path: path.to_owned(),
        key,
        found: found.to_string(),
        expected,
    };
    let (width, heads) = (config.hidden_size, config.num_attention_heads);
    if width == 0 {
        return Err(wrong("hidden_size", width, "more than 0"));
    }
    if heads == 0 || width % heads != 0 {
        let expected = "a divisor of `hidden_size`";
        return Err(wrong("num_attention_heads", heads, expected));
    }
    if config.max_position_embeddings == 0 {
        return Err(wrong("max_position_embeddings", 0, "more than 0"));
    }
    Ok(())
}

/// The one pooling that a file asks for; without a file the mean.
fn pooling(path: &Path) -> Result<Pooling, EmbedError> {
    let Some(config) = optional(json::<PoolingConfig>(path))? else {
        return Ok(Pooling::Mean);
    };
    let known = [
        (config.pooling_mode_mean_tokens, Pooling::Mean),
        (config.pooling_mode_cls_token, Pooling::First),
        (config.pooling_mode_lasttoken, Pooling::Last),
    ];
    let mut asked = known.iter().filter(|(is_asked, _)| *is_asked);
    let others = config.pooling_mode_max_tokens || config.pooling_mode_mean_sqrt_len_tokens;
    match (asked.next(), asked.next()) {
        (Some((_, pooling)), None) if !others => Ok(*pooling),
        (first, second) => Err(EmbedError::Parameter {
            path: path.to_owned(),
            key: "pooling_mode_…",
            found: match (first, second, others) {
                (None, _, false) => "true for none".to_owned(),
                (None, _, true) => "true for the maximum or a mean by root".to_owned(),
                _ => "true for several".to_owned(),
            },
            expected: "true for one of the mean, the first and the last token",
        }),
    }
}

fn json<T: DeserializeOwned>(path: &Path) -> Result<T, EmbedError> {
    serde_json::from_slice(&read(path, MAX_JSON)?).map_err(|source| EmbedError::Config {
        path: path.to_owned(),
        source,
    })
}

/// `None` for a file that is not there.
fn optional<T>(read: Result<T, EmbedError>) -> Result<Option<T>, EmbedError> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(EmbedError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn read(path: &Path, limit: u64) -> Result<Vec<u8>, EmbedError> {
    let failed = |source| EmbedError::Read {
        path: path.to_owned(),
        source,
    };
    let found = fs::metadata(path).map_err(failed)?.len();
    if found > limit {
        return Err(EmbedError::Parameter {
            path: path.to_owned(),
            key: "length",
            found: format!("{found} bytes"),
            expected: "at most 256 MiB",
        });
    }
    fs::read(path).map_err(failed)
}
