//! The rival of `holistic`: a discriminator that learns to tell the teacher's segmentations from the
//! student's, and its optimizer.
//!
//! The method updates it after the optimizer's step; the term reads a frozen copy.

use burn::module::{Module, Param};
use burn::tensor::activation::leaky_relu;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor, TensorData};
use mentor_distill::weighted_mean;
use mentor_nets::{Fans, Fresh, Frozen, Init};
use mentor_ops::{conv2d, resize_bilinear, softmax};
use mentor_train::{RivalConfig, RivalNet};
use mentor_types::Key;
use rand::RngExt;

use crate::context::Context;

/// Power iterations on a fresh net, so that the first update already has its constraint.
const FIRST_ITERATIONS: usize = 20;

/// Power iterations after each update. The estimate falls behind while another direction overtakes the
/// one that was largest: in the test below a layer stretches by 1.18 with one, as usual, 1.11 with five,
/// and 1.44 with none, where 1 is meant.
const ITERATIONS: usize = 5;

/// Of an image.
const CHANNELS: usize = 3;

/// Keeps a quotient finite where a norm vanishes.
const TINY: f64 = 1e-12;

/// A convolution whose weight is divided by its largest singular value, as a matrix `[out, in * k * k]`.
#[derive(Module, Debug)]
struct SpectralConv {
    weight: Param<Tensor<4>>,
    bias: Param<Tensor<1>>,
    /// The left singular vector as far as power iteration found it; no gradient trains it.
    singular: Param<Tensor<1>>,
    stride: usize,
}

impl SpectralConv {
    fn new(inputs: usize, outputs: usize, kernel: usize, stride: usize, fresh: &Fresh) -> Self {
        let shape = [outputs, inputs, kernel, kernel];
        let fans = Fans::of_conv(&shape);
        Self {
            weight: fresh.weight(shape, Init::FanIn, fans),
            bias: fresh.weight([outputs], Init::FanIn, fans),
            singular: fresh.constant([outputs], 0.0).set_require_grad(false),
            stride,
        }
    }

    /// The same layer with a random start for power iteration.
    fn started(mut self, key: Key) -> Self {
        let mut rng = key.rng();
        let values: Vec<f32> = (0..self.singular.dims()[0]).map(|_| rng.random_range(-1.0..1.0)).collect();
        self.singular = self.singular.map(|old| {
            let data = TensorData::new(values, old.dims());
            unit(Tensor::<1>::from_data(data, &old.device()).unsqueeze()).reshape(old.dims())
        });
        self.iterated(FIRST_ITERATIONS)
    }

    /// Power iterations from where the layer stands.
    fn iterated(mut self, times: usize) -> Self {
        let matrix = self.matrix().inner();
        let start = self.singular.val().inner().unsqueeze::<2>();
        let left = (0..times).fold(start, |left, _| {
            let right = unit(left.matmul(matrix.clone()));
            unit(right.matmul(matrix.clone().transpose()))
        });
        self.singular = self.singular.map(|old| {
            let left = left.reshape(old.dims());
            if old.is_autodiff() { Tensor::from_inner(left) } else { left }
        });
        self
    }

    fn matrix(&self) -> Tensor<2> {
        self.weight.val().flatten(1, 3)
    }

    /// `left^T W right`; the vectors are constants, as the gradient of a singular value wants them.
    fn largest_singular_value(&self) -> Tensor<2> {
        let matrix = self.matrix();
        let left = self.singular.val().inner().unsqueeze::<2>();
        let right = unit(left.clone().matmul(matrix.clone().inner()));
        (left.matmul(matrix) * right).sum_dim(1)
    }

    fn forward(&self, x_nchw: Tensor<4>) -> Tensor<4> {
        let weight = self.weight.val() / self.largest_singular_value().clamp_min(TINY).reshape([1, 1, 1, 1]);
        let padding = self.weight.dims()[2] / 2;
        let options = ConvOptions::new([self.stride; 2], [padding; 2], [1, 1], 1);
        conv2d(x_nchw, weight, Some(self.bias.val()), options)
    }
}

/// A row vector of length 1.
fn unit(row: Tensor<2>) -> Tensor<2> {
    let length = row.clone().powi_scalar(2).sum_dim(1).sqrt().clamp_min(TINY);
    row / length
}

/// Self-attention over the places of a map, added to the map with a learned factor that starts at 0.
#[derive(Module, Debug)]
struct Attention {
    query: SpectralConv,
    key: SpectralConv,
    value: SpectralConv,
    gamma: Param<Tensor<1>>,
}

impl Attention {
    fn forward(&self, x_nchw: Tensor<4>) -> Tensor<4> {
        let dims = x_nchw.dims();
        let places = |layer: &SpectralConv| -> Tensor<3> { layer.forward(x_nchw.clone()).flatten(2, 3) };
        let attention_nmm = softmax(places(&self.query).swap_dims(1, 2).matmul(places(&self.key)), 2);
        let seen_ncm = places(&self.value).matmul(attention_nmm.swap_dims(1, 2));
        seen_ncm.reshape(dims) * self.gamma.val().reshape([1, 1, 1, 1]) + x_nchw
    }
}

/// Scores segmentations of images: high for the teacher's, low for the student's.
///
/// Three 3x3 convolutions of stride 2 with leaky `ReLU`, self-attention, and a 1x1 convolution to a
/// map of scores whose mean is the score of the image. Every convolution is divided by its largest
/// singular value, and starts as in `PyTorch`. Maps of any size.
#[derive(Module, Debug)]
pub struct Discriminator {
    down: Vec<SpectralConv>,
    attention: Attention,
    score: SpectralConv,
}

impl Discriminator {
    fn new(inputs: usize, channels: usize, fresh: &Fresh) -> Self {
        let widest = 4 * channels;
        let narrow = (widest / 8).max(1);
        let layer = |inputs, outputs, kernel, stride| SpectralConv::new(inputs, outputs, kernel, stride, fresh);
        Self {
            down: vec![
                layer(inputs, channels, 3, 2),
                layer(channels, 2 * channels, 3, 2),
                layer(2 * channels, widest, 3, 2),
            ],
            attention: Attention {
                query: layer(widest, narrow, 1, 1),
                key: layer(widest, narrow, 1, 1),
                value: layer(widest, widest, 1, 1),
                gamma: fresh.constant([1], 0.0),
            },
            score: layer(widest, 1, 1, 1),
        }
    }

    /// The same net with every layer changed by `change`, which also gets the layer's number.
    fn map_layers(self, change: impl Fn(SpectralConv, u64) -> SpectralConv) -> Self {
        let Attention { query, key, value, gamma } = self.attention;
        Self {
            down: self.down.into_iter().zip(0..).map(|(layer, number)| change(layer, number)).collect(),
            attention: Attention { query: change(query, 10), key: change(key, 11), value: change(value, 12), gamma },
            score: change(self.score, 20),
        }
    }

    /// One score per image.
    ///
    /// # Shapes
    /// `logits_nkhw` and `images_n3hw` of one size, `counted_n1hw` with 1 where a pixel counts and 0
    /// elsewhere; `[n]`.
    ///
    /// # Panics
    /// If the sizes or the number of classes do not fit.
    #[must_use]
    pub fn scores(&self, logits_nkhw: Tensor<4>, images_n3hw: Tensor<4>, counted_n1hw: Option<Tensor<4>>) -> Tensor<1> {
        let n = logits_nkhw.dims()[0];
        let seen_nchw = Tensor::cat(vec![softmax(logits_nkhw, 1), images_n3hw], 1);
        let seen_nchw = match counted_n1hw {
            Some(counted_n1hw) => seen_nchw * counted_n1hw,
            None => seen_nchw,
        };
        let features = self.down.iter().fold(seen_nchw, |x, layer| leaky_relu(layer.forward(x), 0.1));
        let scores_n1hw = self.score.forward(self.attention.forward(features));
        let scores_nm: Tensor<2> = scores_n1hw.flatten(1, 3);
        scores_nm.mean_dim(1).reshape([n])
    }
}

/// What the rival sees of one micro-batch, off the graph: the method carries it to the update.
#[derive(Clone, Debug)]
pub struct RivalExample {
    student_nkhw: Tensor<4>,
    teacher_nkhw: Tensor<4>,
    images_n3hw: Tensor<4>,
    counted_n1hw: Option<Tensor<4>>,
}

impl RivalExample {
    /// The logits of both, and the images and labels at the logits' size.
    ///
    /// # Panics
    /// If the context has no images.
    #[must_use]
    pub fn of(context: &Context<'_>) -> Self {
        let student_nkhw = context.student.logits.clone().inner();
        let [_, _, height, width] = student_nkhw.dims();
        let images_nchw = context.images_nchw.expect("the rival sees the images of the batch").clone().inner();
        Self {
            student_nkhw,
            teacher_nkhw: context.teacher_logits(),
            images_n3hw: resize_bilinear(images_nchw, [height, width], false),
            counted_n1hw: context.counted([height, width]),
        }
    }

    /// The mean score of `logits_nkhw` over the images in which any pixel counts.
    pub(crate) fn score(&self, net: &Discriminator, logits_nkhw: Tensor<4>) -> Tensor<1> {
        let scores_n = net.scores(logits_nkhw, self.images_n3hw.clone(), self.counted_n1hw.clone());
        let n = scores_n.dims()[0];
        let counts_n = match &self.counted_n1hw {
            Some(counted_n1hw) => {
                let counted_nm: Tensor<2> = counted_n1hw.clone().flatten(1, 3);
                counted_nm.max_dim(1).reshape([n])
            }
            None => Tensor::ones([n], &self.images_n3hw.device()),
        };
        weighted_mean(scores_n, counts_n)
    }
}

/// A discriminator with its optimizer.
#[derive(Debug)]
pub struct Rival {
    inputs: usize,
    channels: usize,
    device: Device,
    trained: RivalNet<Discriminator>,
    /// The same without gradients of its own, for the student's term.
    frozen: Frozen<Discriminator>,
}

impl Rival {
    /// A rival whose weights are a function of the seed, for `classes` classes and images of three
    /// channels, on a device without autodiff.
    #[must_use]
    pub fn new(config: &RivalConfig, classes: usize, seed: u64, device: &Device) -> Self {
        let (key, inputs) = (Key::new(seed).at("rival", 0), classes + CHANNELS);
        let build = |fresh: &Fresh| Discriminator::new(inputs, config.channels, fresh);
        let net = Fresh::seeded(&device.clone().autodiff(), key.rng().random(), build);
        let net = net.map_layers(|layer, number| layer.started(key.at("layer", number)));
        let frozen = Frozen::of(&net);
        let trained = RivalNet::new(config, net, device);
        Self { inputs, channels: config.channels, device: device.clone(), trained, frozen }
    }

    /// The discriminator as it stands, without gradients of its own, for the student's term.
    #[must_use]
    pub fn frozen(&self) -> &Frozen<Discriminator> {
        &self.frozen
    }

    /// One step of the optimizer on the mean over the micro-batches of `mean D(student) - mean
    /// D(teacher)`, which is returned off the graph; then the power iterations of each layer.
    ///
    /// # Panics
    /// If there is no micro-batch.
    pub fn update(&mut self, examples: &[RivalExample], lr_factor: f64) -> Tensor<1> {
        let loss = |net: &Discriminator| {
            let gap = |example: &RivalExample| {
                example.score(net, example.student_nkhw.clone()) - example.score(net, example.teacher_nkhw.clone())
            };
            let sum = examples.iter().map(gap).reduce(|sum, gap| sum + gap).expect("an update has a micro-batch");
            sum.div_scalar(examples.len() as f64)
        };
        let loss = self.trained.step(lr_factor, loss, |net| net.map_layers(|layer, _| layer.iterated(ITERATIONS)));
        self.frozen = Frozen::of(self.trained.net());
        loss
    }

    /// Everything that training changed, as the bytes of a safetensors file; equal rivals give equal
    /// bytes.
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
        self.trained.load(bytes, Discriminator::new(self.inputs, self.channels, &fresh))?;
        self.frozen = Frozen::of(self.trained.net());
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::distill::checks::{map, values};
    use mentor_weights::named_weights;

    const CONFIG: RivalConfig = RivalConfig { lr: 2e-3, betas: [0.0, 0.9], channels: 4 };
    const CLASSES: usize = 3;

    /// A rival that has learnt for some steps on one batch.
    pub fn trained(example: &RivalExample, steps: usize) -> Rival {
        let mut rival = Rival::new(&CONFIG, CLASSES, 1, &Device::flex());
        for _ in 0..steps {
            rival.update(std::slice::from_ref(example), 1.0);
        }
        rival
    }

    pub fn example() -> RivalExample {
        RivalExample {
            student_nkhw: map([2, CLASSES, 8, 12], |i| ((i * 37) % 11) as f32 / 5.0 - 1.0),
            teacher_nkhw: map([2, CLASSES, 8, 12], |i| if (i / 96) % 3 == (i / 4) % 3 { 6.0 } else { -6.0 }),
            images_n3hw: map([2, 3, 8, 12], |i| ((i * 61) % 23) as f32 / 10.0 - 1.1),
            counted_n1hw: None,
        }
    }

    #[test]
    fn the_constraint_holds_the_largest_singular_value_at_one() {
        // A matrix with the singular values 3 and 2.
        let mut layer = SpectralConv::new(2, 2, 1, 1, &Fresh::on(&Device::flex()));
        layer.weight = Param::from_tensor(map([2, 2, 1, 1], |i| [0.0, 3.0, 2.0, 0.0][i]));
        let layer = layer.started(Key::new(3));
        assert!((values(layer.largest_singular_value())[0] - 3.0).abs() < 1e-4);
        let x = map([1, 2, 1, 1], |i| [5.0, 6.0][i]);
        let y = values(layer.forward(x));
        assert!((y[0] - 6.0).abs() < 1e-3 && (y[1] - 10.0 / 3.0).abs() < 1e-3);
    }

    #[test]
    fn it_learns_to_tell_the_teacher_from_the_student_within_its_constraint() {
        let example = example();
        let mut rival = Rival::new(&CONFIG, CLASSES, 1, &Device::flex());
        let losses: Vec<f32> = (0..60).map(|_| values(rival.update(std::slice::from_ref(&example), 1.0))[0]).collect();
        assert!(losses[59] < losses[0] - 0.05, "{} falls to {} only", losses[0], losses[59]);
        for layer in &rival.trained.net().down {
            let matrix = layer.matrix().inner() / layer.largest_singular_value().inner();
            let gram = matrix.clone().matmul(matrix.transpose());
            let probe = Tensor::<2>::ones([1, gram.dims()[0]], &Device::flex());
            let probe = (0..50).fold(unit(probe), |x, _| unit(x.matmul(gram.clone())));
            // The length of what the Gram matrix makes of its first eigenvector: the square of the
            // layer's true largest singular value.
            let largest = values(probe.matmul(gram).powi_scalar(2).sum_dim(1).sqrt())[0].sqrt();
            assert!(largest < 1.15, "a layer stretches by {largest}");
        }
    }

    #[test]
    fn micro_batches_count_by_their_mean() {
        let example = example();
        let [once, twice] = [1, 2].map(|times| {
            let mut rival = Rival::new(&CONFIG, CLASSES, 1, &Device::flex());
            let losses = values(rival.update(&vec![example.clone(); times], 1.0));
            let again = values(rival.update(&vec![example.clone(); times], 1.0));
            [losses[0], again[0]]
        });
        assert!((0..2).all(|i| (once[i] - twice[i]).abs() < 1e-4), "{once:?} {twice:?}");
    }

    #[test]
    fn a_resumed_rival_goes_on_bit_for_bit() {
        let example = example();
        let saved = trained(&example, 3).save();
        let mut resumed = Rival::new(&CONFIG, CLASSES, 2, &Device::flex());
        resumed.load(&saved).unwrap();
        assert!(resumed.save() == saved);
        for _ in 0..3 {
            resumed.update(std::slice::from_ref(&example), 1.0);
        }
        assert!(resumed.save() == trained(&example, 6).save());
        assert!(resumed.save() != saved);
    }

    #[test]
    fn a_fresh_rival_resumes_and_its_weights_follow_the_seed() {
        let fresh = |seed| Rival::new(&CONFIG, CLASSES, seed, &Device::flex());
        let mut resumed = fresh(2);
        resumed.load(&fresh(1).save()).unwrap();
        assert!(resumed.save() == fresh(1).save());
        assert!(fresh(1).save() != fresh(2).save());
    }

    #[test]
    fn a_rival_starts_as_layers_of_pytorch_do() {
        let weights = named_weights(Rival::new(&CONFIG, CLASSES, 1, &Device::flex()).trained.net());
        let inputs = ((CLASSES + CHANNELS) * 9) as f32;
        for (name, bound) in [("down.0.weight", inputs), ("down.0.bias", inputs), ("score.weight", 16.0)] {
            let bound = 1.0 / bound.sqrt();
            let largest = weights[name].1.iter().fold(0.0, |largest: f32, value| value.abs().max(largest));
            assert!(largest < bound && largest > 0.5 * bound, "{name}: {largest} of {bound}");
        }
        assert_eq!(weights["attention.gamma"].1, [0.0]);
    }

    #[test]
    fn a_rival_of_another_shape_or_damaged_bytes_are_refused() {
        let saved = trained(&example(), 1).save();
        let load = |config: &RivalConfig, classes, bytes: &[u8]| {
            let mut rival = Rival::new(config, classes, 1, &Device::flex());
            let before = rival.save();
            let error = rival.load(bytes).unwrap_err();
            assert!(rival.save() == before);
            error
        };
        let wider = RivalConfig { channels: 8, ..CONFIG };
        for (config, classes) in [(&CONFIG, CLASSES + 1), (&wider, CLASSES)] {
            let error = load(config, classes, &saved);
            assert!(error.contains("has shape") || error.contains("shape"), "{error}");
        }
        assert!(load(&CONFIG, CLASSES, &saved[..saved.len() / 2]).contains("safetensors"));
    }

    #[test]
    fn maps_of_one_pixel_have_a_score() {
        let rival = Rival::new(&CONFIG, CLASSES, 1, &Device::flex());
        let scores = rival.frozen().net().scores(map([2, CLASSES, 1, 1], |_| 1.0), map([2, 3, 1, 1], |_| 0.5), None);
        assert!(values(scores).iter().all(|score| score.is_finite()));
    }
}
