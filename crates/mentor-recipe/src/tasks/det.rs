//! Detection.

use std::collections::BTreeMap;

use burn::tensor::Device;
use mentor_data::Sample;
use mentor_det::distill::DistillConfig;
use mentor_det::metrics::DetMetrics;
use mentor_det::nets::{DetNet, NetConfig};
use mentor_det::supervised::SupervisedConfig;
use mentor_det::unlabelled::UnlabelledConfig;
use mentor_det::upload::DeviceBatch;
use mentor_det::{Det, DetMethod, EvalConfig, Judged, check_fit, evaluate};
use mentor_distill::check_terms;
use mentor_nets::Frozen;
use mentor_train::Average;
use mentor_types::{Batch, BoxLabels, Found, Tap, TaskName};

use super::{NetTable, Parts, SupervisedTable, Table, Task};

impl Task for Det {
    const NAME: TaskName = TaskName::Det;

    type Labels = BoxLabels;
    type Net = DetNet;
    type NetConfig = NetConfig;
    type Supervised = SupervisedConfig;
    type Distill = DistillConfig;
    type Unlabelled = UnlabelledConfig;
    type Eval = EvalConfig;
    type Scores = DetMetrics;
    type DeviceBatch = DeviceBatch;
    type Method = DetMethod;

    fn macs(net: &DetNet, image_px: [usize; 2]) -> u64 {
        net.macs(image_px)
    }

    fn tap_channels(net: &DetNet, tap: Tap) -> Option<usize> {
        net.tap_channels(tap)
    }

    fn check_fit(
        student: &NetConfig,
        teachers: &BTreeMap<String, NetConfig>,
        supervised: &SupervisedConfig,
        distill: &DistillConfig,
        unlabelled: &UnlabelledConfig,
        found: &mut Found,
    ) {
        let teachers = teachers.iter().map(|(name, config)| (name.as_str(), config));
        check_fit(student, teachers, supervised, distill, unlabelled, found);
    }

    fn method(parts: Parts<Self>, student: &DetNet) -> DetMethod {
        let supervised = parts.supervised.of_net(student);
        DetMethod {
            assign: supervised.assign.clone().unwrap_or_else(|| student.assign()),
            regions: supervised.regions.clone().unwrap_or_default(),
            supervised,
            distill: parts.distill,
            unlabelled: parts.unlabelled,
            teachers: parts.teachers,
            average: parts.average,
            visible_share: parts.views.visible_share(),
            companions: parts.companions,
            precision: parts.precision,
        }
    }

    fn teachers(method: &DetMethod) -> &[(String, Frozen<DetNet>)] {
        &method.teachers
    }

    fn average(method: &DetMethod) -> Option<&Average<DetNet>> {
        method.average.as_ref()
    }

    fn upload(batch: Batch<BoxLabels>, device: &Device) -> DeviceBatch {
        DeviceBatch::upload(batch, device)
    }

    fn evaluate<E>(
        net: &DetNet,
        samples: impl Iterator<Item = Result<Sample<BoxLabels>, E>>,
        config: &EvalConfig,
        device: &Device,
    ) -> Result<Option<DetMetrics>, E> {
        let judged = samples.map(|sample| sample.map(|sample| Judged { image: sample.image, truth: sample.labels }));
        evaluate(net, judged, config, device)
    }
}

impl Table for NetConfig {
    fn check(&self, found: &mut Found) {
        self.check(found);
    }
}

impl NetTable for NetConfig {
    type Net = DetNet;

    fn name(&self) -> &'static str {
        self.name()
    }

    fn weights(&self) -> Option<&str> {
        self.shared().weights
    }

    fn new_classes(&self) -> bool {
        self.shared().new_classes
    }

    fn init(&self, classes: usize, seed: u64, device: &Device) -> DetNet {
        self.init(classes, seed, device)
    }
}

impl Table for SupervisedConfig {
    fn check(&self, found: &mut Found) {
        self.check(found);
    }
}

impl SupervisedTable<Det> for SupervisedConfig {
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
