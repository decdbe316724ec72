//! Output memory and scratch memory of the CPU kernels.

use std::cell::Cell;
use std::marker::PhantomData;
use std::mem::MaybeUninit;

/// A vector of `len` floats that nobody zeroed before `fill` writes it.
///
/// Zeroing a map of many megabytes takes as long as computing it.
///
/// # Safety
/// `fill` must write every element.
pub(crate) unsafe fn filled(len: usize, fill: impl FnOnce(&mut [MaybeUninit<f32>])) -> Vec<f32> {
    let mut values = Vec::with_capacity(len);
    fill(&mut values.spare_capacity_mut()[..len]);
    // SAFETY: the capacity is `len` at least, and the caller promises that all of it was written.
    unsafe { values.set_len(len) };
    values
}

/// The planes of an NCHW map by channel: one list of a plane per image for every channel.
pub(crate) fn planes_by_channel<T>(values: &mut [T], channels: usize, area: usize) -> Vec<Vec<&mut [T]>> {
    let images = values.len() / (channels * area);
    let mut planes: Vec<Vec<&mut [T]>> = (0..channels).map(|_| Vec::with_capacity(images)).collect();
    for (index, plane) in values.chunks_mut(area).enumerate() {
        planes[index % channels].push(plane);
    }
    planes
}

thread_local! {
    static SCRATCH: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Lends `len` floats with whatever values an earlier task of this thread left in them.
pub(crate) fn with_scratch<R>(len: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    // In tests, memory that ends where it should (see `guard`) and holds no number.
    if cfg!(test) {
        return work(&mut vec![f32::NAN; len]);
    }
    let mut memory = SCRATCH.take();
    if memory.len() < len {
        memory.resize(len, 0.0);
    }
    let result = work(&mut memory[..len]);
    SCRATCH.set(memory);
    result
}

/// Output memory that parallel tasks write side by side, where their parts are no plain slices.
pub(crate) struct Interleaved<'a> {
    start: *mut MaybeUninit<f32>,
    len: usize,
    memory: PhantomData<&'a mut [MaybeUninit<f32>]>,
}

// SAFETY: it only hands out memory through an unsafe method, whose callers promise that no two
// tasks touch the same element.
unsafe impl Sync for Interleaved<'_> {}

impl<'a> Interleaved<'a> {
    pub(crate) fn new(memory: &'a mut [MaybeUninit<f32>]) -> Self {
        Self { start: memory.as_mut_ptr(), len: memory.len(), memory: PhantomData }
    }

    /// The same of memory that was written before.
    pub(crate) fn of(memory: &'a mut [f32]) -> Self {
        Self { start: memory.as_mut_ptr().cast(), len: memory.len(), memory: PhantomData }
    }

    /// The part of `len` elements from `start` on.
    ///
    /// # Safety
    /// No other part that overlaps with it may be alive.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn part(&self, start: usize, len: usize) -> &mut [MaybeUninit<f32>] {
        assert!(start + len <= self.len, "a part ends at {} of {} elements", start + len, self.len);
        // SAFETY: inside the memory by the check above, and exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }

    /// The address of element `start`, for rows that other tasks' rows lie between.
    pub(crate) fn address(&self, start: usize, span: usize) -> *mut f32 {
        assert!(start + span <= self.len, "a span ends at {} of {} elements", start + span, self.len);
        self.start.wrapping_add(start).cast()
    }
}
