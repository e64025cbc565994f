//! The pre-tokenizers that `tokenizer.ggml.pre` names, as llama.cpp understands the names.
//!
//! Where llama.cpp's expressions only approximate those of a model's own tokenizer (it knows no
//! case beyond ASCII, say), they are followed: files are made and tested with it.

use super::{
    TokenizerError,
    split::{Rule, Spaces},
};

/// What a name of [`SUPPORTED_PRE`] means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pre {
    /// The splitting, one rule after the other on the pieces that the one before it made.
    pub(super) stages: &'static [Rule],
    /// A word that is a token becomes that token, whatever the merges say.
    pub(super) ignores_merges: bool,
    /// Whether a text begins with BOS where the file does not say.
    pub(super) adds_bos: bool,
    /// Tokens are written as they are with `▁` for a space, not in the byte alphabet.
    pub(super) raw: bool,
}

impl Pre {
    /// # Errors
    /// [`TokenizerError::UnsupportedPre`].
    pub(super) fn named(found: &str) -> Result<Self, TokenizerError> {
        let known = TABLE.iter().find(|(name, _)| *name == found);
        known
            .map(|&(_, pre)| pre)
            .ok_or_else(|| TokenizerError::UnsupportedPre {
                found: found.to_owned(),
                supported: SUPPORTED_PRE,
            })
    }

    const fn new(stages: &'static [Rule]) -> Self {
        Self {
            stages,
            ignores_merges: false,
            adds_bos: false,
            raw: false,
        }
    }

    const fn whole_words(self) -> Self {
        Self {
            ignores_merges: true,
            ..self
        }
    }

    const fn bos(self) -> Self {
        Self {
            adds_bos: true,
            ..self
        }
    }

    const fn raw(self) -> Self {
        Self { raw: true, ..self }
    }
}

/// The English contractions in either case.
macro_rules! contraction {
    () => {
        r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
    };
}

/// Words of which the first letters are anything but a to z and the last anything but A to Z.
/// `$class` are the characters of a word, negated; `$after` may follow one.
macro_rules! cased {
    ($class:literal, $after:expr, $digits:literal) => {
        concat!(
            r"[^\r\n\p{L}\p{N}]?[^",
            $class,
            "a-z]*[^",
            $class,
            "A-Z]+",
            $after,
            r"|[^\r\n\p{L}\p{N}]?[^",
            $class,
            "a-z]+[^",
            $class,
            "A-Z]*",
            $after,
            "|",
            $digits,
            r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+"
        )
    };
}

/// Llama 3's shape: contractions, letters with a character before them, digits, the rest.
macro_rules! worded {
    ($letters:literal, $digits:literal, $rest:literal) => {
        concat!(
            contraction!(),
            r"|[^\r\n\p{L}\p{N}]?",
            $letters,
            "|",
            $digits,
            "|",
            $rest,
            r"|\s*[\r\n]+|\s+"
        )
    };
}

const fn cover(regex: &'static str) -> Rule {
    Rule::Cover {
        regex,
        spaces: Spaces::KeepLineEnds,
    }
}

/// GPT-2's own (its source, `encoder.py`).
const GPT2: Rule = Rule::Cover {
    regex: r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+",
    spaces: Spaces::LeaveLast,
};

const LLAMA3: &str = worded!(r"\p{L}+", r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n]*");
const QWEN2: Rule = cover(worded!(r"\p{L}+", r"\p{N}", r" ?[^\s\p{L}\p{N}]+[\r\n]*"));
const QWEN35: Rule = cover(worded!(
    r"[\p{L}\p{M}]+",
    r"\p{N}",
    r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
));
const MINICPM5: Rule = cover(worded!(r"\p{L}+", r"\p{N}+", r" ?[^\s\p{L}\p{N}]+[\r\n]*"));
const SEED_CODER: Rule = cover(worded!(r"\p{L}+", r"\p{N}", r" ?[^\s\p{L}\p{N}\r\n]+"));
/// Phrases: words with single spaces between them.
const EXAONE_MOE: Rule = cover(worded!(
    r"\p{L}\p{M}*(?: ?\p{L}\p{M}*)*",
    r"\p{N}",
    r" ?[^\s\p{L}\p{N}]+[\r\n/]?"
));
const JAIS2: Rule = Rule::Cover {
    regex: LLAMA3,
    spaces: Spaces::PowersOfTwo,
};
/// llama.cpp takes `\p{Lu}` and its like for `\p{L}`, so that case makes no difference.
const TINY_AYA: Rule = cover(concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+",
    contraction!(),
    r"?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+"
));
const YOUTU: Rule = cover(concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+",
    contraction!(),
    r"?|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+"
));
const TEKKEN: Rule = cover(cased!(r"\P{L}", "", r"\p{N}"));
const GPT4O: Rule = cover(cased!(
    r"\P{L}",
    concat!(contraction!(), "?"),
    r"\p{N}{1,3}"
));
const GRANITE: Rule = cover(concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{M}[^\P{L}a-z]]*[\p{M}[^\P{L}A-Z]]+",
    contraction!(),
    r"?|[^\r\n\p{L}\p{N}]?[\p{M}[^\P{L}a-z]]+[\p{M}[^\P{L}A-Z]]*",
    contraction!(),
    r"?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+"
));

/// The Han characters that llama.cpp counts.
macro_rules! han {
    () => {
        r"\x{3400}-\x{4DBF}\x{4E00}-\x{9FFF}\x{F900}-\x{FAFF}\x{20000}-\x{2A6DF}\x{2A700}-\x{2EBEF}\x{2F800}-\x{2FA1F}"
    };
}

const KIMI_K2: Rule = cover(concat!(
    "[",
    han!(),
    r"]+|[^\r\n\p{L}\p{N}]?[^\P{L}",
    han!(),
    "]+",
    contraction!(),
    r"?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"
));

/// What it leaves over (digits, controls) are words of their own.
const DEEPSEEK3: Rule = cover(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+"##,
);
const DEEPSEEK3_STAGES: &[Rule] = &[
    Rule::Isolate(r"\p{N}{1,3}"),
    Rule::Isolate(r"[\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+"),
    DEEPSEEK3,
];

/// Chinese, Japanese and Korean as DeepSeek has it, without the white space among it.
const ASIAN: Rule = Rule::Isolate(r"[\x{800}-\x{9FA5}\x{AC00}-\x{D7FF}&&[^\s]]+");

const DEEPSEEK_LLM: &[Rule] = &[
    Rule::Isolate(r"[\r\n]"),
    // The letters that have a case.
    Rule::Isolate(concat!(
        r"\s?[",
        r"\x{41}-\x{5A}\x{61}-\x{7A}\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}",
        r"\x{1BC}-\x{1BF}\x{1C4}-\x{293}\x{295}-\x{2AF}\x{370}-\x{373}",
        r"\x{376}-\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A}\x{38C}",
        r"\x{38E}-\x{3A1}\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F}",
        r"\x{531}-\x{556}\x{10A0}-\x{10C5}\x{13A0}-\x{13F5}\x{13F8}-\x{13FD}",
        r"\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77}",
        r"\x{1D79}-\x{1D9A}\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}\x{1F20}-\x{1F45}",
        r"\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}\x{1F59}\x{1F5B}\x{1F5D}",
        r"\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}\x{1FB6}-\x{1FBC}\x{1FBE}",
        r"\x{1FC2}-\x{1FC4}\x{1FC6}-\x{1FCC}\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}",
        r"\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4}\x{1FF6}-\x{1FFC}\x{2102}\x{2107}",
        r"\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124}\x{2126}\x{2128}",
        r"\x{212A}-\x{212D}\x{212F}-\x{2134}\x{2139}\x{213C}-\x{213F}",
        r"\x{2145}-\x{2149}\x{214E}\x{2183}-\x{2184}\x{2C00}-\x{2C7B}",
        r"\x{2C7E}-\x{2CE4}\x{2CEB}-\x{2CEE}\x{2CF2}-\x{2CF3}\x{A640}-\x{A66D}",
        r"\x{A680}-\x{A69B}\x{A722}-\x{A76F}\x{A771}-\x{A787}\x{A78B}-\x{A78E}",
        r"\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17}\x{FF21}-\x{FF3A}",
        r"\x{FF41}-\x{FF5A}\x{10400}-\x{1044F}\x{104B0}-\x{104D3}",
        r"\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}",
        r"\x{118A0}-\x{118DF}\x{1E900}-\x{1E943}",
        "]+",
    )),
    Rule::Isolate(r"\s?[!-/:-~！-／：-～‘-‟\x{3001}\x{3002}]+"),
    Rule::Isolate(r"\s+\z"),
    ASIAN,
    Rule::Isolate(r"\p{N}+"),
];

const DEEPSEEK_CODER: &[Rule] = &[
    Rule::Isolate(r"[\r\n]"),
    Rule::Isolate(r"\s?\p{L}+"),
    Rule::Isolate(r"\s?\p{P}+"),
    ASIAN,
    Rule::Isolate(r"\p{N}"),
];

const AFMOE: &[Rule] = &[
    Rule::GroupDigits,
    Rule::Isolate(
        r"[\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{F900}-\x{FAFF}\x{3040}-\x{30FF}\x{FF65}-\x{FF9F}\x{2F00}-\x{2FDF}\x{E40}-\x{E7F}\x{E80}-\x{EFF}\x{1780}-\x{17FF}\x{1000}-\x{109F}\x{AA60}-\x{AA7F}\x{A9E0}-\x{A9FF}\x{AC00}-\x{D7AF}\x{1100}-\x{11FF}]+",
    ),
    DEEPSEEK3,
];

const CHAMELEON: &[Rule] = &[
    Rule::Isolate("<sentinel:[0-9]+>"),
    Rule::Isolate("IMGIMG[A-I]{1,4}Z"),
    Rule::Isolate(r"[\t\n]|    |  "),
    Rule::Isolate(r"\p{N}"),
    Rule::Isolate(r"[\p{P}!-/:-@\[-`{-~]"),
    GPT2,
];

const YOUTU_SCRIPTS: Rule = Rule::Isolate(
    r"[\x{AC00}-\x{D7A3}\x{3131}-\x{318E}]+|[！…“”‘’—：；，\x{3001}-\x{303F}\x{FE30}-\x{FE4F}]+|[\x{3105}-\x{312F}]+|[\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+",
);

const BLOOM: Rule = Rule::Isolate(r" ?[^(\s|.,!?…。，、।۔،)]+");
/// Runs of line ends, and what is between them.
const LINES: Rule = Rule::Isolate(r"\n+");

const FALCON: &[Rule] = &[
    Rule::Isolate(r"[\p{P}\$\+<=>\^~\|`]+"),
    GPT2,
    Rule::Isolate("[0-9][0-9][0-9]"),
];

const DEFAULT: &[Rule] = &[
    Rule::Isolate(r"[\p{P}\$\+<=>\^~\|]+"),
    GPT2,
    Rule::Isolate(r"\p{N}+"),
    Rule::Isolate("[0-9][0-9][0-9]"),
];

const P_GPT2: Pre = Pre::new(&[GPT2]);
const P_DIGITS: Pre = Pre::new(&[Rule::Isolate(r"\p{N}"), GPT2]);
const P_THREES: Pre = Pre::new(&[cover(LLAMA3)]);
const P_LLAMA3: Pre = P_THREES.whole_words().bos();
const P_QWEN2: Pre = Pre::new(&[QWEN2]);
const P_BLOOM: Pre = Pre::new(&[BLOOM]);
const P_GPT4O: Pre = Pre::new(&[GPT4O]);
const P_TINY_AYA: Pre = Pre::new(&[Rule::GroupDigits, TINY_AYA]);
const P_DEEPSEEK3: Pre = Pre::new(DEEPSEEK3_STAGES);
/// `\s*[\r\n]` takes as much as `\s*[\r\n]+`, so that this is Qwen2's splitting.
const P_BAILING: Pre = P_QWEN2;
const P_RAW: Pre = Pre::new(&[LINES]).raw();

/// What each name means. llama.cpp's `clean_spaces` has no part in it: it changes decoded text,
/// and here decoding gives back what was encoded.
const TABLE: [(&str, Pre); 85] = [
    ("default", Pre::new(DEFAULT)),
    ("llama3", P_LLAMA3),
    ("llama-v3", P_LLAMA3),
    ("llama-bpe", P_LLAMA3),
    ("falcon3", P_LLAMA3),
    ("falcon-h1", P_LLAMA3),
    ("pixtral", P_LLAMA3),
    ("midm-2.0", P_LLAMA3),
    ("lfm2", P_LLAMA3),
    ("jina-v5-nano", P_LLAMA3),
    ("dbrx", P_THREES),
    ("smaug-bpe", P_THREES),
    ("glm4", P_THREES),
    ("chatglm-bpe", P_THREES),
    ("jais-2", Pre::new(&[JAIS2])),
    ("deepseek-llm", Pre::new(DEEPSEEK_LLM)),
    ("deepseek-coder", Pre::new(DEEPSEEK_CODER)),
    ("deepseek-v3", P_DEEPSEEK3),
    ("hunyuan-dense", P_DEEPSEEK3),
    ("joyai-llm", P_DEEPSEEK3),
    ("youtu", Pre::new(&[YOUTU_SCRIPTS, YOUTU]).whole_words()),
    ("falcon", Pre::new(FALCON)),
    ("starcoder", P_DIGITS),
    ("refact", P_DIGITS),
    ("command-r", P_DIGITS),
    ("smollm", P_DIGITS),
    ("codeshell", P_DIGITS),
    ("exaone", P_DIGITS),
    ("minerva-7b", P_DIGITS),
    ("mellum2", P_DIGITS),
    ("gpt-2", P_GPT2),
    ("phi-2", P_GPT2),
    ("mpt", P_GPT2),
    ("olmo", P_GPT2),
    ("jais", P_GPT2),
    ("trillion", P_GPT2),
    ("granite-docling", P_GPT2),
    ("exaone4", P_GPT2),
    ("gigachat", P_GPT2),
    ("a.x-4.0", P_GPT2),
    ("mellum", P_GPT2),
    ("modern-bert", P_GPT2),
    ("roberta-bpe", P_GPT2),
    ("jina-es", P_GPT2),
    ("jina-de", P_GPT2),
    ("jina-v1-en", P_GPT2),
    ("jina-v2-es", P_GPT2),
    ("jina-v2-de", P_GPT2),
    ("jina-v2-code", P_GPT2),
    ("qwen2", P_QWEN2),
    ("deepseek-r1-qwen", P_QWEN2),
    ("kormo", P_QWEN2),
    ("f2llmv2", P_QWEN2),
    ("megrez", P_QWEN2),
    ("stablelm2", P_QWEN2),
    ("hunyuan", P_QWEN2),
    ("solar-open", P_QWEN2),
    ("grok-2", P_QWEN2),
    ("qwen35", Pre::new(&[QWEN35])),
    ("laguna", Pre::new(&[LINES, QWEN2])),
    (
        "minicpm5",
        Pre::new(&[Rule::Isolate(r"\p{N}{1,3}"), MINICPM5]).whole_words(),
    ),
    ("seed-coder", Pre::new(&[SEED_CODER])),
    ("bailingmoe", P_BAILING),
    ("bailingmoe2", P_BAILING),
    ("llada-moe", P_BAILING),
    ("exaone-moe", Pre::new(&[EXAONE_MOE])),
    ("poro-chat", P_BLOOM),
    ("bloom", P_BLOOM),
    ("gpt3-finnish", P_BLOOM),
    ("viking", Pre::new(&[BLOOM, Rule::Isolate(r"\p{N}")])),
    ("tekken", Pre::new(&[TEKKEN]).whole_words().bos()),
    ("gpt-4o", P_GPT4O),
    ("llama4", P_GPT4O),
    ("kanana2", P_GPT4O),
    ("talkie", P_GPT4O),
    ("minimax-m2", P_GPT4O),
    (
        "granite-embed-multi-97m",
        Pre::new(&[GRANITE]).whole_words(),
    ),
    ("tiny_aya", P_TINY_AYA),
    ("cohere2moe", P_TINY_AYA),
    ("kimi-k2", Pre::new(&[KIMI_K2])),
    ("chameleon", Pre::new(CHAMELEON).bos()),
    (
        "superbpe",
        Pre::new(&[Rule::Isolate(r"\p{N}+"), Rule::Thousands]),
    ),
    ("afmoe", Pre::new(AFMOE)),
    ("gemma4", P_RAW.bos()),
    ("sarvam-moe", P_RAW),
];

const fn names() -> [&'static str; TABLE.len()] {
    let mut names = [""; TABLE.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = TABLE[at].0;
        at += 1;
    }
    names
}

static NAMES: [&str; TABLE.len()] = names();

/// The values of `tokenizer.ggml.pre` that are supported. A file without the key has `default`.
pub static SUPPORTED_PRE: &[&str] = &NAMES;
