//! What terms keep from step to step: rivals, memories, queues, centres.
//!
//! A term reads its companion and changes nothing; the method moves all of them on after the
//! optimizer's step, and saves them with the checkpoint under the names of their terms.

use std::fmt::Debug;

use burn::tensor::{Device, Tensor};

use super::{Sees, Term};

/// What a fresh companion is made from.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    /// The number of classes.
    pub classes: usize,
    /// Channels of the levels of the teachers' pyramids; 0 where they have none.
    pub teacher_channels: usize,
    /// The root of all randomness.
    pub seed: u64,
    /// The plain device.
    pub device: &'a Device,
}

/// What a term reads and the method moves on; its size is bounded by its config.
pub trait Companion<S: Sees>: Debug {
    /// What of a micro-batch it learns from, off the graph.
    type Example;

    /// Picks from a micro-batch what [`update`](Self::update) needs of it.
    fn example(&self, context: &S::Context<'_>) -> Self::Example;

    /// Moves on by the examples of one step, at least one; returns the loss of what was trained by it,
    /// if anything was.
    fn update(&mut self, examples: Vec<Self::Example>, lr_factor: f64) -> Option<Tensor<1>>;

    /// Everything that updates changed, as the bytes of a file; equal companions give equal bytes.
    fn save(&self) -> Vec<u8>;

    /// Goes on, bit for bit, from where [`save`](Self::save) was called.
    ///
    /// # Errors
    /// If the bytes are damaged or belong to a companion of another shape; this one is unchanged then.
    fn load(&mut self, bytes: &[u8]) -> Result<(), String>;
}

/// The companion of tasks none of whose terms keeps anything.
#[derive(Debug)]
pub enum Nothing {}

impl<S: Sees> Companion<S> for Nothing {
    type Example = ();

    fn example(&self, _context: &S::Context<'_>) {
        match *self {}
    }

    fn update(&mut self, _examples: Vec<()>, _lr_factor: f64) -> Option<Tensor<1>> {
        match *self {}
    }

    fn save(&self) -> Vec<u8> {
        match *self {}
    }

    fn load(&mut self, _bytes: &[u8]) -> Result<(), String> {
        match *self {}
    }
}

/// The companions of all terms that are on, by the name of the term.
#[derive(Debug)]
pub struct Companions<S: Sees>(Vec<(&'static str, S::Companion)>);

/// What companions are to see of a micro-batch, by the name of the term.
pub type Examples<S> = Vec<(&'static str, <<S as Sees>::Companion as Companion<S>>::Example)>;

impl<S: Sees> Default for Companions<S> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<S: Sees> Companions<S> {
    /// Start ones, for each of `terms` that has one.
    #[must_use]
    pub fn fresh<'a>(terms: impl IntoIterator<Item = (&'static str, &'a dyn Term<S>)>, fresh: &Start<'_>) -> Self {
        Self(terms.into_iter().filter_map(|(name, term)| Some((name, term.companion(fresh)?))).collect())
    }

    /// The companion of a term.
    #[must_use]
    pub fn get(&self, term: &str) -> Option<&S::Companion> {
        self.0.iter().find(|(name, _)| *name == term).map(|(_, companion)| companion)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, term: &str) -> Option<&mut S::Companion> {
        self.0.iter_mut().find(|(name, _)| *name == term).map(|(_, companion)| companion)
    }

    /// What the companions of the terms `active` are to see of a micro-batch.
    pub fn examples<'a>(&self, active: impl Iterator<Item = &'a str>, context: &S::Context<'_>) -> Examples<S> {
        let active: Vec<&str> = active.collect();
        let own = self.0.iter().filter(|(name, _)| active.contains(name));
        own.map(|(name, companion)| (*name, companion.example(context))).collect()
    }

    /// Moves every companion on that saw anything in this step; returns the losses of those that were
    /// trained.
    pub fn update(&mut self, examples: Examples<S>, lr_factor: f64) -> Vec<(&'static str, Tensor<1>)> {
        let mut losses = Vec::new();
        let mut examples: Vec<_> = examples.into_iter().map(Some).collect();
        for (name, companion) in &mut self.0 {
            let own = |slot: &mut Option<_>| slot.take_if(|(term, _)| term == name).map(|(_, example)| example);
            let seen: Vec<_> = examples.iter_mut().filter_map(own).collect();
            if !seen.is_empty() {
                losses.extend(companion.update(seen, lr_factor).map(|loss| (*name, loss)));
            }
        }
        losses
    }

    /// A file for each, named as its term.
    #[must_use]
    pub fn save(&self) -> Vec<(String, Vec<u8>)> {
        self.0.iter().map(|(name, companion)| (file_name(name), companion.save())).collect()
    }

    /// Takes its file for each.
    ///
    /// # Errors
    /// What is missing or does not fit.
    pub fn load(&mut self, take: &mut dyn FnMut(&str) -> Result<Vec<u8>, String>) -> Result<(), String> {
        for (name, companion) in &mut self.0 {
            companion.load(&take(&file_name(name))?).map_err(|reason| format!("what `{name}` keeps: {reason}"))?;
        }
        Ok(())
    }
}

fn file_name(term: &str) -> String {
    format!("{term}.safetensors")
}
