//! Semantic segmentation.

use burn::tensor::Device;
use mentor_data::Card;
use mentor_distill::check_terms;
use mentor_seg::distill::DistillConfig;
use mentor_seg::nets::{NetConfig, SegNet};
use mentor_seg::supervised::SupervisedConfig;
use mentor_seg::unlabelled::UnlabelledConfig;
use mentor_seg::{EvalConfig, Seg, SegMethod};
use mentor_types::{Found, Tap, TaskName};

use super::{NetTable, Parts, SupervisedTable, Table, Task};

impl Task for Seg {
    const NAME: TaskName = TaskName::Seg;
    const LABELS: &'static str = "masks";

    type Net = SegNet;
    type NetConfig = NetConfig;
    type Supervised = SupervisedConfig;
    type Distill = DistillConfig;
    type Unlabelled = UnlabelledConfig;
    type Eval = EvalConfig;
    type Method = SegMethod;

    fn is_offered_by(card: &Card) -> bool {
        card.masks.is_some()
    }

    fn tap_channels(net: &SegNet, tap: Tap) -> Option<usize> {
        net.tap_channels(tap)
    }

    fn method(parts: Parts<Self>) -> SegMethod {
        SegMethod {
            supervised: (parts.supervised.weight > 0.0).then_some(parts.supervised),
            distill: parts.distill,
            unlabelled: parts.unlabelled,
            teachers: parts.teachers,
            average: parts.average,
            companions: parts.companions,
            precision: parts.precision,
        }
    }
}

impl Table for NetConfig {
    fn check(&self, found: &mut Found) {
        self.check(found);
    }
}

impl NetTable for NetConfig {
    type Net = SegNet;

    fn name(&self) -> &'static str {
        self.name()
    }

    fn weights(&self) -> Option<&str> {
        self.table().weights.as_deref()
    }

    fn new_classes(&self) -> bool {
        self.table().new_classes
    }

    fn init(&self, classes: usize, seed: u64, device: &Device) -> SegNet {
        self.init(classes, seed, device)
    }
}

impl Table for SupervisedConfig {
    fn check(&self, found: &mut Found) {
        self.check(found);
    }
}

impl SupervisedTable<Seg> for SupervisedConfig {
    fn weight(&self) -> f64 {
        self.weight
    }

    fn check_classes(&self, classes: usize, found: &mut Found) {
        self.check_classes(classes, found);
    }
}

impl Table for DistillConfig {
    fn check(&self, found: &mut Found) {
        check_terms(self, found);
    }
}

impl Table for UnlabelledConfig {
    fn check(&self, found: &mut Found) {
        check_terms(self, found);
    }
}

impl Table for EvalConfig {
    fn check(&self, found: &mut Found) {
        self.check(found);
    }
}
