//! One step of segmentation, read top to bottom.

use burn::tensor::{DType, Tensor};
use mentor_distill::{Companions, Examples, Stream, Term, TermTable, evaluate};
use mentor_nets::{Frozen, Student};
use mentor_train::{Average, Losses, Method, Moment, take_up};
use mentor_types::{Group, Key, LossTerms, SegOutput, Stats};

use crate::context::Context;
use crate::distill::DistillConfig;
use crate::nets::SegNet;
use crate::supervised::{SupervisedConfig, supervised};
use crate::task::Seg;
use crate::unlabelled::{Labellers, Streams, UnlabelledConfig, unlabelled, weak_logits};
use crate::upload::DeviceBatch;
use crate::views::Views;
use mentor_unlabeled::Teaching;

/// Supervised training, distillation from frozen teachers, and learning from unlabelled images, in
/// any combination.
#[derive(Debug)]
pub struct SegMethod {
    /// `[supervised]`; `None` trains without labels.
    pub supervised: Option<SupervisedConfig>,
    /// `[distill]`.
    pub distill: DistillConfig,
    /// `[unlabelled]`.
    pub unlabelled: UnlabelledConfig,
    /// `[teachers]`, by name.
    pub teachers: Vec<(String, Frozen<SegNet>)>,
    /// `[ema]`: the average of the student.
    pub average: Option<Average<SegNet>>,
    /// What terms keep from step to step.
    pub companions: Companions<Seg>,
    /// The type of numbers that the nets compute in.
    pub precision: DType,
}

impl Method for SegMethod {
    type Model = Student<SegNet>;
    type Batch = DeviceBatch;
    type Carry = Examples<Seg>;

    fn losses(&self, model: &Student<SegNet>, batch: DeviceBatch, moment: Moment) -> Losses<Self::Carry> {
        let (images, targets) = (batch.labelled.images.normalised(), batch.labelled.targets);
        let strong = batch.unlabelled.as_ref().map(|pairs| pairs.strong.normalised());
        let (mut terms, mut stats) = (LossTerms::default(), Stats::default());

        let key = |stream| Some(moment.key.at("dropout", stream));
        let (output, strong_output) = match (self.unlabelled.streams, &strong) {
            (_, None) => (self.see(&model.net, &images, key(0)), None),
            (Streams::Apart, Some(strong)) => {
                let output = self.see(&model.net, &images, key(0));
                (output, Some(self.see(&model.net, strong, key(1))))
            }
            (Streams::Joined, Some(strong)) => {
                let [labelled_n, ..] = images.dims();
                let both = Tensor::cat(vec![images.clone(), strong.clone()], 0);
                let (output, strong_output) = self.see(&model.net, &both, key(0)).split(labelled_n);
                (output, Some(strong_output))
            }
        };

        let key = moment.key;
        let on_labelled = Context::of(&output, key).with(|context| {
            context.target_nhw = Some(&targets);
            context.images_nchw = Some(&images);
        });
        if let Some(config) = &self.supervised {
            supervised(config, &on_labelled, moment.step, &mut terms);
        }
        let mut carry = self.distil(model, Stream::Labelled, &on_labelled, moment.step, &mut terms);
        if let (Some(pairs), Some(strong), Some(strong_output)) = (&batch.unlabelled, &strong, &strong_output) {
            let weak = |teaching: Teaching| self.weak_logits(model, teaching, &pairs.weak.normalised());
            let views = Views::new(&pairs.pixels, &weak);
            let on_unlabelled = Context::of(strong_output, key).with(|context| {
                context.images_nchw = Some(strong);
                context.views = Some(&views);
            });
            carry.extend(self.distil(model, Stream::Unlabelled, &on_unlabelled, moment.step, &mut terms));
            unlabelled(&self.unlabelled, &on_unlabelled, moment.step, &mut terms, &mut stats);
        }
        Losses { terms, stats, carry }
    }

    fn after_step(
        &mut self,
        model: &Student<SegNet>,
        carries: Vec<Self::Carry>,
        moment: Moment,
    ) -> Vec<(String, Tensor<1>)> {
        if let Some(average) = &mut self.average {
            average.update(&model.net, moment.step + 1);
        }
        let losses = self.companions.update(carries.into_iter().flatten().collect(), moment.lr_factor);
        losses.into_iter().map(|(term, loss)| (format!("what `{term}` keeps"), loss)).collect()
    }

    fn group(&self, path: &str, rank: usize) -> Group {
        Student::<SegNet>::group(path, rank)
    }

    fn save(&self) -> Vec<(String, Vec<u8>)> {
        self.average.iter().map(Average::save).chain(self.companions.save()).collect()
    }

    fn load(&mut self, files: Vec<(String, Vec<u8>)>) -> Result<(), String> {
        take_up(files, |take| {
            self.average.iter_mut().try_for_each(|average| average.load(take))?;
            self.companions.load(take)
        })
    }
}

impl SegMethod {
    /// Pushes every distillation term that applies to `stream`, for each teacher; what companions are to
    /// see of it is returned.
    fn distil(
        &self,
        model: &Student<SegNet>,
        stream: Stream,
        seen: &Context<'_>,
        step: u64,
        terms: &mut LossTerms,
    ) -> Examples<Seg> {
        let applies = |(_, term): &(&str, &dyn Term<Seg>)| term.shared().on.contains(&stream);
        let active: Vec<_> = self.distill.terms().into_iter().filter(applies).collect();
        let mut examples = Vec::new();
        if active.is_empty() {
            return examples;
        }
        let images = seen.images_nchw.expect("the step gives the images");
        for (index, (name, teacher)) in self.teachers.iter().enumerate() {
            let taught = self.see(teacher.net(), images, None);
            let context = Context::of(seen.student, seen.key).with(|context| {
                context.teacher = Some(&taught);
                context.target_nhw = seen.target_nhw;
                context.images_nchw = seen.images_nchw;
                context.adapters = &model.adapters[index];
                context.companions = Some(&self.companions);
                context.views = seen.views;
            });
            evaluate(&active, &context, step, |column, weight, value| {
                let teacher = (self.teachers.len() > 1).then_some(name.as_str());
                terms.push(column.logged(teacher, stream), weight / self.teachers.len() as f64, value);
            });
            examples.extend(self.companions.examples(active.iter().map(|(name, _)| *name), &context));
        }
        examples
    }

    /// What a net says of images, at the precision of the run.
    fn see(&self, net: &SegNet, images: &Tensor<4>, key: Option<Key>) -> SegOutput {
        net.forward(images.clone().cast(self.precision), key)
    }

    /// What the labeller of weak views says about them, off the graph.
    fn weak_logits(&self, model: &Student<SegNet>, teaching: Teaching, weak: &Tensor<4>) -> Tensor<4> {
        let average = self.average.as_ref().map(Average::net);
        weak_logits(Labellers { student: &model.net, average, precision: self.precision }, teaching, weak)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::distill::PixelWise;
    use crate::nets::{Head, NetConfig, NetTable};
    use crate::unlabelled::{FixMatch, MeanTeacher};
    use burn::optim::GradientsParams;
    use burn::tensor::Device;
    use mentor_nets::BackboneKind;
    use mentor_train::{EmaConfig, Optimizer, OptimizerConfig, SgdConfig};
    use mentor_types::{Batch, Images, Pairs, Samples, UNKNOWN};
    use mentor_weights::{NamedTensors, named_weights};
    use rand::RngExt;

    const SIZE: usize = 32;

    fn net(seed: u64, device: &Device) -> SegNet {
        let mut table = NetTable::new(BackboneKind::Resnet18);
        (table.width, table.output_stride) = (Some(4), Some(16));
        NetConfig::Fcn(table).init(3, seed, device)
    }

    /// A method with everything switched on, and its model.
    fn everything() -> (SegMethod, Student<SegNet>) {
        let device = Device::flex();
        let student = net(1, &device.clone().autodiff());
        let config = EmaConfig { decay: 0.9, warmup: false, ..EmaConfig::default() };
        let method = SegMethod {
            supervised: Some(SupervisedConfig::default()),
            distill: DistillConfig { pixel_wise: Some(PixelWise::default()), ..DistillConfig::default() },
            unlabelled: UnlabelledConfig {
                streams: Streams::Joined,
                mean_teacher: Some(MeanTeacher::default()),
                fixmatch: Some(FixMatch { threshold: 0.2, ..FixMatch::default() }),
            },
            teachers: vec![("big".to_owned(), Frozen::of(&net(2, &device)))],
            average: Some(Average::of(&student, config)),
            companions: Companions::default(),
            precision: DType::F32,
        };
        (method, Student { net: student, adapters: vec![Vec::new()] })
    }

    fn batch(step: u64) -> DeviceBatch {
        let mut rng = Key::new(step).rng();
        let mut images = || Images {
            n: 2,
            height: SIZE,
            width: SIZE,
            rgb: (0..2 * SIZE * SIZE * 3).map(|_| rng.random()).collect(),
        };
        let pixels = i32::try_from(2 * SIZE * SIZE).unwrap();
        let pairs = Pairs {
            weak: images(),
            strong: images(),
            link: (0..pixels).collect(),
            targets: vec![UNKNOWN; 2 * SIZE * SIZE],
            truth: vec![UNKNOWN; 2 * SIZE * SIZE],
        };
        let labelled = Samples { images: images(), targets: (0..2 * SIZE * SIZE).map(|i| (i % 3) as u8).collect() };
        DeviceBatch::upload(Batch { labelled, unlabelled: Some(pairs) }, &Device::flex())
    }

    fn steps(method: &mut SegMethod, mut model: Student<SegNet>, count: u64) -> Student<SegNet> {
        let config = SgdConfig { lr: 0.05, momentum: 0.9, weight_decay: 1e-4, nesterov: false, head_lr_factor: 1.0 };
        let mut optimizer = Optimizer::new(OptimizerConfig::Sgd(config));
        for step in 0..count {
            let moment = Moment { step, micro: 0, key: Key::new(step), lr_factor: 1.0 };
            let losses = method.losses(&model, batch(step), moment);
            let grads = GradientsParams::from_grads(losses.terms.total().unwrap().backward(), &model);
            model = optimizer.step(model, grads, 1.0, &Student::<SegNet>::group);
            let _ = method.after_step(&model, vec![losses.carry], moment);
        }
        model
    }

    #[test]
    fn every_term_has_a_column() {
        let (method, model) = everything();
        let moment = Moment { step: 0, micro: 0, key: Key::new(0), lr_factor: 1.0 };
        let losses = method.losses(&model, batch(0), moment);
        let names: Vec<&str> = losses.terms.iter().map(|term| term.name.as_str()).collect();
        assert_eq!(names, ["cross_entropy", "pixel_wise", "mean_teacher", "fixmatch"]);
    }

    #[test]
    fn a_teacher_is_unchanged_after_ten_steps() {
        let (mut method, model) = everything();
        let before = named_weights(method.teachers[0].1.net());
        let student = named_weights(&model);
        let model = steps(&mut method, model, 10);
        assert_eq!(named_weights(method.teachers[0].1.net()), before);
        assert_ne!(named_weights(&model), student);
    }

    #[test]
    fn after_one_step_the_average_is_between_old_average_and_student() {
        let (mut method, model) = everything();
        let weights = |method: &SegMethod| named_weights(method.average.as_ref().unwrap().net());
        let before = weights(&method);
        let model = steps(&mut method, model, 1);
        let (after, student): (NamedTensors, NamedTensors) = (weights(&method), named_weights(&model.net));
        assert!(after.keys().any(|name| name.ends_with("running_var")));
        for (name, (_, after)) in &after {
            let (before, student) = (&before[name].1, &student[name].1);
            for ((after, before), student) in after.iter().zip(before).zip(student) {
                assert!((after - (0.9 * before + 0.1 * student)).abs() < 1e-6, "{name}");
            }
        }
    }

    #[test]
    fn saved_state_is_taken_up_and_foreign_state_refused() {
        let (mut method, model) = everything();
        let _ = steps(&mut method, model, 2);
        let saved = method.save();
        let (mut other, _) = everything();
        other.load(saved.clone()).unwrap();
        assert_eq!(other.save(), saved);
        assert!(other.load(Vec::new()).unwrap_err().contains("ema.safetensors is missing"));
        let mut more = saved;
        more.push(("holistic.safetensors".to_owned(), Vec::new()));
        assert!(other.load(more).unwrap_err().contains("holistic.safetensors belongs to nothing"));
    }

    #[test]
    fn bf16_comes_near_f32_and_keeps_weights_and_gradients_in_f32() {
        let moment = Moment { step: 0, micro: 0, key: Key::new(0), lr_factor: 1.0 };
        let [(total, gradient), (half_total, half_gradient)] = [DType::F32, DType::BF16].map(|precision| {
            let (mut method, model) = everything();
            method.precision = precision;
            let total = method.losses(&model, batch(0), moment).terms.total().unwrap();
            assert_eq!(total.dtype(), DType::F32);
            let grads = GradientsParams::from_grads(total.clone().backward(), &model);
            let SegNet::Fcn(net) = &model.net else { panic!("an FCN was built") };
            assert_eq!(net.classifier.last().weight.dtype(), DType::F32);
            let gradient = grads.get::<4>(net.classifier.last().weight.id).unwrap();
            (total.into_scalar::<f32>(), gradient.into_data().try_into_vec::<f32>().unwrap())
        });
        assert!(total != half_total && (total - half_total).abs() < 0.03 * total, "{total} and {half_total}");
        let norm = |values: &[f32]| values.iter().map(|value| value * value).sum::<f32>().sqrt();
        let apart: Vec<f32> = gradient.iter().zip(&half_gradient).map(|(a, b)| a - b).collect();
        assert!(norm(&apart) < 0.1 * norm(&gradient), "{} of {}", norm(&apart), norm(&gradient));
    }
}
