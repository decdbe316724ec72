//! What nets and terms ask of each other.

use mentor_nets::Level;
use mentor_types::Found;

use crate::distill::DistillConfig;
use crate::nets::NetConfig;
use crate::supervised::SupervisedConfig;

/// Reports terms that these nets cannot feed, by their keys in a recipe.
pub fn check_fit<'a>(
    student: &NetConfig,
    teachers: impl Iterator<Item = (&'a str, &'a NetConfig)>,
    supervised: &SupervisedConfig,
    distill: &DistillConfig,
    found: &mut Found,
) {
    check_supervised(student, supervised, found);
    for (name, teacher) in teachers {
        let shares_a_level = student.table().levels.iter().any(|level| same_places(student, teacher, *level));
        if distill.class_kd.is_some() && !shares_a_level {
            let message = format!("compares scores at places that both have, and the teacher `{name}` shares none");
            found.push(("distill.class_kd".to_owned(), message));
        }
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

/// Of parts of the loss that a head says nothing for.
fn check_supervised(student: &NetConfig, supervised: &SupervisedConfig, found: &mut Found) {
    let head = student.name();
    for (part, is_on, fits, lacks) in [
        (
            "centerness",
            supervised.centerness.is_some(),
            matches!(student, NetConfig::Fcos(_)),
            "does not say how central its places are",
        ),
        (
            "smooth_l1",
            supervised.smooth_l1.is_some(),
            matches!(student, NetConfig::Retinanet(_)),
            "does not say how boxes differ from anchors",
        ),
        (
            "distribution_focal",
            supervised.distribution_focal.is_some(),
            matches!(student, NetConfig::Gfl(_)),
            "does not say distributions over distances",
        ),
    ] {
        if is_on && !fits {
            found.push((format!("supervised.{part}"), format!("the student's head, `{head}`, {lacks}")));
        }
    }
}

fn has_both(student: &NetConfig, teacher: &NetConfig, level: Level) -> bool {
    [student, teacher].iter().all(|net| net.table().levels.contains(&level))
}

/// Whether both have the level, with the same points and anchors.
fn same_places(student: &NetConfig, teacher: &NetConfig, level: Level) -> bool {
    has_both(student, teacher, level)
        && student.table().points == teacher.table().points
        && student.anchors(level) == teacher.anchors(level)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::distill::{ClassKd, RegressionImitation};
    use crate::nets::NetTable;
    use crate::supervised::{Centerness, DistributionFocal, SmoothL1};
    use mentor_distill::Place;
    use mentor_nets::BackboneKind;
    use mentor_types::Tap;

    fn net(levels: &[Level]) -> NetConfig {
        NetConfig::Fcos(NetTable { levels: levels.to_vec(), ..NetTable::new(BackboneKind::Resnet18) })
    }

    fn keys(student: &NetConfig, teacher: &NetConfig, distill: &DistillConfig) -> Vec<String> {
        let mut found = Found::new();
        check_fit(student, [("big", teacher)].into_iter(), &SupervisedConfig::default(), distill, &mut found);
        found.into_iter().map(|(key, _)| key).collect()
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
        let table = fcos.table().clone();
        let corner = NetConfig::Fcos(NetTable { points: crate::nets::Points::Corner, ..table.clone() });
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
        let table = net(&[Level::P3]).table().clone();
        for (student, expected) in [
            (NetConfig::Fcos(table.clone()), ["smooth_l1", "distribution_focal"]),
            (NetConfig::Gfl(table.clone()), ["centerness", "smooth_l1"]),
            (NetConfig::Retinanet(table), ["centerness", "distribution_focal"]),
        ] {
            let mut found = Found::new();
            check_fit(&student, std::iter::empty(), &all, &DistillConfig::default(), &mut found);
            let keys: Vec<String> = found.into_iter().map(|(key, _)| key).collect();
            assert_eq!(keys, expected.map(|part| format!("supervised.{part}")));
        }
    }
}
