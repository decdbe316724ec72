//! Photos to pixels, with limits, and one line where a file cannot be used.
//!
//! Photos become 8-bit RGB whatever they are: grey is repeated, 16 bits are rounded to 8, CMYK JPEGs are converted, alpha
//! is dropped (not composited). They are turned upright by their EXIF orientation, as viewers and labelling tools do.

use std::io::Cursor;
use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, RgbImage};
use mentor_types::Images;

use crate::error::{BadSample, DataError};
use crate::files::{IMAGE_EXTENSIONS, ask, check_file, read_file};

/// The longest side of an image or mask that is decoded, in pixels.
const MAX_SIDE_PX: u32 = 32_768;

/// The most pixels of an image or mask that is decoded: a small file must not fill the memory.
const MAX_PIXELS: u64 = 64 * 1024 * 1024;

/// The most memory that a decoder may ask for, in bytes.
pub(super) const MAX_DECODER_BYTES: u64 = 768 * 1024 * 1024;

/// Reads any photo as one 8-bit RGB image (`n` = 1).
///
/// # Errors
/// Where it is missing, empty, truncated, too large or no image, a [`BadSample`]; where the system does not give it out,
/// [`DataError::Io`]. One line with the path.
pub fn read_image(path: &Path) -> Result<Images, DataError> {
    let image = read_rgb(path)?;
    let (width, height) = (image.width() as usize, image.height() as usize);
    Ok(Images { n: 1, height, width, rgb: image.into_raw() })
}

/// Reads any photo.
pub(crate) fn read_rgb(path: &Path) -> Result<RgbImage, DataError> {
    let bytes = read_file(path)?;
    Ok(decode_rgb(path, &bytes)?)
}

/// Width and height of an upright photo, from the header alone.
pub(crate) fn read_size(path: &Path) -> Result<(u32, u32), DataError> {
    // An empty file would be reported as an unknown format.
    check_file(path)?;
    let upright = || {
        let mut decoder = ImageReader::open(path)?.with_guessed_format()?.into_decoder()?;
        let (width, height) = decoder.dimensions();
        Ok(if lies(orientation(&mut decoder)) { (height, width) } else { (width, height) })
    };
    let size = ask(path, || match upright() {
        // The system's own word comes through the decoder, too.
        Err(image::ImageError::IoError(error)) if error.raw_os_error().is_some() => Err(error),
        size => Ok(size),
    })?;
    Ok(size.map_err(|error| BadSample::new(path, reason(&error)))?)
}

/// How a photo is to be turned; one whose tag is broken is not.
fn orientation(decoder: &mut impl ImageDecoder) -> Orientation {
    decoder.orientation().unwrap_or(Orientation::NoTransforms)
}

/// Whether an orientation makes height of width.
fn lies(orientation: Orientation) -> bool {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    matches!(orientation, Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH)
}

pub(super) fn check_size(width: u32, height: u32) -> Result<(), String> {
    let pixels = u64::from(width) * u64::from(height);
    if width == 0 || height == 0 {
        return Err(format!("is {width} x {height} pixels"));
    }
    if width > MAX_SIDE_PX || height > MAX_SIDE_PX || pixels > MAX_PIXELS {
        return Err(format!(
            "is {width} x {height} pixels, more than the limit ({MAX_SIDE_PX} a side, {MAX_PIXELS} in all)"
        ));
    }
    Ok(())
}

fn decode_rgb(path: &Path, bytes: &[u8]) -> Result<RgbImage, BadSample> {
    let (mut picture, orientation) = decode_turned(path, bytes)?;
    picture.apply_orientation(orientation);
    Ok(picture.into_rgb8())
}

/// An image as its pixels are stored, whatever its orientation.
pub(super) fn decode(path: &Path, bytes: &[u8]) -> Result<DynamicImage, BadSample> {
    Ok(decode_turned(path, bytes)?.0)
}

/// An image as its pixels are stored, and how it is to be turned.
fn decode_turned(path: &Path, bytes: &[u8]) -> Result<(DynamicImage, Orientation), BadSample> {
    let fail = |error: image::ImageError| BadSample::new(path, reason(&error));
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|error| BadSample::new(path, error.to_string()))?;
    let format = reader.format();
    let mut limits = image::Limits::default();
    limits.max_alloc = Some(MAX_DECODER_BYTES);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(fail)?;
    let orientation = orientation(&mut decoder);
    let (width, height) = decoder.dimensions();
    check_size(width, height).map_err(|reason| BadSample::new(path, reason))?;
    if format == Some(ImageFormat::Jpeg) && !jpeg_ends(bytes) {
        return Err(BadSample::new(path, "is a truncated JPEG (it has no end marker)"));
    }
    Ok((DynamicImage::from_decoder(decoder).map_err(fail)?, orientation))
}

/// Whether an end marker follows the last scan. The decoder itself fills what is missing with grey and says nothing.
fn jpeg_ends(bytes: &[u8]) -> bool {
    let last = |marker: u8| bytes.windows(2).rposition(|pair| pair == [0xff, marker]);
    last(0xd9) > last(0xda)
}

/// What a decoder said, in words of ours where it only says "unknown".
fn reason(error: &image::ImageError) -> String {
    match error {
        image::ImageError::Unsupported(error)
            if matches!(error.format_hint(), image::error::ImageFormatHint::Unknown) =>
        {
            format!("is no image in a known format ({})", IMAGE_EXTENSIONS.join(", "))
        }
        image::ImageError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            "is truncated".to_owned()
        }
        error => format!("cannot be decoded: {error}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use image::{GrayImage, Luma, Rgb, Rgba, RgbaImage};
    use std::path::PathBuf;

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::Builder::new().prefix("with space ö ").tempdir().unwrap();
        let path = folder.path().join("some mask ñ.png");
        (folder, path)
    }

    #[test]
    fn grey_16_bit_and_alpha_photos_become_rgb_and_one_pixel_is_enough() {
        let (_folder, path) = folder();
        DynamicImage::ImageLuma8(GrayImage::from_pixel(1, 1, Luma([9]))).save(&path).unwrap();
        assert_eq!(read_image(&path).unwrap(), Images { n: 1, height: 1, width: 1, rgb: vec![9; 3] });
        let deep = image::ImageBuffer::from_pixel(2, 1, Rgb([0xffff_u16, 0x8080, 0]));
        DynamicImage::ImageRgb16(deep).save(&path).unwrap();
        assert_eq!(read_rgb(&path).unwrap().get_pixel(1, 0), &Rgb([255, 128, 0]));
        RgbaImage::from_pixel(1, 2, Rgba([200, 100, 50, 0])).save(&path).unwrap();
        assert_eq!(read_rgb(&path).unwrap().get_pixel(0, 1), &Rgb([200, 100, 50]));
        assert_eq!(read_size(&path).unwrap(), (1, 2));
    }

    /// A JPEG with an EXIF orientation.
    fn save_turned(path: &Path, picture: &image::RgbImage, orientation: u8) {
        let mut bytes = Vec::new();
        let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 100);
        picture.write_with_encoder(encoder).unwrap();
        // Behind the marker of the start: APP1 with one entry of a TIFF header of little end.
        let mut exif = b"\xff\xe1\x00\x22Exif\0\0II\x2a\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
        exif.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
        bytes.splice(2..2, exif);
        std::fs::write(path, bytes).unwrap();
    }

    #[test]
    fn photos_are_turned_upright_and_so_is_their_size() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("photo.jpg");
        // Red at the left, blue at the right; stored so by a camera that lay on its side.
        let picture = RgbImage::from_fn(32, 16, |x, _| if x < 16 { Rgb([250, 0, 0]) } else { Rgb([0, 0, 250]) });
        for (orientation, size, red_at, blue_at) in [
            (1, (32, 16), (4, 8), (28, 8)),
            (3, (32, 16), (28, 8), (4, 8)),
            (6, (16, 32), (8, 4), (8, 28)),
            (8, (16, 32), (8, 28), (8, 4)),
            (99, (32, 16), (4, 8), (28, 8)),
        ] {
            save_turned(&path, &picture, orientation);
            let upright = read_rgb(&path).unwrap();
            assert_eq!((upright.dimensions(), read_size(&path).unwrap()), (size, size), "{orientation}");
            let channel = |(x, y): (u32, u32), channel: usize| upright.get_pixel(x, y).0[channel];
            assert!(channel(red_at, 0) > 200 && channel(blue_at, 2) > 200, "{orientation}");
        }
    }

    #[test]
    fn a_cmyk_jpeg_is_converted() {
        // 8 x 8 pixels of C = 0, M = 255, Y = 255, K = 0 (red), as print programs write them.
        let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cmyk_red.jpg"));
        let [r, g, b] = read_rgb(path).unwrap().get_pixel(4, 4).0;
        assert!(r > 200 && g < 50 && b < 50, "{r} {g} {b}");
    }
}
