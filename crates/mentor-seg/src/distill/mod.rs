//! Structured distillation: terms that pull a student's outputs and features towards a teacher's.
//!
//! A new term is one file here, see [`mentor_distill::Term`], and one line in the list below.

use mentor_distill::terms;

use crate::task::Seg;

#[cfg(test)]
pub(crate) mod checks;

pub use pixel_wise::Form;

terms! {
    /// `[distill]`: the terms of distillation that are on, each a table of its own.
    #[derive(Default)]
    DistillConfig of Seg {
        ;
        pixel_wise::PixelWise,
        pair_wise::PairWise,
        cwd::Cwd,
        holistic::Holistic,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use mentor_distill::{Column, TermTable, check_terms};
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
        assert_eq!(read(json!({ "pair_wise": {} })).unwrap().pair_wise.unwrap(), PairWise::default());
    }

    #[test]
    fn a_key_that_does_not_exist_is_refused() {
        assert!(read(json!({ "pixelwise": {} })).unwrap_err().contains("pair_wise"));
        assert!(read(json!({ "pixel_wise": { "temprature": 1.0 } })).unwrap_err().contains("temperature"));
        assert!(read(json!({ "pair_wise": { "at": [{ "student": "c9", "teacher": "c5" }] } })).is_err());
    }

    #[test]
    fn a_place_has_a_column_with_both_weights() {
        let config = read(json!({ "pair_wise": { "weight": 2.0, "at": [
            { "student": "c5", "teacher": "c5" },
            { "student": "c4", "teacher": "c5", "weight": 0.5 },
        ] }, "pixel_wise": {} }))
        .unwrap();
        let found: Vec<_> = config
            .terms()
            .into_iter()
            .flat_map(|(name, term)| Column::of(name, &term.shared()))
            .map(|column| (column.name, column.weight))
            .collect();
        let expected = [("pixel_wise", 10.0), ("pair_wise@c5", 2.0), ("pair_wise@c4-c5", 1.0)];
        assert_eq!(found, expected.map(|(name, weight)| (name.to_owned(), weight)));
    }

    #[test]
    fn every_mistake_is_reported_with_its_key() {
        let mut problems = Vec::new();
        let config = read(json!({
            "pixel_wise": { "weight": -1.0, "temperature": 0.0, "on": [] },
            "pair_wise": { "pool": 1.5, "at": [
                { "student": "c5", "teacher": "c5" },
                { "student": "c5", "teacher": "c5", "weight": -2.0 },
            ], "on": ["labelled", "labelled"] },
            "holistic": { "rival": { "lr": 0.0, "channels": 0, "betas": [1.0, 0.9] } },
        }))
        .unwrap();
        check_terms(&config, &mut problems);
        let keys: Vec<_> = problems.iter().map(|(key, _)| key.as_str()).collect();
        let expected = [
            "pixel_wise.weight",
            "pixel_wise.on",
            "pixel_wise.temperature",
            "pair_wise.on",
            "pair_wise.at[1].weight",
            "pair_wise.at[1]",
            "pair_wise.pool",
            "holistic.rival.lr",
            "holistic.rival.betas",
            "holistic.rival.channels",
        ];
        assert_eq!(keys, expected, "{problems:?}");
    }

    #[test]
    fn a_schema_names_every_term() {
        let schema = serde_json::to_string(&schemars::schema_for!(DistillConfig)).unwrap();
        for (name, _) in DistillConfig::all().terms() {
            assert!(schema.contains(name));
        }
    }
}
