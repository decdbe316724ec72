//! `CutMix`: a box of one image of a batch pasted into another.

use mentor_types::{CutBox, Key, Pairs};
use rand::RngExt;

use super::between;
use crate::config::StrongConfig;
use crate::labels::ReadLabels;

/// Pastes into some of the strong views a box of another one's, at the same place, and the link with it, so that what is
/// pasted keeps leading to the weak view that shows it. The other image is a fixed number of samples ahead,
/// around the batch; a batch of one is left alone.
pub(crate) fn cutmix<L: ReadLabels>(pairs: &mut Pairs<L>, strong: &StrongConfig, key: Key) {
    let (n, height, width) = (pairs.strong.n, pairs.strong.height, pairs.strong.width);
    if n < 2 {
        return;
    }
    let ahead = key.at("partner", 0).rng().random_range(1..n as u32) as usize;
    // Sources are read as they were before any pasting.
    let (before, link_before) = (pairs.strong.rgb.clone(), pairs.link.clone());
    for sample in 0..n {
        let mut rng = key.at("sample", sample as u64).rng();
        if rng.random::<f64>() >= strong.cutmix.unwrap_or(L::CUTMIX) {
            continue;
        }
        let area = between(strong.cutmix_area, rng.random());
        let ratio = between(strong.cutmix_ratio, rng.random());
        let cut = place([height, width], area, ratio, [rng.random(), rng.random()]);
        let source = (sample + ahead) % n;
        L::paste(&mut pairs.link, &link_before, [height, width], cut, source, sample);
        let bytes = cut.width * 3;
        for y in cut.y..cut.y + cut.height {
            let [from, to] = [source, sample].map(|sample| ((sample * height + y) * width + cut.x) * 3);
            pairs.strong.rgb[to..to + bytes].copy_from_slice(&before[from..from + bytes]);
        }
    }
}

/// A box with a share of a view's area and a ratio of height to width, at a place given by two numbers in [0, 1). Where
/// the box would be longer than the view it is cut to it.
pub(super) fn place([height, width]: [usize; 2], area: f64, ratio: f64, at: [f64; 2]) -> CutBox {
    let pixels = area * (height * width) as f64;
    let rows = ((pixels * ratio).sqrt().round() as usize).min(height);
    let columns = ((pixels / ratio).sqrt().round() as usize).min(width);
    let start = |free: usize, unit: f64| ((free + 1) as f64 * unit) as usize;
    CutBox { x: start(width - columns, at[0]), y: start(height - rows, at[1]), width: columns, height: rows }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mentor_types::{Images, LabelMask};

    #[test]
    fn a_box_has_its_share_and_stays_inside() {
        let cut = place([100, 200], 0.25, 2.0, [0.999_999, 0.0]);
        assert_eq!((cut.width, cut.height, cut.x, cut.y), (50, 100, 150, 0));
        let cut = place([100, 200], 1.0, 0.1, [0.5, 0.999_999]);
        assert_eq!((cut.width, cut.x), (200, 0));
        assert_eq!(cut.y + cut.height, 100);
        assert_eq!(place([100, 200], 0.0, 1.0, [0.0, 0.0]).width, 0);
    }

    fn pairs(n: usize) -> Pairs<LabelMask> {
        let (height, width) = (8, 10);
        let pixels = n * height * width;
        let rgb = (0..pixels * 3).map(|place| (place / 3 / (height * width)) as u8).collect();
        Pairs {
            weak: Images::default(),
            strong: Images { n, height, width, rgb },
            link: (0..pixels as i32).collect(),
            targets: Vec::new(),
            truth: Vec::new(),
        }
    }

    #[test]
    fn pasted_pixels_and_their_origins_come_from_the_same_other_image() {
        let always = StrongConfig { cutmix: Some(1.0), cutmix_area: [0.3, 0.5], ..StrongConfig::default() };
        let mut mixed = pairs(3);
        cutmix(&mut mixed, &always, Key::new(4));
        let mut pasted = 0;
        for (place, origin) in mixed.link.iter().enumerate() {
            let source = *origin as usize / 80;
            assert_eq!(usize::from(mixed.strong.rgb[place * 3]), source);
            assert_eq!(*origin as usize % 80, place % 80);
            pasted += usize::from(source != place / 80);
        }
        assert!((60..=130).contains(&pasted), "{pasted}");
        let mut alone = pairs(1);
        cutmix(&mut alone, &always, Key::new(4));
        assert_eq!(alone, pairs(1));
    }
}
