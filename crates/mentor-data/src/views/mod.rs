//! Random views of an image, each a pure function of image, settings and key.

mod cutmix;
mod erase;
mod mosaic;
mod photometric;
mod resample;

use image::RgbImage;
use mentor_types::{Geometry, IGNORE, Key, UNKNOWN};
use rand::RngExt;

pub(crate) use self::cutmix::cutmix;
use self::erase::erase;
pub(crate) use self::mosaic::{mosaic_partners, mosaic_view};
use self::photometric::{blur, grey, jitter};
use self::resample::resample_image;
use crate::config::{Photometric, StrongConfig, ViewsConfig};
use crate::labels::ReadLabels;

/// A view of a labelled image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LabelledView<L> {
    /// sRGB bytes, `[height, width, 3]`.
    pub rgb: Vec<u8>,
    /// What is known of it; padding is ignored.
    pub labels: L,
}

/// A weak and a strong view of one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PairView<L: ReadLabels> {
    /// Bytes of the weak view, `[height, width, 3]`.
    pub weak: Vec<u8>,
    /// Bytes of the strong view, `[height, width, 3]`.
    pub strong: Vec<u8>,
    /// From the strong view to the weak one.
    pub link: L::Link,
    /// What is known of the weak view; padding is ignored.
    pub labels: L,
    /// The truth of the weak view, unknown where there is none.
    pub truth: L,
}

/// A random view of a labelled image.
pub(crate) fn labelled_view<L: ReadLabels>(
    image: &RgbImage,
    labels: &L,
    views: &ViewsConfig,
    key: Key,
) -> LabelledView<L> {
    let geometry = labelled_geometry(image, labels, views, key);
    LabelledView {
        rgb: weak_image(image, geometry, views, key).into_raw(),
        labels: labels.view(geometry, views, IGNORE),
    }
}

/// A random weak and strong view of one image, with what leads from one to the other, before `CutMix`. The `truth` is only
/// compared with; the labels that are `known` may be trained on, what is unknown in them is free for pseudo-labels, and all is
/// unknown where there are none.
pub(crate) fn pair_view<L: ReadLabels>(
    image: &RgbImage,
    truth: &L,
    known: Option<&L>,
    views: &ViewsConfig,
    key: Key,
) -> PairView<L> {
    let defaults = StrongConfig::default();
    let strong = views.strong.as_ref().unwrap_or(&defaults);
    let weak_to_source = weak_geometry(image, views, key);
    let strong_to_weak = relative_geometry(views.crop_px, strong, key.at("strong_geometry", 0));
    let strong_to_source = strong_to_weak.then(&weak_to_source);
    let size = [image.height() as usize, image.width() as usize];
    let strong_image = resample_image(image, strong_to_source, views.crop_px);
    PairView {
        weak: weak_image(image, weak_to_source, views, key).into_raw(),
        strong: strong_colours(strong_image, strong, key.at("strong_colours", 0)).into_raw(),
        link: L::link(strong_to_weak, weak_to_source, views.crop_px, size),
        labels: match known {
            Some(labels) => labels.view(weak_to_source, views, IGNORE),
            None => L::unknown(size).view(weak_to_source, views, IGNORE),
        },
        truth: truth.view(weak_to_source, views, UNKNOWN),
    }
}

/// How often a view is drawn again that is to show an object.
const TRIES: u64 = 50;

/// The geometry of a labelled view: that of the weak view, drawn again until it shows so much of an object as is asked for,
/// or else the first.
fn labelled_geometry<L: ReadLabels>(image: &RgbImage, labels: &L, views: &ViewsConfig, key: Key) -> Geometry {
    let first = weak_geometry(image, views, key);
    let Some(share) = views.keep_box else { return first };
    let again = (1..TRIES).map(|attempt| weak_geometry(image, views, key.at("again", attempt)));
    let mut all = std::iter::once(first).chain(again);
    all.find(|geometry| labels.shows(*geometry, views.crop_px, share)).unwrap_or(first)
}

/// The geometry of the weak view of an image under a key: from its pixels to the image's.
fn weak_geometry(image: &RgbImage, views: &ViewsConfig, key: Key) -> Geometry {
    let mut rng = key.at("weak_geometry", 0).rng();
    let size = [image.height() as usize, image.width() as usize];
    let factor = between(views.scale, rng.random()) * views.resize.map_or(1.0, |resize| resize.factor(size));
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

/// Jitter, grey, blur and erasing, in this order. Padding changes its colour with the image.
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
    let mut rng = key.at("erase", 0).rng();
    if rng.random::<f64>() < strong.erase.unwrap_or(0.0) {
        view = erase(view, &mut rng);
    }
    view
}

/// The point of a range at `unit` of [0, 1).
pub(crate) fn between([low, high]: [f64; 2], unit: f64) -> f64 {
    low + (high - low) * unit
}

#[cfg(test)]
mod tests;
