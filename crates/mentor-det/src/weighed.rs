//! How much the places of an image count in terms that weigh them, for people to look at.

use burn::tensor::Device;
use mentor_distill::{Column, Sees, TermTable, columns};
use mentor_nets::Frozen;
use mentor_nets::images::DeviceImages;

use crate::assign::AssignConfig;
use crate::context::{Context, Labelled};
use crate::distill::DistillConfig;
use crate::evaluate::Judged;
use crate::grid::level_of;
use crate::nets::DetNet;
use crate::task::Det;
use crate::upload::DetTargets;

/// How much the places of one image count in a column of a term.
#[derive(Clone, Debug, PartialEq)]
pub struct Weighed {
    /// The column, as in the log.
    pub column: String,
    /// Pixels of the image from one place to the next.
    pub stride: usize,
    /// Rows and columns of places.
    pub size: [usize; 2],
    /// The weights, row by row; none is negative.
    pub weights: Vec<f32>,
}

/// The weights of the places of a labelled image in every column of `[distill]` that weighs places, as a step would make them
/// of this student.
#[must_use]
pub fn weighed(
    distill: &DistillConfig,
    assign: &AssignConfig,
    student: &DetNet,
    teacher: &Frozen<DetNet>,
    judged: &Judged,
    device: &Device,
) -> Vec<Weighed> {
    let terms = distill.terms();
    if terms.is_empty() {
        return Vec::new();
    }
    let images = DeviceImages::upload(judged.image.clone(), device).normalised();
    let (student, taught) = (student.forward(images.clone()), teacher.net().forward(images));
    let labelled = Labelled::of(&DetTargets::upload(std::slice::from_ref(&judged.truth), device), &student, assign);
    let context = Context { teacher: Some(&taught), ..Context::of(&student, Some(&labelled)) };
    let levels = Det::levels(&context);
    let of_column = |term: &dyn mentor_distill::Term<Det>, column: Column| {
        let weights = term.place_weights(&context, &column)?;
        let layout = &level_of(&student, column.place().student).layout;
        let weights = weights.into_data().convert::<f32>().try_into_vec().expect("converted to f32 above");
        Some(Weighed { column: column.name, stride: layout.stride, size: layout.size, weights })
    };
    let of_term =
        |(name, term)| columns::<Det>(name, term, &levels).into_iter().filter_map(move |one| of_column(term, one));
    terms.into_iter().flat_map(of_term).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assign::FcosAssign;
    use crate::nets::{NetConfig, NetTable};
    use crate::testing::labelled;
    use mentor_nets::{BackboneKind, Level};
    use mentor_types::{BoxKind, Images};

    #[test]
    fn terms_that_weigh_places_do_so_at_every_level_more_near_objects() {
        let device = Device::flex();
        let table = NetTable::new(BackboneKind::Resnet18);
        let levels = vec![Level::P3, Level::P4];
        let net = NetConfig::Fcos(NetTable { width: Some(4), levels, head_convs: 1, ..table });
        let (student, teacher) = (net.init(2, 1, &device), Frozen::of(&net.init(2, 2, &device)));
        let rgb = (0..64 * 48 * 3).map(|i| (i * 31 % 251) as u8).collect();
        let image = Images { n: 1, height: 48, width: 64, rgb };
        let judged = Judged { image, truth: labelled(&[([0.0, 0.0, 32.0, 24.0], 1, BoxKind::Object)]) };
        let assign = AssignConfig::Fcos(FcosAssign::default());
        let found = weighed(&DistillConfig::all(), &assign, &student, &teacher, &judged, &device);
        let names: Vec<&str> = found.iter().map(|one| one.column.as_str()).collect();
        let terms = ["imitation", "regression_imitation", "fgd", "defeat"];
        let expected: Vec<String> =
            terms.iter().flat_map(|term| ["p3", "p4"].map(|level| format!("{term}@{level}"))).collect();
        assert_eq!(names, expected);
        for one in &found {
            assert_eq!(one.size, [48usize.div_ceil(one.stride), 64usize.div_ceil(one.stride)]);
            assert_eq!(one.weights.len(), one.size[0] * one.size[1]);
            assert!(one.weights.iter().all(|weight| *weight >= 0.0));
        }
        for one in found.iter().filter(|one| one.column == "imitation@p3") {
            assert!(one.weights[0] > one.weights[one.weights.len() - 1], "{one:?}");
        }
        assert_eq!(weighed(&DistillConfig::default(), &assign, &student, &teacher, &judged, &device), []);
    }
}
