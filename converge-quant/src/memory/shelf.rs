//! Pieces of memory of one size, which are used again when they are given back.

use std::{
    collections::BTreeMap,
    ptr::NonNull,
    sync::{Arc, Mutex, PoisonError},
};

use memmap2::MmapRaw;

use super::{LINE, map};

/// Bytes that are asked of the system at a time, about.
const BOARD: usize = 8 << 20;

/// A piece that nobody else has.
pub(super) struct Piece {
    start: NonNull<u8>,
    home: Arc<Mutex<Shelf>>,
}

// SAFETY: a piece is the only way to its bytes, which lie in a board that its shelf keeps as long as a
// piece of it is out; they may be read and written from any thread, as those of a `Vec` may.
unsafe impl Send for Piece {}
// SAFETY: as above; a shared piece only reads.
unsafe impl Sync for Piece {}

/// The pieces of one size. As long as one piece of a board is out, the system does not get the board:
/// what is resident may be more than what is in use, and is never more than was in use at once, by
/// about a board.
struct Shelf {
    /// Bytes of a piece: whole cache lines.
    size: usize,
    boards: Vec<Board>,
}

/// Memory of the system's that holds some pieces. Only they look at what is there: this knows its
/// address.
struct Board {
    memory: MmapRaw,
    /// Places that were given back.
    free: Vec<usize>,
    /// Places from this one on were never out: their bytes are still zeros.
    fresh: usize,
    places: usize,
}

/// The shelves of all sizes that there have been: as many as models with different heads.
static SHELVES: Mutex<BTreeMap<usize, Arc<Mutex<Shelf>>>> = Mutex::new(BTreeMap::new());

impl Piece {
    /// Zeroed bytes at the beginning of a cache line; `None` where the system has no memory to map.
    pub(super) fn take(len: usize) -> Option<Self> {
        let size = len.max(1).checked_next_multiple_of(LINE)?;
        let new = || Arc::new(Mutex::new(Shelf::new(size)));
        let mut shelves = SHELVES.lock().unwrap_or_else(PoisonError::into_inner);
        let home = Arc::clone(shelves.entry(size).or_insert_with(new));
        drop(shelves);
        let (start, used) = home.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        if used {
            // SAFETY: the place has `size` bytes, which from now on are this piece's alone.
            unsafe { start.write_bytes(0, size) };
        }
        Some(Self { start, home })
    }

    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let mut home = self.home.lock().unwrap_or_else(PoisonError::into_inner);
        home.put_back(self.start);
    }
}

impl Shelf {
    fn new(size: usize) -> Self {
        Self {
            size,
            boards: Vec::new(),
        }
    }

    /// A place that nobody has, and whether somebody had it before; else it is zeroed.
    fn take(&mut self) -> Option<(NonNull<u8>, bool)> {
        let size = self.size;
        if let Some(place) = self.boards.iter_mut().find_map(|board| board.take(size)) {
            return Some(place);
        }
        let mut board = Board::new(size)?;
        let place = board.take(size);
        self.boards.push(board);
        place
    }

    /// Takes a piece back. The system gets a board when all of it is back, but for one: the next
    /// sequence will want it.
    fn put_back(&mut self, piece: NonNull<u8>) {
        let size = self.size;
        let mut empty = 0;
        for board in &mut self.boards {
            if let Some(place) = board.place_of(piece, size) {
                board.free.push(place);
            }
            empty += usize::from(board.is_empty());
        }
        if empty > 1
            && let Some(last) = self.boards.iter().rposition(Board::is_empty)
        {
            self.boards.swap_remove(last);
        }
    }
}

impl Board {
    fn new(size: usize) -> Option<Self> {
        let places = (BOARD / size).max(1);
        Some(Self {
            memory: map(places.checked_mul(size)?)?,
            free: Vec::new(),
            fresh: 0,
            places,
        })
    }

    /// As [`Shelf::take`].
    fn take(&mut self, size: usize) -> Option<(NonNull<u8>, bool)> {
        let (place, used) = match self.free.pop() {
            Some(place) => (place, true),
            None => ((self.fresh < self.places).then_some(self.fresh)?, false),
        };
        self.fresh += usize::from(!used);
        // SAFETY: the memory has `places` times `size` bytes.
        let start = unsafe { self.memory.as_mut_ptr().add(place * size) };
        Some((NonNull::new(start)?, used))
    }

    /// The place that begins here, if it is one of this board's.
    fn place_of(&self, piece: NonNull<u8>, size: usize) -> Option<usize> {
        let bytes = piece
            .addr()
            .get()
            .checked_sub(self.memory.as_ptr().addr())?;
        (bytes < self.places * size).then_some(bytes / size)
    }

    /// Whether no piece of it is out.
    fn is_empty(&self) -> bool {
        self.free.len() == self.fresh
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Aligned, *};

    /// Bytes that no other test takes pieces of.
    const LEN: usize = 3 * LINE * 1024 + 40;

    #[test]
    fn pieces_are_zeroed_apart_and_used_again() {
        let size = LEN.next_multiple_of(LINE);
        let boards = || {
            let shelves = SHELVES.lock().unwrap();
            let shelf = shelves.get(&size).unwrap().lock().unwrap();
            shelf.boards.len()
        };
        let places = BOARD / size;
        for round in 0..3 {
            let mut pieces: Vec<_> = (0..3 * places).map(|_| Aligned::for_page(LEN)).collect();
            assert_eq!(boards(), 3);
            for (i, piece) in pieces.iter_mut().enumerate() {
                assert_eq!(piece.bytes().as_ptr().addr() % LINE, 0);
                assert_eq!(piece.bytes().len(), LEN);
                assert!(piece.bytes().iter().all(|byte| *byte == 0));
                piece.bytes_mut().fill((i + round) as u8 | 1);
            }
            // Every other one goes and comes again, as a fork's do.
            for i in (0..pieces.len()).step_by(2) {
                pieces[i] = Aligned::for_page(LEN);
                assert!(pieces[i].bytes().iter().all(|byte| *byte == 0));
                pieces[i].bytes_mut().fill((i + round) as u8 | 1);
            }
            for (i, piece) in pieces.iter().enumerate() {
                let mine = (i + round) as u8 | 1;
                assert!(piece.bytes().iter().all(|byte| *byte == mine));
            }
            drop(pieces);
            assert_eq!(boards(), 1);
        }
    }

    #[test]
    fn threads_share_a_shelf_and_hand_pieces_on() {
        let is = |piece: &Aligned, byte: u8| piece.bytes().iter().all(|b| *b == byte);
        let (give, given) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            for thread in 1..5 {
                let give = give.clone();
                scope.spawn(move || {
                    for _ in 0..50 {
                        let mut pieces: Vec<_> =
                            (0..20).map(|_| Aligned::for_page(70 * LINE)).collect();
                        for piece in &mut pieces {
                            assert!(is(piece, 0));
                            piece.bytes_mut().fill(thread);
                        }
                        for piece in pieces {
                            give.send((thread, piece)).unwrap();
                        }
                    }
                });
            }
            drop(give);
            for (thread, piece) in given {
                assert!(is(&piece, thread));
            }
        });
    }

    #[test]
    fn any_size_is_served() {
        for len in [0, 1, BOARD - 1, BOARD + 1, 3 * BOARD] {
            let mut pieces = [0; 3].map(|_| Aligned::for_page(len));
            for (i, piece) in pieces.iter_mut().enumerate() {
                assert_eq!(piece.bytes().len(), len);
                piece.bytes_mut().fill(i as u8 + 1);
            }
            // The middle board goes, the others stay.
            let [first, _, last] = pieces;
            assert!(first.bytes().iter().all(|byte| *byte == 1));
            assert!(last.bytes().iter().all(|byte| *byte == 3));
        }
        assert!(Piece::take(usize::MAX).is_none());
    }
}
