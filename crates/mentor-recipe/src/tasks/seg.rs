//! Semantic segmentation.

use burn::tensor::Device;
use mentor_data::Sample;
use mentor_distill::check_terms;
use mentor_nets::Frozen;
use mentor_seg::distill::DistillConfig;
use mentor_seg::metrics::SegMetrics;
use mentor_seg::nets::{NetConfig, SegNet};
use mentor_seg::supervised::SupervisedConfig;
use mentor_seg::unlabelled::UnlabelledConfig;
use mentor_seg::upload::DeviceBatch;
use mentor_seg::{EvalConfig, Judged, Seg, SegMethod, evaluate};
use mentor_train::Average;
use mentor_types::{Batch, Found, LabelMask, Tap, TaskName};

use super::{NetTable, Parts, SupervisedTable, Table, Task};

impl Task for Seg {
    const NAME: TaskName = TaskName::Seg;

    type Labels = LabelMask;
    type Net = SegNet;
    type NetConfig = NetConfig;
    type Supervised = SupervisedConfig;
    type Distill = DistillConfig;
    type Unlabelled = UnlabelledConfig;
    type Eval = EvalConfig;
    type Scores = SegMetrics;
    type DeviceBatch = DeviceBatch;
    type Method = SegMethod;

    fn macs(net: &SegNet, image_px: [usize; 2]) -> u64 {
        net.macs(image_px)
    }

    fn tap_channels(net: &SegNet, tap: Tap) -> Option<usize> {
        net.tap_channels(tap)
    }

    fn method(parts: Parts<Self>, _: &SegNet) -> SegMethod {
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

    fn teachers(method: &SegMethod) -> &[(String, Frozen<SegNet>)] {
        &method.teachers
    }

    fn average(method: &SegMethod) -> Option<&Average<SegNet>> {
        method.average.as_ref()
    }

    fn upload(batch: Batch<LabelMask>, device: &Device) -> DeviceBatch {
        DeviceBatch::upload(batch, device)
    }

    fn evaluate<E>(
        net: &SegNet,
        samples: impl Iterator<Item = Result<Sample<LabelMask>, E>>,
        config: &EvalConfig,
        device: &Device,
    ) -> Result<Option<SegMetrics>, E> {
        let judged = samples.map(|sample| {
            sample.map(|sample| Judged {
                image: sample.image,
                truth: sample.labels,
                classes_labelled: sample.classes_labelled,
            })
        });
        Ok(evaluate(net, judged, config, device)?.metrics())
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
