//! What terms teach about unlabelled images, for people to look at.

use burn::tensor::{Device, Tensor};
use mentor_distill::TermTable;
use mentor_types::{BoxKind, BoxLabels, LabelBox, Pairs};
use mentor_unlabeled::Teaching;

use super::UnlabelledConfig;
use crate::context::Context;
use crate::nets::DetNet;
use crate::upload::{DetPairs, DetTargets};
use crate::views::Views;

/// The nets that label weak views.
pub type Labellers<'a> = mentor_unlabeled::Labellers<'a, DetNet>;

/// What a term teaches about unlabelled images: for each the boxes that are taught on its strong view; boxes inside of which
/// nothing is learnt are difficult.
pub type Taught = mentor_unlabeled::Taught<BoxLabels>;

/// The boxes that each term trains on, as the step makes them: by the term's own labeller, from the weak views, carried to the
/// strong ones, of which each must show `visible_share` of an object.
#[must_use]
pub fn pseudo_of(
    config: &UnlabelledConfig,
    nets: Labellers<'_>,
    pairs: &Pairs<BoxLabels>,
    visible_share: f64,
    device: &Device,
) -> Vec<Taught> {
    let on = config.terms();
    if on.is_empty() {
        return Vec::new();
    }
    let uploaded = DetPairs::upload(pairs.clone(), device);
    let weak = uploaded.weak.normalised();
    let labeller = |teaching| nets.weak(teaching, &weak, DetNet::forward);
    let views = Views::new(&uploaded.labels, &labeller, visible_share);
    let strong = nets.weak(Teaching::Student, &uploaded.strong.normalised(), DetNet::forward);
    let context = Context { views: Some(&views), ..Context::of(&strong, None) };
    let taught = on.into_iter().filter_map(|(name, term)| {
        let labels = term.pseudo(&context)?;
        Some(Taught { term: name.to_owned(), views: on_host(&labels) })
    });
    taught.collect()
}

/// The truth of strong views, where the data set has it; each must show `visible_share` of an object.
#[must_use]
pub fn truth_of(pairs: &Pairs<BoxLabels>, visible_share: f64, device: &Device) -> Vec<BoxLabels> {
    let uploaded = DetPairs::upload(pairs.clone(), device);
    let nobody = |_: Teaching| unreachable!("no labeller is asked for the truth");
    let views = Views::new(&uploaded.labels, &nobody, visible_share);
    on_host(&views.carried(views.truth(), [pairs.strong.height, pairs.strong.width]))
}

/// The boxes of each image, but for what is left of the room.
fn on_host(targets: &DetTargets) -> Vec<BoxLabels> {
    let [n, m, _] = targets.edges_nm4.dims();
    let floats = |tensor: Tensor<2>| -> Vec<f32> {
        tensor.into_data().convert::<f32>().try_into_vec::<f32>().expect("converted to f32 above")
    };
    let edges = floats(targets.edges_nm4.clone().reshape([n * m, 4]));
    let classes = floats(targets.classes_nm.clone().float());
    let (objects, ignored) = (floats(targets.objects_nm.clone()), floats(targets.ignored_nm.clone()));
    let image = |image: usize| {
        let boxes = (image * m..(image + 1) * m).filter(|at| objects[*at] + ignored[*at] > 0.0).map(|at| {
            let edges: [f32; 4] = edges[4 * at..4 * at + 4].try_into().expect("four edges");
            let kind = if objects[at] > 0.0 { BoxKind::Object } else { BoxKind::Difficult };
            LabelBox { edges, class: classes[at] as u8, kind, area: (edges[2] - edges[0]) * (edges[3] - edges[1]) }
        });
        BoxLabels { boxes: boxes.collect(), looked_for: None }
    };
    (0..n).map(image).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::nets::{NetConfig, NetTable};
    use crate::unlabelled::UnbiasedTeacher;
    use burn::module::Param;
    use burn::tensor::DType;
    use mentor_nets::{BackboneKind, Level};
    use mentor_types::{Geometry, Images, Key};
    use rand::RngExt;

    fn net(seed: u64) -> DetNet {
        let table = NetTable::new(BackboneKind::Resnet18);
        let (width, levels) = (Some(4), vec![Level::P3, Level::P4]);
        let net = NetConfig::Fcos(NetTable { width, levels, head_convs: 1, ..table }).init(3, seed, &Device::flex());
        let DetNet::Fcos(mut net) = net else { panic!("FCOS was built") };
        // Boxes of a fresh net have hardly an area.
        net.head.regression_head.bbox_reg.bias = Some(Param::from_tensor(Tensor::ones([4], &Device::flex())));
        DetNet::Fcos(net)
    }

    fn pairs() -> Pairs<BoxLabels> {
        let mut rng = Key::new(4).rng();
        let mut images =
            || Images { n: 2, height: 32, width: 32, rgb: (0..2 * 32 * 32 * 3).map(|_| rng.random()).collect() };
        let given = LabelBox { edges: [2.0, 4.0, 12.0, 14.0], class: 2, kind: BoxKind::Object, area: 100.0 };
        let partly = BoxLabels { boxes: vec![given], looked_for: Some(vec![2]) };
        let mirror = Geometry { scale: [-1.0, 1.0], shift: [32.0, 0.0] };
        Pairs {
            weak: images(),
            strong: images(),
            link: vec![mirror; 2],
            targets: vec![partly, BoxLabels::unknown()],
            truth: vec![BoxLabels { boxes: vec![given], looked_for: None }, BoxLabels::unknown()],
        }
    }

    #[test]
    fn the_truth_is_carried_to_the_strong_view() {
        let truth = truth_of(&pairs(), 0.25, &Device::flex());
        assert_eq!(truth[0].boxes[0].edges, [20.0, 4.0, 30.0, 14.0]);
        assert!(truth[0].boxes.len() == 1 && truth[1].boxes.is_empty());
    }

    #[test]
    fn what_is_shown_is_what_is_there_and_what_the_labeller_finds() {
        let (student, average) = (net(1), net(2));
        let nets = Labellers { student: &student, average: Some(&average), precision: DType::F32 };
        let taught = |teacher, threshold| {
            let term = UnbiasedTeacher { teacher, threshold, most: 5, ..UnbiasedTeacher::default() };
            let config = UnlabelledConfig { unbiased_teacher: Some(term), ..UnlabelledConfig::default() };
            pseudo_of(&config, nets, &pairs(), 0.25, &Device::flex()).remove(0)
        };
        let sure = taught(Teaching::Ema, 0.99);
        assert_eq!(sure.term, "unbiased_teacher");
        assert_eq!(
            sure.views[0].boxes.iter().map(|one| (one.edges, one.class)).collect::<Vec<_>>(),
            [([20.0, 4.0, 30.0, 14.0], 2)]
        );
        assert!(sure.views[1].boxes.is_empty());
        let [by_average, by_student] = [Teaching::Ema, Teaching::Student].map(|teacher| taught(teacher, 0.01));
        assert!(by_average.views[1].boxes.len() == 5 && by_average != by_student);
        // A class that was looked for takes no box.
        assert!(by_average.views[0].boxes[1..].iter().all(|one| one.class != 2));
        assert_eq!(pseudo_of(&UnlabelledConfig::default(), nets, &pairs(), 0.25, &Device::flex()), []);
    }
}
