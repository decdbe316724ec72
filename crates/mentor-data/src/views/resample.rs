//! Pixels of a view from the pixels behind it.

use image::RgbImage;
use mentor_types::{Geometry, Weighed};

/// The colour of padding: the mean of ImageNet, which a normalised network sees as about 0.
pub(crate) const FILL: [u8; 3] = [124, 116, 104];

/// An image seen through a geometry, `size` = height and width.
///
/// Each view pixel is made of those that [`Geometry::weighed`] says; one whose centre lies outside the image is [`FILL`].
pub(crate) fn resample_image(source: &RgbImage, geometry: Geometry, size: [usize; 2]) -> RgbImage {
    let [height, width] = size;
    let columns = geometry.weighed(0, width, source.width() as usize);
    let rows = geometry.weighed(1, height, source.height() as usize);
    let first = rows.iter().flatten().map(|row| row.start).min().unwrap_or(0);
    let end = rows.iter().flatten().map(|row| row.start + row.weights.len()).max().unwrap_or(0);
    let wide = shrink_rows(source, &columns, first..end);
    let mut view = Vec::with_capacity(height * width * 3);
    let mut sums = vec![0.0_f32; width * 3];
    for row in &rows {
        let Some(row) = row else {
            view.extend(FILL.iter().copied().cycle().take(width * 3));
            continue;
        };
        sums.fill(0.0);
        for (weight, y) in row.weights.iter().zip(row.start - first..) {
            let line = &wide[y * width * 3..(y + 1) * width * 3];
            sums.iter_mut().zip(line).for_each(|(sum, value)| *sum += weight * value);
        }
        for (pixel, column) in sums.as_chunks::<3>().0.iter().zip(&columns) {
            view.extend(if column.is_some() { pixel.map(round) } else { FILL });
        }
    }
    // The buffer holds exactly height x width x 3 bytes, so this always succeeds.
    RgbImage::from_raw(width as u32, height as u32, view).unwrap_or_default()
}

/// Some rows of the source, resampled along x: `[rows, columns, 3]`.
fn shrink_rows(source: &RgbImage, columns: &[Option<Weighed>], rows: std::ops::Range<usize>) -> Vec<f32> {
    let stride = source.width() as usize * 3;
    let mut wide = Vec::with_capacity(rows.len() * columns.len() * 3);
    for y in rows {
        let line = source.as_raw()[y * stride..(y + 1) * stride].as_chunks::<3>().0;
        for column in columns {
            let mut sum = [0.0_f32; 3];
            if let Some(of) = column {
                for (weight, pixel) in of.weights.iter().zip(&line[of.start..]) {
                    for (sum, value) in sum.iter_mut().zip(pixel) {
                        *sum += weight * f32::from(*value);
                    }
                }
            }
            wide.extend(sum);
        }
    }
    wide
}

fn round(value: f32) -> u8 {
    // A float cast clamps to the range of a byte.
    (value + 0.5) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    fn ramp() -> RgbImage {
        RgbImage::from_fn(8, 6, |x, y| Rgb([x as u8 * 20, y as u8 * 30, 77]))
    }

    #[test]
    fn a_move_by_whole_pixels_copies_and_pads() {
        let moved = resample_image(&ramp(), Geometry { scale: [1.0, 1.0], shift: [-2.0, 1.0] }, [6, 8]);
        assert_eq!(moved.get_pixel(1, 0), &Rgb(FILL));
        assert_eq!(moved.get_pixel(2, 5), &Rgb(FILL));
        assert_eq!(moved.get_pixel(2, 0), ramp().get_pixel(0, 1));
        assert_eq!(moved.get_pixel(7, 4), ramp().get_pixel(5, 5));
        assert_eq!(resample_image(&ramp(), Geometry::IDENTITY, [6, 8]), ramp());
    }

    #[test]
    fn enlarging_is_bilinear_and_shrinking_averages() {
        let two = RgbImage::from_raw(2, 1, vec![0, 0, 0, 100, 100, 100]).unwrap_or_default();
        let large = resample_image(&two, Geometry::scaling(0.5), [1, 4]);
        let reds: Vec<u8> = large.pixels().map(|pixel| pixel[0]).collect();
        assert_eq!(reds, [0, 25, 75, 100]);
        // Lines one pixel apart would alias into black or white; averaged they are grey.
        let lines = RgbImage::from_fn(64, 64, |x, _| Rgb([if x % 2 == 0 { 0 } else { 200 }; 3]));
        let small = resample_image(&lines, Geometry::scaling(2.0), [32, 32]);
        assert!(small.pixels().all(|pixel| pixel[0].abs_diff(100) <= 34), "{:?}", small.get_pixel(3, 3));
        let inner = small.get_pixel(16, 16)[0];
        assert!(inner.abs_diff(100) <= 1, "{inner}");
    }
}
