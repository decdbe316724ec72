//! Random views of an image, each a pure function of image, settings and key.

mod blur;
mod cutmix;
mod geometry;
mod photometric;
mod resample;

pub use blur::blur;
pub use cutmix::{CutBox, cutmix};
pub use geometry::Geometry;
pub use photometric::{grey, jitter};
pub use resample::{FILL, resample_image, resample_labels};

use image::RgbImage;
use mentor_types::{IGNORE, Key, LabelMask, UNKNOWN};
use rand::RngExt;

use crate::config::{Photometric, StrongConfig, ViewsConfig};

/// A view of a labelled image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelledView {
    /// sRGB bytes, `[height, width, 3]`.
    pub rgb: Vec<u8>,
    /// `[height, width]`; padding is ignored.
    pub target: Vec<u8>,
}

/// A weak and a strong view of one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairView {
    /// Bytes of the weak view, `[height, width, 3]`.
    pub weak: Vec<u8>,
    /// Bytes of the strong view, `[height, width, 3]`.
    pub strong: Vec<u8>,
    /// For every pixel of the strong view the index `y * width + x` of the weak pixel that shows the same spot, or -1.
    pub origin: Vec<i32>,
    /// Labels of the weak view; padding is ignored.
    pub target: Vec<u8>,
    /// The truth of the weak view, unknown where there is none.
    pub truth: Vec<u8>,
}

/// What is known of the labels of an image in the unlabelled stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Its mask may be trained on; what is unknown in it is free for pseudo-labels.
    Labels,
    /// Its mask is only compared with: to the training every pixel is unknown.
    TruthOnly,
}

/// A random view of a labelled image.
#[must_use]
pub fn labelled_view(image: &RgbImage, mask: &LabelMask, views: &ViewsConfig, key: Key) -> LabelledView {
    let geometry = weak_geometry(image, views, key);
    LabelledView {
        rgb: weak_image(image, geometry, views, key).into_raw(),
        target: resample_labels(mask, geometry, views.crop_px, IGNORE),
    }
}

/// A random weak and strong view of one image, with the geometry between them, before `CutMix`.
#[must_use]
pub fn pair_view(image: &RgbImage, mask: &LabelMask, known: Known, views: &ViewsConfig, key: Key) -> PairView {
    let defaults = StrongConfig::default();
    let strong = views.strong.as_ref().unwrap_or(&defaults);
    let weak_to_source = weak_geometry(image, views, key);
    let strong_to_weak = relative_geometry(views.crop_px, strong, key.at("strong_geometry", 0));
    let strong_to_source = strong_to_weak.then(&weak_to_source);
    let size = [image.height() as usize, image.width() as usize];
    let target = match known {
        Known::Labels => resample_labels(mask, weak_to_source, views.crop_px, IGNORE),
        Known::TruthOnly => {
            let unknown = LabelMask::filled(size[1], size[0], UNKNOWN);
            resample_labels(&unknown, weak_to_source, views.crop_px, IGNORE)
        }
    };
    let strong_image = resample_image(image, strong_to_source, views.crop_px);
    PairView {
        weak: weak_image(image, weak_to_source, views, key).into_raw(),
        strong: strong_colours(strong_image, strong, key.at("strong_colours", 0)).into_raw(),
        origin: origin(strong_to_weak, weak_to_source, views.crop_px, size),
        target,
        truth: resample_labels(mask, weak_to_source, views.crop_px, UNKNOWN),
    }
}

/// The geometry of the weak view of an image under a key: from its pixels to the image's.
#[must_use]
pub fn weak_geometry(image: &RgbImage, views: &ViewsConfig, key: Key) -> Geometry {
    let mut rng = key.at("weak_geometry", 0).rng();
    let factor = between(views.scale, rng.random());
    let mut offset = [0.0; 2];
    for (axis, offset) in offset.iter_mut().enumerate() {
        let crop = [views.crop_px[1], views.crop_px[0]][axis] as f64;
        let source = f64::from([image.width(), image.height()][axis]);
        // Negative where the image is smaller than the crop: it then lies anywhere inside the padding. Whole pixels, so
        // that a view without a change of size copies pixels as they are.
        *offset = ((factor * source - crop) * rng.random::<f64>()).round();
    }
    let flip = rng.random::<f64>() < views.flip;
    let crop_to_scaled = Geometry { scale: [1.0, 1.0], shift: offset };
    mirror_if(flip, views.crop_px).then(&crop_to_scaled).then(&Geometry::scaling(1.0 / factor))
}

/// The geometry of the strong view against the weak one: from strong pixels to weak pixels.
fn relative_geometry(crop_px: [usize; 2], strong: &StrongConfig, key: Key) -> Geometry {
    let mut rng = key.rng();
    let factor = between(strong.scale.unwrap_or([1.0, 1.0]), rng.random());
    let centre = [crop_px[1] as f64 / 2.0, crop_px[0] as f64 / 2.0];
    let most = strong.shift.unwrap_or(0.0);
    let shift = centre.map(|half| half + (2.0 * half * between([-most, most], rng.random())).round());
    let flip = rng.random::<f64>() < strong.flip.unwrap_or(0.0);
    let to_centre = Geometry { scale: [1.0, 1.0], shift: centre.map(|half| -half) };
    let back = Geometry { scale: [1.0, 1.0], shift };
    mirror_if(flip, crop_px).then(&to_centre).then(&Geometry::scaling(1.0 / factor)).then(&back)
}

fn mirror_if(flip: bool, crop_px: [usize; 2]) -> Geometry {
    if flip { Geometry { scale: [-1.0, 1.0], shift: [crop_px[1] as f64, 0.0] } } else { Geometry::IDENTITY }
}

fn weak_image(image: &RgbImage, geometry: Geometry, views: &ViewsConfig, key: Key) -> RgbImage {
    let view = resample_image(image, geometry, views.crop_px);
    match &views.photometric {
        Some(Photometric { jitter: amounts, jitter_probability }) => {
            let mut rng = key.at("weak_colours", 0).rng();
            if rng.random::<f64>() < *jitter_probability { jitter(view, amounts, &mut rng) } else { view }
        }
        None => view,
    }
}

/// Jitter, grey and blur, in this order. Padding changes its colour with the image.
fn strong_colours(mut view: RgbImage, strong: &StrongConfig, key: Key) -> RgbImage {
    let mut rng = key.at("jitter", 0).rng();
    if rng.random::<f64>() < strong.jitter_probability {
        view = jitter(view, &strong.jitter, &mut rng);
    }
    let mut rng = key.at("grey", 0).rng();
    if rng.random::<f64>() < strong.grey {
        view = grey(view);
    }
    let mut rng = key.at("blur", 0).rng();
    if rng.random::<f64>() < strong.blur {
        view = blur(&view, between(strong.blur_sigma, rng.random()));
    }
    view
}

/// The weak pixel of every strong pixel, by the nearest centre; -1 outside the weak view and where either is padding.
fn origin(strong_to_weak: Geometry, weak_to_source: Geometry, crop_px: [usize; 2], size: [usize; 2]) -> Vec<i32> {
    let [height, width] = crop_px;
    let strong_to_source = strong_to_weak.then(&weak_to_source);
    let table = |axis: usize, len: usize, source: usize| -> Vec<Option<usize>> {
        let strong_inside = strong_to_source.nearest(axis, len, source);
        let weak_inside = weak_to_source.nearest(axis, len, source);
        let weak = strong_to_weak.nearest(axis, len, len).into_iter().zip(strong_inside);
        // At the image's edge the strong centre may lie on the image and the nearest weak centre just beside it.
        weak.map(|(weak, inside)| weak.filter(|weak| inside.is_some() && weak_inside[*weak].is_some())).collect()
    };
    let (columns, rows) = (table(0, width, size[1]), table(1, height, size[0]));
    let mut origin = Vec::with_capacity(height * width);
    for row in &rows {
        for column in &columns {
            let index = row.zip(*column).and_then(|(y, x)| i32::try_from(y * width + x).ok());
            origin.push(index.unwrap_or(-1));
        }
    }
    origin
}

/// The point of a range at `unit` of [0, 1).
pub(crate) fn between([low, high]: [f64; 2], unit: f64) -> f64 {
    low + (high - low) * unit
}

#[cfg(test)]
mod tests;
