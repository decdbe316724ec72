//! What nets and terms ask of each other.

use mentor_distill::{Term, TermTable};
use mentor_types::Found;

use crate::distill::DistillConfig;
use crate::nets::NetConfig;
use crate::supervised::SupervisedConfig;
use crate::task::Det;

/// Reports terms that these nets cannot feed, by their keys in a recipe.
pub fn check_fit<'a>(
    student: &NetConfig,
    teachers: impl Iterator<Item = (&'a str, &'a NetConfig)>,
    _supervised: &SupervisedConfig,
    distill: &DistillConfig,
    found: &mut Found,
) {
    for (name, teacher) in teachers {
        check_points([student, teacher], name, distill, found);
        check_ld([student, teacher], name, distill, found);
        check_crosskd([student, teacher], name, distill, found);
        let shares_a_level = student.table().levels.iter().any(|level| teacher.table().levels.contains(level));
        let is_on_shared = |(name, term): &(&str, &dyn Term<Det>)| *name == "crosskd" || term.shared().at.is_empty();
        for (term, _) in distill.terms().into_iter().filter(is_on_shared) {
            if !shares_a_level {
                let message = format!("compares the levels that both nets have, and the teacher `{name}` shares none");
                found.push((format!("distill.{term}"), message));
            }
        }
    }
}

/// Reports terms on what is said at points, for nets whose points lie apart.
fn check_points(nets: [&NetConfig; 2], teacher: &str, distill: &DistillConfig, found: &mut Found) {
    let [own, other] = nets.map(|net| net.table().points);
    if own == other {
        return;
    }
    let compares_points = |(name, term): &(&str, &dyn Term<Det>)| {
        ["crosskd", "regression_imitation"].contains(name) || (term.shared().at.is_empty() && !term.is_on_levels())
    };
    for (term, _) in distill.terms().into_iter().filter(compares_points) {
        let message =
            format!("compares what both nets say at the same points; `points` of the teacher `{teacher}` differs");
        found.push((format!("distill.{term}"), message));
    }
}

/// The heads that say distributions over where the edges of boxes lie.
const WITH_DISTRIBUTIONS: [&str; 1] = ["gfl"];

/// The heads that can be entered in the middle: those that say so in `Head`.
const ENTERED: [&str; 1] = ["fcos"];

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
    } else if !ENTERED.contains(&own) {
        found.push(("distill.crosskd".to_owned(), format!("a head of {own} cannot be entered in the middle")));
    }
    let [own, other] = nets.map(|net| net.table().head_convs);
    if term.convs > own.min(other) {
        let message = format!(
            "must be at most the `head_convs` of both nets: {own} of the student, {other} of the teacher `{teacher}`, found {}",
            term.convs
        );
        found.push(("distill.crosskd.convs".to_owned(), message));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::distill::{ClassKd, CrossKd, Ld};
    use crate::nets::{NetTable, Points};
    use mentor_nets::{BackboneKind, Level};

    fn net(levels: &[Level]) -> NetConfig {
        NetConfig::Fcos(NetTable { levels: levels.to_vec(), ..NetTable::new(BackboneKind::Resnet18) })
    }

    fn keys(student: &NetConfig, teacher: &NetConfig, distill: &DistillConfig) -> Vec<String> {
        let mut found = Found::new();
        check_fit(student, [("big", teacher)].into_iter(), &SupervisedConfig::default(), distill, &mut found);
        found.into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn what_is_said_at_points_needs_the_same_ones_and_features_do_not() {
        let middle = net(&[Level::P3]);
        let mut corner = middle.clone();
        let NetConfig::Fcos(table) = &mut corner;
        table.points = Points::Corner;
        let distill = DistillConfig { ld: None, ..DistillConfig::all() };
        let found = keys(&middle, &corner, &distill);
        for (term, expected) in [("class_kd", true), ("crosskd", true), ("regression_imitation", true), ("pkd", false)]
        {
            assert_eq!(found.contains(&format!("distill.{term}")), expected, "{term}: {found:?}");
        }
        assert_eq!(keys(&middle, &middle, &distill), [""; 0]);
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
}
