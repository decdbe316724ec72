//! Threads that make batches ahead of the training loop, and read a split for evaluation.

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mentor_types::Batch;
use rayon::prelude::*;

use crate::batches::BatchMaker;
use crate::config::{DataConfig, OnBadSample};
use crate::dataset::{Dataset, Sample};
use crate::error::{BadSamples, DataError};
use crate::labels::ReadLabels;
use crate::split::Split;

/// A thread that sends values through a bounded queue; dropping it stops and joins the thread.
#[derive(Debug)]
struct Ahead<T> {
    receiver: Option<Receiver<T>>,
    thread: Option<JoinHandle<()>>,
    waited: Duration,
}

impl<T: Send + 'static> Ahead<T> {
    /// Starts `produce` on a thread of its own, with a pool of `workers` threads.
    fn start(
        workers: usize,
        queue: usize,
        produce: impl FnOnce(&rayon::ThreadPool, &SyncSender<T>) + Send + 'static,
    ) -> Result<Self, DataError> {
        let fail = |message: String| DataError::Setting { key: "data.workers".to_owned(), message };
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(workers.max(1))
            .thread_name(|index| format!("data-{index}"))
            .build()
            .map_err(|error| fail(error.to_string()))?;
        let (sender, receiver) = sync_channel(queue.max(1));
        let thread = std::thread::Builder::new()
            .name("data".to_owned())
            .spawn(move || produce(&pool, &sender))
            .map_err(|error| fail(error.to_string()))?;
        Ok(Self { receiver: Some(receiver), thread: Some(thread), waited: Duration::ZERO })
    }

    /// The next value; `None` when the thread is done.
    ///
    /// # Panics
    /// Where the thread panicked: its bug is passed on rather than read as the end.
    fn next(&mut self) -> Option<T> {
        let start = Instant::now();
        let next = self.receiver.as_ref().and_then(|receiver| receiver.recv().ok());
        self.waited += start.elapsed();
        if next.is_none()
            && let Some(Err(panic)) = self.thread.take().map(JoinHandle::join)
        {
            std::panic::resume_unwind(panic);
        }
        next
    }
}

impl<T> Drop for Ahead<T> {
    fn drop(&mut self) {
        // Without a receiver the thread's next send fails, and it ends.
        self.receiver = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was either passed on by `next` or concerns a batch that nobody asked for.
            let _ = thread.join();
        }
    }
}

/// The batches of some steps, made ahead by worker threads.
#[derive(Debug)]
pub struct Loader<B> {
    ahead: Ahead<Result<B, DataError>>,
}

impl<B: Send + 'static> Loader<B> {
    /// Starts making the batches of `steps` (counted from 0, the end not included; for each step its micro-batches in
    /// order). `finish` sees each of them on the loader's own thread, in order: there it can go to a device ahead of
    /// its step.
    ///
    /// # Errors
    /// Where the threads cannot be started.
    pub fn start<L: ReadLabels>(
        maker: Arc<BatchMaker<L>>,
        steps: Range<u64>,
        data: &DataConfig,
        finish: impl Fn(Batch<L>) -> B + Send + 'static,
    ) -> Result<Self, DataError> {
        let ahead = Ahead::start(data.workers, data.queue, move |pool, sender| {
            for step in steps {
                for micro in 0..maker.plan().accumulate {
                    let batch = pool.install(|| maker.make(step, micro)).map(&finish);
                    let failed = batch.is_err();
                    if sender.send(batch).is_err() || failed {
                        return;
                    }
                }
            }
        })?;
        Ok(Self { ahead })
    }

    /// The next micro-batch.
    ///
    /// # Errors
    /// On a bad sample; and after the last batch, or after an error.
    #[expect(clippy::should_implement_trait, reason = "a batch too many is an error here, not an end")]
    pub fn next(&mut self) -> Result<B, DataError> {
        self.ahead.next().unwrap_or(Err(DataError::NoMoreBatches))
    }

    /// How long `next` has waited in all.
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.ahead.waited
    }
}

/// The images of a split in the order of its list, read ahead by worker threads. A bad one stops it, or is left out and
/// noted: evaluation takes no image twice.
#[derive(Debug)]
pub struct EvalLoader<L> {
    ahead: Ahead<Result<Sample<L>, DataError>>,
    bad: BadSamples,
}

impl<L: ReadLabels> EvalLoader<L> {
    /// Starts reading.
    ///
    /// # Errors
    /// Where the threads cannot be started.
    pub fn start(dataset: Arc<Dataset<L>>, split: Split, data: &DataConfig) -> Result<Self, DataError> {
        let bad = BadSamples::default();
        let (skip, noted, at_once) = (data.on_bad_sample == OnBadSample::Skip, bad.clone(), data.workers.max(1));
        let ahead = Ahead::start(data.workers, data.queue, move |pool, sender| {
            for start in (0..split.len()).step_by(at_once) {
                let chunk = start..split.len().min(start + at_once);
                let samples: Vec<_> =
                    pool.install(|| chunk.into_par_iter().map(|index| dataset.sample(&split, index)).collect());
                for sample in samples {
                    if let (Err(DataError::Bad(bad)), true) = (&sample, skip) {
                        noted.record(bad);
                        continue;
                    }
                    let failed = sample.is_err();
                    if sender.send(sample).is_err() || failed {
                        return;
                    }
                }
            }
        })?;
        Ok(Self { ahead, bad })
    }

    /// The bad samples left out so far.
    #[must_use]
    pub fn bad_samples(&self) -> &BadSamples {
        &self.bad
    }
}

impl<L: ReadLabels> Iterator for EvalLoader<L> {
    type Item = Result<Sample<L>, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.ahead.next()
    }
}
