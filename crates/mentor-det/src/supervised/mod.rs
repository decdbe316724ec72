//! The supervised loss: what the labels say, as a sum of parts.

#[cfg(test)]
mod checks;
mod positives;
#[cfg(test)]
mod second_checks;

use mentor_distill::{Term, TermTable, check_terms, evaluate, terms};
use mentor_types::{Found, LossTerms, below, check_weight};

use crate::assign::AssignConfig;
use crate::context::Context;
use crate::nets::DetNet;
use crate::regions::RegionSampling;
use crate::task::Det;

pub use positives::PlaceWeight;

terms! {
    /// `[supervised]`: which losses compare the student with the labels. Where it names no part they are those of the
    /// student's head: `focal`, `giou` and `centerness` of `fcos`; `focal` and `smooth_l1` of `retinanet`; `quality_focal`, `giou`
    /// (weight 2, places by `quality`) and `distribution_focal` of `gfl`; `rpn_objectness`, `rpn_boxes`, `region_classes` and
    /// `region_boxes` of `faster_rcnn`.
    SupervisedConfig of Det {
        /// Factor of all parts (default 1); 0 trains without labels.
        #[serde(default = "one")]
        weight: f64,
        /// Which places answer for which objects. Default: as the student's head was published.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        assign: Option<AssignConfig>,
        /// Of `faster_rcnn`: which anchors and regions are learnt from. Default: as published.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        regions: Option<RegionSampling>,
        ;
        focal::Focal,
        quality_focal::QualityFocal,
        smooth_l1::SmoothL1,
        giou::Giou,
        diou::Diou,
        ciou::Ciou,
        distribution_focal::DistributionFocal,
        centerness::Centerness,
        rpn_objectness::RpnObjectness,
        rpn_boxes::RpnBoxes,
        region_classes::RegionClasses,
        region_boxes::RegionBoxes,
    }
}

fn one() -> f64 {
    1.0
}

impl Default for SupervisedConfig {
    fn default() -> Self {
        Self {
            weight: one(),
            assign: None,
            regions: None,
            focal: None,
            quality_focal: None,
            smooth_l1: None,
            giou: None,
            diou: None,
            ciou: None,
            distribution_focal: None,
            centerness: None,
            rpn_objectness: None,
            rpn_boxes: None,
            region_classes: None,
            region_boxes: None,
        }
    }
}

/// The parts that are about classes alone.
const OF_CLASSES: [&str; 4] = ["focal", "quality_focal", "rpn_objectness", "region_classes"];

/// The parts of a student with two stages.
pub(crate) const OF_TWO_STAGES: [&str; 4] = ["rpn_objectness", "rpn_boxes", "region_classes", "region_boxes"];

impl SupervisedConfig {
    /// With the parts of the head of `net` where it names none.
    #[must_use]
    pub fn of_net(self, net: &DetNet) -> Self {
        if !self.terms().is_empty() {
            return self;
        }
        match net {
            DetNet::FasterRcnn(_) => Self {
                rpn_objectness: Some(RpnObjectness::default()),
                rpn_boxes: Some(RpnBoxes::default()),
                region_classes: Some(RegionClasses::default()),
                region_boxes: Some(RegionBoxes::default()),
                ..self
            },
            DetNet::Fcos(_) => Self {
                focal: Some(Focal::default()),
                giou: Some(Giou::default()),
                centerness: Some(Centerness::default()),
                ..self
            },
            DetNet::Gfl(_) => Self {
                quality_focal: Some(QualityFocal::default()),
                giou: Some(Giou { weight: 2.0, place_weight: PlaceWeight::Quality, ..Giou::default() }),
                distribution_focal: Some(DistributionFocal::default()),
                ..self
            },
            DetNet::Retinanet(_) => {
                Self { focal: Some(Focal::default()), smooth_l1: Some(SmoothL1::default()), ..self }
            }
        }
    }

    /// The parts that are about classes alone.
    #[must_use]
    pub fn of_classes(&self) -> Vec<(&'static str, &dyn Term<Det>)> {
        let of_classes = |(name, _): &(&str, _)| OF_CLASSES.contains(name);
        self.terms().into_iter().filter(of_classes).collect()
    }

    /// Reports every value out of range.
    pub fn check(&self, found: &mut Found) {
        check_weight("weight", self.weight, found);
        below("regions", found, |found| self.regions.iter().for_each(|sampling| sampling.check(found)));
        below("assign", found, |found| self.assign.iter().for_each(|config| config.check(found)));
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
    use crate::assign::FcosAssign;
    use crate::nets::{NetConfig, NetTable};
    use burn::tensor::Device;
    use mentor_nets::BackboneKind;

    fn read(text: &str) -> SupervisedConfig {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn no_part_is_those_of_the_head_and_a_table_names_its_parts() {
        let names = |config: &SupervisedConfig| config.terms().iter().map(|(name, _)| *name).collect::<Vec<_>>();
        let net = NetConfig::Fcos(NetTable::new(BackboneKind::Resnet18)).build(3, &Device::flex());
        let default = SupervisedConfig::default();
        assert_eq!(read("{}"), default);
        assert_eq!(names(&default), [""; 0]);
        let of_net = read(r#"{"weight": 2, "assign": {"fcos": {"radius": 1}}}"#).of_net(&net);
        assert_eq!(names(&of_net), ["focal", "giou", "centerness"]);
        assert_eq!((of_net.weight, &of_net.assign), (2.0, &Some(AssignConfig::Fcos(FcosAssign { radius: 1.0 }))));
        assert_eq!(read(&serde_json::to_string(&of_net).unwrap()), of_net);
        let config = read(r#"{"focal": {"gamma": 1.5}, "giou": {"weight": 2}}"#);
        assert_eq!(config.clone().of_net(&net), config);
        assert_eq!(names(&config), ["focal", "giou"]);
        assert_eq!(config.focal, Some(Focal { gamma: 1.5, ..Focal::default() }));
        assert!(serde_json::from_str::<SupervisedConfig>(r#"{"cross_entropy": {}}"#).is_err());
    }

    #[test]
    fn parts_about_classes_are_known() {
        let all = SupervisedConfig::all();
        let names: Vec<&str> = all.of_classes().iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["focal", "quality_focal", "rpn_objectness", "region_classes"]);
    }

    #[test]
    fn values_out_of_range_are_named() {
        let keys = |config: &SupervisedConfig| {
            let mut problems = Vec::new();
            config.check(&mut problems);
            problems.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
        };
        assert!(keys(&SupervisedConfig::default()).is_empty());
        assert!(keys(&read(r#"{"weight": 0}"#)).is_empty());
        let wrong = r#"{"weight": -1, "focal": {"alpha": 1.5, "gamma": -1}, "giou": {"weight": -1},
            "assign": {"fcos": {"radius": 0}}}"#;
        assert_eq!(keys(&read(wrong)), ["weight", "assign.fcos.radius", "focal.alpha", "focal.gamma", "giou.weight"]);
    }
}
