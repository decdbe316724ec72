//! `[ema]` at work: a moving average of the student that is saved with the run.

use burn::module::Module;
use mentor_weights::{Ema, from_safetensors, load_named, named_weights, to_safetensors};

use crate::EmaConfig;
use crate::files::AVERAGE;

/// The moving average of a net, by its config.
#[derive(Debug)]
pub struct Average<N: Module> {
    config: EmaConfig,
    ema: Ema<N>,
}

impl<N: Module> Average<N> {
    /// An average that starts as a copy of `net`.
    #[must_use]
    pub fn of(net: &N, config: EmaConfig) -> Self {
        Self { ema: Ema::of(net, config.buffers.into()), config }
    }

    /// The averaged net.
    #[must_use]
    pub fn net(&self) -> &N {
        self.ema.net()
    }

    /// Moves one step towards `net` after `steps` optimizer steps.
    pub fn update(&mut self, net: &N, steps: u64) {
        self.ema.update(net, self.config.decay_at(steps));
    }

    /// Its file in a checkpoint.
    ///
    /// # Panics
    /// Never: shapes and values of one tensor fit.
    #[must_use]
    pub fn save(&self) -> (String, Vec<u8>) {
        let bytes = to_safetensors(&named_weights(self.net())).expect("shapes and values of one tensor fit");
        (AVERAGE.to_owned(), bytes)
    }

    /// Goes on, bit for bit, from where [`save`](Self::save) was called.
    ///
    /// # Errors
    /// What `take` says of the file, and bytes that are damaged or belong to another net.
    pub fn load(&mut self, take: &mut dyn FnMut(&str) -> Result<Vec<u8>, String>) -> Result<(), String> {
        let fail = |error: mentor_weights::NamedError| format!("{AVERAGE}: {error}");
        let tensors = from_safetensors(&take(AVERAGE)?).map_err(fail)?;
        self.ema.resume(|net| load_named(net, tensors)).map_err(fail)
    }
}
