//! The step on a GPU: it computes what the CPU does, and it never waits for the device.
//!
//! Runs on the first device that wgpu finds, a software driver for Vulkan included: see CONTRIBUTING.md.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, DeviceType};
use mentor_distill::{Column, Companions, Start, TermTable};
use mentor_nets::{Adapter, BackboneKind, Frozen, Student};
use mentor_seg::SegMethod;
use mentor_seg::distill::DistillConfig;
use mentor_seg::nets::{NetConfig, NetTable, SegNet};
use mentor_seg::supervised::SupervisedConfig;
use mentor_seg::unlabelled::UnlabelledConfig;
use mentor_seg::upload::DeviceBatch;
use mentor_train::{
    Average, EmaConfig, Evaluation, LogLine, Method, Moment, Optimizer, OptimizerConfig, Precision, Progress,
    RivalConfig, Run, ScheduleConfig, SgdConfig, TrainConfig,
};
use mentor_types::{Batch, IGNORE, Images, Key, Pairs, Samples, ScoreRecord, UNKNOWN};
use rand::RngExt;

/// One test at a time: both read the one device, and one of them counts.
static DEVICE: Mutex<()> = Mutex::new(());

const CLASSES: usize = 3;
const SIDE: usize = 64;

fn gpu() -> Device {
    Device::enumerate(DeviceType::Wgpu).into_iter().next().expect("a GPU, or a software driver that poses as one")
}

fn net(seed: u64, width: usize, device: &Device) -> SegNet {
    let mut table = NetTable::new(BackboneKind::Resnet18);
    (table.width, table.output_stride) = (Some(width), Some(16));
    NetConfig::Pspnet(table).init(CLASSES, seed, device)
}

/// Every term that is in a list, but for Lovász-softmax, which burn's GPU backend sorts on the host.
fn everything(device: &Device) -> (SegMethod, Student<SegNet>) {
    let student = net(1, 4, &device.clone().autodiff());
    let teacher = Frozen::of(&net(2, 4, device));
    let mut distill = DistillConfig::all();
    distill.holistic.as_mut().unwrap().rival = RivalConfig { channels: 4, ..RivalConfig::default() };
    let mut unlabelled = UnlabelledConfig::all();
    unlabelled.fixmatch.as_mut().unwrap().threshold = 0.2;
    let companions =
        Companions::fresh(distill.terms(), &Start { classes: CLASSES, teacher_channels: 0, seed: 3, device });
    let channels = |tap| student.tap_channels(tap).unwrap();
    let adapters = distill.terms().into_iter().flat_map(|(name, term)| {
        let columns = Column::of(name, &term.shared()).into_iter();
        let at_places = columns.filter(|column| column.place.is_some());
        at_places.flat_map(|column| term.adapters(&column, [channels(column.place().student); 2])).collect::<Vec<_>>()
    });
    let adapters = adapters.map(|spec| Adapter::fresh(&spec, 4, &device.clone().autodiff())).collect();
    let method = SegMethod {
        supervised: Some(SupervisedConfig { lovasz_softmax: None, ..SupervisedConfig::all() }),
        distill,
        unlabelled,
        teachers: vec![("big".to_owned(), teacher)],
        average: Some(Average::of(&student, EmaConfig { decay: 0.9, warmup: false, ..EmaConfig::default() })),
        companions,
        precision: DType::F32,
    };
    (method, Student { net: student, adapters: vec![adapters] })
}

/// Images with coarse structure, so that norms over few values compare more than rounding.
fn images(n: usize, key: Key) -> Images {
    let mut rng = key.rng();
    let means: Vec<u8> = (0..n * 3 * 64).map(|_| rng.random()).collect();
    let mut rgb = Vec::with_capacity(n * SIDE * SIDE * 3);
    for (image, y) in (0..n).flat_map(|image| (0..SIDE).map(move |y| (image, y))) {
        for (x, channel) in (0..SIDE).flat_map(|x| (0..3).map(move |channel| (x, channel))) {
            let mean = means[(image * 64 + y / 8 * 8 + x / 8) * 3 + channel];
            rgb.push((mean / 2).saturating_add(rng.random::<u8>() / 2));
        }
    }
    Images { n, height: SIDE, width: SIDE, rgb }
}

fn batch(step: u64, device: &Device) -> DeviceBatch {
    let (n, key) = (4, Key::new(step));
    let pixels = n * SIDE * SIDE;
    let target = |index: usize| if index % 11 == 10 { IGNORE } else { (index / 97 % CLASSES) as u8 };
    let labelled = Samples { images: images(n, key.at("labelled", 0)), targets: (0..pixels).map(target).collect() };
    let origin = |index: i32| if index % 13 == 0 { -1 } else { index };
    let unlabelled = Some(Pairs {
        weak: images(n, key.at("weak", 0)),
        strong: images(n, key.at("strong", 0)),
        link: (0..i32::try_from(pixels).unwrap()).map(origin).collect(),
        targets: vec![UNKNOWN; pixels],
        truth: (0..pixels).map(target).collect(),
    });
    DeviceBatch::upload(Batch { labelled, unlabelled }, device)
}

fn sgd() -> OptimizerConfig {
    let config = SgdConfig { lr: 0.01, momentum: 0.9, weight_decay: 1e-4, nesterov: false, head_lr_factor: 1.0 };
    OptimizerConfig::Sgd(config)
}

/// The terms of three steps.
fn three_steps(device: &Device) -> Vec<BTreeMap<String, f32>> {
    let (mut method, mut model) = everything(device);
    let mut optimizer = Optimizer::new(sgd());
    let mut seen = Vec::new();
    for step in 0..3 {
        let moment = Moment { step, micro: 0, key: Key::new(step), lr_factor: 1.0 };
        let losses = method.losses(&model, batch(step, device), moment);
        let grads = GradientsParams::from_grads(losses.terms.total().unwrap().backward(), &model);
        model = optimizer.step(model, grads, 1.0, &Student::<SegNet>::group);
        let (_, rival) = method.after_step(&model, vec![losses.carry], moment).remove(0);
        let mut values: BTreeMap<_, _> =
            losses.terms.iter().map(|term| (term.name.clone(), term.value.clone().into_scalar::<f32>())).collect();
        values.insert("rival".to_owned(), rival.into_scalar());
        for stat in losses.stats.iter() {
            values.insert(stat.name.clone(), stat.numerator.clone().into_scalar());
        }
        seen.push(values);
    }
    seen
}

#[test]
fn three_steps_of_everything_agree_with_the_cpu() {
    let _alone = DEVICE.lock();
    let (ours, expected) = (three_steps(&gpu()), three_steps(&Device::flex()));
    for (step, (ours, expected)) in ours.iter().zip(&expected).enumerate() {
        assert_eq!(ours.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        for (name, expected) in expected {
            let gap = (ours[name] - expected).abs();
            assert!(
                gap <= 5e-3 * expected.abs() + 1e-5,
                "{name} of step {step}: {}, on the CPU {expected}",
                ours[name]
            );
        }
    }
}

/// Counts how often the host maps memory of the device to read it, as wgpu's log tells.
struct Reads(AtomicU64);

static READS: Reads = Reads(AtomicU64::new(0));

impl Reads {
    fn count(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

impl log::Log for Reads {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target().starts_with("wgpu_core")
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let text = record.args().to_string();
            if text.starts_with("Buffer::map_async") && text.contains("Read") {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
    }

    fn flush(&self) {}
}

#[test]
fn a_hundred_steps_wait_for_the_device_only_where_they_log() {
    let _alone = DEVICE.lock();
    log::set_logger(&READS).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let device = gpu();
    let (method, model) = everything(&device);
    let folder = tempfile::tempdir().unwrap();
    // Reads before each step.
    let mut before = Vec::new();
    let mut batches = || {
        before.push(READS.count());
        Ok(vec![batch(before.len() as u64 % 4, &device)])
    };
    let mut evaluate = |_: &SegMethod, _: &Student<SegNet>, _: u64| {
        let (model, shown) = ("student".to_owned(), "half of it".to_owned());
        Ok(vec![Evaluation { model, score: 0.5, shown, metrics: ScoreRecord::default() }])
    };
    let train = TrainConfig {
        precision: Precision::F32,
        steps: 100,
        batch_labelled: 4,
        batch_unlabelled: 4,
        accumulate: 1,
        clip_norm: Some(1.0),
        log_every_steps: 50,
        checkpoint_every_steps: 100,
        eval_every_steps: 100,
    };
    let outcome = mentor_train::train(Run {
        method,
        model,
        optimizer: sgd(),
        schedule: ScheduleConfig::default(),
        train,
        seed: 0,
        device: device.clone(),
        folder: folder.path(),
        resume: None,
        stop: &AtomicBool::new(false),
        batches: &mut batches,
        evaluate: &mut evaluate,
        progress: &Progress::new(0, 100),
    })
    .unwrap();
    assert_eq!(outcome.step, 100);
    let during: Vec<u64> = before.windows(2).map(|counts| counts[1] - counts[0]).collect();
    // Kernels are timed against each other where a shape is new.
    let warm = 10;
    // A log line takes two: the flag of the finite check, and all values at once.
    for (index, reads) in during.iter().enumerate().skip(warm) {
        let expected = if index + 1 == 50 { 2 } else { 0 };
        assert_eq!(*reads, expected, "step {} read the device, of all steps {during:?}", index + 1);
    }
    let lines = mentor_train::Log::read(&folder.path().join("log.jsonl")).unwrap();
    assert_eq!(lines.iter().map(LogLine::step).collect::<Vec<_>>(), [50, 100, 100]);
}
