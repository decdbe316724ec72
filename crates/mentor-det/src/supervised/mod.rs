//! The supervised loss: what the labels say, as a sum of parts.

#[cfg(test)]
mod checks;

use mentor_distill::{TermTable, check_terms, evaluate, terms};
use mentor_types::{Found, LossTerms, check_weight};

use crate::context::Context;
use crate::task::Det;

terms! {
    /// `[supervised]`: which losses compare the student with the labels. Without this table they are those of FCOS, all three
    /// of them; with it, the parts that it names.
    SupervisedConfig of Det {
        /// Factor of all parts (default 1); 0 trains without labels.
        #[serde(default = "one")]
        weight: f64,
        ;
        focal::Focal,
        giou::Giou,
        centerness::Centerness,
    }
}

fn one() -> f64 {
    1.0
}

impl Default for SupervisedConfig {
    fn default() -> Self {
        Self {
            weight: one(),
            focal: Some(Focal::default()),
            giou: Some(Giou::default()),
            centerness: Some(Centerness::default()),
        }
    }
}

impl SupervisedConfig {
    /// Reports every value out of range.
    pub fn check(&self, found: &mut Found) {
        check_weight("weight", self.weight, found);
        if self.weight > 0.0 && self.terms().is_empty() {
            let message = "names no loss: add `focal = {}`, `giou = {}` and `centerness = {}`, or set weight = 0";
            found.push((String::new(), message.to_owned()));
        }
        check_terms(self, found);
    }
}

/// Pushes every part that is on at `step` (counted from 0).
///
/// # Panics
/// If there are no labels.
pub fn supervised(config: &SupervisedConfig, context: &Context<'_>, step: u64, terms: &mut LossTerms) {
    evaluate(&config.terms(), context, step, |column, weight, value| {
        terms.push(column.name.clone(), config.weight * weight, value);
    });
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(text: &str) -> SupervisedConfig {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn no_table_is_fcos_and_a_table_names_its_parts() {
        let names = |config: &SupervisedConfig| config.terms().iter().map(|(name, _)| *name).collect::<Vec<_>>();
        let default = SupervisedConfig::default();
        assert_eq!(names(&default), ["focal", "giou", "centerness"]);
        assert_eq!(read(&serde_json::to_string(&default).unwrap()), default);
        let config = read(r#"{"focal": {"gamma": 1.5}, "giou": {"weight": 2}}"#);
        assert_eq!(names(&config), ["focal", "giou"]);
        assert_eq!(config.focal, Some(Focal { gamma: 1.5, ..Focal::default() }));
        assert!(serde_json::from_str::<SupervisedConfig>(r#"{"cross_entropy": {}}"#).is_err());
    }

    #[test]
    fn values_out_of_range_are_named() {
        let keys = |config: &SupervisedConfig| {
            let mut problems = Vec::new();
            config.check(&mut problems);
            problems.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
        };
        assert!(keys(&SupervisedConfig::default()).is_empty());
        assert_eq!(keys(&read("{}")), [""]);
        assert!(keys(&read(r#"{"weight": 0}"#)).is_empty());
        let wrong = read(r#"{"weight": -1, "focal": {"alpha": 1.5, "gamma": -1}, "giou": {"weight": -1}}"#);
        assert_eq!(keys(&wrong), ["weight", "focal.alpha", "focal.gamma", "giou.weight"]);
    }
}
