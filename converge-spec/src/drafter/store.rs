//! Texts generated in earlier runs, in one file of a workspace.
//!
//! Agents say much of what they said before. With a store, a [`SuffixDrafter`](super::SuffixDrafter)
//! begins with what earlier processes generated in the same directory.
//!
//! **The file holds private text**: everything generated, as token ids that anybody with the model's
//! vocabulary can read. Nothing writes one unless a program opens a store. It is readable by its
//! owner only, of bounded size, and [`Store::purge`] deletes it.
//!
//! ```text
//!   magic, fingerprint of the vocabulary | tokens n, their check, n ids | tokens n, …
//! ```

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use converge_core::{TokenId, tokenizer::Tokenizer};
use sha2::{Digest as _, Sha256};

use crate::error::{Result, SpecError};

/// The file's name in its directory.
pub const FILE: &str = ".converge-drafts";

const MAGIC: [u8; 8] = *b"cvgdrft1";
const HEADER: usize = MAGIC.len() + 8;

/// Bytes of a text in the file beside its tokens.
const RECORD: usize = 12;

/// The texts of earlier runs.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    vocabulary: [u8; 8],
    texts: Vec<Vec<TokenId>>,
    limit: u64,
    damage: Option<String>,
}

impl Store {
    /// Bytes that the file may have, unless told otherwise.
    pub const LIMIT: u64 = 1 << 20;

    /// Opens the store of a directory for a model's vocabulary, with a file of at most `limit`
    /// bytes. No file yet is an empty store. So is one that is damaged or belongs to another
    /// vocabulary: [`damage`](Self::damage) tells, a warning is logged, and the next text replaces
    /// the file.
    ///
    /// # Errors
    /// [`SpecError::Store`] where there is a file that cannot be read.
    pub fn open(directory: &Path, tokenizer: &Tokenizer, limit: u64) -> Result<Self> {
        let mut store = Self {
            path: directory.join(FILE),
            vocabulary: fingerprint(tokenizer),
            texts: Vec::new(),
            limit,
            damage: None,
        };
        let mut bytes = Vec::new();
        match File::open(&store.path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(store),
            Err(e) => return Err(store.error(e)),
            Ok(file) => {
                // A file that grew beyond every limit is not read as a whole.
                let mut file = file.take(limit.saturating_add(1));
                file.read_to_end(&mut bytes).map_err(|e| store.error(e))?;
            }
        }
        match store.parse(&bytes) {
            Ok(texts) => store.texts = texts,
            Err(damage) => {
                tracing::warn!(path = %store.path.display(), "drafts of earlier runs are not used: {damage}");
                store.damage = Some(damage);
            }
        }
        Ok(store)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The texts, oldest first.
    pub fn texts(&self) -> impl Iterator<Item = &[TokenId]> {
        self.texts.iter().map(Vec::as_slice)
    }

    /// Why the file was not used.
    pub fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }

    /// Adds a text. Where the file would be too large, the oldest texts go.
    ///
    /// # Errors
    /// [`SpecError::Store`] where the file cannot be written.
    pub fn add(&mut self, text: &[TokenId]) -> Result<()> {
        let most = self.limit.saturating_sub(HEADER as u64);
        if text.is_empty() || size(text) > most {
            return Ok(());
        }
        let before = self.texts.iter().map(|text| size(text)).sum::<u64>();
        self.texts.push(text.to_vec());
        let whole = if before + size(text) > most {
            // Half of the room at once, so that this is seldom.
            let mut left = before + size(text);
            let mut texts = std::mem::take(&mut self.texts).into_iter().peekable();
            while left > most / 2
                && let Some(oldest) = texts.next_if(|oldest| left - size(oldest) > 0)
            {
                left -= size(&oldest);
            }
            self.texts = texts.collect();
            true
        } else {
            self.damage.take().is_some() || !self.path.exists()
        };
        match whole {
            true => self.write(),
            false => self.append(text),
        }
        .map_err(|e| self.error(e))
    }

    /// Forgets everything and deletes the file.
    ///
    /// # Errors
    /// [`SpecError::Store`] where the file is there and cannot be deleted.
    pub fn purge(&mut self) -> Result<()> {
        self.texts.clear();
        self.damage = None;
        match fs::remove_file(&self.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(self.error(e)),
            _ => Ok(()),
        }
    }

    fn append(&self, text: &[TokenId]) -> io::Result<()> {
        let mut file = OpenOptions::new().append(true).open(&self.path)?;
        file.write_all(&record(text))
    }

    /// Writes the whole file beside its place, then puts it there: half a file is never seen.
    fn write(&self) -> io::Result<()> {
        let directory = self.path.parent().unwrap_or(Path::new("."));
        // Such a file is its owner's only, from its creation on.
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(&MAGIC)?;
        file.write_all(&self.vocabulary)?;
        for text in &self.texts {
            file.write_all(&record(text))?;
        }
        file.persist(&self.path)?;
        Ok(())
    }

    fn parse(&self, bytes: &[u8]) -> Result<Vec<Vec<TokenId>>, String> {
        if bytes.len() as u64 > self.limit {
            return Err(format!("the file has more than {} bytes", self.limit));
        }
        let rest = bytes.strip_prefix(&MAGIC).ok_or("it is no such file")?;
        let mut rest = rest
            .strip_prefix(&self.vocabulary)
            .ok_or("it belongs to another vocabulary")?;
        let mut texts = Vec::new();
        while let Some((head, tail)) = rest.split_first_chunk::<RECORD>() {
            let (count, check) = head.split_at(4);
            let count = number(count) as usize;
            let Some((ids, tail)) = tail.split_at_checked(count.saturating_mul(4)) else {
                return Err("it ends within a text".to_owned());
            };
            if digest(ids) != check {
                return Err(format!("text {} is damaged", texts.len()));
            }
            texts.push(ids.chunks_exact(4).map(number).collect());
            rest = tail;
        }
        match rest.is_empty() {
            true => Ok(texts),
            false => Err("it ends within a text".to_owned()),
        }
    }

    fn error(&self, source: io::Error) -> SpecError {
        SpecError::Store {
            path: self.path.clone(),
            source,
        }
    }
}

/// Bytes that a text takes in the file.
fn size(text: &[TokenId]) -> u64 {
    (RECORD + 4 * text.len()) as u64
}

fn record(text: &[TokenId]) -> Vec<u8> {
    let ids: Vec<u8> = text.iter().flat_map(|id| id.to_le_bytes()).collect();
    let mut record = (text.len() as u32).to_le_bytes().to_vec();
    record.extend(digest(&ids));
    record.extend(ids);
    record
}

fn number(bytes: &[u8]) -> u32 {
    bytes.try_into().map_or(0, u32::from_le_bytes)
}

fn digest(bytes: &[u8]) -> [u8; 8] {
    let mut short = [0; 8];
    for (short, byte) in short.iter_mut().zip(Sha256::digest(bytes)) {
        *short = byte;
    }
    short
}

/// Tells vocabularies apart: ids of one mean nothing in another.
fn fingerprint(tokenizer: &Tokenizer) -> [u8; 8] {
    let mut all = Vec::new();
    for id in 0..tokenizer.vocab() as TokenId {
        let bytes = tokenizer.token_bytes(id);
        all.extend((bytes.len() as u32).to_le_bytes());
        all.extend(bytes);
    }
    digest(&all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toy;

    fn open(directory: &Path, limit: u64) -> Store {
        Store::open(directory, &toy::tokenizer(), limit).unwrap()
    }

    fn texts(store: &Store) -> Vec<Vec<TokenId>> {
        store.texts().map(<[_]>::to_vec).collect()
    }

    #[test]
    fn texts_are_there_again_for_their_owner_only() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = open(directory.path(), Store::LIMIT);
        assert!(texts(&store).is_empty() && store.damage().is_none());
        store.add(&[1, 2, 3]).unwrap();
        store.add(&[]).unwrap();
        store.add(&[4]).unwrap();
        assert_eq!(
            texts(&open(directory.path(), Store::LIMIT)),
            [vec![1, 2, 3], vec![4]]
        );
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = fs::metadata(store.path()).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        store.purge().unwrap();
        store.purge().unwrap();
        assert!(!store.path().exists() && texts(&store).is_empty());
    }

    #[test]
    fn the_file_stays_within_its_limit() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = open(directory.path(), 400);
        for i in 0..200 {
            store.add(&vec![i; 1 + i as usize % 9]).unwrap();
            assert!(fs::metadata(store.path()).unwrap().len() <= 400);
            assert_eq!(texts(&store), texts(&open(directory.path(), 400)));
            assert_eq!(store.texts().last().unwrap()[0], i);
        }
        store.add(&[1; 500]).unwrap();
        assert_eq!(store.texts().last().unwrap()[0], 199);
    }

    #[test]
    fn a_damaged_file_is_empty_and_then_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = open(directory.path(), Store::LIMIT);
        store.add(&[1, 2, 3]).unwrap();
        let whole = fs::read(store.path()).unwrap();
        let cut = |n: usize| whole[..n].to_vec();
        let mut flipped = whole.clone();
        flipped[HEADER + RECORD] ^= 1;
        let mut foreign = whole.clone();
        foreign[MAGIC.len()] ^= 1;
        let mut endless = whole.clone();
        endless[HEADER..HEADER + 4].fill(0xff);
        let many = [whole.clone(), vec![0; Store::LIMIT as usize]].concat();
        for bytes in [
            Vec::new(),
            cut(5),
            cut(HEADER + 3),
            cut(whole.len() - 1),
            flipped,
            foreign,
            endless,
            many,
        ] {
            fs::write(store.path(), &bytes).unwrap();
            let mut store = open(directory.path(), Store::LIMIT);
            assert!(store.damage().is_some() && texts(&store).is_empty());
            store.add(&[5]).unwrap();
            let store = open(directory.path(), Store::LIMIT);
            assert!(store.damage().is_none());
            assert_eq!(texts(&store), [[5]]);
        }
    }
}
