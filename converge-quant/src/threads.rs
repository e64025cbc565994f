//! The pool: threads that share the work of one pass after the other.
//!
//! A pass over a model is some hundred regions of a few microseconds to a millisecond. Waking a
//! sleeping thread for each would cost more than the work, so threads spin for a moment after a
//! region and sleep only when nothing comes.
//!
//! Each thread begins with a stretch of the work of its own, in ascending order: two streams through
//! memory run at twice the speed of one that threads take turns in. Who is done helps the others, from
//! the ends of their stretches.

use std::{
    cell::Cell,
    io,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
};

use crate::{QuantError, Result, cores};

/// Rounds of waiting before a thread sleeps; about fifty microseconds.
const SPINS: u32 = 20_000;
/// Rounds after which a waiting thread lets others run.
const YIELD_EVERY: u32 = 1_000;

/// The most threads of a pool.
const MOST: usize = 1024;

thread_local! {
    /// Whether this thread is in a region.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// A fixed number of threads, the caller's among them.
///
/// Results never depend on how many there are: work is split by outputs only. Several callers may
/// use a pool at once; their regions run one after the other.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held during a region.
    region: Mutex<()>,
}

struct Shared {
    /// Counts regions: a number other than the last one seen means that there is work, or the end.
    epoch: AtomicUsize,
    /// The region's work.
    task: Mutex<Option<Task>>,
    /// What is left to each thread.
    stretches: Box<[Stretch]>,
    /// Workers that have not finished the region.
    busy: AtomicUsize,
    asleep: AtomicUsize,
    failed: AtomicBool,
    stop: AtomicBool,
}

#[derive(Clone, Copy)]
struct Task {
    work: *const (dyn Fn(usize) + Sync),
    threads: usize,
}

// SAFETY: what `work` points to is `Sync`, and `Pool::run` keeps it alive until every worker has
// left the region.
unsafe impl Send for Task {}

impl Pool {
    /// A pool of `threads` (1 to 1024) threads: the caller's and as many more as it takes.
    ///
    /// Where the system gives fewer threads, the pool has those.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        Self::with(threads, |_| || ())
    }

    /// [`new`](Self::new) whose threads each keep to a core of their own, as long as the pool lives:
    /// for machines where the system moves threads about. The cores are the first ones that the
    /// process may use, but for the very first.
    ///
    /// The caller's thread is not the pool's to pin: it belongs to the program, may be another one
    /// at each call, and would stay pinned when the pool is gone. It stays free, and the system
    /// leaves it the core that no worker holds.
    ///
    /// # Errors
    /// [`QuantError::Pin`] where there are fewer cores than threads, and on systems other than Linux.
    pub fn pinned(threads: usize) -> Result<Self> {
        let failed = |source| QuantError::Pin { threads, source };
        let cores = cores::allowed().map_err(failed)?;
        if cores.len() < threads.min(MOST) {
            let few = format!("there are {} cores", cores.len());
            return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, few)));
        }
        let (tell, told) = mpsc::channel();
        let pool = Self::with(threads, |i| {
            let (core, tell) = (cores.get(i).copied(), tell.clone());
            // Whoever does not listen any more has failed already.
            move || drop(tell.send(core.map_or(Ok(()), cores::pin)))
        });
        drop(tell);
        told.iter().collect::<io::Result<()>>().map_err(failed)?;
        Ok(pool)
    }

    /// Worker `i`, from 1 on, begins with `begin(i)`.
    fn with<F: FnOnce() + Send + 'static>(threads: usize, begin: impl Fn(usize) -> F) -> Self {
        let shared = Arc::new(Shared {
            epoch: AtomicUsize::new(0),
            task: Mutex::new(None),
            stretches: (0..threads.clamp(1, MOST))
                .map(|_| Stretch::default())
                .collect(),
            busy: AtomicUsize::new(0),
            asleep: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let workers = (1..threads.min(MOST))
            .map_while(|i| {
                let shared = Arc::clone(&shared);
                let name = format!("converge-{i}");
                let builder = thread::Builder::new().name(name);
                let begin = begin(i);
                let work = move || {
                    begin();
                    shared.work(i);
                };
                builder.spawn(work).ok()
            })
            .collect();
        Self {
            shared,
            workers,
            region: Mutex::new(()),
        }
    }

    /// Threads that work, the caller's included.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `work` with each index below `count` once, on any thread, and returns when all calls
    /// have. Inside of a region, a region is all its thread's.
    ///
    /// # Panics
    /// When a call panics, after all threads have left the region.
    pub fn run(&self, count: usize, work: &(dyn Fn(usize) + Sync)) {
        if count == 0 {
            return;
        }
        let threads = self.threads();
        let Ok(most) = u32::try_from(count) else {
            return (0..count).for_each(work);
        };
        if threads == 1 || count == 1 || INSIDE.get() {
            return (0..count).for_each(work);
        }
        // A panic in a region leaves nothing half done in the pool itself.
        let region = self.region.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes; this function waits until no worker uses it.
        let work: *const (dyn Fn(usize) + Sync + 'static) =
            unsafe { std::mem::transmute(std::ptr::from_ref(work)) };
        for (i, stretch) in shared.stretches.iter().take(threads).enumerate() {
            let at = |i| (i as u64 * u64::from(most) / threads as u64) as u32;
            stretch.set(at(i), at(i + 1));
        }
        shared.busy.store(self.workers.len(), Ordering::Relaxed);
        shared.failed.store(false, Ordering::Relaxed);
        *shared.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(Task { work, threads });
        // After the epoch has changed, a worker that sees it sees the task.
        shared.epoch.fetch_add(1, Ordering::SeqCst);
        if shared.asleep.load(Ordering::SeqCst) > 0 {
            for worker in &self.workers {
                worker.thread().unpark();
            }
        }
        let mine = catch_unwind(AssertUnwindSafe(|| shared.take(0, Task { work, threads })));
        if mine.is_err() {
            shared.end();
        }
        let mut spins = 0;
        while shared.busy.load(Ordering::Acquire) > 0 {
            pause(&mut spins);
        }
        drop(region);
        if let Err(panic) = mine {
            resume_unwind(panic);
        }
        assert!(
            !shared.failed.load(Ordering::Relaxed),
            "a thread of the pool panicked"
        );
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.epoch.fetch_add(1, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker catches what its work panics with.
            let _ = worker.join();
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("threads", &self.threads())
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// A worker's life.
    fn work(&self, me: usize) {
        let mut seen = 0;
        loop {
            seen = self.wait(seen);
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            let task = *self.task.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(task) = task
                && catch_unwind(AssertUnwindSafe(|| self.take(me, task))).is_err()
            {
                self.failed.store(true, Ordering::Relaxed);
                self.end();
            }
            self.busy.fetch_sub(1, Ordering::Release);
        }
    }

    /// Nobody starts more of the region's work.
    fn end(&self) {
        self.stretches.iter().for_each(|stretch| stretch.set(0, 0));
    }

    /// Waits for a region after `seen`.
    fn wait(&self, seen: usize) -> usize {
        let mut spins = 0;
        loop {
            let epoch = self.epoch.load(Ordering::SeqCst);
            if epoch != seen {
                return epoch;
            }
            if spins < SPINS {
                pause(&mut spins);
                continue;
            }
            self.asleep.fetch_add(1, Ordering::SeqCst);
            // Who changes the epoch after this look sees a sleeper and wakes it.
            if self.epoch.load(Ordering::SeqCst) == seen {
                thread::park();
            }
            self.asleep.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Takes indices until none is left: its own first.
    fn take(&self, me: usize, task: Task) {
        // SAFETY: `Pool::run` waits for every worker before the borrow ends.
        let work = unsafe { &*task.work };
        let _inside = Inside::enter();
        let (before, from_mine) = self.stretches[..task.threads].split_at(me);
        if let Some(mine) = from_mine.first() {
            while let Some(i) = mine.first() {
                work(i);
            }
        }
        for other in from_mine.iter().skip(1).chain(before) {
            while let Some(i) = other.last() {
                work(i);
            }
        }
    }
}

/// Consecutive indices that are left: the first one in the upper half of the number, the one after the
/// last in the lower. On a cache line of its own, as each thread mostly changes its own.
#[derive(Default)]
#[repr(align(128))]
struct Stretch(AtomicU64);

impl Stretch {
    fn set(&self, start: u32, end: u32) {
        let both = u64::from(start) << 32 | u64::from(end);
        self.0.store(both, Ordering::Relaxed);
    }

    /// Takes the first index.
    fn first(&self) -> Option<usize> {
        let (start, _) = self.shrink(|start, end| (start + 1, end))?;
        Some(start as usize)
    }

    /// Takes the last index.
    fn last(&self) -> Option<usize> {
        let (_, end) = self.shrink(|start, end| (start, end - 1))?;
        Some(end as usize - 1)
    }

    /// Makes it shorter, and says what it was; `None` where nothing is left.
    fn shrink(&self, shorter: impl Fn(u32, u32) -> (u32, u32)) -> Option<(u32, u32)> {
        let parts = |both: u64| ((both >> 32) as u32, both as u32);
        // An index is all that is handed over: what it stands for was there before the region began.
        let old = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |both| {
                let (start, end) = parts(both);
                let (start, end) = (start < end).then(|| shorter(start, end))?;
                Some(u64::from(start) << 32 | u64::from(end))
            });
        old.ok().map(parts)
    }
}

/// This thread is in a region, until it is dropped.
struct Inside;

impl Inside {
    fn enter() -> Self {
        INSIDE.set(true);
        Self
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.set(false);
    }
}

fn pause(spins: &mut u32) {
    *spins += 1;
    if spins.is_multiple_of(YIELD_EVERY) {
        thread::yield_now();
    } else {
        std::hint::spin_loop();
    }
}

/// A slice whose disjoint parts are written by several threads.
pub(crate) struct Parts<T> {
    start: *mut T,
    len: usize,
}

// SAFETY: parts are handed out under the contract of `part`: no two overlap.
unsafe impl<T: Send> Sync for Parts<T> {}

impl<T> Parts<T> {
    /// The slice must outlive every part, which is up to the caller.
    pub(crate) fn new(slice: &mut [T]) -> Self {
        Self {
            start: slice.as_mut_ptr(),
            len: slice.len(),
        }
    }

    /// Elements `start..start + len`.
    ///
    /// # Safety
    /// - the slice that this was made of is still mutably borrowed by the caller,
    /// - no other part that overlaps is in use.
    #[expect(clippy::mut_from_ref, reason = "disjoint parts, by contract")]
    pub(crate) unsafe fn part(&self, start: usize, len: usize) -> &mut [T] {
        assert!(start <= self.len && len <= self.len - start);
        // SAFETY: inside the slice, and disjoint by this function's contract.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_is_taken_once() {
        for threads in [1, 2, 4, 7] {
            let pool = Pool::new(threads);
            for count in [0, 1, 2, 3, 100, 1000] {
                let taken: Vec<AtomicU64> = (0..count).map(|_| AtomicU64::new(0)).collect();
                pool.run(count, &|i| {
                    taken[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(taken.iter().all(|n| n.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn callers_take_turns() {
        let pool = Pool::new(3);
        let sum = AtomicU64::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        pool.run(10, &|i| {
                            sum.fetch_add(i as u64, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(sum.load(Ordering::Relaxed), 4 * 200 * 45);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
        let pool = Pool::new(3);
        for bad in [0, 50, 99] {
            let run = || pool.run(100, &|i| assert_ne!(i, bad));
            assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
            let count = AtomicUsize::new(0);
            pool.run(100, &|_| {
                count.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(count.load(Ordering::Relaxed), 100);
        }
    }

    #[test]
    fn a_region_inside_of_a_region_is_one_threads() {
        let (pool, other) = (Pool::new(3), Pool::new(2));
        let count = AtomicUsize::new(0);
        for _ in 0..2 {
            pool.run(10, &|_| {
                for pool in [&pool, &other] {
                    let caller = thread::current().id();
                    pool.run(5, &|_| {
                        assert_eq!(thread::current().id(), caller);
                        count.fetch_add(1, Ordering::Relaxed);
                    });
                }
            });
        }
        assert_eq!(count.load(Ordering::Relaxed), 200);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn pinned_workers_keep_to_their_cores_and_the_caller_is_free() {
        let before = cores::allowed().unwrap();
        let threads = before.len().min(3);
        let pool = Pool::pinned(threads).unwrap();
        assert_eq!(pool.threads(), threads);
        let caller = thread::current().id();
        for _ in 0..20 {
            pool.run(64, &|_| {
                let mine = cores::allowed().unwrap();
                if thread::current().id() == caller {
                    assert_eq!(mine, before);
                } else {
                    assert_eq!(mine.len(), 1);
                    assert!(before[1..].contains(&mine[0]));
                }
            });
        }
        drop(pool);
        assert_eq!(cores::allowed().unwrap(), before);
        assert!(matches!(
            Pool::pinned(before.len() + 1),
            Err(QuantError::Pin { .. })
        ));
        assert_eq!(Pool::pinned(1).unwrap().threads(), 1);
    }

    #[test]
    fn sleepers_wake() {
        let pool = Pool::new(2);
        for _ in 0..3 {
            thread::sleep(std::time::Duration::from_millis(20));
            let count = AtomicUsize::new(0);
            pool.run(8, &|_| {
                count.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(count.load(Ordering::Relaxed), 8);
        }
    }
}
