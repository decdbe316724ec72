//! Structured distillation: terms that pull a student's scores, boxes and features towards a teacher's.
//!
//! A new term is one file here, see [`mentor_distill::Term`], and one line in the list below.

use mentor_distill::{Column, Place, terms};
use mentor_types::{AdapterKind, AdapterSpec, Found};

use crate::grid::stride_of;
use crate::task::Det;

#[cfg(test)]
mod checks;
mod places;
mod regions;

terms! {
    /// `[distill]`: the terms of distillation that are on, each a table of its own.
    #[derive(Default)]
    DistillConfig of Det {
        ;
        imitation::Imitation,
        regression_imitation::RegressionImitation,
        class_kd::ClassKd,
        box_kd::BoxKd,
        teacher_boxes::TeacherBoxes,
        pkd::Pkd,
        fgd::Fgd,
        weighted_cross_entropy::WeightedCrossEntropy,
        bounded_regression::BoundedRegression,
        hint::Hint,
        defeat::Defeat,
        crosskd::CrossKd,
        ld::Ld,
        mgd::Mgd,
        cwd::Cwd,
        dist::Dist,
        adaptive::Adaptive,
        mimic::Mimic,
        gan_kd::GanKd,
    }
}

/// The adapter of a column whose sides differ in width: a convolution, from the student's channels to the teacher's.
fn conv_adapter(column: &Column, [student_channels, teacher_channels]: [usize; 2], kernel: usize) -> Vec<AdapterSpec> {
    let kind = AdapterKind::Conv { kernel };
    let spec = || AdapterSpec { name: column.name.clone(), kind, student_channels, teacher_channels };
    (student_channels != teacher_channels).then(spec).into_iter().collect()
}

/// Reports a temperature that softens nothing.
fn check_temperature(temperature: f64, found: &mut Found) {
    if !(temperature.is_finite() && temperature > 0.0) {
        found.push(("temperature".to_owned(), format!("must be above 0, found {temperature}")));
    }
}

/// Reports places that are no levels of the student's pyramid.
fn check_levels(at: &[Place], found: &mut Found) {
    for (index, place) in at.iter().enumerate() {
        if stride_of(place.student).is_none() {
            let message = format!("must be a level of the pyramid, p2 to p7, found {}", place.student);
            found.push((format!("at[{index}].student"), message));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use mentor_distill::{TermTable, check_terms, columns};
    use mentor_types::Tap;
    use serde_json::json;

    fn read(value: serde_json::Value) -> Result<DistillConfig, String> {
        serde_json::from_value(value).map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_have_no_problem_and_survive_a_round_trip() {
        let mut problems = Vec::new();
        let all = DistillConfig::all();
        check_terms(&all, &mut problems);
        assert_eq!(problems, []);
        assert_eq!(read(serde_json::to_value(&all).unwrap()).unwrap(), all);
        assert_eq!(read(json!({})).unwrap().terms().len(), 0);
        assert!(read(json!({ "imitations": {} })).unwrap_err().contains("regression_imitation"));
    }

    #[test]
    fn a_term_on_levels_that_names_none_is_compared_at_all_that_both_nets_have() {
        let config = read(json!({ "imitation": { "at": [] }, "class_kd": {} })).unwrap();
        assert_eq!(config.imitation, Some(Imitation::default()));
        let names = |levels: &[Tap]| {
            let of_term = |(name, term)| columns::<Det>(name, term, levels);
            config.terms().into_iter().flat_map(of_term).map(|column| column.name).collect::<Vec<_>>()
        };
        assert_eq!(names(&[Tap::P3, Tap::P5]), ["imitation@p3", "imitation@p5", "class_kd"]);
        assert_eq!(names(&[]), ["class_kd"]);
    }

    #[test]
    fn every_mistake_is_reported_with_its_key() {
        let mut problems = Vec::new();
        let config = read(json!({
            "imitation": { "weight": -1.0, "threshold": 1.5, "at": [{ "student": "c3", "teacher": "p3" }] },
            "regression_imitation": { "at": [{ "student": "p3", "teacher": "p4" }] },
            "class_kd": { "gamma": -1.0, "on": [] },
        }))
        .unwrap();
        check_terms(&config, &mut problems);
        let keys: Vec<_> = problems.iter().map(|(key, _)| key.as_str()).collect();
        let expected = [
            "imitation.weight",
            "imitation.at[0].student",
            "imitation.threshold",
            "regression_imitation.at[0].teacher",
            "class_kd.on",
            "class_kd.gamma",
        ];
        assert_eq!(keys, expected, "{problems:?}");
    }
}
