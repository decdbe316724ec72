//! `[distill.crosskd]`: what the teacher's head makes of the student's features.

use burn::tensor::activation::sigmoid;
use burn::tensor::{DType, Tensor};
use mentor_distill::{Column, Place, Shared, Stream, Term, kl_divergence, mean_and_deviation, standardised};
use mentor_nets::{Frozen, Level};
use mentor_ops::sum_all;
use mentor_types::{AdapterSpec, BoxCoding, DetLevel, DetOutput, Found, Tap, check_weight};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::conv_adapter;
use crate::context::Context;
use crate::cross_entropy::quality_focal;
use crate::nets::{DetNet, Tower};
use crate::overlap::giou;
use crate::task::Det;

/// Sends the student's features from the middle of its head through the rest of the teacher's, and pulls what comes out towards
/// what the teacher says itself.
///
/// At `cls_tower`: `sum_ic |p_ic - q_ic|^gamma (-q_ic log p_ic - (1 - q_ic) log (1 - p_ic)) / max(sum_i q_i, 1)` over the places `i`
/// and classes `c`; at `reg_tower`: `sum_i q_i (1 - GIoU(b_i, b^T_i)) / max(sum_i q_i, 1)`, or, where boxes are told by
/// distributions, with `KL(e^T_i || e_i)`, averaged over the four edges, in place of one less `GIoU`. `q_ic` and `q_i = max_c q_ic`
/// are the teacher's class probabilities, `b^T` and `e^T` its boxes and distributions. `p`, `b` and `e` are what its head makes of
/// `deviation(t) z(A(s)) + mean(t)` behind convolution number `convs` of the tower: the student's features there, before the
/// activation, moved and scaled channel by channel, over images and places, to mean and deviation of the teacher's. `A` is an
/// adapter where the widths differ.
///
/// # Shapes
/// Features of the levels at which student and teacher have the same places; both have heads of one kind. Where the student's has
/// another number of channels, an adapter, a learnable 1x1 convolution without bias, brings it to the teacher's.
///
/// # Units and ranges
/// Nats at `cls_tower`; at `reg_tower` without unit, in `[0, 2)`, or nats. Not 0 where both sides agree but in features. `gamma` is at
/// least 0.
///
/// # Reduction
/// Sums, divided by the sum over places of the teacher's highest probability, at least 1. A place whose box of the teacher is empty
/// does not count at `reg_tower`. It needs no label, and heeds none.
///
/// # Gradient
/// Reaches the student up to the middle of its head (and its adapter), through the teacher's weights, which get none.
///
/// # Panics
/// If the nets share no level, have other heads, or towers of fewer convolutions, or an adapter is missing.
///
/// # Source
/// Wang et al. 2024, arXiv 2306.11369 (CrossKD; `unchecked`); the official code, jbwang1997/CrossKD. Official defaults: `gamma` 1;
/// for `RetinaNet`, ATSS and GFL 3 convolutions of 4, weight 1 on classes and 1 (GIoU) or 4 (distributions) on boxes; for FCOS
/// 2 convolutions, weight 0.4 on classes and 0.75 on boxes, by `IoU`.
///
/// # Differs
/// The official code divides the parts of most heads by the places that answer for objects, which unlabelled images lack, and
/// takes the deviation of a sample. It has no adapter. The student's towers are computed once more up to the middle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CrossKd {
    /// Factor in the loss, on top of those of the towers. Default 1.
    pub weight: f64,
    /// The towers that features go through, one log column each: `cls_tower`, `reg_tower`. Default: both, with weight 1.
    pub at: Vec<Place>,
    /// Convolutions of the student's towers before its features go on through the teacher's. Default 3.
    pub convs: usize,
    /// How much less a score counts that is near the teacher's; 0 for plain cross-entropy. Default 1.
    pub gamma: f64,
    /// The images it is computed on. Default `["labelled"]`.
    pub on: Vec<Stream>,
    /// Optimizer steps over which the weight grows from 0.0067 of its value to all of it. Default 0.
    pub ramp_steps: u64,
}

impl Default for CrossKd {
    fn default() -> Self {
        let at = [Tap::ClsTower, Tap::RegTower].map(Place::at).to_vec();
        Self { weight: 1.0, at, convs: 3, gamma: 1.0, on: vec![Stream::Labelled], ramp_steps: 0 }
    }
}

impl Term<Det> for CrossKd {
    fn source(&self) -> &'static str {
        "Wang et al. 2024, arXiv 2306.11369"
    }

    fn shared(&self) -> Shared<'_> {
        Shared { weight: self.weight, ramp_steps: self.ramp_steps, on: &self.on, at: &self.at }
    }

    fn adapters(&self, column: &Column, channels: [usize; 2]) -> Vec<AdapterSpec> {
        conv_adapter(column, channels, 1)
    }

    fn value(&self, context: &Context<'_>, column: &Column) -> Tensor<1> {
        let levels = context.shared_levels();
        let taught_nkp =
            Tensor::cat(levels.iter().map(|(_, level)| level.class_logits.clone().cast(DType::F32)).collect(), 2);
        let q_nkp = sigmoid(taught_nkp.inner());
        let sure_n1p = q_nkp.clone().max_dim(1);
        let total = sum_all(sure_n1p.clone()).clamp_min(1.0);
        let each: Vec<Crossed> = levels.into_iter().map(|(_, level)| self.crossed(context, column, level)).collect();
        let value = match column.place().student {
            Tap::ClsTower => {
                let logits = each.iter().map(|crossed| crossed.through(|net, x| net.classes_onward(self.convs, x)));
                sum_all(quality_focal(Tensor::cat(logits.collect(), 2), q_nkp, self.gamma))
            }
            _ => {
                let apart = each.iter().map(|crossed| crossed.boxes_apart(self.convs));
                sum_all(Tensor::cat(apart.collect(), 2) * sure_n1p)
            }
        };
        value / total
    }

    fn check(&self, found: &mut Found) {
        if self.at.is_empty() {
            found.push(("at".to_owned(), "must name at least one place".to_owned()));
        }
        for (index, place) in self.at.iter().enumerate() {
            if tower(place.student).is_none() || place.student != place.teacher {
                let message = format!(
                    "must be `cls_tower` or `reg_tower` of both nets, found {} and {}",
                    place.student, place.teacher
                );
                found.push((format!("at[{index}]"), message));
            }
        }
        check_weight("gamma", self.gamma, found);
    }
}

/// The tower that ends at a tap.
fn tower(tap: Tap) -> Option<Tower> {
    match tap {
        Tap::ClsTower => Some(Tower::Classes),
        Tap::RegTower => Some(Tower::Boxes),
        _ => None,
    }
}

/// The student's features at a level, ready for the rest of the teacher's tower.
struct Crossed<'a> {
    teacher: &'a Frozen<DetNet>,
    /// What the teacher says at the level.
    taught: &'a DetLevel,
    aligned_nchw: Tensor<4>,
}

impl CrossKd {
    fn crossed<'a>(&self, context: &Context<'a>, column: &Column, taught: &'a DetLevel) -> Crossed<'a> {
        let nets = context.nets.expect("a term of [distill] is evaluated with its nets");
        let tower = tower(column.place().student).expect("a place that was checked");
        let level = Level::ALL.into_iter().find(|level| level.stride() == taught.layout.stride).expect("a level");
        let features = |output: &DetOutput| output.taps.get(level.tap()).expect("the features of a level").clone();
        let of_teacher_nchw = features(context.taught()).inner();
        let dtype = of_teacher_nchw.dtype();
        let teacher_nchw = nets.teacher.net().partway(tower, self.convs, of_teacher_nchw).cast(DType::F32);
        let student_nchw = nets.student.partway(tower, self.convs, features(context.student)).cast(DType::F32);
        let same_width = student_nchw.dims()[1] == teacher_nchw.dims()[1];
        let student_nchw = if same_width { student_nchw } else { context.adapted(&column.name, student_nchw) };
        let [mean_1c11, deviation_1c11] = mean_and_deviation(teacher_nchw);
        let aligned_nchw = (standardised(student_nchw) * deviation_1c11 + mean_1c11).cast(dtype);
        Crossed { teacher: nets.teacher, taught, aligned_nchw }
    }
}

impl Crossed<'_> {
    fn through<const E: usize>(&self, rest: impl FnOnce(&DetNet, Tensor<4>) -> Tensor<E>) -> Tensor<E> {
        self.teacher.through(self.aligned_nchw.clone(), rest)
    }

    /// How far the boxes are from the teacher's, `[n, 1, p]`.
    fn boxes_apart(&self, convs: usize) -> Tensor<3> {
        let layout = &self.taught.layout;
        if let BoxCoding::Distribution(taught) = &self.taught.coding {
            let told = self.through(|net, x| match net.boxes_onward(convs, layout, x).1 {
                BoxCoding::Distribution(logits) => logits,
                BoxCoding::Distances | BoxCoding::Deltas(_) => panic!("a net tells all its boxes in one way"),
            });
            return kl_divergence(told, taught.clone().cast(DType::F32), 2, 1.0).mean_dim(1).squeeze_dim::<3>(2);
        }
        let told_n4p = self.through(|net, x| net.boxes_onward(convs, layout, x).0);
        let taught_n4p = self.taught.distances.clone().cast(DType::F32).inner();
        let side = |edge: usize| taught_n4p.clone().narrow(1, edge, 1) + taught_n4p.clone().narrow(1, edge + 2, 1);
        let is_box_n1p = (side(0) * side(1)).greater_scalar(0.0).float();
        giou(told_n4p, taught_n4p).neg().add_scalar(1.0) * is_box_n1p
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::context::Nets;
    use crate::distill::checks::golden;
    use crate::nets::{NetConfig, NetTable};
    use crate::testing::{close, map, output, values};
    use burn::module::Module;
    use burn::tensor::Device;
    use mentor_nets::{Adapter, BackboneKind};
    use mentor_weights::{NamedTensors, load_named, named_weights};

    fn net(channels: usize, seed: u64) -> DetNet {
        net_of(NetConfig::Fcos, channels, seed)
    }

    fn net_of(head: fn(NetTable) -> NetConfig, channels: usize, seed: u64) -> DetNet {
        let table = NetTable::new(BackboneKind::Resnet18);
        let (width, head_channels, levels) = (Some(4), Some(channels), vec![Level::P3, Level::P4]);
        let table = NetTable { width, head_channels, levels, head_convs: 2, ..table };
        head(table).init(3, seed, &Device::flex().autodiff())
    }

    fn term(convs: usize) -> CrossKd {
        CrossKd { convs, ..CrossKd::default() }
    }

    fn images() -> Tensor<4> {
        map([2, 3, 32, 32], |i| ((i * 37) % 101) as f32 / 50.0 - 1.0)
    }

    /// The value at each tower, on the graph of the student.
    fn value(term: &CrossKd, student: &DetNet, teacher: &Frozen<DetNet>, adapters: &[Adapter]) -> [Tensor<1>; 2] {
        let (output, taught) = (student.forward(images()), teacher.net().forward(images()));
        let nets = Some(Nets { student, teacher });
        let context = Context { teacher: Some(&taught), nets, adapters, ..Context::of(&output, None) };
        let columns = Column::of("crosskd", &term.shared());
        [0, 1].map(|index| term.value(&context, &columns[index]))
    }

    /// A net whose head has the weights that the golden file has for a side.
    fn of_golden(golden: &NamedTensors, side: &str) -> DetNet {
        let table =
            NetTable { width: Some(4), head_channels: Some(4), head_convs: 2, ..NetTable::new(BackboneKind::Resnet18) };
        let table = NetTable { levels: vec![Level::P3], ..table };
        let net = NetConfig::Fcos(table).init(3, 0, &Device::flex().autodiff());
        let mut weights = named_weights(&net);
        let mut taken = 0;
        for (path, tensor) in &mut weights {
            // Variants of enums are no part of the names there.
            let parts = path.split('.').filter(|part| !part.starts_with(char::is_uppercase));
            let name = format!("crosskd.{side}.{}", parts.collect::<Vec<_>>().join("."));
            if let Some(own) = golden.get(&name) {
                *tensor = own.clone();
                taken += 1;
            }
        }
        assert_eq!(taken, 20);
        load_named(net, weights).unwrap()
    }

    /// The values at both towers of heads of the golden file, for a student of these features.
    fn of_heads(golden: &NamedTensors, nets: Nets<'_>, features_nchw: &Tensor<4>) -> [Tensor<1>; 2] {
        let side = |features_nchw: Tensor<4>| {
            let [n, _, height, width] = features_nchw.dims();
            let mut output = output(&[(8, [height, width])], n, 3, |_| 0.0);
            output.taps.insert(Tap::P3, features_nchw);
            output
        };
        let teacher = nets.teacher.net();
        let of_teacher = features(golden, "teacher");
        let (output, mut taught) = (side(features_nchw.clone()), side(of_teacher.clone()));
        let [cls, reg] = [Tower::Classes, Tower::Boxes].map(|tower| teacher.partway(tower, 0, of_teacher.clone()));
        let level = &mut taught.levels[0];
        level.class_logits = teacher.classes_onward(0, cls);
        level.distances = teacher.boxes_onward(0, &level.layout, reg).0;
        let context = Context { teacher: Some(&taught), nets: Some(nets), ..Context::of(&output, None) };
        let columns = Column::of("crosskd", &term(1).shared());
        [0, 1].map(|index| term(1).value(&context, &columns[index]))
    }

    fn features(golden: &NamedTensors, side: &str) -> Tensor<4> {
        let (shape, values) = &golden[&format!("{side}.features")];
        map(shape.as_slice().try_into().unwrap(), |i| values[i])
    }

    #[test]
    fn it_agrees_with_pytorch() {
        let golden = golden();
        let (student, teacher) = (of_golden(&golden, "student"), Frozen::of(&of_golden(&golden, "teacher")));
        let leaf = Tensor::from_inner(features(&golden, "student")).require_grad();
        let found = of_heads(&golden, Nets { student: &student, teacher: &teacher }, &leaf);
        for (value, name) in found.into_iter().zip(["crosskd_classes", "crosskd_boxes"]) {
            close(&values(leaf.grad(&value.backward()).unwrap()), &golden[&format!("{name}.grad")].1, 1e-4);
            close(&values(value), &golden[&format!("{name}.value")].1, 1e-5);
        }
    }

    #[test]
    fn each_tower_alone_halves_on_a_fixed_batch() {
        let golden = golden();
        let (net, teacher) = (of_golden(&golden, "student"), Frozen::of(&of_golden(&golden, "teacher")));
        let nets = Nets { student: &net, teacher: &teacher };
        for (tower, rate) in [(0, 30.0), (1, 10.0)] {
            let (mut student, mut course) = (features(&golden, "student"), Vec::new());
            for _ in 0..100 {
                let leaf = Tensor::from_inner(student.clone()).require_grad();
                let value = of_heads(&golden, nets, &leaf)[tower].clone();
                student = student - leaf.grad(&value.backward()).unwrap().mul_scalar(rate);
                course.push(values(value)[0]);
            }
            assert!(course[99] < course[0] / 2.0, "tower {tower}: {course:?}");
        }
    }

    #[test]
    fn the_middle_of_a_head_and_the_rest_are_the_whole() {
        for head in [NetConfig::Fcos, NetConfig::Gfl, NetConfig::Retinanet] {
            let net = net_of(head, 16, 1).valid();
            let output = net.forward(images());
            let level = &output.levels[0];
            let features = || output.taps.get(Tap::P3).unwrap().clone();
            for convs in 0..=2 {
                let [cls, reg] = [Tower::Classes, Tower::Boxes].map(|tower| net.partway(tower, convs, features()));
                if convs > 0 {
                    assert!(values(cls.clone()).iter().any(|x| *x < 0.0), "before the activation");
                }
                close(&values(net.classes_onward(convs, cls)), &values(level.class_logits.clone()), 1e-5);
                let (distances, _) = net.boxes_onward(convs, &level.layout, reg);
                close(&values(distances), &values(level.distances.clone()), 1e-5);
            }
        }
    }

    #[test]
    fn a_student_that_is_its_teacher_loses_nothing() {
        let student = net(16, 1);
        let frozen = Frozen::of(&student);
        // In evaluation, so that batch norms do as the teacher's.
        for (tower, value) in value(&term(1), &student.valid(), &frozen, &[]).into_iter().enumerate() {
            let value = values(value)[0];
            assert!(value.abs() < 1e-4, "{value} at tower {tower}");
        }
    }

    #[test]
    fn gradients_go_through_the_teacher_to_the_student_up_to_the_middle() {
        let (student, frozen) = (net(8, 1), Frozen::of(&net(16, 2)));
        let before = named_weights(frozen.net());
        let term = term(1);
        let columns = Column::of("crosskd", &term.shared());
        let specs = columns.iter().flat_map(|column| term.adapters(column, [8, 16]));
        let adapters: Vec<_> = specs.map(|spec| Adapter::fresh(&spec, 0, &Device::flex().autodiff())).collect();
        assert_eq!(adapters.iter().map(Adapter::name).collect::<Vec<_>>(), ["crosskd@cls_tower", "crosskd@reg_tower"]);
        let [classes, boxes] = value(&term, &student, &frozen, &adapters);
        for found in [&classes, &boxes] {
            assert!(values(found.clone())[0] > 0.0);
        }
        let gradients = (classes + boxes).backward();
        let DetNet::Fcos(net) = &student else { panic!("FCOS was built") };
        let crate::nets::TowerLayer::Conv(first) = &net.head.classification_head.conv[0] else { panic!() };
        assert!(values(first.weight.grad(&gradients).unwrap()).iter().any(|slope| *slope != 0.0));
        assert!(net.head.classification_head.cls_logits.weight.grad(&gradients).is_none());
        let DetNet::Fcos(teacher) = frozen.net() else { panic!("FCOS was built") };
        assert!(teacher.head.classification_head.cls_logits.weight.grad(&gradients).is_none());
        assert_eq!(named_weights(frozen.net()), before);
    }

    #[test]
    fn places_other_than_towers_are_reported() {
        let at = vec![Place::at(Tap::P3), Place { teacher: Tap::RegTower, ..Place::at(Tap::ClsTower) }];
        let mut found = Found::new();
        CrossKd { at, gamma: -1.0, ..CrossKd::default() }.check(&mut found);
        CrossKd { at: Vec::new(), ..CrossKd::default() }.check(&mut found);
        let keys: Vec<_> = found.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["at[0]", "at[1]", "gamma", "at"]);
    }
}
