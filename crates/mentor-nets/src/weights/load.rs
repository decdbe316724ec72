//! Putting a file's tensors into a net.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use burn::module::Module;
use mentor_weights::NamedTensors;

use super::read::WeightsFile;
use super::{LoadOptions, LoadReport, Scope, WeightsError};
use crate::fill_weights;
use crate::names::{Slot, slots};

/// What the names of a backbone's weights begin with, as nets have it: below a feature pyramid, and without one.
const BACKBONES: [&str; 2] = ["backbone.body.", "backbone."];
const AUXILIARY: &str = "aux_classifier.";

/// Puts the weights of a file into `net`, by PyTorch name, in f32.
///
/// Names may stand below a prefix in the file (`module.`, `state_dict.`, `net.`), and a file that
/// holds a bare backbone fills the `backbone` of a segmentation net, or the `backbone.body` of a detector, whose
/// pyramid is no part of it. Everything is checked before anything changes.
///
/// # Errors
/// If the file is unreadable or damaged; if a required weight is missing; if a shape differs; if a
/// value is not finite. The net is lost then: nothing half-loaded is ever handed back.
pub fn load_weights<M: Module>(net: M, path: &Path, options: &LoadOptions) -> Result<(M, LoadReport), WeightsError> {
    load(net, WeightsFile::open(path)?, path, options)
}

/// Puts tensors that are named by module path, as in a checkpoint, into `net`, with the rules and the report of
/// [`load_weights`]. `origin` is named in errors.
///
/// # Errors
/// As [`load_weights`].
pub fn load_tensors<M: Module>(
    net: M,
    tensors: NamedTensors,
    origin: &Path,
    options: &LoadOptions,
) -> Result<(M, LoadReport), WeightsError> {
    load(net, WeightsFile::of_tensors(origin, tensors), origin, options)
}

fn load<M: Module>(
    net: M,
    file: WeightsFile,
    path: &Path,
    options: &LoadOptions,
) -> Result<(M, LoadReport), WeightsError> {
    let (plan, mut report) = plan(&slots(&net), &file, path, options)?;
    let mut values = BTreeMap::new();
    for (name, source) in &plan {
        values.insert(name.clone(), file.values(source)?);
    }
    report.metadata = file.metadata;
    Ok((fill_weights(net, |name, _| values.remove(name)), report))
}

/// Which tensor fills which weight (both by name), and what is left over on either side.
type Plan = BTreeMap<String, String>;

fn plan(
    slots: &[Slot],
    file: &WeightsFile,
    path: &Path,
    options: &LoadOptions,
) -> Result<(Plan, LoadReport), WeightsError> {
    let naming = Naming::of(slots, file);
    let backbone = backbone_of(slots);
    let (mut plan, mut report, mut required) = (Plan::new(), LoadReport::default(), Vec::new());
    for slot in slots {
        let in_backbone = backbone.is_none_or(|backbone| slot.name.starts_with(backbone));
        if !in_backbone && options.scope == Scope::BackboneOnly {
            report.missing.push(slot.name.clone());
            continue;
        }
        let source = naming.in_file(&slot.name);
        let older = source.as_deref().and_then(before_version_two);
        let source = source.into_iter().chain(older).find(|name| file.entries.contains_key(name));
        let Some(source) = source else {
            if in_backbone || options.scope == Scope::Whole && !slot.name.starts_with(AUXILIARY) {
                required.push(slot.name.clone());
            }
            report.missing.push(slot.name.clone());
            continue;
        };
        let found = &file.entries[&source].shape;
        if *found == slot.shape {
            plan.insert(slot.name.clone(), source);
        } else if makes_scores(slot) && same_but_classes(found, &slot.shape) {
            if !options.new_classes {
                let (found, expected) = (found[0], slot.shape[0]);
                return Err(WeightsError::Classes { path: path.into(), name: source, found, expected });
            }
            report.new_classes.push(slot.name.clone());
        } else {
            let (found, expected) = (found.clone(), slot.shape.clone());
            return Err(WeightsError::Shape { path: path.into(), name: source, found, expected });
        }
    }
    if !required.is_empty() {
        return Err(WeightsError::Missing { path: path.into(), names: required });
    }
    report.loaded = plan.len();
    report.unused = unused(&plan, &naming, &report, file);
    Ok((plan, report))
}

fn unused(plan: &Plan, naming: &Naming, report: &LoadReport, file: &WeightsFile) -> Vec<String> {
    let mut used: BTreeSet<String> = plan.values().cloned().collect();
    used.extend(report.new_classes.iter().filter_map(|name| naming.in_file(name)));
    let rest = file.entries.keys().filter(|name| !used.contains(*name) && !name.ends_with("num_batches_tracked"));
    rest.cloned().collect()
}

/// What the names of the backbone's weights begin with, where a net has one among other things.
fn backbone_of(slots: &[Slot]) -> Option<&'static str> {
    BACKBONES.into_iter().find(|backbone| slots.iter().any(|slot| slot.name.starts_with(backbone)))
}

/// The name of a weight in files of torchvision before 0.13: of a pyramid, `inner_blocks.0.weight` for
/// `inner_blocks.0.0.weight`; of a tower of `RetinaNet`, whose activations were counted, `conv.2.weight` for `conv.1.0.weight`.
fn before_version_two(name: &str) -> Option<String> {
    let segments: Vec<&str> = name.split('.').collect();
    let of = |names: &[&str]| segments.iter().position(|segment| names.contains(segment));
    let (at, step) = match of(&["inner_blocks", "layer_blocks"]) {
        Some(at) => (at, 1),
        None => (of(&["classification_head", "regression_head"])? + 1, 2),
    };
    let (["conv" | "inner_blocks" | "layer_blocks", index, "0", leaf], before) = (&segments[at..], &segments[..=at])
    else {
        return None;
    };
    let index = step * index.parse::<usize>().ok()?;
    Some(format!("{}.{index}.{leaf}", before.join(".")))
}

/// Whether a weight belongs to a layer called `score`, `score_N`, `cls_logits` or `gfl_cls`, or to a `box_predictor`.
fn makes_scores(slot: &Slot) -> bool {
    let scores = |segment: &str| {
        segment == "score"
            || segment.starts_with("score_")
            || ["cls_logits", "gfl_cls", "box_predictor"].contains(&segment)
    };
    slot.path.split('.').any(scores)
}

fn same_but_classes(found: &[usize], expected: &[usize]) -> bool {
    !found.is_empty() && found.len() == expected.len() && found[1..] == expected[1..]
}

/// How a net's names are written in a file: below `prefix`, and perhaps without what its backbone's begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Naming {
    prefix: String,
    /// What is left out, where the file holds a bare backbone.
    left_out: Option<&'static str>,
}

impl Naming {
    /// The naming under which the file has most of the net's weights; of equals the plainest.
    fn of(slots: &[Slot], file: &WeightsFile) -> Self {
        let mut best = (0, Self { prefix: String::new(), left_out: None });
        for left_out in [None].into_iter().chain(backbone_of(slots).map(Some)) {
            let plain = Self { prefix: String::new(), left_out };
            let wanted: BTreeSet<String> = slots.iter().filter_map(|slot| plain.in_file(&slot.name)).collect();
            let mut prefixes = BTreeMap::<&str, usize>::new();
            for name in file.entries.keys() {
                for (start, _) in name.match_indices('.').map(|(dot, _)| (dot + 1, ())).chain([(0, ())]) {
                    if wanted.contains(&name[start..]) {
                        *prefixes.entry(&name[..start]).or_default() += 1;
                    }
                }
            }
            // A map is walked in order, so of equally good prefixes the shortest comes first.
            for (prefix, count) in prefixes {
                if count > best.0 {
                    best = (count, Self { prefix: prefix.into(), left_out });
                }
            }
        }
        best.1
    }

    /// The name in the file of the weight `name`, if the file can have it at all.
    fn in_file(&self, name: &str) -> Option<String> {
        let name = self.left_out.map_or(Some(name), |left_out| name.strip_prefix(left_out))?;
        Some(format!("{}{name}", self.prefix))
    }
}
