//! Files of weights, good and bad.
#![allow(clippy::unwrap_used)]

#[path = "../../../tests/golden/nets_rule.rs"]
#[allow(dead_code)]
mod rule;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::nn::conv::Conv2d;
use burn::tensor::Device;
use mentor_nets::{
    Backbone, BackboneKind, BackboneSpec, ConvNorm, ConvSpec, Fresh, LoadOptions, LoadReport, Scope, WeightsError,
    export_burnpack, export_safetensors, load_tensors, load_weights, score_conv, tensor_shapes,
};
use mentor_weights::named_weights;
use rule::filled;

/// A segmentation net in small: a backbone, a head with a class-dependent end, an auxiliary head.
#[derive(Module, Debug)]
struct Net {
    backbone: Backbone,
    classifier: Head,
    aux_classifier: Option<Head>,
}

#[derive(Module, Debug)]
struct Head {
    conv_0: Conv2d,
    score_4: Conv2d,
}

const BACKBONE: BackboneSpec = BackboneSpec { kind: BackboneKind::Resnet18, width: 2, output_stride: 32 };

fn backbone() -> Backbone {
    BACKBONE.init(&Fresh::on(&Device::flex().autodiff()))
}

fn net(classes: usize, auxiliary: bool, seed: u64) -> Net {
    Fresh::seeded(&Device::flex().autodiff(), seed, |fresh| {
        let head = || Head { conv_0: ConvSpec::new(16, 4, 3).build(fresh), score_4: score_conv(4, classes, fresh) };
        Net { backbone: BACKBONE.init(fresh), classifier: head(), aux_classifier: auxiliary.then(head) }
    })
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

fn options(scope: Scope, new_classes: bool) -> LoadOptions {
    LoadOptions { scope, new_classes }
}

const WHOLE: LoadOptions = LoadOptions { scope: Scope::Whole, new_classes: false };

fn load<M: Module>(net: M, path: &Path, options: LoadOptions) -> (M, LoadReport) {
    load_weights(net, path, &options).unwrap()
}

fn error<M: Module>(net: M, path: &Path, options: LoadOptions) -> WeightsError {
    load_weights(net, path, &options).map(|(_, report)| report).unwrap_err()
}

/// A file of this name in a fresh folder, which lives as long as the first of the pair.
fn file(name: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    (folder, path)
}

#[test]
fn a_state_dict_of_pytorch_loads_with_every_weight() {
    let (loaded, report) = load(backbone(), &golden("nets_tiny.pth"), WHOLE);
    assert_eq!(report, LoadReport { loaded: 100, ..LoadReport::default() });
    assert_eq!(named_weights(&loaded), named_weights(&filled(backbone())));
    let Backbone::ResNet(resnet) = loaded else { panic!("a ResNet was loaded") };
    assert!(resnet.conv1.weight.val().is_require_grad());
}

#[test]
fn a_legacy_checkpoint_with_prefixes_and_foreign_objects_loads() {
    let (loaded, report) = load(backbone(), &golden("nets_tiny_nested.pth"), WHOLE);
    assert_eq!(report.loaded, 100);
    assert_eq!(named_weights(&loaded), named_weights(&filled(backbone())));
}

#[test]
fn a_bare_backbone_fills_the_backbone_of_a_net() {
    let (loaded, report) = load(net(3, true, 1), &golden("nets_tiny.pth"), options(Scope::AtLeastBackbone, false));
    assert_eq!(report.loaded, 100);
    assert!(report.missing.contains(&"classifier.4.weight".to_owned()));
    assert_eq!(named_weights(&loaded.backbone), named_weights(&filled(backbone())));
    assert_eq!(named_weights(&loaded.classifier), named_weights(&net(3, true, 1).classifier));
}

#[test]
fn a_bare_backbone_is_not_a_whole_net() {
    let WeightsError::Missing { names, .. } = error(net(3, true, 1), &golden("nets_tiny.pth"), WHOLE) else {
        panic!("expected missing weights")
    };
    assert_eq!(names, ["classifier.0.weight", "classifier.4.weight", "classifier.4.bias"]);
}

#[test]
fn weights_survive_every_export_bit_for_bit() {
    let source = filled(net(3, true, 1));
    for name in ["a.safetensors", "a.bpk"] {
        let (_folder, path) = file(name);
        match name {
            "a.bpk" => export_burnpack(&source, &path).unwrap(),
            _ => export_safetensors(&source, &path, &BTreeMap::new(), false).unwrap(),
        }
        let (loaded, report) = load(net(3, true, 2), &path, WHOLE);
        assert!(report.missing.is_empty() && report.unused.is_empty());
        assert_eq!(named_weights(&loaded), named_weights(&source), "{name}");
    }
}

#[test]
fn tensors_in_memory_load_as_their_export_does() {
    let source = filled(net(3, true, 1));
    let (_folder, path) = file("a.safetensors");
    let metadata = BTreeMap::from([("class_names".to_owned(), "[]".to_owned())]);
    export_safetensors(&source, &path, &metadata, false).unwrap();
    for (classes, auxiliary) in [(3, true), (4, true), (3, false)] {
        let options = options(Scope::AtLeastBackbone, true);
        let (from_file, mut expected) = load(net(classes, auxiliary, 2), &path, options);
        assert_eq!(expected.metadata["class_names"], "[]");
        expected.metadata.clear();
        let (loaded, report) =
            load_tensors(net(classes, auxiliary, 2), named_weights(&source), Path::new("run"), &options).unwrap();
        assert_eq!((named_weights(&loaded), report), (named_weights(&from_file), expected));
    }
    let mut broken = named_weights(&source);
    broken.values_mut().next().unwrap().1[0] = f32::NAN;
    let error = load_tensors(net(3, true, 2), broken, Path::new("run"), &WHOLE).map(|(_, report)| report).unwrap_err();
    assert!(matches!(&error, WeightsError::Value { .. }) && error.to_string().starts_with("run: tensor"), "{error}");
}

#[test]
fn a_checkpoint_by_module_paths_loads_too() {
    let source = filled(net(3, true, 1));
    let (_folder, path) = file("model.safetensors");
    let below = named_weights(&source).into_iter().map(|(name, tensor)| (format!("net.{name}"), tensor)).collect();
    std::fs::write(&path, mentor_weights::to_safetensors(&below).unwrap()).unwrap();
    let (loaded, report) = load(net(3, true, 2), &path, WHOLE);
    assert!(report.unused.is_empty());
    assert_eq!(named_weights(&loaded), named_weights(&source));
}

#[test]
fn equal_weights_give_equal_files_whatever_built_them() {
    let metadata = BTreeMap::from(["classes", "run", "net", "a", "b"].map(|key| (key.to_owned(), "x y".to_owned())));
    let (_folder, first) = file("a.safetensors");
    let second = first.with_file_name("b.safetensors");
    export_safetensors(&filled(net(3, true, 1)), &first, &metadata, true).unwrap();
    export_safetensors(&filled(net(3, true, 2)), &second, &metadata, true).unwrap();
    assert_eq!(std::fs::read(&first).unwrap(), std::fs::read(&second).unwrap());
    let (first, second) = (first.with_file_name("a.bpk"), first.with_file_name("b.bpk"));
    export_burnpack(&filled(net(3, true, 1)), &first).unwrap();
    export_burnpack(&filled(net(3, true, 2)), &second).unwrap();
    assert_eq!(std::fs::read(&first).unwrap(), std::fs::read(&second).unwrap());
}

#[test]
fn an_export_replaces_a_file_whole_and_leaves_nothing_beside_it() {
    let (folder, path) = file("weights é.safetensors");
    std::fs::write(&path, "old").unwrap();
    export_safetensors(&net(3, false, 1), &path, &BTreeMap::new(), false).unwrap();
    load(net(3, false, 2), &path, WHOLE);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let plain = folder.path().join("plain");
        std::fs::write(&plain, "").unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&path), mode(&plain));
    }
    let nowhere = folder.path().join("no such folder").join("a.safetensors");
    let failed = export_safetensors(&net(3, false, 1), &nowhere, &BTreeMap::new(), false).unwrap_err();
    assert!(failed.to_string().contains("no such folder"));
}

#[test]
fn half_precision_halves_the_file_and_keeps_statistics_in_full() {
    let source = filled(net(3, false, 1));
    let (_folder, full) = file("full.safetensors");
    let half = full.with_file_name("half.safetensors");
    export_safetensors(&source, &full, &BTreeMap::new(), false).unwrap();
    export_safetensors(&source, &half, &BTreeMap::new(), true).unwrap();
    let (loaded, _) = load(net(3, false, 2), &half, WHOLE);
    let (loaded, source) = (named_weights(&loaded), named_weights(&source));
    for (name, (_, values)) in &source {
        // Eleven significant bits; below 2^-14, steps of 2^-24.
        let (relative, absolute) =
            if mentor_weights::is_buffer(name) { (0.0, 0.0) } else { (0.5f32.powi(11), 0.5f32.powi(25)) };
        for (found, expected) in loaded[name].1.iter().zip(values) {
            assert!((found - expected).abs() <= relative * expected.abs() + absolute, "{name}");
        }
    }
    assert_ne!(loaded, source);
    let size = |path: &Path| std::fs::metadata(path).unwrap().len();
    assert!(size(&full) - size(&half) > 20_000, "{} and {}", size(&full), size(&half));
}

#[test]
fn a_weight_that_half_precision_cannot_hold_is_an_error() {
    let big = mentor_nets::fill_weights(net(3, false, 1), |name, shape| {
        (name == "classifier.4.bias").then(|| vec![1e6; shape[0]])
    });
    let (_folder, path) = file("a.safetensors");
    let failed = export_safetensors(&big, &path, &BTreeMap::new(), true).unwrap_err();
    assert!(matches!(failed, WeightsError::Value { name, .. } if name == "classifier.4.bias"));
    assert!(!path.exists());
}

#[test]
fn another_number_of_classes_is_named_and_starts_afresh_when_asked() {
    let (_folder, path) = file("a.safetensors");
    export_safetensors(&filled(net(3, true, 1)), &path, &BTreeMap::new(), false).unwrap();
    let refused = error(net(7, true, 2), &path, WHOLE);
    assert!(matches!(refused, WeightsError::Classes { found: 3, expected: 7, .. }), "{refused}");
    let (loaded, report) = load(net(7, true, 2), &path, options(Scope::Whole, true));
    let scores = ["classifier.4.weight", "classifier.4.bias", "aux_classifier.4.weight", "aux_classifier.4.bias"];
    assert_eq!(report.new_classes, scores);
    assert!(report.unused.is_empty());
    let (loaded, fresh) = (named_weights(&loaded), named_weights(&net(7, true, 2)));
    assert_eq!(loaded["classifier.score_4.weight"], fresh["classifier.score_4.weight"]);
    assert_ne!(loaded["classifier.conv_0.weight"], fresh["classifier.conv_0.weight"]);
}

#[test]
fn a_backbone_alone_can_be_taken_from_a_whole_net() {
    let (_folder, path) = file("a.safetensors");
    export_safetensors(&filled(net(3, true, 1)), &path, &BTreeMap::new(), false).unwrap();
    let (loaded, report) = load(net(7, false, 2), &path, options(Scope::BackboneOnly, false));
    assert_eq!((report.loaded, report.missing.len(), report.unused.len()), (100, 3, 6));
    assert_eq!(named_weights(&loaded.classifier), named_weights(&net(7, false, 2).classifier));
    let (alone, report) = load(backbone(), &path, WHOLE);
    assert_eq!((report.loaded, report.unused.len()), (100, 6));
    assert_eq!(named_weights(&alone), named_weights(&loaded.backbone));
}

#[test]
fn an_auxiliary_head_may_be_missing_or_too_many() {
    let (_folder, path) = file("a.safetensors");
    export_safetensors(&filled(net(3, false, 1)), &path, &BTreeMap::new(), false).unwrap();
    let (_, report) = load(net(3, true, 2), &path, WHOLE);
    assert_eq!(report.missing.len(), 3);
    export_safetensors(&filled(net(3, true, 1)), &path, &BTreeMap::new(), false).unwrap();
    let (_, report) = load(net(3, false, 2), &path, WHOLE);
    assert_eq!(report.unused.len(), 3);
}

#[test]
fn a_net_of_another_width_or_depth_is_an_error_that_names_the_weight() {
    let spec = |kind, width| BackboneSpec { kind, width, output_stride: 32 }.init(&Fresh::on(&Device::flex()));
    let shape = error(spec(BackboneKind::Resnet18, 4), &golden("nets_tiny.pth"), WHOLE).to_string();
    assert!(shape.contains("`conv1.weight` has shape [2, 3, 7, 7], this net has [4, 3, 7, 7]"), "{shape}");
    let deeper = error(spec(BackboneKind::Resnet34, 2), &golden("nets_tiny.pth"), WHOLE).to_string();
    assert!(deeper.contains("`layer1.2.conv1.weight`"), "{deeper}");
    assert!(deeper.contains("lacks 80 weights"), "{deeper}");
    let other = error(spec(BackboneKind::MobilenetV2, 8), &golden("nets_tiny.pth"), WHOLE);
    assert!(matches!(other, WeightsError::Missing { .. }), "{other}");
}

fn two(name: &str, weights: &[(&str, Vec<usize>, Vec<f32>)]) -> (tempfile::TempDir, PathBuf) {
    let (folder, path) = file(name);
    let tensors = weights.iter().map(|(name, shape, values)| ((*name).to_owned(), (shape.clone(), values.clone())));
    std::fs::write(&path, mentor_weights::to_safetensors(&tensors.collect()).unwrap()).unwrap();
    (folder, path)
}

#[test]
fn values_that_are_no_weights_are_errors() {
    let conv_norm = || ConvNorm::new(ConvSpec::new(1, 1, 1), &Fresh::on(&Device::flex()));
    let file = |weight: f32, variance: f32| {
        two(
            "a.safetensors",
            &[
                ("0.weight", vec![1, 1, 1, 1], vec![weight]),
                ("1.weight", vec![1], vec![1.0]),
                ("1.bias", vec![1], vec![1.0]),
                ("1.running_mean", vec![1], vec![-1.0]),
                ("1.running_var", vec![1], vec![variance]),
            ],
        )
    };
    let (_folder, good) = file(1.0, 0.0);
    load(conv_norm(), &good, WHOLE);
    for (weight, variance, name) in [(f32::NAN, 1.0, "0.weight"), (1.0, -0.5, "1.running_var")] {
        let (_folder, bad) = file(weight, variance);
        assert!(error(conv_norm(), &bad, WHOLE).to_string().contains(name));
    }
}

#[test]
fn what_is_no_file_of_weights_is_named() {
    let (folder, path) = file("a.safetensors");
    let missing = error(backbone(), &path, WHOLE);
    assert!(matches!(&missing, WeightsError::Io { .. }), "{missing}");
    assert!(missing.to_string().contains("a.safetensors"));
    assert!(matches!(error(backbone(), folder.path(), WHOLE), WeightsError::NotAFile { .. }));
    for name in ["a.safetensors", "a.pth", "a.bpk"] {
        let path = folder.path().join(name);
        std::fs::write(&path, "").unwrap();
        assert!(matches!(error(backbone(), &path, WHOLE), WeightsError::Empty { .. }), "{name}");
        std::fs::write(&path, "seed = 0\n[train]\nsteps = 10\n").unwrap();
        assert!(matches!(error(backbone(), &path, WHOLE), WeightsError::Unreadable { .. }), "{name}");
    }
    let recipe = folder.path().join("recipe.toml");
    std::fs::write(&recipe, "seed = 0").unwrap();
    assert!(matches!(error(backbone(), &recipe, WHOLE), WeightsError::UnknownKind { .. }));
    let (_folder, nothing) = two("b.safetensors", &[]);
    assert!(matches!(error(backbone(), &nothing, WHOLE), WeightsError::NoTensors { .. }));
}

#[test]
fn a_pickle_is_never_executed() {
    let (folder, path) = file("evil.pth");
    let touched = folder.path().join("touched");
    let call = format!("cos\nsystem\n(S'touch {}'\ntR.", touched.display());
    std::fs::write(&path, &call).unwrap();
    assert!(matches!(
        error(backbone(), &path, WHOLE),
        WeightsError::Unreadable { .. } | WeightsError::NoTensors { .. }
    ));
    // As a value of a dictionary, where a state dict would have a tensor.
    std::fs::write(&path, format!("(dS'conv1.weight'\n{}s.", call.trim_end_matches('.'))).unwrap();
    assert!(matches!(
        error(backbone(), &path, WHOLE),
        WeightsError::Unreadable { .. } | WeightsError::NoTensors { .. }
    ));
    assert!(!touched.exists());
}

/// Every truncation and bit flip must be an error or, where a format has no checksum, at worst other
/// values: never a panic.
fn spoil(name: &str, whole: &[u8], step: usize, may_load: bool) {
    let (_folder, path) = file(name);
    for cut in (0..whole.len()).step_by(step).chain([whole.len() - 1]) {
        std::fs::write(&path, &whole[..cut]).unwrap();
        assert!(load_weights(backbone(), &path, &WHOLE).is_err(), "{name} cut to {cut} bytes");
    }
    for at in (0..whole.len()).step_by(step) {
        let mut flipped = whole.to_vec();
        flipped[at] ^= 1 << (at % 8);
        std::fs::write(&path, &flipped).unwrap();
        let loaded = load_weights(backbone(), &path, &WHOLE);
        assert!(may_load || loaded.is_err(), "{name} with a bit of byte {at} flipped");
    }
}

#[test]
fn a_damaged_pth_is_an_error_or_harmless() {
    // A flip in the archive's padding or unused fields changes nothing, so some may load.
    let whole = std::fs::read(golden("nets_tiny.pth")).unwrap();
    spoil("a.pth", &whole, 1999, true);
    // The pickle itself, byte by byte.
    let start = whole.windows(8).position(|bytes| bytes == b"data.pkl").unwrap();
    let (_folder, path) = file("b.pth");
    for at in start..start + 300 {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        std::fs::write(&path, &flipped).unwrap();
        let _ = tensor_shapes(&path);
    }
}

#[test]
fn a_damaged_legacy_pth_never_panics() {
    spoil("a.pth", &std::fs::read(golden("nets_tiny_nested.pth")).unwrap(), 1499, true);
}

#[test]
fn a_damaged_export_is_always_an_error() {
    let (_folder, path) = file("a.safetensors");
    export_safetensors(&filled(backbone()), &path, &BTreeMap::new(), false).unwrap();
    let whole = std::fs::read(&path).unwrap();
    spoil("b.safetensors", &whole, 997, false);
    let (_folder, path) = file("a.bpk");
    export_burnpack(&filled(backbone()), &path).unwrap();
    spoil("b.bpk", &std::fs::read(&path).unwrap(), 997, true);
}
