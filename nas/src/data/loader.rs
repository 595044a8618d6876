//! Batches made ahead of time by worker threads.
//!
//! The unit of work is one image of one batch; workers claim images in order and write them into
//! their place. What a batch holds depends on (seed, epoch, step) alone, so the number of workers,
//! the depth of the prefetch and the moment of resuming change no bit of it. Buffers circulate:
//! the batch that the caller hands in is the memory of a later one, so nothing is allocated here
//! once every buffer has been through.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use engine::Rng;

use super::augment::Scratch;
use super::config::OnBad;
use super::{Error, Image, Pipeline, Result, View, guard, io_error};

/// Images and labels of one step. Make one with `Batch::default()` and hand it to every call of
/// [`Loader::next`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// `[n, h, w, c]`, row-major.
    pub images: Vec<f32>,
    /// Class of each image, `[n]`.
    pub labels: Vec<u32>,
    /// Index of each image in its data set, `[n]`.
    pub indices: Vec<u32>,
    /// n, h, w, c.
    pub shape: [usize; 4],
    /// Epoch that it belongs to, from 0.
    pub epoch: u32,
    /// Position in the epoch, from 0.
    pub step: u32,
}

/// How a loader goes through its view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// Epoch after epoch without end, each in an order of its own; a short last batch is dropped.
    Train,
    /// Once in the view's order; the last batch may be short.
    Evaluate,
}

/// See the fields of the same name in [`DataConfig`](super::DataConfig).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoaderOptions {
    /// Images in a batch.
    pub batch: usize,
    /// Worker threads.
    pub workers: usize,
    /// Batches made ahead.
    pub prefetch: usize,
    /// What happens when an image cannot be read.
    pub on_bad: OnBad,
    /// Largest share of bad images tolerated by `skip` and `substitute`.
    pub max_bad: f64,
}

impl LoaderOptions {
    /// # Errors
    /// The key that is out of range.
    pub(super) fn check(&self) -> Result<()> {
        let positive = [("batch", self.batch), ("workers", self.workers), ("prefetch", self.prefetch)];
        for (key, value) in positive {
            if value == 0 {
                return Err(Error::Config { key, value: "0".into(), expected: "at least 1" });
            }
        }
        if !(0.0..=1.0).contains(&self.max_bad) {
            return Err(Error::Config {
                key: "max-bad",
                value: self.max_bad.to_string(),
                expected: "a share from 0 to 1",
            });
        }
        Ok(())
    }
}

/// What a loader has seen and how long it kept its caller waiting, since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Time the caller spent blocked in [`Loader::next`].
    pub wait: Duration,
    /// Batches delivered.
    pub batches: u64,
    /// Images delivered.
    pub images: u64,
    /// Records that could not be read, by index in the data set.
    pub bad: BTreeSet<u32>,
    /// Records that were read after cutting junk out of the file.
    pub repaired: BTreeSet<u32>,
}

/// Makes batches ahead of time; see the module. Dropping it stops its threads.
pub struct Loader {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    stats: Stats,
}

struct Shared {
    view: View,
    pipeline: Pipeline,
    pass: Pass,
    options: LoaderOptions,
    order: Rng,
    augment: Rng,
    queue: Mutex<Queue>,
    /// Signalled when there may be work: a batch was taken, or the position was set.
    work: Condvar,
}

/// Which batches are being made. `slots` is in order of delivery; of the last one's `open` images
/// the first `claimed` have a worker.
struct Queue {
    slots: VecDeque<Arc<Slot>>,
    claimed: usize,
    open: usize,
    spare: Vec<Arc<Slot>>,
    /// The next batch to open.
    epoch: u32,
    step: u32,
    /// Order of `permuted_epoch`, as positions in the view.
    permutation: Vec<u32>,
    permuted_epoch: Option<u32>,
    /// Nothing is made before the first call, so that [`Loader::seek`] wastes no work.
    running: bool,
    stop: bool,
}

#[derive(Default)]
struct Slot {
    data: Mutex<Filling>,
    ready: Condvar,
}

/// A batch in the making, with what went wrong in it.
#[derive(Default)]
struct Filling {
    batch: Batch,
    done: usize,
    /// Position of each image that has no pixels; with an error if that ends the run.
    holes: Vec<(usize, Option<Error>)>,
    /// Records that were skipped or replaced.
    bad: Vec<(u32, Error)>,
    repaired: Vec<u32>,
}

impl Loader {
    /// A loader at the start of epoch 0 of the run with `seed`. Work begins with the first
    /// [`next`](Self::next) or [`seek`](Self::seek).
    ///
    /// # Errors
    /// An option out of range, a training batch larger than the view, no threads to be had.
    pub fn new(
        view: View,
        pipeline: Pipeline,
        pass: Pass,
        seed: u64,
        options: LoaderOptions,
    ) -> Result<Self> {
        options.check()?;
        if pass == Pass::Train && view.len() < options.batch {
            return Err(Error::BatchTooLarge { batch: options.batch, images: view.len() });
        }
        let queue = Queue {
            slots: VecDeque::with_capacity(options.prefetch),
            claimed: 0,
            open: 0,
            spare: Vec::with_capacity(options.prefetch + 1),
            epoch: 0,
            step: 0,
            permutation: Vec::new(),
            permuted_epoch: None,
            running: false,
            stop: false,
        };
        let shared = Arc::new(Shared {
            view,
            pipeline,
            pass,
            options,
            order: Rng::new(seed, "order"),
            augment: Rng::new(seed, "augment"),
            queue: Mutex::new(queue),
            work: Condvar::new(),
        });
        let mut loader = Self { shared, threads: Vec::new(), stats: Stats::default() };
        for i in 0..options.workers {
            let shared = loader.shared.clone();
            let thread = std::thread::Builder::new()
                .name(format!("loader-{i}"))
                .spawn(move || shared.work())
                .map_err(io_error("start a worker thread of", "the loader".as_ref()))?;
            loader.threads.push(thread);
        }
        Ok(loader)
    }

    /// Batches in an epoch.
    pub fn steps(&self) -> usize {
        self.shared.steps()
    }

    /// h, w, c of every image.
    pub fn shape(&self) -> [usize; 3] {
        self.shared.pipeline.shape()
    }

    /// Goes to `step` of `epoch` and begins to make batches from there; what was made ahead is
    /// dropped. A step at or beyond the end of an epoch is the start of the next one (training) or
    /// the end (evaluation).
    pub fn seek(&mut self, epoch: u32, step: u32) {
        let mut queue = self.shared.lock();
        queue.slots.clear();
        (queue.claimed, queue.open) = (0, 0);
        (queue.epoch, queue.step) = (epoch, step);
        queue.running = true;
        drop(queue);
        self.shared.work.notify_all();
    }

    /// Puts the next batch into `batch` and takes over the memory of what was in it. `false` at the
    /// end of an evaluation pass ([`seek`](Self::seek)`(0, 0)` starts another); a training pass has
    /// no end.
    ///
    /// # Errors
    /// Under `on-bad = "error"` the first unreadable image of this batch; otherwise more bad images
    /// than `max-bad`, or a class without any good one. The batch that failed is passed over.
    pub fn next(&mut self, batch: &mut Batch) -> Result<bool> {
        let start = Instant::now();
        let filled = self.advance(batch);
        self.stats.wait += start.elapsed();
        if matches!(filled, Ok(true)) {
            self.stats.batches += 1;
            self.stats.images += batch.labels.len() as u64;
        }
        filled
    }

    /// What it has seen so far.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    fn advance(&mut self, batch: &mut Batch) -> Result<bool> {
        loop {
            let Some(slot) = self.shared.front() else { return Ok(false) };
            let mut filling = lock(&slot.data);
            while filling.done < filling.batch.labels.len() {
                filling = slot.ready.wait(filling).unwrap_or_else(PoisonError::into_inner);
            }
            std::mem::swap(&mut filling.batch, batch);
            let outcome = self.account(&mut filling);
            if outcome.is_ok() {
                close_holes(batch, &mut filling.holes);
            }
            drop(filling);
            self.shared.release(slot);
            outcome?;
            // Every image of it was bad and skipped: the caller could do nothing with it.
            if !batch.labels.is_empty() {
                return Ok(true);
            }
        }
    }

    /// Counts the bad records of a batch and ends the run where the policy says so. Batches are
    /// looked at in order, so the step at which a run gives up does not depend on the workers.
    fn account(&mut self, filling: &mut Filling) -> Result<()> {
        filling.holes.sort_by_key(|hole| hole.0);
        filling.bad.sort_by_key(|bad| bad.0);
        self.stats.repaired.extend(filling.repaired.drain(..));
        let records = self.shared.view.len();
        let limit = (self.shared.options.max_bad * records as f64) as usize;
        for (index, error) in filling.bad.drain(..) {
            self.stats.bad.insert(index);
            if self.stats.bad.len() > limit {
                let bad = self.stats.bad.len();
                return Err(Error::TooManyBad { bad, records, limit, last: Box::new(error) });
            }
        }
        filling.holes.iter_mut().find_map(|hole| hole.1.take()).map_or(Ok(()), Err)
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            // A worker catches panics of decoders; one of its own has nothing to add here.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }

    fn steps(&self) -> usize {
        match self.pass {
            Pass::Train => self.view.len() / self.options.batch,
            Pass::Evaluate => self.view.len().div_ceil(self.options.batch),
        }
    }

    /// The next batch to deliver, begun if no worker has; `None` at the end.
    fn front(&self) -> Option<Arc<Slot>> {
        let mut queue = self.lock();
        // Waking a worker costs more than all else here, so only where there is something new to do.
        let mut news = !std::mem::replace(&mut queue.running, true);
        if queue.slots.is_empty() {
            if !self.open(&mut queue) {
                return None;
            }
            news = true;
        }
        let front = queue.slots.front().cloned();
        drop(queue);
        if news {
            self.work.notify_all();
        }
        front
    }

    /// Takes a delivered slot out of the queue, so that another batch can be begun in it.
    fn release(&self, slot: Arc<Slot>) {
        let mut queue = self.lock();
        queue.slots.pop_front();
        queue.spare.push(slot);
        drop(queue);
        self.work.notify_all();
    }

    /// Begins the batch at the queue's position and moves that on; `false` at the end.
    fn open(&self, queue: &mut Queue) -> bool {
        let steps = self.steps();
        if queue.step as usize >= steps {
            if self.pass == Pass::Evaluate {
                return false;
            }
            (queue.epoch, queue.step) = (queue.epoch.wrapping_add(1), 0);
        }
        let Queue { epoch, step, .. } = *queue;
        if self.pass == Pass::Train && queue.permuted_epoch != Some(epoch) {
            self.permute(epoch, &mut queue.permutation);
            queue.permuted_epoch = Some(epoch);
        }
        let start = step as usize * self.options.batch;
        let n = self.options.batch.min(self.view.len() - start);
        let slot = queue.spare.pop().unwrap_or_default();
        let mut guard = lock(&slot.data);
        let filling = &mut *guard;
        (filling.done, filling.batch.epoch, filling.batch.step) = (0, epoch, step);
        filling.holes.clear();
        filling.bad.clear();
        filling.repaired.clear();
        let [h, w, c] = self.pipeline.shape();
        filling.batch.shape = [n, h, w, c];
        filling.batch.images.resize(n * h * w * c, 0.0);
        filling.batch.labels.resize(n, 0);
        filling.batch.indices.clear();
        let position = |i: usize| match self.pass {
            Pass::Train => queue.permutation[i] as usize,
            Pass::Evaluate => i,
        };
        filling.batch.indices.extend((start..start + n).map(|i| self.view.indices[position(i)]));
        drop(guard);
        queue.slots.push_back(slot);
        (queue.claimed, queue.open) = (0, n);
        queue.step += 1;
        true
    }

    /// `Draws::permutation` into memory that is there already.
    fn permute(&self, epoch: u32, order: &mut Vec<u32>) {
        let mut draws = self.order.at(epoch, 0, 0);
        order.clear();
        order.extend(0..self.view.len() as u32);
        for i in (1..order.len()).rev() {
            order.swap(i, draws.below(i as u32 + 1) as usize);
        }
    }

    /// The next image to make: its batch and its place in it. Waits for one; `None` to stop.
    fn claim(&self) -> Option<(Arc<Slot>, usize)> {
        let mut queue = self.lock();
        loop {
            if queue.stop {
                return None;
            }
            if queue.claimed < queue.open {
                let slot = queue.slots.back().expect("a batch with unclaimed images is queued").clone();
                queue.claimed += 1;
                return Some((slot, queue.claimed - 1));
            }
            let room = queue.running && queue.slots.len() < self.options.prefetch;
            if !(room && self.open(&mut queue)) {
                queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn work(&self) {
        let (mut image, mut scratch) = (Image::default(), Scratch::default());
        while let Some((slot, position)) = self.claim() {
            let (index, epoch) = {
                let filling = lock(&slot.data);
                (filling.batch.indices[position], filling.batch.epoch)
            };
            let mut bad = Vec::new();
            let made = self.make(index, epoch, &mut image, &mut scratch, &mut bad);
            let mut guard = lock(&slot.data);
            let filling = &mut *guard;
            filling.bad.append(&mut bad);
            match made {
                Ok(Some(made)) => {
                    let len = self.pipeline.len();
                    let place = &mut filling.batch.images[position * len..(position + 1) * len];
                    self.pipeline.write(&scratch, place);
                    filling.batch.labels[position] = self.view.dataset.label(made as usize);
                    filling.batch.indices[position] = made;
                    if image.repaired {
                        filling.repaired.push(made);
                    }
                }
                Ok(None) => filling.holes.push((position, None)),
                Err(error) => filling.holes.push((position, Some(error))),
            }
            filling.done += 1;
            if filling.done == filling.batch.labels.len() {
                slot.ready.notify_all();
            }
        }
    }

    /// Renders record `index`, or what the policy puts in its place, and says which it was; `None`
    /// leaves a hole.
    fn make(
        &self,
        index: u32,
        epoch: u32,
        image: &mut Image,
        scratch: &mut Scratch,
        bad: &mut Vec<(u32, Error)>,
    ) -> Result<Option<u32>> {
        let error = match self.render(index, epoch, image, scratch) {
            Ok(()) => return Ok(Some(index)),
            Err(error) => error,
        };
        match (self.options.on_bad, self.pass) {
            (OnBad::Error, _) => Err(error),
            (OnBad::Skip, _) | (OnBad::Substitute, Pass::Evaluate) => {
                bad.push((index, error));
                Ok(None)
            }
            (OnBad::Substitute, Pass::Train) => {
                bad.push((index, error));
                let dataset = &self.view.dataset;
                let class = dataset.label(index as usize);
                let at = self.view.indices.iter().position(|&i| i == index);
                let at = at.expect("batches are made of the view's records");
                let (before, after) = self.view.indices.split_at(at);
                for &other in after[1..].iter().chain(before) {
                    if dataset.label(other as usize) != class {
                        continue;
                    }
                    match self.render(other, epoch, image, scratch) {
                        Ok(()) => return Ok(Some(other)),
                        Err(error) => bad.push((other, error)),
                    }
                }
                let class = dataset.classes()[class as usize].clone();
                Err(Error::NoSubstitute { class })
            }
        }
    }

    /// Reads and augments one record into `scratch`.
    fn render(&self, index: u32, epoch: u32, image: &mut Image, scratch: &mut Scratch) -> Result<()> {
        let dataset = &*self.view.dataset;
        guard(dataset, index as usize, || {
            dataset.read(index as usize, image)?;
            let mut draws = self.augment.at(epoch, 0, index);
            self.pipeline.render(image, &mut draws, scratch);
            Ok(())
        })
    }
}

/// Workers hold a lock only to copy, so a poisoned one guards nothing half-done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Moves the images behind skipped ones forward.
fn close_holes(batch: &mut Batch, holes: &mut Vec<(usize, Option<Error>)>) {
    if holes.is_empty() {
        return;
    }
    let len = batch.shape[1] * batch.shape[2] * batch.shape[3];
    let mut kept = 0;
    let mut next_hole = holes.drain(..).map(|hole| hole.0).peekable();
    for i in 0..batch.labels.len() {
        if next_hole.next_if_eq(&i).is_some() {
            continue;
        }
        batch.labels[kept] = batch.labels[i];
        batch.indices[kept] = batch.indices[i];
        batch.images.copy_within(i * len..(i + 1) * len, kept * len);
        kept += 1;
    }
    batch.labels.truncate(kept);
    batch.indices.truncate(kept);
    batch.images.truncate(kept * len);
    batch.shape[0] = kept;
}
