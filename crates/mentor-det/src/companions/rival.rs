//! The rival of `gan_kd`: a discriminator that learns to tell the teacher's features from the student's, and its optimizer.
//!
//! The method updates it after the optimizer's step; the term reads a frozen copy.

use burn::module::Module;
use burn::nn::conv::Conv2d;
use burn::tensor::activation::leaky_relu;
use burn::tensor::{Device, Tensor};
use mentor_distill::{Column, Place, Sees, Shared};
use mentor_nets::{ConvSpec, Fresh, Frozen, Init, conv};
use mentor_ops::mean_all;
use mentor_train::{RivalConfig, RivalNet};
use mentor_types::Key;
use rand::RngExt;

use crate::context::Context;
use crate::cross_entropy::binary_cross_entropy;
use crate::task::Det;

/// Scores the features at each place of a level: high for the teacher's, low for the student's.
///
/// Three 3x3 convolutions with leaky `ReLU` and a 1x1 convolution to a score, one set of weights for all levels; each starts as
/// in `PyTorch`. Maps of any size.
#[derive(Module, Debug)]
pub struct LevelDiscriminator {
    layers: Vec<Conv2d>,
    score: Conv2d,
}

impl LevelDiscriminator {
    fn new(inputs: usize, channels: usize, fresh: &Fresh) -> Self {
        let layer = |input, output, kernel| ConvSpec::new(input, output, kernel).bias(Init::FanIn).build(fresh);
        let widths = [inputs, channels, 2 * channels, 4 * channels];
        Self {
            layers: widths.windows(2).map(|pair| layer(pair[0], pair[1], 3)).collect(),
            score: layer(4 * channels, 1, 1),
        }
    }

    /// One score for each place: `[n, c, h, w]` to `[n, 1, h, w]`.
    ///
    /// # Panics
    /// If the channels do not fit.
    #[must_use]
    pub fn scores(&self, features_nchw: Tensor<4>) -> Tensor<4> {
        let features_nchw = self.layers.iter().fold(features_nchw, |x, layer| leaky_relu(conv(layer, x), 0.1));
        conv(&self.score, features_nchw)
    }

    /// How far the scores are from those of the teacher's features (`is_teachers`) or of the student's: the mean cross-entropy
    /// over images and places, one number.
    #[must_use]
    pub(crate) fn surprise(&self, features_nchw: Tensor<4>, is_teachers: bool) -> Tensor<1> {
        let scores = self.scores(features_nchw);
        let told = if is_teachers { scores.ones_like() } else { scores.zeros_like() };
        mean_all(binary_cross_entropy(scores, told))
    }
}

/// What the rival sees of one micro-batch, off the graph: the features of student and teacher at each place that is compared.
#[derive(Clone, Debug)]
pub struct LevelExample(pub(crate) Vec<[Tensor<4>; 2]>);

/// A discriminator with its optimizer.
#[derive(Debug)]
pub struct LevelRival {
    term: &'static str,
    at: Vec<Place>,
    inputs: usize,
    channels: usize,
    device: Device,
    trained: RivalNet<LevelDiscriminator>,
    /// The same without gradients of its own, for the student's term.
    frozen: Frozen<LevelDiscriminator>,
}

impl LevelRival {
    /// A rival of `term`, which compares features of `inputs` channels `at` these places, or at the levels that both nets have;
    /// its weights are a function of the seed. `device` has no autodiff.
    #[must_use]
    pub fn new(
        term: &'static str,
        at: &[Place],
        config: &RivalConfig,
        inputs: usize,
        seed: u64,
        device: &Device,
    ) -> Self {
        let build = |fresh: &Fresh| LevelDiscriminator::new(inputs, config.channels, fresh);
        let net = Fresh::seeded(&device.clone().autodiff(), Key::new(seed).at(term, 0).rng().random(), build);
        let frozen = Frozen::of(&net);
        let trained = RivalNet::new(config, net, device);
        let (at, channels, device) = (at.to_vec(), config.channels, device.clone());
        Self { term, at, inputs, channels, device, trained, frozen }
    }

    /// The discriminator as it stands, without gradients of its own, for the student's term.
    #[must_use]
    pub fn frozen(&self) -> &Frozen<LevelDiscriminator> {
        &self.frozen
    }

    /// What it learns from in a micro-batch.
    ///
    /// # Panics
    /// If a tap or an adapter is missing.
    #[must_use]
    pub fn example(&self, context: &Context<'_>) -> LevelExample {
        let at = if self.at.is_empty() {
            Det::levels(context).into_iter().map(Place::at).collect()
        } else {
            self.at.clone()
        };
        let columns = Column::of(self.term, &Shared { weight: 1.0, ramp_steps: 0, on: &[], at: &at });
        let both = |column: &Column| {
            let (student_nchw, teacher_nchw) = context.features(column.place(), &column.name);
            [student_nchw.inner(), teacher_nchw]
        };
        LevelExample(columns.iter().map(both).collect())
    }

    /// One step of the optimizer on the mean cross-entropy over micro-batches, places that are compared, and the two sides; it is
    /// returned off the graph.
    ///
    /// # Panics
    /// If there is no micro-batch, or nothing is compared in one.
    pub fn update(&mut self, examples: &[LevelExample], lr_factor: f64) -> Tensor<1> {
        let pairs: Vec<&[Tensor<4>; 2]> = examples.iter().flat_map(|example| &example.0).collect();
        let loss = |net: &LevelDiscriminator| {
            let both = |[student, teacher]: &[Tensor<4>; 2]| {
                net.surprise(student.clone(), false) + net.surprise(teacher.clone(), true)
            };
            let sum = pairs.iter().map(|pair| both(pair)).reduce(|sum, one| sum + one);
            sum.expect("an update has a micro-batch").div_scalar(2.0 * pairs.len() as f64)
        };
        let loss = self.trained.step(lr_factor, loss, |net| net);
        self.frozen = Frozen::of(self.trained.net());
        loss
    }

    /// Everything that training changed, as the bytes of a safetensors file; equal rivals give equal bytes.
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        self.trained.save()
    }

    /// Goes on, bit for bit, from where [`save`](Self::save) was called.
    ///
    /// # Errors
    /// If the bytes are damaged or belong to a rival of another shape; this one is unchanged then.
    pub fn load(&mut self, bytes: &[u8]) -> Result<(), String> {
        let fresh = Fresh::on(&self.device.clone().autodiff());
        self.trained.load(bytes, LevelDiscriminator::new(self.inputs, self.channels, &fresh))?;
        self.frozen = Frozen::of(self.trained.net());
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{map, values};

    const CONFIG: RivalConfig = RivalConfig { lr: 2e-3, betas: [0.0, 0.9], channels: 4 };
    const INPUTS: usize = 3;

    pub fn fresh(config: &RivalConfig, seed: u64) -> LevelRival {
        LevelRival::new("gan_kd", &[], config, INPUTS, seed, &Device::flex())
    }

    fn example() -> LevelExample {
        let student = map([2, INPUTS, 4, 6], |i| ((i * 37) % 11) as f32 / 5.0 - 1.0);
        let teacher = map([2, INPUTS, 4, 6], |i| if i / 24 % 3 == 1 { 2.0 } else { -1.0 });
        let coarse = |x: &Tensor<4>| x.clone().narrow(2, 0, 2).narrow(3, 0, 3);
        LevelExample(vec![[coarse(&student), coarse(&teacher)], [student, teacher]])
    }

    /// A rival that has learnt for some steps on one batch.
    pub fn trained(steps: usize) -> LevelRival {
        let mut rival = fresh(&CONFIG, 1);
        for _ in 0..steps {
            rival.update(&[example()], 1.0);
        }
        rival
    }

    #[test]
    fn it_learns_to_tell_the_teacher_from_the_student() {
        let mut rival = fresh(&CONFIG, 1);
        let losses: Vec<f32> = (0..60).map(|_| values(rival.update(&[example()], 1.0))[0]).collect();
        assert!((losses[0] - 2f32.ln()).abs() < 0.2, "a fresh rival guesses: {}", losses[0]);
        assert!(losses[59] < 0.5 * losses[0], "{} falls to {} only", losses[0], losses[59]);
        let mean = |features: Tensor<4>| values(mean_all(rival.frozen().net().scores(features)))[0];
        let [student, teacher] = example().0.swap_remove(1);
        assert!(mean(teacher) > 0.5 && mean(student) < -0.5);
    }

    #[test]
    fn micro_batches_count_by_their_mean() {
        let [once, twice] = [1, 2].map(|times| {
            let mut rival = fresh(&CONFIG, 1);
            [0, 1].map(|_| values(rival.update(&vec![example(); times], 1.0))[0])
        });
        assert!((0..2).all(|i| (once[i] - twice[i]).abs() < 1e-4), "{once:?} {twice:?}");
    }

    #[test]
    fn a_resumed_rival_goes_on_bit_for_bit() {
        let saved = trained(3).save();
        let mut resumed = fresh(&CONFIG, 2);
        resumed.load(&saved).unwrap();
        assert!(resumed.save() == saved);
        for _ in 0..3 {
            resumed.update(&[example()], 1.0);
        }
        assert!(resumed.save() == trained(6).save());
        assert!(resumed.save() != saved);
    }

    #[test]
    fn a_rival_of_another_shape_or_damaged_bytes_are_refused() {
        let saved = trained(1).save();
        let wider = RivalConfig { channels: 8, ..CONFIG };
        for (config, bytes, expected) in
            [(&wider, &saved[..], "shape"), (&CONFIG, &saved[..saved.len() / 2], "safetensors")]
        {
            let mut rival = fresh(config, 1);
            let before = rival.save();
            let error = rival.load(bytes).unwrap_err();
            assert!(error.contains(expected), "{error}");
            assert!(rival.save() == before);
        }
    }
}
