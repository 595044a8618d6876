//! Threads that run the numbered tasks of one loop at a time.
//!
//! Which thread runs a task is left to chance, so a task may depend on its number alone: work is
//! cut by shape, never by the number of threads. A thread has a share of neighbouring tasks, whose
//! data a core walks through in order, and helps with other shares after its own. An idle worker
//! spins for a moment, since the next loop of a step follows within microseconds, and then sleeps.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long an idle worker spins before it sleeps.
const SPIN: Duration = Duration::from_micros(200);

/// A fixed set of threads; the caller of [`Pool::parallel_for`] is one of them.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared {
    board: Mutex<Board>,
    posted: Condvar,
    /// Number of jobs posted so far; read by spinning workers without the lock.
    generation: AtomicUsize,
    /// Per thread, the next task of its share of the current job.
    shares: Vec<Share>,
    /// Workers inside the current job.
    active: AtomicUsize,
    panicked: AtomicBool,
}

/// Alone on its cache lines: each thread counts in its own.
#[derive(Default)]
#[repr(align(128))]
struct Share(AtomicUsize);

struct Board {
    job: Option<Job>,
    generation: usize,
    /// Workers that wait for [`Shared::posted`].
    asleep: usize,
    closing: bool,
}

#[derive(Clone, Copy)]
struct Job {
    tasks: usize,
    body: *const (dyn Fn(usize, usize) + Sync),
}

// SAFETY: the body is `Sync`, and `parallel_for` returns only after every worker has left the job.
unsafe impl Send for Job {}

impl Pool {
    pub(super) fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            board: Mutex::new(Board { job: None, generation: 0, asleep: 0, closing: false }),
            posted: Condvar::new(),
            generation: AtomicUsize::new(0),
            shares: (0..threads).map(|_| Share::default()).collect(),
            active: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
        });
        let workers = (1..threads)
            .map(|lane| {
                let shared = shared.clone();
                std::thread::spawn(move || shared.work(lane))
            })
            .collect();
        Self { shared, workers }
    }

    /// Number of threads, the caller's included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `body(task, lane)` for every `task < tasks` and returns when all are done. `lane <
    /// threads()` names the running thread, for scratch memory. Not to be called from inside `body`.
    ///
    /// # Panics
    /// If a task panics.
    pub fn parallel_for(&self, tasks: usize, body: impl Fn(usize, usize) + Sync) {
        if tasks <= 1 || self.workers.is_empty() {
            return (0..tasks).for_each(|task| body(task, 0));
        }
        let shared = &*self.shared;
        let body: &(dyn Fn(usize, usize) + Sync) = &body;
        // SAFETY: only the lifetime changes; the job is withdrawn and left by every worker below,
        // before `body` goes out of scope, even when a task panics.
        let body: *const (dyn Fn(usize, usize) + Sync) = unsafe { std::mem::transmute(body) };
        let job = Job { tasks, body };
        for (lane, share) in shared.shares.iter().enumerate() {
            share.0.store(shared.share(tasks, lane).start, Ordering::Relaxed);
        }
        let asleep = {
            let mut board = shared.board.lock().expect("no code panics while it holds the board");
            board.job = Some(job);
            board.generation += 1;
            shared.generation.store(board.generation, Ordering::Release);
            board.asleep
        };
        if asleep > 0 {
            shared.posted.notify_all();
        }
        let own = catch_unwind(AssertUnwindSafe(|| shared.run(job, 0)));
        shared.board.lock().expect("no code panics while it holds the board").job = None;
        let mut spins = 0u32;
        while shared.active.load(Ordering::Acquire) > 0 {
            spins += 1;
            if spins < 10_000 { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
        if let Err(panic) = own {
            resume_unwind(panic);
        }
        assert!(!shared.panicked.swap(false, Ordering::Relaxed), "a parallel task panicked");
    }

    /// Runs `body(index, chunk)` for every chunk of `len` elements of `data` (the last may be shorter).
    pub fn parallel_chunks<T: Send>(
        &self,
        data: &mut [T],
        len: usize,
        body: impl Fn(usize, &mut [T]) + Sync,
    ) {
        let (total, len) = (data.len(), len.max(1));
        let parts = Disjoint::new(data);
        self.parallel_for(total.div_ceil(len), |i, _| {
            // SAFETY: chunk `i` belongs to task `i` alone.
            let chunk = unsafe { parts.slice(i * len..total.min((i + 1) * len)) };
            body(i, chunk);
        });
    }

    /// [`Pool::parallel_chunks`] where every thread has an equal part of `scratch` to itself, with
    /// unspecified contents.
    pub fn parallel_chunks_with<T: Send>(
        &self,
        data: &mut [T],
        len: usize,
        scratch: &mut [f32],
        body: impl Fn(usize, &mut [T], &mut [f32]) + Sync,
    ) {
        let (total, len) = (data.len(), len.max(1));
        let share = scratch.len() / self.threads();
        let (parts, scratch) = (Disjoint::new(data), Disjoint::new(scratch));
        self.parallel_for(total.div_ceil(len), |i, lane| {
            // SAFETY: chunk `i` belongs to task `i`, and share `lane` to the running thread.
            let (chunk, own) = unsafe {
                (
                    parts.slice(i * len..total.min((i + 1) * len)),
                    scratch.slice(lane * share..(lane + 1) * share),
                )
            };
            body(i, chunk, own);
        });
    }

    /// Runs `body(i, parts)` for every range `i`, `parts` being that range of each of `arrays`.
    ///
    /// # Panics
    /// If the ranges are not in order, overlap, or reach past an array's end.
    pub fn parallel_ranges<T: Send, const N: usize>(
        &self,
        arrays: [&mut [T]; N],
        ranges: &[Range<usize>],
        body: impl Fn(usize, [&mut [T]; N]) + Sync,
    ) {
        assert!(ranges.windows(2).all(|w| w[0].end <= w[1].start), "ranges must be in order and apart");
        let arrays = arrays.map(Disjoint::new);
        self.parallel_for(ranges.len(), |i, _| {
            // SAFETY: range `i` belongs to task `i` alone, as asserted above.
            body(i, std::array::from_fn(|a| unsafe { arrays[a].slice(ranges[i].clone()) }));
        });
    }
}

impl Shared {
    /// The tasks that thread `lane` begins with.
    fn share(&self, tasks: usize, lane: usize) -> Range<usize> {
        let threads = self.shares.len();
        tasks * lane / threads..tasks * (lane + 1) / threads
    }

    fn run(&self, job: Job, lane: usize) {
        // SAFETY: the caller of `parallel_for` keeps the body alive until `active` is zero.
        let body = unsafe { &*job.body };
        for whose in (lane..self.shares.len()).chain(0..lane) {
            let end = self.share(job.tasks, whose).end;
            loop {
                let task = self.shares[whose].0.fetch_add(1, Ordering::Relaxed);
                if task >= end {
                    break;
                }
                body(task, lane);
            }
        }
    }

    fn work(&self, lane: usize) {
        let mut seen = 0;
        loop {
            let since = Instant::now();
            while self.generation.load(Ordering::Acquire) == seen && since.elapsed() < SPIN {
                std::hint::spin_loop();
            }
            let mut board = self.board.lock().expect("no code panics while it holds the board");
            while board.generation == seen && !board.closing {
                board.asleep += 1;
                board = self.posted.wait(board).expect("no code panics while it holds the board");
                board.asleep -= 1;
            }
            if board.closing {
                return;
            }
            seen = board.generation;
            let Some(job) = board.job else { continue };
            // Entered under the lock: the caller withdraws the job under the same lock, so it
            // either sees this worker as active or the worker does not see the job.
            self.active.fetch_add(1, Ordering::AcqRel);
            drop(board);
            if catch_unwind(AssertUnwindSafe(|| self.run(job, lane))).is_err() {
                self.panicked.store(true, Ordering::Relaxed);
            }
            self.active.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Ok(mut board) = self.shared.board.lock() {
            board.closing = true;
        }
        self.shared.posted.notify_all();
        for worker in self.workers.drain(..) {
            worker.join().expect("a worker catches the panics of its tasks");
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({} threads)", self.threads())
    }
}

/// A slice whose parts are written by several tasks at once.
pub struct Disjoint<'a, T> {
    start: *mut T,
    len: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: `slice` demands that concurrent callers ask for parts that do not overlap.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    /// Wraps `data` for the length of a parallel loop.
    pub fn new(data: &'a mut [T]) -> Self {
        Self { start: data.as_mut_ptr(), len: data.len(), slice: PhantomData }
    }

    /// Where element `at` lies, for a prefetch; it need not exist.
    pub(super) fn place(&self, at: usize) -> *const T {
        self.start.wrapping_add(at).cast_const()
    }

    /// The part `range`.
    ///
    /// # Safety
    /// Two parts that are alive at once, on any threads, must not overlap.
    ///
    /// # Panics
    /// If `range` reaches past the end.
    #[allow(clippy::mut_from_ref, reason = "disjointness is the caller's promise")]
    pub unsafe fn slice(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "part {range:?} of {}", self.len);
        // SAFETY: inside the wrapped slice, and disjoint by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_on_any_number_of_threads() {
        for threads in 1..=4 {
            let pool = Pool::new(threads);
            for tasks in [0, 1, 2, 7, 1_000] {
                let mut hits = vec![0u32; tasks];
                pool.parallel_chunks(&mut hits, 1, |_, hit| hit[0] += 1);
                assert!(hits.iter().all(|&h| h == 1), "{threads} threads, {tasks} tasks");
            }
        }
    }

    #[test]
    fn many_short_loops_in_a_row_do_not_hang() {
        let pool = Pool::new(4);
        let sum = AtomicUsize::new(0);
        for _ in 0..5_000 {
            pool.parallel_for(3, |task, lane| {
                assert!(lane < 4);
                sum.fetch_add(task, Ordering::Relaxed);
            });
        }
        assert_eq!(sum.into_inner(), 15_000);
    }

    #[test]
    fn a_panicking_task_reaches_the_caller_and_leaves_the_pool_usable() {
        let pool = Pool::new(3);
        let failed = catch_unwind(AssertUnwindSafe(|| {
            pool.parallel_for(100, |task, _| assert!(task != 50, "planted"));
        }));
        assert!(failed.is_err());
        let mut data = vec![0u8; 10];
        pool.parallel_chunks(&mut data, 3, |_, part| part.fill(1));
        assert_eq!(data, [1; 10]);
    }
}
