//! What nets and terms ask of each other.

use mentor_distill::TermTable;
use mentor_types::Found;

use crate::distill::DistillConfig;
use crate::nets::NetConfig;
use crate::supervised::SupervisedConfig;

/// Reports terms that these nets cannot feed, by their keys in a recipe.
pub fn check_fit<'a>(
    student: &NetConfig,
    teachers: impl Iterator<Item = (&'a str, &'a NetConfig)>,
    _supervised: &SupervisedConfig,
    distill: &DistillConfig,
    found: &mut Found,
) {
    for (name, teacher) in teachers {
        let shares_a_level = student.table().levels.iter().any(|level| teacher.table().levels.contains(level));
        for (term, _) in distill.terms().into_iter().filter(|(_, term)| term.shared().at.is_empty()) {
            if !shares_a_level {
                let message = format!("compares the levels that both nets have, and the teacher `{name}` shares none");
                found.push((format!("distill.{term}"), message));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::distill::ClassKd;
    use crate::nets::NetTable;
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
    fn scores_need_a_common_level() {
        let (fine, coarse) = (net(&[Level::P2, Level::P3]), net(&[Level::P4, Level::P5]));
        let distill = DistillConfig { class_kd: Some(ClassKd::default()), ..DistillConfig::default() };
        assert_eq!(keys(&fine, &coarse, &distill), ["distill.class_kd"]);
        assert_eq!(keys(&fine, &fine, &distill), [""; 0]);
        assert_eq!(keys(&fine, &coarse, &DistillConfig::default()), [""; 0]);
    }
}
