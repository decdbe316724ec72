//! The step of a detector on a GPU: it computes what the CPU does, and it never waits for the device.
//!
//! Runs on the first device that wgpu finds, a software driver for Vulkan included: see CONTRIBUTING.md.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, DeviceType};
use mentor_det::distill::{CrossKd, Defeat, DistillConfig, GanKd, Imitation, Ld, Pkd, TeacherBoxes};
use mentor_det::nets::{DetNet, NetConfig, NetTable, TwoStageTable};
use mentor_det::supervised::SupervisedConfig;
use mentor_det::unlabelled::{UnbiasedTeacher, UnlabelledConfig};
use mentor_det::upload::DeviceBatch;
use mentor_det::{Det, DetMethod, RegionSampling};
use mentor_distill::{Companions, Examples, Start, TermTable, columns};
use mentor_nets::{Adapter, BackboneKind, Frozen, Level, Student};
use mentor_train::{Average, EmaConfig, Losses, Method, Moment, Optimizer, OptimizerConfig, RivalConfig, SgdConfig};
use mentor_types::{Batch, BoxKind, BoxLabels, Geometry, Images, Key, LabelBox, Pairs, Samples, Tap};
use rand::RngExt;

/// One test at a time: both read the one device, and one of them counts.
static DEVICE: Mutex<()> = Mutex::new(());

const CLASSES: usize = 3;
const SIDE: usize = 64;

fn gpu() -> Device {
    Device::enumerate(DeviceType::Wgpu).into_iter().next().expect("a GPU, or a software driver that poses as one")
}

/// A head, by its table.
type Head = fn(NetTable) -> NetConfig;

fn net(head: Head, seed: u64, device: &Device) -> DetNet {
    let table = NetTable::new(BackboneKind::Resnet18);
    let (width, head_channels, levels) = (Some(4), Some(8), vec![Level::P3, Level::P4]);
    head(NetTable { width, head_channels, levels, head_convs: 1, ..table }).init(CLASSES, seed, device)
}

/// Two stages, of which the first proposes all of its boxes: which of equally sure ones would be left to rounding.
fn two_stages(table: NetTable) -> NetConfig {
    let NetTable { backbone, width, levels, head_channels, .. } = table;
    let table = TwoStageTable { width, levels, head_channels, ..TwoStageTable::new(backbone) };
    NetConfig::FasterRcnn(TwoStageTable { region_width: Some(16), proposal_nms_iou: 1.0, ..table })
}

/// Every term that a head of one convolution can feed; of a head other than FCOS's those that ask it for something of its own.
fn everything(head: Head, device: &Device) -> (DetMethod, Student<DetNet>) {
    let student = net(head, 1, &device.clone().autodiff());
    let crosskd = Some(CrossKd { convs: 1, ..CrossKd::default() });
    let unbiased_teacher = Some(UnbiasedTeacher { threshold: 0.1, most: 4, ..UnbiasedTeacher::default() });
    let (distill, unlabelled) = match student {
        DetNet::Fcos(_) => {
            let distill = DistillConfig {
                teacher_boxes: Some(TeacherBoxes { threshold: 0.1, most: 4, ..TeacherBoxes::default() }),
                defeat: Some(Defeat { weight: 1e-3, ..Defeat::default() }),
                crosskd,
                ld: None,
                gan_kd: Some(GanKd {
                    rival: RivalConfig { channels: 4, ..RivalConfig::default() },
                    ..GanKd::default()
                }),
                ..DistillConfig::all()
            };
            (distill, UnlabelledConfig { unbiased_teacher, ..UnlabelledConfig::default() })
        }
        DetNet::FasterRcnn(_) => {
            let (imitation, pkd) = (Some(Imitation::default()), Some(Pkd::default()));
            (DistillConfig { imitation, pkd, ..DistillConfig::default() }, UnlabelledConfig::default())
        }
        DetNet::Gfl(_) => {
            let ld = Some(Ld::default());
            (DistillConfig { crosskd, ld, ..DistillConfig::default() }, UnlabelledConfig::default())
        }
        DetNet::Retinanet(_) => (DistillConfig { crosskd, ..DistillConfig::default() }, UnlabelledConfig::default()),
    };
    let adapters = distill.terms().into_iter().flat_map(|(name, term)| {
        let columns = columns::<Det>(name, term, &[Tap::P3, Tap::P4]).into_iter();
        let at_places = columns.filter(|column| column.place.is_some());
        at_places.flat_map(|column| term.adapters(&column, [8, 8])).collect::<Vec<_>>()
    });
    let adapters = adapters.map(|spec| Adapter::fresh(&spec, 4, &device.clone().autodiff())).collect();
    let start = Start { classes: CLASSES, teacher_channels: 8, seed: 3, device };
    let method = DetMethod {
        supervised: SupervisedConfig::default().of_net(&student),
        assign: student.assign(),
        regions: RegionSampling { anchors: 64, regions: 32, ..RegionSampling::default() },
        companions: Companions::fresh(distill.terms(), &start),
        distill,
        unlabelled,
        teachers: vec![("big".to_owned(), Frozen::of(&net(head, 2, device)))],
        average: Some(Average::of(&student, EmaConfig { decay: 0.9, warmup: false, ..EmaConfig::default() })),
        visible_share: 0.25,
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
    let (n, key) = (2, Key::new(step));
    let label = |edges: [f32; 4], class, kind| LabelBox { edges, class, kind, area: 100.0 };
    let labels = || BoxLabels {
        boxes: vec![
            label([3.0, 5.0, 27.0, 31.0], 1, BoxKind::Object),
            label([-20.0, -30.0, 70.0, 60.0], 0, BoxKind::Object),
            label([40.0, 2.0, 62.0, 20.0], 2, BoxKind::Crowd),
        ],
        looked_for: Some(vec![0, 1]),
    };
    let labelled = Samples { images: images(n, key.at("labelled", 0)), targets: vec![labels(), labels()] };
    let unlabelled = Some(Pairs {
        weak: images(n, key.at("weak", 0)),
        strong: images(n, key.at("strong", 0)),
        link: vec![Geometry { scale: [-1.0, 1.0], shift: [SIDE as f64, 0.0] }; n],
        targets: vec![BoxLabels::unknown(), labels()],
        truth: vec![labels(), labels()],
    });
    DeviceBatch::upload(Batch { labelled, unlabelled }, device)
}

fn moment(step: u64) -> Moment {
    Moment { step, micro: 0, key: Key::new(step), lr_factor: 1.0 }
}

/// Takes so many steps, and hands the losses of each to `see`.
fn steps(head: Head, count: u64, device: &Device, mut see: impl FnMut(Losses<Examples<Det>>)) {
    let config = SgdConfig { lr: 1e-4, momentum: 0.9, weight_decay: 1e-4, nesterov: false, head_lr_factor: 1.0 };
    let (mut method, mut model) = everything(head, device);
    let mut optimizer = Optimizer::new(OptimizerConfig::Sgd(config));
    for step in 0..count {
        let losses = method.losses(&model, batch(step, device), moment(step));
        let grads = GradientsParams::from_grads(losses.terms.total().unwrap().backward(), &model);
        model = optimizer.step(model, grads, 1.0, &Student::<DetNet>::group);
        let _ = method.after_step(&model, vec![losses.carry.clone()], moment(step));
        see(losses);
    }
}

/// The terms of two steps.
fn two_steps(head: Head, device: &Device) -> Vec<BTreeMap<String, f32>> {
    let mut seen = Vec::new();
    steps(head, 2, device, |losses| {
        let terms = losses.terms.iter().map(|term| (term.name.clone(), term.value.clone().into_scalar::<f32>()));
        let stats = losses.stats.iter().map(|stat| (stat.name.clone(), stat.numerator.clone().into_scalar::<f32>()));
        seen.push(terms.chain(stats).collect());
    });
    seen
}

#[test]
fn two_steps_of_everything_agree_with_the_cpu() {
    let _alone = DEVICE.lock();
    for head in [NetConfig::Fcos as Head, NetConfig::Gfl, NetConfig::Retinanet, two_stages] {
        let (ours, expected) = (two_steps(head, &gpu()), two_steps(head, &Device::flex()));
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
}

/// Counts how often the host maps memory of the device to read it, as wgpu's log tells.
struct Reads(AtomicU64);

static READS: Reads = Reads(AtomicU64::new(0));

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
fn a_step_does_not_wait_for_the_device() {
    let _alone = DEVICE.lock();
    log::set_logger(&READS).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let device = gpu();
    // Kernels are timed against each other where a shape is new.
    let warm = 6;
    for head in [NetConfig::Fcos as Head, two_stages] {
        let mut counts = Vec::new();
        steps(head, 10, &device, |losses| {
            counts.push(READS.0.load(Ordering::SeqCst));
            if counts.len() == 10 {
                let _: f32 = losses.terms.total().unwrap().into_scalar();
            }
        });
        assert!(READS.0.load(Ordering::SeqCst) > counts[9], "a read is counted");
        let during: Vec<u64> = counts.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(during[warm..].iter().all(|reads| *reads == 0), "reads between steps: {during:?}");
    }
}
