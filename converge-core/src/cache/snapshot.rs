//! A sequence in a file: its tokens, its keys and values, and where its answer stood.
//!
//! ```text
//!   magic, version, length of the header          16 bytes
//!   header (JSON): model, layout, tokens, state   + SHA-256
//!   layer 0: its pages, as they lie in memory     + SHA-256
//!   layer 1 …
//! ```
//!
//! A file is written beside its place and moved there when it is whole, for its owner's eyes alone:
//! it holds private text. Nothing of it is believed before its checksum is right.

use std::{
    fs::File,
    io::{self, Read, Seek as _, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use converge_quant::{folder::NewFile, kernels::PAGE};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::{Arena, KvCache, LayerPages};
use crate::{CoreError, Result, TokenId, sample::State};

const MAGIC: &[u8; 8] = b"CVRGSNAP";
/// Of the file's layout. What an older program wrote is refused, not guessed at.
const VERSION: u32 = 2;
/// The longest header: some million tokens.
const LONGEST_HEADER: u32 = 16 << 20;
const DIGEST: usize = 32;

/// What is wrong with a snapshot.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// It could not be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no snapshot.
    #[error("{path} is no snapshot of a session", path = path.display())]
    NoSnapshot {
        /// The file.
        path: PathBuf,
    },
    /// It was written by a program with another layout.
    #[error("{path} has layout {found}, expected {expected}", path = path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The version that is read here.
        expected: u32,
    },
    /// It is not what was written.
    #[error("{path} is damaged: {part}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        part: String,
    },
    /// It was made with other weights, or with a KV cache of another layout.
    #[error("{path} was made with another model", path = path.display())]
    OtherModel {
        /// The file.
        path: PathBuf,
    },
}

/// Where a sequence stands, beside its keys and values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transcript {
    /// Every token, prompt and answer. The cache may not have the last ones.
    pub tokens: Vec<TokenId>,
    /// How many of the last are an answer that was cut off
    /// ([`Request::answered`](crate::generate::Request::answered)).
    pub answered: usize,
    /// What the sampler remembered ([`Request::sampler`](crate::generate::Request::sampler)).
    pub sampler: Option<State>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    model: String,
    layers: usize,
    page: usize,
    page_bytes: usize,
    /// Positions that the cache has.
    held: usize,
    /// Pages that each layer has given up.
    gone: Vec<usize>,
    tokens: Vec<TokenId>,
    answered: usize,
    sampler: Option<u64>,
}

/// Names the file in errors.
struct At<'a>(&'a Path);

impl At<'_> {
    fn io(&self, source: io::Error) -> CoreError {
        let path = self.0.to_owned();
        match source.kind() {
            io::ErrorKind::UnexpectedEof => self.damaged("it ends too early"),
            _ => SnapshotError::Io { path, source }.into(),
        }
    }

    fn damaged(&self, part: impl Into<String>) -> CoreError {
        SnapshotError::Damaged {
            path: self.0.to_owned(),
            part: part.into(),
        }
        .into()
    }
}

impl KvCache {
    /// Writes the sequence to a file, in the place of what was there.
    ///
    /// # Errors
    /// [`SnapshotError::Io`]; what was there then still is.
    pub(crate) fn save(&self, path: &Path, transcript: &Transcript) -> Result<()> {
        let written = NewFile::private(path).and_then(|new| {
            self.write_to(new.file(), transcript)?;
            new.finish()
        });
        written.map_err(|source| At(path).io(source))
    }

    fn write_to(&self, mut file: &File, transcript: &Transcript) -> io::Result<()> {
        let header = Header {
            model: hex(self.arena.model()),
            layers: self.layers.len(),
            page: PAGE,
            page_bytes: self.arena.page_bytes(),
            held: self.len,
            gone: self.layers.iter().map(|layer| layer.gone).collect(),
            tokens: transcript.tokens.clone(),
            answered: transcript.answered,
            sampler: transcript.sampler.map(State::to_bits),
        };
        let header = serde_json::to_vec(&header)?;
        let length = u32::try_from(header.len()).unwrap_or(u32::MAX);
        if length > LONGEST_HEADER {
            return Err(io::Error::other("too many tokens for a snapshot"));
        }
        file.write_all(MAGIC)?;
        file.write_all(&VERSION.to_le_bytes())?;
        file.write_all(&length.to_le_bytes())?;
        file.write_all(&header)?;
        file.write_all(&Sha256::digest(&header))?;
        for LayerPages { gone, pages } in &self.layers {
            let mut digest = Sha256::new();
            let held = self.len.div_ceil(PAGE).saturating_sub(*gone);
            for page in pages.iter().take(held) {
                let bytes = page.as_ref().as_bytes();
                digest.update(bytes);
                file.write_all(bytes)?;
            }
            file.write_all(&digest.finalize())?;
        }
        Ok(())
    }

    /// Reads a sequence from a file. Its pages count as any others.
    ///
    /// # Errors
    /// [`SnapshotError`], [`CacheFull`](CoreError::CacheFull).
    pub(crate) fn open(arena: &Arc<Arena>, path: &Path) -> Result<(Self, Transcript)> {
        let at = At(path);
        let mut file = File::open(path).map_err(|e| at.io(e))?;
        let header = read_header(&mut file, path)?;
        let other = || SnapshotError::OtherModel {
            path: path.to_owned(),
        };
        let layout = (header.layers, header.page, header.page_bytes);
        if header.model != hex(arena.model())
            || layout != (arena.layers(), PAGE, arena.page_bytes())
        {
            return Err(other().into());
        }
        if header.held > header.tokens.len() || header.answered > header.tokens.len() {
            return Err(at.damaged("its counts contradict each other"));
        }
        let mut cache = Self::new(arena);
        let pages = header.held.div_ceil(PAGE);
        if header.gone.len() != arena.layers() {
            return Err(at.damaged("its counts contradict each other"));
        }
        let too_large = || at.damaged("its counts are too large");
        let start = file.stream_position().map_err(|e| at.io(e))?;
        let mut end = start;
        // Where each layer begins in the file.
        let mut places = Vec::with_capacity(arena.layers());
        let windows = arena.windows().iter();
        for ((layer, &gone), window) in cache.layers.iter_mut().zip(&header.gone).zip(windows) {
            let held = pages
                .checked_sub(gone)
                .filter(|_| gone == 0 || window.is_some());
            let held = held.ok_or_else(|| at.damaged("its layers have given up too much"))?;
            layer.gone = gone;
            places.push(end);
            let bytes = held.checked_mul(arena.page_bytes());
            let bytes = bytes.and_then(|bytes| bytes.checked_add(DIGEST));
            let next = bytes.and_then(|bytes| end.checked_add(bytes as u64));
            end = next.ok_or_else(too_large)?;
        }
        let length = file.metadata().map_err(|e| at.io(e))?.len();
        if length != end {
            return Err(at.damaged(format!("it has {length} bytes")));
        }
        drop(file);

        cache.reserve(header.held)?;
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let share = arena.layers().div_ceil(threads).max(1);
        thread::scope(|scope| {
            let readers: Vec<_> = cache
                .layers
                .chunks_mut(share)
                .zip(places.iter().step_by(share))
                .enumerate()
                .map(|(i, (layers, &from))| {
                    scope.spawn(move || read_layers(path, from, i * share, layers))
                })
                .collect();
            let panicked = |_| Err(At(path).damaged("it could not be read"));
            readers
                .into_iter()
                .try_for_each(|reader| reader.join().unwrap_or_else(panicked))
        })?;
        cache.grow(header.held);
        if cache.reach(header.held) != header.held {
            return Err(at.damaged("its layers have given up too much"));
        }
        Ok((cache, header.into()))
    }
}

impl From<Header> for Transcript {
    fn from(header: Header) -> Self {
        Self {
            tokens: header.tokens,
            answered: header.answered,
            sampler: header.sampler.map(State::from_bits),
        }
    }
}

/// The tokens of a snapshot and how many of them its cache has, without its pages; `None` where it is
/// of another model.
///
/// # Errors
/// [`SnapshotError`].
pub(super) fn peek(arena: &Arena, path: &Path) -> Result<Option<(Transcript, usize)>> {
    let mut file = File::open(path).map_err(|e| At(path).io(e))?;
    let header = read_header(&mut file, path)?;
    let held = header.held;
    let ours = header.model == hex(arena.model());
    Ok(ours.then(|| (header.into(), held)))
}

fn read_header(file: &mut File, path: &Path) -> Result<Header> {
    let at = At(path);
    let mut head = [0; 16];
    let none = || SnapshotError::NoSnapshot {
        path: path.to_owned(),
    };
    match file.read_exact(&mut head) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(none().into()),
        read => read.map_err(|e| at.io(e))?,
    }
    let [magic @ .., v0, v1, v2, v3, l0, l1, l2, l3] = head;
    if &magic != MAGIC {
        return Err(none().into());
    }
    let found = u32::from_le_bytes([v0, v1, v2, v3]);
    if found != VERSION {
        return Err(SnapshotError::Version {
            path: path.to_owned(),
            found,
            expected: VERSION,
        }
        .into());
    }
    let length = u32::from_le_bytes([l0, l1, l2, l3]);
    if length > LONGEST_HEADER {
        return Err(at.damaged("its header"));
    }
    let mut header = vec![0; length as usize];
    let mut digest = [0; DIGEST];
    file.read_exact(&mut header).map_err(|e| at.io(e))?;
    file.read_exact(&mut digest).map_err(|e| at.io(e))?;
    if Sha256::digest(&header)[..] != digest {
        return Err(at.damaged("its header"));
    }
    serde_json::from_slice(&header).map_err(|_| at.damaged("its header"))
}

/// Reads some layers, each up to its checksum.
fn read_layers(path: &Path, from: u64, first: usize, layers: &mut [LayerPages]) -> Result<()> {
    let at = At(path);
    let mut file = File::open(path).map_err(|e| at.io(e))?;
    file.seek(SeekFrom::Start(from)).map_err(|e| at.io(e))?;
    for (i, layer) in layers.iter_mut().enumerate() {
        let mut digest = Sha256::new();
        for page in &mut layer.pages {
            let page = page.get_mut().ok_or(CoreError::NoPage { position: 0 })?;
            file.read_exact(page.as_bytes_mut()).map_err(|e| at.io(e))?;
            digest.update(page.as_bytes());
        }
        let mut expected = [0; DIGEST];
        file.read_exact(&mut expected).map_err(|e| at.io(e))?;
        if digest.finalize()[..] != expected {
            return Err(at.damaged(format!("layer {}", first + i)));
        }
    }
    Ok(())
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
