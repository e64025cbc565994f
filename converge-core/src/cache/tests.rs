use converge_quant::kernels::Heads;

use super::*;

fn arena(pages: usize) -> Arc<Arena> {
    windowed(pages, None)
}

/// The second layer sees a window.
fn windowed(pages: usize, window: Option<usize>) -> Arc<Arena> {
    let heads = Heads::new(2, 1, 16).unwrap();
    let windows = vec![None, window];
    Arc::new(Arena::new(
        [7; 32],
        heads,
        windows,
        pages * heads.page_bytes(),
    ))
}

/// A cache of `n` positions whose keys all are `value`.
fn filled(arena: &Arc<Arena>, n: usize, value: f32) -> KvCache {
    let mut cache = KvCache::new(arena);
    append(&mut cache, n, value).unwrap();
    cache
}

fn append(cache: &mut KvCache, n: usize, value: f32) -> Result<()> {
    cache.reserve(n)?;
    for layer in 0..2 {
        for position in 0..n {
            cache.write(layer, position, &[value; 16], &[value; 16])?;
        }
    }
    cache.grow(n);
    Ok(())
}

fn used(arena: &Arena) -> usize {
    arena.used() / arena.page_bytes()
}

#[test]
fn clones_share_pages_until_one_is_written_to() {
    let arena = arena(100);
    let mut first = filled(&arena, 300, 1.0);
    assert_eq!(used(&arena), 4);
    let mut fork = first.clone();
    assert_eq!(used(&arena), 4);
    append(&mut fork, 1, 2.0).unwrap();
    // The half-full page of each layer was copied, the full one is shared.
    assert_eq!(used(&arena), 6);
    append(&mut first, 10, 3.0).unwrap();
    assert_eq!(used(&arena), 6);
    assert_eq!((first.len(), fork.len()), (310, 301));
    drop(first);
    assert_eq!(used(&arena), 4);
    drop(fork);
    assert_eq!(used(&arena), 0);
    assert_eq!(arena.peak() / arena.page_bytes(), 6);
}

#[test]
fn the_limit_holds_and_a_refusal_changes_nothing() {
    let arena = arena(5);
    let mut cache = filled(&arena, 256, 1.0);
    assert!(matches!(
        append(&mut cache, 513, 1.0),
        Err(CoreError::CacheFull { .. })
    ));
    assert_eq!((cache.len(), used(&arena)), (256, 2));
    append(&mut cache, 200, 1.0).unwrap();
    let mut fork = cache.clone();
    // A copy of two pages is one too many.
    assert!(append(&mut fork, 1, 1.0).is_err());
    drop(cache);
    append(&mut fork, 1, 1.0).unwrap();
    assert_eq!(used(&arena), 4);
}

#[test]
fn truncation_gives_pages_back() {
    let arena = arena(100);
    let mut cache = filled(&arena, 1000, 1.0);
    assert_eq!(used(&arena), 8);
    cache.truncate(2000);
    assert_eq!(cache.len(), 1000);
    cache.truncate(300);
    assert_eq!((cache.len(), used(&arena)), (300, 6));
    cache.truncate(0);
    assert_eq!((cache.len(), used(&arena)), (0, 2));
}

#[test]
fn only_what_is_there_and_of_the_same_model_is_taken_up() {
    let (ours, theirs) = (arena(100), arena(100));
    let source = filled(&ours, 300, 1.0);
    let mut cache = KvCache::new(&ours);
    assert!(!cache.take_up(&source, 301));
    assert!(!KvCache::new(&theirs).take_up(&source, 1));
    assert!(cache.take_up(&source, 256));
    assert_eq!((cache.len(), cache.layer(0).0.len()), (256, 1));
    assert!(cache.layer(9).0.is_empty());
    // Nobody writes where no room was made.
    assert!(matches!(
        cache.write(0, 0, &[0.0; 16], &[0.0; 16]),
        Err(CoreError::NoPage { position: 256 })
    ));
}

#[test]
fn the_longest_beginning_is_found() {
    let arena = arena(100);
    let cache = filled(&arena, 10, 1.0);
    let mut index = PrefixIndex::default();
    assert!(index.longest(&[1]).is_none());
    index.insert(&[1, 2, 3], &cache, false);
    index.insert(&[1, 2, 4, 5], &cache, false);
    assert_eq!(index.longest(&[1, 2, 4, 9]).unwrap().0, 3);
    assert_eq!(index.longest(&[1, 2, 3, 4]).unwrap().0, 3);
    assert_eq!(index.longest(&[7]).unwrap().0, 0);
    // What begins another is that other.
    index.insert(&[1, 2], &cache, false);
    assert_eq!(index.len(), 2);
    index.insert(&[1, 2, 3, 4], &cache, false);
    assert_eq!(index.len(), 2);
    assert_eq!(used(&arena), 2);
}

#[test]
fn the_least_recently_used_goes_first_and_what_is_pinned_stays() {
    let arena = arena(100);
    let mut index = PrefixIndex::default();
    for token in 1..=3 {
        index.insert(&[token], &filled(&arena, 10, 1.0), token == 2);
    }
    assert_eq!(index.longest(&[1, 9]).unwrap().0, 1);
    assert_eq!(used(&arena), 6);
    assert!(index.evict());
    assert_eq!(index.longest(&[3]).unwrap().0, 0);
    assert_eq!(used(&arena), 4);
    assert!(index.evict());
    assert!(!index.evict());
    assert_eq!((index.len(), used(&arena)), (1, 2));
    index.unpin();
    assert!(index.evict());
    assert_eq!(used(&arena), 0);
}

#[test]
fn layers_with_a_window_give_up_what_it_has_passed() {
    let arena = windowed(9, Some(100));
    let mut cache = filled(&arena, 1000, 1.0);
    assert_eq!((used(&arena), cache.reach(1)), (8, 1));
    // No room for two more pages: of the second layer's four, two are seen no more.
    append(&mut cache, 200, 2.0).unwrap();
    assert_eq!((cache.len(), used(&arena)), (1200, 8));
    assert_eq!((cache.layer(0).1, cache.layer(1).1), (0, 512));
    assert_eq!((cache.layer(0).0.len(), cache.layer(1).0.len()), (5, 3));
    // A query at 611 sees 512 to 611.
    assert_eq!(
        [1300, 1200, 611, 610, 0].map(|len| cache.reach(len)),
        [1200, 1200, 611, 0, 0]
    );
    let mut fork = KvCache::new(&arena);
    assert!(!fork.take_up(&cache, 610));
    assert!(fork.take_up(&cache, 611));
    assert_eq!((fork.layer(0).0.len(), fork.layer(1).0.len()), (3, 1));
    drop(fork);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kept");
    let transcript = Transcript {
        tokens: vec![1; 1200],
        ..Transcript::default()
    };
    cache.save(&path, &transcript).unwrap();
    let pages = |cache: &KvCache| -> Vec<Vec<u8>> {
        cache
            .pages()
            .map(|page| page.as_ref().as_bytes().to_vec())
            .collect()
    };
    let before = pages(&cache);
    drop(cache);
    let (mut cache, _) = KvCache::open(&arena, &path).unwrap();
    assert!(pages(&cache) == before);
    assert_eq!(
        (cache.len(), cache.reach(611), cache.reach(610)),
        (1200, 611, 0)
    );

    // Who goes back too far begins anew.
    cache.truncate(610);
    assert_eq!((cache.len(), cache.layer(1).1), (0, 0));
    append(&mut cache, 300, 1.0).unwrap();
    assert_eq!((cache.layer(0).0.len(), cache.layer(1).0.len()), (2, 2));
}
