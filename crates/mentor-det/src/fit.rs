//! What nets and terms ask of each other.

use mentor_distill::TermTable;
use mentor_nets::Level;
use mentor_types::Found;

use crate::distill::DistillConfig;
use crate::nets::NetConfig;
use crate::supervised::{OF_TWO_STAGES, SupervisedConfig};
use crate::unlabelled::UnlabelledConfig;

/// Reports terms that these nets cannot feed, by their keys in a recipe.
pub fn check_fit<'a>(
    student: &NetConfig,
    teachers: impl Iterator<Item = (&'a str, &'a NetConfig)>,
    supervised: &SupervisedConfig,
    distill: &DistillConfig,
    unlabelled: &UnlabelledConfig,
    found: &mut Found,
) {
    check_supervised(student, supervised, found);
    check_stages(student, supervised, found);
    let learns_classes = supervised.terms().is_empty() || !supervised.of_classes().is_empty();
    if unlabelled.unbiased_teacher.as_ref().is_some_and(|term| !term.boxes) && !learns_classes {
        let message = "learns what [supervised] says of classes, and that names no part that does";
        found.push(("unlabelled.unbiased_teacher".to_owned(), message.to_owned()));
    }
    if unlabelled.unbiased_teacher.is_some() && unlabelled.stac.is_some() {
        let message = "finds no box where there are labels on file, which `stac` learns: one of the two is enough";
        found.push(("unlabelled.unbiased_teacher".to_owned(), message.to_owned()));
    }
    let teachers: Vec<_> = teachers.collect();
    check_gan_kd(&teachers, distill, found);
    for (name, teacher) in teachers {
        if check_places([student, teacher], name, distill, found) {
            continue;
        }
        check_ld([student, teacher], name, distill, found);
        check_crosskd([student, teacher], name, distill, found);
        check_shared([student, teacher], name, distill, found);
        let places = distill.regression_imitation.iter().flat_map(|term| term.at.iter().enumerate());
        for (index, place) in places {
            let both = Level::ALL.into_iter().find(|level| level.tap() == place.student);
            if let Some(level) = both.filter(|level| has_both(student, teacher, *level))
                && !same_places(student, teacher, level)
            {
                let message = format!("the teacher `{name}` has other anchors or points at {}", place.student);
                found.push((format!("distill.regression_imitation.at[{index}]"), message));
            }
        }
    }
}

/// Reports parts of the loss that are not those of a student with so many stages.
fn check_stages(student: &NetConfig, supervised: &SupervisedConfig, found: &mut Found) {
    let has_two = has_two_stages(student);
    for (part, _) in supervised.terms() {
        if OF_TWO_STAGES.contains(&part) != has_two {
            let message = if has_two {
                format!(
                    "the first stage of the student, `faster_rcnn`, says no classes; its parts are {OF_TWO_STAGES:?}"
                )
            } else {
                format!("the student, `{}`, has no second stage", student.name())
            };
            found.push((format!("supervised.{part}"), message));
        }
    }
    if supervised.regions.is_some() && !has_two {
        let message = format!("has no effect: the student, `{}`, has no second stage", student.name());
        found.push(("supervised.regions".to_owned(), message));
    }
}

fn has_two_stages(net: &NetConfig) -> bool {
    matches!(net, NetConfig::FasterRcnn(_))
}

/// Reports terms that compare what nets say at places, where one of them has two stages; returns whether it has. Terms that
/// compare features must still share a level.
fn check_places(nets: [&NetConfig; 2], name: &str, distill: &DistillConfig, found: &mut Found) -> bool {
    let sides = [("the student".to_owned(), nets[0]), (format!("the teacher `{name}`"), nets[1])];
    let Some((side, _)) = sides.iter().find(|(_, net)| has_two_stages(net)) else { return false };
    let shares = Level::ALL.into_iter().any(|level| has_both(nets[0], nets[1], level));
    for (term, config) in distill.terms() {
        let is_of_features = config.is_on_levels() && term != "regression_imitation";
        let message = if term == "teacher_boxes" || (is_of_features && (shares || !config.shared().at.is_empty())) {
            continue;
        } else if is_of_features {
            format!("compares the levels that both nets have, and the teacher `{name}` shares none")
        } else {
            format!(
                "compares what nets say at places, and the first stage of {side} (faster_rcnn) says no classes there"
            )
        };
        found.push((format!("distill.{term}"), message));
    }
    true
}

/// Reports terms that compare levels, or places, that the nets do not share.
fn check_shared([student, teacher]: [&NetConfig; 2], name: &str, distill: &DistillConfig, found: &mut Found) {
    let any = |shares: fn(&NetConfig, &NetConfig, Level) -> bool| {
        Level::ALL.into_iter().any(|level| shares(student, teacher, level))
    };
    for (term, config) in distill.terms() {
        let is_of_features = config.is_on_levels() && config.reads().is_none_or(|reads| !reads.boxes);
        let (what, is_shared) = match term {
            // Its boxes lie anywhere.
            "teacher_boxes" => continue,
            _ if is_of_features => ("levels", any(has_both)),
            _ => ("places", any(same_places)),
        };
        if !is_shared && (config.shared().at.is_empty() || term == "crosskd") {
            let message = format!("compares the {what} that both nets have, and the teacher `{name}` shares none");
            found.push((format!("distill.{term}"), message));
        }
    }
}

/// Reports teachers whose features one rival cannot judge.
fn check_gan_kd(teachers: &[(&str, &NetConfig)], distill: &DistillConfig, found: &mut Found) {
    let channels = |net: &NetConfig| net.shared().levels.first().and_then(|level| net.tap_channels(level.tap()));
    let Some((first, others)) = teachers.split_first().filter(|_| distill.gan_kd.is_some()) else { return };
    for (name, other) in others.iter().filter(|(_, other)| channels(other) != channels(first.1)) {
        let [own, foreign] = [first.1, *other].map(|net| channels(net).unwrap_or(0));
        let message = format!(
            "has one rival for the features of all teachers: those of `{}` have {own} channels, those of `{name}` {foreign}",
            first.0
        );
        found.push(("distill.gan_kd".to_owned(), message));
    }
}

/// The heads that say distributions over where the edges of boxes lie.
const WITH_DISTRIBUTIONS: [&str; 1] = ["gfl"];

/// Reports nets whose edges have no distributions.
fn check_ld(nets: [&NetConfig; 2], teacher: &str, distill: &DistillConfig, found: &mut Found) {
    let sides = [("the student".to_owned(), nets[0]), (format!("the teacher `{teacher}`"), nets[1])];
    for (side, net) in sides.iter().filter(|(_, net)| !WITH_DISTRIBUTIONS.contains(&net.name())) {
        if distill.ld.is_some() {
            let message = format!("compares distributions over where edges lie, and {side} ({}) has none", net.name());
            found.push(("distill.ld".to_owned(), message));
        }
    }
}

/// Of parts of the loss that a head says nothing for.
fn check_supervised(student: &NetConfig, supervised: &SupervisedConfig, found: &mut Found) {
    let head = student.name();
    for (part, is_on, fits, lacks) in [
        (
            "centerness",
            supervised.centerness.is_some(),
            matches!(student, NetConfig::Fcos(_) | NetConfig::FasterRcnn(_)),
            "does not say how central its places are",
        ),
        (
            "smooth_l1",
            supervised.smooth_l1.is_some(),
            // What two stages lack is said elsewhere.
            matches!(student, NetConfig::Retinanet(_) | NetConfig::FasterRcnn(_)),
            "does not say how boxes differ from anchors",
        ),
        (
            "distribution_focal",
            supervised.distribution_focal.is_some(),
            matches!(student, NetConfig::Gfl(_) | NetConfig::FasterRcnn(_)),
            "does not say distributions over distances",
        ),
    ] {
        if is_on && !fits {
            found.push((format!("supervised.{part}"), format!("the student's head, `{head}`, {lacks}")));
        }
    }
}

/// Reports heads through which the features of a student cannot go on.
fn check_crosskd(nets: [&NetConfig; 2], teacher: &str, distill: &DistillConfig, found: &mut Found) {
    let Some(term) = &distill.crosskd else { return };
    let [own, other] = nets.map(NetConfig::name);
    if own != other {
        let message = format!(
            "sends the student's features through the teacher's head, which must be of one kind: the student's is {own}, that of \
             the teacher `{teacher}` is {other}"
        );
        found.push(("distill.crosskd".to_owned(), message));
    }
    let [own, other] = nets.map(|net| net.head_convs().unwrap_or_default());
    if term.convs > own.min(other) {
        let message = format!(
            "must be at most the `head_convs` of both nets: {own} of the student, {other} of the teacher `{teacher}`, found {}",
            term.convs
        );
        found.push(("distill.crosskd.convs".to_owned(), message));
    }
}

fn has_both(student: &NetConfig, teacher: &NetConfig, level: Level) -> bool {
    [student, teacher].iter().all(|net| net.shared().levels.contains(&level))
}

/// Whether both have the level, with the same points and anchors.
fn same_places(student: &NetConfig, teacher: &NetConfig, level: Level) -> bool {
    has_both(student, teacher, level)
        && student.shared().points == teacher.shared().points
        && student.anchors(level) == teacher.anchors(level)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::distill::{ClassKd, CrossKd, GanKd, Ld, RegressionImitation};
    use crate::nets::{NetTable, Points, TwoStageTable};
    use crate::supervised::{Centerness, DistributionFocal, Giou, SmoothL1};
    use crate::unlabelled::UnbiasedTeacher;
    use mentor_distill::Place;
    use mentor_nets::BackboneKind;
    use mentor_types::Tap;

    fn net(levels: &[Level]) -> NetConfig {
        NetConfig::Fcos(NetTable { levels: levels.to_vec(), ..NetTable::new(BackboneKind::Resnet18) })
    }

    fn keys(student: &NetConfig, teacher: &NetConfig, distill: &DistillConfig) -> Vec<String> {
        let mut found = Found::new();
        let (supervised, unlabelled) = (SupervisedConfig::default(), UnlabelledConfig::default());
        check_fit(student, [("big", teacher)].into_iter(), &supervised, distill, &unlabelled, &mut found);
        found.into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn what_is_said_at_points_needs_the_same_ones_and_features_do_not() {
        let middle = net(&[Level::P3]);
        let mut corner = middle.clone();
        if let NetConfig::Fcos(table) = &mut corner {
            table.points = Points::Corner;
        }
        let distill = DistillConfig { ld: None, ..DistillConfig::all() };
        let found = keys(&middle, &corner, &distill);
        for (term, expected) in [("class_kd", true), ("crosskd", true), ("regression_imitation", true), ("pkd", false)]
        {
            assert_eq!(found.contains(&format!("distill.{term}")), expected, "{term}: {found:?}");
        }
        assert_eq!(keys(&middle, &middle, &distill), [""; 0]);
    }

    #[test]
    fn a_rival_judges_features_of_one_width() {
        let small = net(&[Level::P3]);
        let wide = NetConfig::Fcos(NetTable { head_channels: Some(128), ..small.table().unwrap().clone() });
        let distill = DistillConfig { gan_kd: Some(GanKd::default()), ..DistillConfig::default() };
        let keys = |teachers: [&NetConfig; 2]| {
            let mut found = Found::new();
            let (supervised, unlabelled) = (SupervisedConfig::default(), UnlabelledConfig::default());
            let named = ["a", "b"].into_iter().zip(teachers);
            check_fit(&small, named, &supervised, &distill, &unlabelled, &mut found);
            found.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
        };
        assert_eq!(keys([&small, &wide]), ["distill.gan_kd"]);
        assert_eq!(keys([&wide, &wide]), [""; 0]);
    }

    #[test]
    fn distributions_need_a_head_that_has_them() {
        let fcos = net(&[Level::P3]);
        let distill = DistillConfig { ld: Some(Ld::default()), ..DistillConfig::default() };
        assert_eq!(keys(&fcos, &fcos, &distill), ["distill.ld"; 2]);
    }

    #[test]
    fn features_go_on_behind_a_convolution_that_both_heads_have() {
        let (fine, coarse) = (net(&[Level::P3]), net(&[Level::P5]));
        let distill = |convs| DistillConfig {
            crosskd: Some(CrossKd { convs, ..CrossKd::default() }),
            ..DistillConfig::default()
        };
        assert_eq!(keys(&fine, &fine, &distill(4)), [""; 0]);
        assert_eq!(keys(&fine, &fine, &distill(5)), ["distill.crosskd.convs"]);
        assert_eq!(keys(&fine, &coarse, &distill(3)), ["distill.crosskd"]);
    }

    #[test]
    fn scores_need_a_common_level() {
        let (fine, coarse) = (net(&[Level::P2, Level::P3]), net(&[Level::P4, Level::P5]));
        let distill = DistillConfig { class_kd: Some(ClassKd::default()), ..DistillConfig::default() };
        assert_eq!(keys(&fine, &coarse, &distill), ["distill.class_kd"]);
        assert_eq!(keys(&fine, &fine, &distill), [""; 0]);
        assert_eq!(keys(&fine, &coarse, &DistillConfig::default()), [""; 0]);
    }

    #[test]
    fn scores_and_boxes_need_the_same_anchors_and_points() {
        let fcos = net(&[Level::P3]);
        let table = fcos.table().unwrap().clone();
        let corner = NetConfig::Fcos(NetTable { points: Points::Corner, ..table.clone() });
        let (retinanet, gfl) = (NetConfig::Retinanet(table.clone()), NetConfig::Gfl(table));
        let at = vec![Place::at(Tap::P3)];
        let distill = DistillConfig {
            class_kd: Some(ClassKd::default()),
            regression_imitation: Some(RegressionImitation { at, ..RegressionImitation::default() }),
            ..DistillConfig::default()
        };
        assert_eq!(keys(&fcos, &gfl, &distill), [""; 0]);
        assert_eq!(keys(&retinanet, &retinanet, &distill), [""; 0]);
        for other in [&retinanet, &corner] {
            let expected = ["distill.class_kd", "distill.regression_imitation.at[0]"];
            assert_eq!(keys(&fcos, other, &distill), expected);
        }
    }

    #[test]
    fn parts_of_the_loss_need_a_head_that_says_what_they_compare() {
        let all = SupervisedConfig {
            centerness: Some(Centerness::default()),
            smooth_l1: Some(SmoothL1::default()),
            distribution_focal: Some(DistributionFocal::default()),
            ..SupervisedConfig::default()
        };
        let table = net(&[Level::P3]).table().unwrap().clone();
        for (student, expected) in [
            (NetConfig::Fcos(table.clone()), ["smooth_l1", "distribution_focal"]),
            (NetConfig::Gfl(table.clone()), ["centerness", "smooth_l1"]),
            (NetConfig::Retinanet(table), ["centerness", "distribution_focal"]),
        ] {
            let mut found = Found::new();
            let (distill, unlabelled) = (DistillConfig::default(), UnlabelledConfig::default());
            check_fit(&student, std::iter::empty(), &all, &distill, &unlabelled, &mut found);
            let keys: Vec<String> = found.into_iter().map(|(key, _)| key).collect();
            assert_eq!(keys, expected.map(|part| format!("supervised.{part}")));
        }
    }

    #[test]
    fn two_stages_are_taught_features_and_boxes_and_learn_their_own_parts() {
        let one = net(&[Level::P3]);
        let two = NetConfig::FasterRcnn(TwoStageTable::new(BackboneKind::Resnet18));
        let distill = DistillConfig { ld: None, ..DistillConfig::all() };
        let at_places = [
            "regression_imitation",
            "class_kd",
            "box_kd",
            "weighted_cross_entropy",
            "bounded_regression",
            "crosskd",
            "dist",
            "adaptive",
        ];
        for (student, teacher) in [(&one, &two), (&two, &one), (&two, &two)] {
            assert_eq!(keys(student, teacher, &distill), at_places.map(|term| format!("distill.{term}")));
        }
        // Features need a level that both have.
        let coarse = NetConfig::Fcos(NetTable { levels: vec![Level::P5], ..one.table().unwrap().clone() });
        let fine = NetConfig::FasterRcnn(TwoStageTable {
            levels: vec![Level::P2, Level::P3],
            ..TwoStageTable::new(BackboneKind::Resnet18)
        });
        let pkd = DistillConfig { pkd: Some(crate::distill::Pkd::default()), ..DistillConfig::default() };
        assert_eq!(keys(&fine, &coarse, &pkd), ["distill.pkd"]);
        let supervised = |student: &NetConfig, supervised: &SupervisedConfig| {
            let mut found = Found::new();
            let (distill, unlabelled) = (DistillConfig::default(), UnlabelledConfig::default());
            check_fit(student, std::iter::empty(), supervised, &distill, &unlabelled, &mut found);
            found.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
        };
        let parts = SupervisedConfig {
            focal: Some(crate::supervised::Focal::default()),
            region_boxes: Some(crate::supervised::RegionBoxes::default()),
            regions: Some(crate::RegionSampling::default()),
            ..SupervisedConfig::default()
        };
        assert_eq!(supervised(&two, &parts), ["supervised.focal"]);
        assert_eq!(supervised(&one, &parts), ["supervised.region_boxes", "supervised.regions"]);
    }

    #[test]
    fn pseudo_labels_of_classes_need_a_loss_of_classes() {
        let mut found = Found::new();
        let boxes_alone = SupervisedConfig { giou: Some(Giou::default()), ..SupervisedConfig::default() };
        let unlabelled =
            UnlabelledConfig { unbiased_teacher: Some(UnbiasedTeacher::default()), ..UnlabelledConfig::default() };
        for supervised in [&SupervisedConfig::default(), &boxes_alone] {
            let distill = DistillConfig::default();
            check_fit(&net(&[Level::P3]), std::iter::empty(), supervised, &distill, &unlabelled, &mut found);
        }
        assert_eq!(found.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["unlabelled.unbiased_teacher"]);
    }
}
