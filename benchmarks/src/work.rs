//! What is measured: a piece of work that both sides do, and its inputs.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use burn::tensor::{DType, Device, Tensor, TensorData};
use mentor_types::Key;
use mentor_weights::NamedTensors;
use rand::RngExt;
use serde_json::Value;

/// The sizes of a run: on the CPU, quick, or on a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Images in a batch.
    pub batch: usize,
    /// Height and width of an image.
    pub image: [usize; 2],
    /// Whether only the smallest of everything is wanted.
    pub quick: bool,
    /// The type that nets compute in.
    pub precision: DType,
}

impl Sizes {
    /// The sizes for a CPU or a GPU.
    pub fn new(cuda: bool, quick: bool, precision: DType) -> Self {
        match (quick, cuda) {
            (true, _) => Self { batch: 2, image: [96, 128], quick, precision },
            (_, true) => Self { batch: 16, image: [512, 512], quick, precision },
            _ => Self { batch: 4, image: [192, 256], quick, precision },
        }
    }

    /// Height and width of a map that is `reduction` times smaller than the image.
    pub fn map(&self, reduction: usize) -> [usize; 2] {
        self.image.map(|side| side / reduction)
    }
}

/// The folder `benchmarks` of the repository: below the current one, on a machine that only got the program
/// and the repository's files, or where this was built.
pub fn folder() -> PathBuf {
    let here = Path::new("benchmarks");
    if here.join("peer/peer.py").is_file() { here.to_owned() } else { PathBuf::from(env!("CARGO_MANIFEST_DIR")) }
}

/// A piece of work of ours, ready to run.
pub trait Work {
    /// What is compared with the peer's. It may run the work several times.
    fn check(&mut self) -> NamedTensors;

    /// Makes ready for one [`run`](Self::run); not measured.
    fn prepare(&mut self) {}

    /// Whether runs follow each other without waiting for the device, as steps of training do.
    fn in_a_row(&self) -> bool {
        false
    }

    /// Does the work once, whatever it allocates and frees included.
    fn run(&mut self);
}

/// A piece of work with the inputs that both sides share.
pub struct Built {
    /// Inputs and weights.
    pub tensors: NamedTensors,
    /// Our side.
    pub work: Box<dyn Work>,
}

/// How far two results may lie apart, as a share of the largest value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tolerance {
    /// Every value.
    Largest(f32),
    /// The mean over all values, where single ones may differ for a good reason.
    Mean(f32),
    /// Every value of training steps: the `losses` in their own measure, all else in that of the logits.
    Steps {
        /// Of what the first forward pass gave.
        logits: f32,
        /// Of the losses, into which the gradients of the steps before went.
        losses: f32,
    },
}

/// One row of the table.
pub struct Case {
    /// `group/what`.
    pub name: String,
    /// What the peer is told.
    pub spec: Value,
    /// For the comparison of results.
    pub tolerance: Tolerance,
    /// Images that one run goes through, where that is what counts.
    pub images: Option<usize>,
    /// Whether memory and time to the first result are of interest.
    pub fresh: bool,
    /// Makes our side on a plain device.
    pub build: Build,
}

/// Makes a piece of work on a device.
pub type Build = Box<dyn Fn(&Device) -> Result<Built>>;

/// Whether a row is asked for: `filter` holds parts of names, separated by commas.
pub fn is_wanted(name: &str, filter: Option<&str>) -> bool {
    filter.is_none_or(|filter| filter.split(',').any(|part| name.contains(part.trim())))
}

/// Milliseconds of one run, the mean of `repeat` runs in a row.
pub fn measure(work: &mut dyn Work, device: &Device, repeat: usize) -> Result<f64> {
    let mut seconds = 0.0;
    let (waits, runs) = if work.in_a_row() { (1, repeat) } else { (repeat, 1) };
    for _ in 0..waits {
        work.prepare();
        device.sync().context("before a run")?;
        let start = Instant::now();
        (0..runs).for_each(|_| work.run());
        device.sync().context("after a run")?;
        seconds += start.elapsed().as_secs_f64();
    }
    Ok(seconds * 1e3 / repeat as f64)
}

/// Says what is wrong with the peer's results.
pub fn difference(ours: &NamedTensors, peer: &NamedTensors, tolerance: Tolerance) -> Option<String> {
    for (name, (shape, values)) in ours {
        let Some((peer_shape, peer_values)) = peer.get(name) else { return Some(format!("PyTorch has no `{name}`")) };
        if shape != peer_shape {
            return Some(format!("`{name}` is {shape:?} here and {peer_shape:?} in PyTorch"));
        }
        let largest = peer_values.iter().fold(f32::MIN_POSITIVE, |most, value| most.max(value.abs()));
        let gap = |(ours, peer): (&f32, &f32)| (ours - peer).abs();
        let pairs = || values.iter().zip(peer_values);
        // NaN is never within a tolerance: the order puts it above all numbers, `max` would pass over it.
        let largest_gap = || pairs().map(gap).max_by(f32::total_cmp).unwrap_or(0.0);
        let (share, mut most) = match tolerance {
            Tolerance::Largest(most) => (largest_gap() / largest, most),
            Tolerance::Steps { losses, .. } if name == "losses" => (largest_gap() / largest, losses),
            Tolerance::Steps { logits, .. } => (largest_gap() / largest, logits),
            Tolerance::Mean(most) => (pairs().map(gap).sum::<f32>() / values.len().max(1) as f32 / largest, most),
        };
        // In bf16 deep nets are far from themselves: the sides may be as far apart as PyTorch is from its own f32.
        if let Some((_, exact)) = peer.get(&format!("{name}_f32")) {
            let own = exact.iter().zip(peer_values).map(gap).max_by(f32::total_cmp).unwrap_or(0.0) / largest;
            most = most.max(own);
        }
        if share > most || share.is_nan() {
            let worst = pairs().max_by(|a, b| gap(*a).total_cmp(&gap(*b)));
            let (ours, peer) = worst.unwrap_or((&f32::NAN, &f32::NAN));
            return Some(format!(
                "`{name}` differs by {share:.1e} of its largest value, at most {most:.0e}; at worst {ours} here and \
                 {peer} in PyTorch"
            ));
        }
    }
    None
}

/// Uniform numbers in [-1, 1) that are a function of the name.
pub fn noise(name: &str, len: usize) -> Vec<f32> {
    let mut rng = Key::new(0).at(name, 0).rng();
    (0..len).map(|_| rng.random::<f32>() * 2.0 - 1.0).collect()
}

/// Values of a map or an image whose planes, and the halves of each, differ in mean and spread. Of mere noise every region
/// looks alike: norms over small batches and cosines of regions would then compare rounding errors.
pub fn uneven(name: &str, shape: [usize; 4]) -> Vec<f32> {
    let half = (shape[2] * shape[3]).div_ceil(2);
    let halves = shape[0] * shape[1] * 2;
    let (means, spreads) = (noise(&format!("{name} means"), halves), noise(&format!("{name} spreads"), halves));
    let mut values = noise(name, shape.iter().product());
    for (plane, values) in values.chunks_mut((shape[2] * shape[3]).max(1)).enumerate() {
        for (side, values) in values.chunks_mut(half).enumerate() {
            let (mean, spread) = (means[2 * plane + side], spreads[2 * plane + side]);
            values.iter_mut().for_each(|value| *value = *value * spread + mean);
        }
    }
    values
}

/// Labels below `classes`, a tenth of them ignored.
pub fn labels(name: &str, len: usize, classes: usize) -> Vec<u8> {
    let mut rng = Key::new(0).at(name, 1).rng();
    let mut label = || rng.random_range(0..classes as u32) as u8;
    (0..len).map(|index| if index % 10 == 9 { mentor_types::IGNORE } else { label() }).collect()
}

/// A tensor of values in row order.
pub fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// A tensor as it goes into a file.
pub fn on_host<const D: usize>(tensor: Tensor<D>) -> (Vec<usize>, Vec<f32>) {
    let data = tensor.into_data();
    (data.shape().to_vec(), data.try_into_vec_as::<f32>().expect("a float tensor reads as f32"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(values: &[f32]) -> NamedTensors {
        [("y".to_owned(), (vec![values.len()], values.to_vec()))].into()
    }

    #[test]
    fn a_filter_is_any_of_several_parts_of_a_name() {
        assert!(is_wanted("op/conv", None));
        assert!(is_wanted("op/conv", Some("conv")));
        assert!(is_wanted("op/conv", Some("step/, op/")));
        assert!(!is_wanted("op/conv", Some("step/,data/")));
    }

    #[test]
    fn results_are_compared_by_their_largest_value() {
        let ours = named(&[100.0, 1.0, 0.0]);
        assert_eq!(difference(&ours, &named(&[100.0, 1.0, 0.009]), Tolerance::Largest(1e-4)), None);
        assert!(difference(&ours, &named(&[100.0, 1.0, 0.02]), Tolerance::Largest(1e-4)).is_some());
        assert_eq!(difference(&ours, &named(&[100.0, 1.0, 0.02]), Tolerance::Mean(1e-4)), None);
        assert!(difference(&ours, &named(&[100.0, 1.0]), Tolerance::Mean(1e-4)).is_some());
        assert!(difference(&ours, &NamedTensors::new(), Tolerance::Mean(1e-4)).is_some());
    }

    #[test]
    fn losses_of_steps_have_a_measure_of_their_own() {
        let steps = Tolerance::Steps { logits: 1e-3, losses: 1e-2 };
        let (ours, peer) = (named(&[1.0, 1.0]), named(&[1.0, 1.005]));
        assert!(difference(&ours, &peer, steps).is_some());
        let losses =
            |tensors: NamedTensors| tensors.into_values().map(|values| ("losses".to_owned(), values)).collect();
        assert_eq!(difference(&losses(ours), &losses(peer), steps), None);
    }

    #[test]
    fn results_in_bf16_may_be_as_far_apart_as_pytorch_is_from_f32() {
        let both = |rounded: f32, exact: f32| -> NamedTensors {
            named(&[1.0, rounded]).into_iter().chain([("y_f32".to_owned(), (vec![2], vec![1.0, exact]))]).collect()
        };
        let ours = named(&[1.0, 0.5]);
        assert_eq!(difference(&ours, &both(0.3, 0.6), Tolerance::Largest(5e-2)), None);
        assert!(difference(&ours, &both(0.3, 0.4), Tolerance::Largest(5e-2)).is_some());
    }

    #[test]
    fn not_a_number_is_wrong() {
        for tolerance in [Tolerance::Largest(1.0), Tolerance::Mean(1.0)] {
            assert!(difference(&named(&[1.0, f32::NAN, 1.0]), &named(&[1.0, 1.0, 1.0]), tolerance).is_some());
            assert!(difference(&named(&[1.0]), &named(&[f32::NAN]), tolerance).is_some());
        }
    }

    #[test]
    fn inputs_are_a_function_of_their_name() {
        assert_eq!(noise("x", 5), noise("x", 9)[..5]);
        assert_ne!(noise("x", 5), noise("y", 5));
        assert!(labels("t", 100, 3).iter().all(|label| *label < 3 || *label == mentor_types::IGNORE));
    }
}
