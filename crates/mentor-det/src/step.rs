//! One step of detection, read top to bottom.

use burn::tensor::{DType, Tensor};
use mentor_distill::{Companions, Examples, Stream, Term, TermTable, evaluate};
use mentor_nets::{Frozen, Student};
use mentor_train::{Average, Losses, Method, Moment, take_up};
use mentor_types::{DetOutput, Group, LossTerms, Stats};
use mentor_unlabeled::Teaching;

use crate::assign::AssignConfig;
use crate::context::{Context, Nets, Parts, SecondStage};
use crate::distill::DistillConfig;
use crate::nets::DetNet;
use crate::regions::RegionSampling;
use crate::supervised::{SupervisedConfig, supervised};
use crate::task::Det;
use crate::unlabelled::{Labellers, UnlabelledConfig, unlabelled};
use crate::upload::DeviceBatch;
use crate::views::Views;

/// Supervised training and distillation from frozen teachers, on labelled and on unlabelled images.
#[derive(Debug)]
pub struct DetMethod {
    /// `[supervised]`, with the parts of the student's head where it names none.
    pub supervised: SupervisedConfig,
    /// Which places answer for which objects.
    pub assign: AssignConfig,
    /// Which anchors and regions a student with two stages learns from.
    pub regions: RegionSampling,
    /// `[distill]`.
    pub distill: DistillConfig,
    /// `[unlabelled]`.
    pub unlabelled: UnlabelledConfig,
    /// `[teachers]`, by name.
    pub teachers: Vec<(String, Frozen<DetNet>)>,
    /// `[ema]`: the average of the student.
    pub average: Option<Average<DetNet>>,
    /// `[views]`: the share of an object that a strong view must show.
    pub visible_share: f64,
    /// What terms keep from step to step.
    pub companions: Companions<Det>,
    /// The type of numbers that the nets compute in.
    pub precision: DType,
}

impl Method for DetMethod {
    type Model = Student<DetNet>;
    type Batch = DeviceBatch;
    type Carry = Examples<Det>;

    fn losses(&self, model: &Student<DetNet>, batch: DeviceBatch, moment: Moment) -> Losses<Self::Carry> {
        let images = batch.labelled.images.normalised();
        let strong = batch.unlabelled.as_ref().map(|pairs| pairs.strong.normalised());
        let (mut terms, mut stats) = (LossTerms::default(), Stats::default());

        // One pass over both streams, so that batch norms see both.
        let (output, strong_output) = match &strong {
            None => (self.see(&model.net, &images), None),
            Some(strong) => {
                let both = Tensor::cat(vec![images.clone(), strong.clone()], 0);
                let (output, strong_output) = self.see(&model.net, &both).split(images.dims()[0]);
                (output, Some(strong_output))
            }
        };

        let (all, of_classes) = (self.supervised.terms(), self.supervised.of_classes());
        let second = model.net.two_stages().map(|net| SecondStage { net, sampling: &self.regions });
        let parts = Parts { all: &all, of_classes: &of_classes, assign: &self.assign, second };
        let key = |stream: &str| moment.key.at(stream, 0);
        let (output, labelled) = parts.labelled(&batch.labelled.targets, &output, key("labelled"));
        let parts = Some(parts);
        let on_labelled = Context { parts, key: key("labelled"), ..Context::of(&output, Some(&labelled)) };
        if self.supervised.weight > 0.0 {
            supervised(&self.supervised, &on_labelled, moment.step, &mut terms);
        }
        let mut carry = self.distil(Stream::Labelled, &on_labelled, &images, model, moment.step, &mut terms);
        if let (Some(pairs), Some(strong), Some(strong_output)) = (&batch.unlabelled, &strong, &strong_output) {
            let weak = |teaching: Teaching| self.labels_of(model, teaching, &pairs.weak.normalised());
            let views = Views::new(&pairs.labels, &weak, self.visible_share);
            let on_unlabelled =
                Context { views: Some(&views), parts, key: key("unlabelled"), ..Context::of(strong_output, None) };
            carry.extend(self.distil(Stream::Unlabelled, &on_unlabelled, strong, model, moment.step, &mut terms));
            unlabelled(&self.unlabelled, &on_unlabelled, moment.step, &mut terms, &mut stats);
        }
        Losses { terms, stats, carry }
    }

    fn after_step(
        &mut self,
        model: &Student<DetNet>,
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
        Student::<DetNet>::group(path, rank)
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

impl DetMethod {
    /// Pushes every distillation term that applies to `stream`, for each teacher; what companions are to see of it is returned.
    fn distil(
        &self,
        stream: Stream,
        seen: &Context<'_>,
        images: &Tensor<4>,
        model: &Student<DetNet>,
        step: u64,
        terms: &mut LossTerms,
    ) -> Examples<Det> {
        let applies = |(_, term): &(&str, &dyn Term<Det>)| term.shared().on.contains(&stream);
        let active: Vec<_> = self.distill.terms().into_iter().filter(applies).collect();
        let mut examples = Vec::new();
        if active.is_empty() {
            return examples;
        }
        for ((name, teacher), adapters) in self.teachers.iter().zip(&model.adapters) {
            // What a second stage says is asked for its boxes alone.
            let finds = self.distill.teacher_boxes.as_ref().is_some_and(|term| term.on.contains(&stream));
            let net = teacher.net();
            let images = images.clone().cast(self.precision);
            let taught = if finds { net.forward(images) } else { net.dense(images) };
            let nets = Some(Nets { student: &model.net, teacher });
            let companions = Some(&self.companions);
            let context = Context { teacher: Some(&taught), adapters, nets, companions, ..*seen };
            evaluate(&active, &context, step, |column, weight, value| {
                let teacher = (self.teachers.len() > 1).then_some(name.as_str());
                terms.push(column.logged(teacher, stream), weight / self.teachers.len() as f64, value);
            });
            examples.extend(self.companions.examples(active.iter().map(|(name, _)| *name), &context));
        }
        examples
    }

    /// What a labeller of weak views says of them, off the graph.
    fn labels_of(&self, model: &Student<DetNet>, teaching: Teaching, weak: &Tensor<4>) -> DetOutput {
        let average = self.average.as_ref().map(Average::net);
        Labellers { student: &model.net, average, precision: self.precision }.weak(teaching, weak, DetNet::forward)
    }

    /// What a net says of images, at the precision of the run; of one with two stages the first alone.
    fn see(&self, net: &DetNet, images: &Tensor<4>) -> DetOutput {
        net.dense(images.clone().cast(self.precision))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::assign::{AtssAssign, FcosAssign, MaxIouAssign, SimotaAssign};
    use crate::distill::{ClassKd, CrossKd, Defeat, Ld, TeacherBoxes};
    use crate::nets::{NetConfig, NetTable, TwoStageTable};
    use crate::supervised::PlaceWeight;
    use crate::testing::labelled;
    use crate::unlabelled::UnbiasedTeacher;
    use burn::optim::GradientsParams;
    use burn::tensor::Device;
    use mentor_distill::{Start, columns};
    use mentor_nets::{Adapter, BackboneKind, Level};
    use mentor_train::{EmaConfig, Optimizer, OptimizerConfig, SgdConfig};
    use mentor_types::{Batch, BoxKind, BoxLabels, Geometry, Images, Key, Pairs, Samples, Tap};
    use mentor_weights::named_weights;
    use rand::RngExt;

    const SIZE: usize = 32;

    /// A head, by its table.
    type Head = fn(NetTable) -> NetConfig;

    const HEADS: [Head; 3] = [NetConfig::Fcos, NetConfig::Gfl, NetConfig::Retinanet];

    /// A small net with levels p3 and p4.
    fn net(head: Head, channels: usize, seed: u64, device: &Device) -> DetNet {
        let table = NetTable::new(BackboneKind::Resnet18);
        let (width, head_channels, levels) = (Some(4), Some(channels), vec![Level::P3, Level::P4]);
        head(NetTable { width, head_channels, levels, head_convs: 1, ..table }).init(3, seed, device)
    }

    /// A method with everything switched on for a net of FCOS, and its model.
    fn everything() -> (DetMethod, Student<DetNet>) {
        everything_of(NetConfig::Fcos)
    }

    fn everything_of(head: Head) -> (DetMethod, Student<DetNet>) {
        everything_with(|channels, seed, device| net(head, channels, seed, device))
    }

    /// The same of a net with two stages, but for terms that compare what nets say at places.
    fn everything_in_two_stages() -> (DetMethod, Student<DetNet>) {
        let (mut method, model) = everything_with(|channels, seed, device| {
            let table = TwoStageTable::new(BackboneKind::Resnet18);
            let (width, head_channels, levels) = (Some(4), Some(channels), vec![Level::P3, Level::P4]);
            let table = TwoStageTable { width, head_channels, levels, region_width: Some(16), bins: 3, ..table };
            NetConfig::FasterRcnn(TwoStageTable { candidates: 40, proposals: 30, ..table }).init(3, seed, device)
        });
        method.distill = DistillConfig {
            regression_imitation: None,
            class_kd: None,
            box_kd: None,
            weighted_cross_entropy: None,
            bounded_regression: None,
            crosskd: None,
            ld: None,
            dist: None,
            adaptive: None,
            ..method.distill
        };
        method.regions = RegionSampling { regions: 24, anchors: 32, ..RegionSampling::default() };
        (method, model)
    }

    fn everything_with(build: impl Fn(usize, u64, &Device) -> DetNet) -> (DetMethod, Student<DetNet>) {
        let device = Device::flex();
        let student = build(4, 1, &device.clone().autodiff());
        let distill = DistillConfig {
            teacher_boxes: Some(TeacherBoxes { threshold: 0.1, ..TeacherBoxes::default() }),
            class_kd: Some(ClassKd { on: vec![Stream::Labelled, Stream::Unlabelled], ..ClassKd::default() }),
            // Features of fresh nets are large.
            defeat: Some(Defeat { weight: 1e-3, ..Defeat::default() }),
            // Its head has a single convolution.
            crosskd: Some(CrossKd { convs: 1, ..CrossKd::default() }),
            ld: matches!(student, DetNet::Gfl(_)).then(Ld::default),
            ..DistillConfig::all()
        };
        let specs = distill.terms().into_iter().flat_map(|(name, term)| {
            let columns = columns::<Det>(name, term, &[Tap::P3, Tap::P4]).into_iter();
            let columns = columns.filter(|column| column.place.is_some());
            columns.flat_map(|column| term.adapters(&column, [4, 6])).collect::<Vec<_>>()
        });
        let training = device.clone().autodiff();
        let adapters = specs.map(|spec| Adapter::fresh(&spec, 0, &training)).collect();
        let config = EmaConfig { decay: 0.9, warmup: false, ..EmaConfig::default() };
        let start = Start { classes: 3, teacher_channels: 6, seed: 5, device: &device };
        let method = DetMethod {
            supervised: SupervisedConfig::default().of_net(&student),
            assign: student.assign(),
            regions: RegionSampling::default(),
            companions: Companions::fresh(distill.terms(), &start),
            distill,
            unlabelled: UnlabelledConfig {
                unbiased_teacher: Some(UnbiasedTeacher { threshold: 0.1, ..UnbiasedTeacher::default() }),
                ..UnlabelledConfig::default()
            },
            teachers: vec![("big".to_owned(), Frozen::of(&build(6, 2, &device)))],
            average: Some(Average::of(&student, config)),
            visible_share: 0.25,
            precision: DType::F32,
        };
        (method, Student { net: student, adapters: vec![adapters] })
    }

    fn batch(labels: [BoxLabels; 2]) -> DeviceBatch {
        let mut rng = Key::new(3).rng();
        let mut images = || Images {
            n: 2,
            height: SIZE,
            width: SIZE,
            rgb: (0..2 * SIZE * SIZE * 3).map(|_| rng.random()).collect(),
        };
        let pairs = {
            let unknown = || vec![BoxLabels::unknown(); 2];
            let link = vec![Geometry::IDENTITY; 2];
            Pairs { weak: images(), strong: images(), link, targets: unknown(), truth: unknown() }
        };
        let labelled = Samples { images: images(), targets: labels.to_vec() };
        DeviceBatch::upload(Batch { labelled, unlabelled: Some(pairs) }, &Device::flex())
    }

    fn objects() -> [BoxLabels; 2] {
        let object = |edges| (edges, 1, BoxKind::Object);
        [labelled(&[object([2.0, 3.0, 17.0, 15.0])]), labelled(&[object([-50.0, -60.0, 80.0, 70.0])])]
    }

    fn moment(step: u64) -> Moment {
        Moment { step, micro: 0, key: Key::new(step), lr_factor: 1.0 }
    }

    fn steps(method: &mut DetMethod, mut model: Student<DetNet>, lr: f64, count: u64) -> (Student<DetNet>, Vec<f32>) {
        let config = SgdConfig { lr, momentum: 0.9, weight_decay: 0.0, nesterov: false, head_lr_factor: 1.0 };
        let mut optimizer = Optimizer::new(OptimizerConfig::Sgd(config));
        let mut course = Vec::new();
        for step in 0..count {
            let losses = method.losses(&model, batch(objects()), moment(step));
            let total = losses.terms.total().unwrap();
            course.push(total.clone().into_scalar::<f32>());
            let grads = GradientsParams::from_grads(total.backward(), &model);
            model = optimizer.step(model, grads, 1.0, &Student::<DetNet>::group);
            let _ = method.after_step(&model, vec![losses.carry], moment(step));
        }
        (model, course)
    }

    #[test]
    fn every_term_has_a_column_on_each_of_its_streams() {
        let parts: [&[&str]; 3] = [
            &["focal", "giou", "centerness"],
            &["quality_focal", "giou", "distribution_focal"],
            &["focal", "smooth_l1"],
        ];
        for (head, parts) in HEADS.into_iter().zip(parts) {
            let (method, model) = everything_of(head);
            let losses = method.losses(&model, batch(objects()), moment(0));
            let names: Vec<&str> = losses.terms.iter().map(|term| term.name.as_str()).collect();
            let on = |stream: Stream| {
                let active =
                    method.distill.terms().into_iter().filter(move |(_, term)| term.shared().on.contains(&stream));
                let columns = active.flat_map(|(name, term)| columns::<Det>(name, term, &[Tap::P3, Tap::P4]));
                columns.map(move |column| column.logged(None, stream)).collect::<Vec<_>>()
            };
            let supervised = parts.iter().map(|part| (*part).to_owned()).collect();
            let unlabelled = vec!["unbiased_teacher".to_owned()];
            let expected = [supervised, on(Stream::Labelled), on(Stream::Unlabelled), unlabelled].concat();
            assert_eq!(names, expected);
            assert!(names.contains(&"imitation@p4"));
            assert!(losses.terms.iter().all(|term| term.value.clone().into_scalar::<f32>().is_finite()));
        }
    }

    #[test]
    fn a_batch_without_any_box_is_finite_and_teaches_background() {
        for head in HEADS {
            let (mut method, model) = everything_of(head);
            let DistillConfig { imitation, regression_imitation, .. } = method.distill;
            method.distill = DistillConfig { imitation, regression_imitation, ..DistillConfig::default() };
            method.unlabelled = UnlabelledConfig::default();
            let losses = method.losses(&model, batch([labelled(&[]), labelled(&[])]), moment(0));
            for term in losses.terms.iter() {
                let value = term.value.clone().into_scalar::<f32>();
                let trains = term.name.ends_with("focal") && term.name != "distribution_focal";
                assert!(if trains { value > 0.0 && value.is_finite() } else { value == 0.0 }, "{term:?}");
            }
            let grads = GradientsParams::from_grads(losses.terms.total().unwrap().backward(), &model);
            let scores = match &model.net {
                DetNet::FasterRcnn(_) => panic!("of one stage"),
                DetNet::Fcos(net) => &net.head.classification_head.cls_logits,
                DetNet::Gfl(net) => &net.head.gfl_cls,
                DetNet::Retinanet(net) => &net.head.classification_head.cls_logits,
            };
            let gradient = grads.get::<4>(scores.weight.id).unwrap();
            let gradient = gradient.into_data().try_into_vec_as::<f32>().unwrap();
            assert!(gradient.iter().all(|slope| slope.is_finite()) && gradient.iter().any(|slope| *slope != 0.0));
        }
    }

    #[test]
    fn the_loss_falls_and_a_teacher_is_unchanged() {
        for head in HEADS {
            let (mut method, model) = everything_of(head);
            // What it teaches changes with the average.
            method.unlabelled = UnlabelledConfig::default();
            let before = named_weights(method.teachers[0].1.net());
            let (_, course) = steps(&mut method, model, 0.005, 30);
            assert!(course[29] < 0.8 * course[0], "{course:?}");
            assert_eq!(named_weights(method.teachers[0].1.net()), before);
        }
    }

    #[test]
    fn every_head_learns_with_every_assignment_what_is_on_a_fixed_batch() {
        for head in HEADS {
            for assign in [
                AssignConfig::Atss(AtssAssign::default()),
                AssignConfig::Fcos(FcosAssign::default()),
                AssignConfig::MaxIou(MaxIouAssign::default()),
                AssignConfig::Simota(SimotaAssign::default()),
            ] {
                let (method, model) = everything_of(head);
                let what = format!("{assign:?}");
                let mut alone = DetMethod { distill: DistillConfig::default(), teachers: Vec::new(), assign, ..method };
                alone.unlabelled = UnlabelledConfig::default();
                // Weighed by a quality that grows, a loss may grow while boxes become better.
                let supervised = &mut alone.supervised;
                supervised.giou.iter_mut().for_each(|term| term.place_weight = PlaceWeight::Equal);
                supervised.distribution_focal.iter_mut().for_each(|term| term.place_weight = PlaceWeight::Equal);
                let (_, course) = steps(&mut alone, model, 0.05, 40);
                assert!(course.iter().all(|loss| loss.is_finite()));
                assert!(course[39] < 0.7 * course[0], "{what}: {course:?}");
            }
        }
    }

    #[test]
    fn two_stages_learn_and_are_taught_on_both_streams() {
        let (mut method, model) = everything_in_two_stages();
        let losses = |method: &DetMethod, step| {
            let losses = method.losses(&model, batch(objects()), moment(step));
            let values = losses.terms.iter().map(|term| (term.name.clone(), term.value.clone().into_scalar::<f32>()));
            values.collect::<Vec<_>>()
        };
        let all = losses(&method, 0);
        let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names[..4], ["rpn_objectness", "rpn_boxes", "region_classes", "region_boxes"]);
        for name in ["imitation@p3", "mimic@p4", "teacher_boxes/unlabelled", "unbiased_teacher"] {
            assert!(names.contains(&name), "{name}: {names:?}");
        }
        assert!(all.iter().all(|(_, value)| value.is_finite()), "{all:?}");
        // What is drawn is a function of the key of the step.
        assert_eq!(losses(&method, 0), all);
        assert_ne!(losses(&method, 1)[..4], all[..4]);
        method.unlabelled = UnlabelledConfig::default();
        method.distill = DistillConfig::default();
        let (_, course) = steps(&mut method, model, 0.02, 40);
        assert!(course[39] < 0.7 * course[0], "{course:?}");
    }

    #[test]
    fn two_stages_learn_background_where_there_is_no_box_and_nothing_where_nobody_looked() {
        let (mut method, model) = everything_in_two_stages();
        (method.distill, method.unlabelled) = (DistillConfig::default(), UnlabelledConfig::default());
        for (labels, trains) in [(labelled(&[]), true), (BoxLabels::unknown(), false)] {
            let losses = method.losses(&model, batch([labels.clone(), labels]), moment(0));
            for term in losses.terms.iter() {
                let value = term.value.clone().into_scalar::<f32>();
                let is_of_classes = ["rpn_objectness", "region_classes"].contains(&term.name.as_str());
                assert!(value.is_finite() && (value > 1e-5) == (trains && is_of_classes), "{}: {value}", term.name);
            }
        }
    }

    #[test]
    fn saved_state_is_taken_up_and_foreign_state_refused() {
        let (mut method, model) = everything();
        let fresh = method.save();
        let _ = steps(&mut method, model, 0.05, 2);
        let saved = method.save();
        assert_ne!(saved, fresh);
        let (mut other, _) = everything();
        other.load(saved.clone()).unwrap();
        assert_eq!(other.save(), saved);
        assert!(other.load(Vec::new()).unwrap_err().contains("ema.safetensors is missing"));
        let mut more = saved;
        more.push(("holistic.safetensors".to_owned(), Vec::new()));
        assert!(other.load(more).unwrap_err().contains("holistic.safetensors belongs to nothing"));
    }
}
