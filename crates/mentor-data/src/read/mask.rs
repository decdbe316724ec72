//! Masks to labels: exact, never rounded, and one line where a file cannot be used.

use std::io::Cursor;
use std::path::Path;

use image::{DynamicImage, ImageFormat, RgbImage};
use mentor_types::LabelMask;

use super::photo::{MAX_DECODER_BYTES, check_size, decode};
use crate::card::MaskFormat;
use crate::error::{BadSample, DataError};
use crate::files::read_file;
use crate::labels::LabelMap;

/// Reads a mask and gives its pixels their meaning.
pub(crate) fn read_mask(path: &Path, map: &LabelMap) -> Result<LabelMask, DataError> {
    let bytes = read_file(path)?;
    refuse_jpeg(path, &bytes)?;
    let mask = match map.format() {
        MaskFormat::Color => {
            let rgb = decode_colours(path, &bytes)?;
            map.colour_mask(rgb.width() as usize, rgb.height() as usize, rgb.as_raw())
        }
        MaskFormat::Index => {
            let (width, height, raw) = decode_index(path, &bytes).map_err(|error| error.at(path))?;
            map.index_mask(width, height, &raw)
        }
    };
    Ok(mask.map_err(|reason| BadSample::new(path, reason))?)
}

/// A mask of a kind that is yet unknown.
#[derive(Debug)]
pub(crate) struct RawMask {
    pub format: MaskFormat,
    pub width: usize,
    pub height: usize,
    /// Its indices, or its bytes of red, green, blue.
    pub bytes: Vec<u8>,
}

/// Reads a mask of a kind that is yet unknown.
pub(crate) fn decode_raw(path: &Path) -> Result<RawMask, DataError> {
    let bytes = read_file(path)?;
    refuse_jpeg(path, &bytes)?;
    match decode_index(path, &bytes) {
        Ok((width, height, bytes)) => Ok(RawMask { format: MaskFormat::Index, width, height, bytes }),
        Err(NoIndex::Colours) => {
            let rgb = decode_colours(path, &bytes)?;
            let (width, height) = (rgb.width() as usize, rgb.height() as usize);
            Ok(RawMask { format: MaskFormat::Color, width, height, bytes: rgb.into_raw() })
        }
        Err(error) => Err(error.at(path).into()),
    }
}

/// Whether nothing differs in an image but how opaque its pixels are.
pub(crate) fn has_alpha_alone(path: &Path, bytes: &[u8]) -> Result<bool, DataError> {
    let picture = decode(path, bytes)?;
    if !picture.color().has_alpha() {
        return Ok(false);
    }
    let rgba = picture.into_rgba8();
    let mut pixels = rgba.pixels();
    let Some(first) = pixels.next() else { return Ok(false) };
    let differs = |channels: std::ops::Range<usize>| {
        rgba.pixels().any(|pixel| pixel.0[channels.clone()] != first.0[channels.clone()])
    };
    Ok(differs(3..4) && !differs(0..3))
}

fn refuse_jpeg(path: &Path, bytes: &[u8]) -> Result<(), BadSample> {
    if image::guess_format(bytes).is_ok_and(|format| format == ImageFormat::Jpeg) {
        return Err(BadSample::new(path, "is a JPEG, which cannot hold exact labels; masks must be PNG"));
    }
    Ok(())
}

/// The colours of a mask. Rounded to 8 bits, several classes could become one.
fn decode_colours(path: &Path, bytes: &[u8]) -> Result<RgbImage, BadSample> {
    let picture = decode(path, bytes)?;
    let exact = |samples: &[u16]| samples.iter().all(|sample| sample.is_multiple_of(257));
    let exact = match &picture {
        DynamicImage::ImageLuma16(picture) => exact(picture.as_raw()),
        DynamicImage::ImageLumaA16(picture) => exact(picture.as_raw()),
        DynamicImage::ImageRgb16(picture) => exact(picture.as_raw()),
        DynamicImage::ImageRgba16(picture) => exact(picture.as_raw()),
        DynamicImage::ImageRgb32F(_) | DynamicImage::ImageRgba32F(_) => false,
        _ => true,
    };
    if !exact {
        let reason = "has colours that 8 bits a channel cannot hold: write the mask with 8 bits a channel";
        return Err(BadSample::new(path, reason));
    }
    Ok(picture.into_rgb8())
}

/// Why a file gives no indices.
#[derive(Debug)]
enum NoIndex {
    /// It holds colours.
    Colours,
    /// What is wrong with it.
    Bad(String),
}

impl From<String> for NoIndex {
    fn from(reason: String) -> Self {
        Self::Bad(reason)
    }
}

impl NoIndex {
    fn at(self, path: &Path) -> BadSample {
        BadSample::new(
            path,
            match self {
                Self::Bad(reason) => reason,
                Self::Colours => {
                    "has colours where an index mask is expected; the card's masks.format may be `color`".to_owned()
                }
            },
        )
    }
}

/// Width, height and indices of a mask: never rounded, never cut.
fn decode_index(path: &Path, bytes: &[u8]) -> Result<(usize, usize, Vec<u8>), NoIndex> {
    if bytes.starts_with(b"\x89PNG") {
        return decode_png_index(bytes);
    }
    let picture = decode(path, bytes).map_err(|bad| NoIndex::Bad(bad.reason))?;
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let narrow = |samples: &[u16], channels: usize| -> Result<Vec<u8>, NoIndex> {
        let firsts = samples.iter().step_by(channels).enumerate();
        firsts.map(|(place, value)| Ok(index_of(*value, place % width, place / width)?)).collect()
    };
    let raw = match picture {
        DynamicImage::ImageLuma8(mask) => mask.into_raw(),
        DynamicImage::ImageLumaA8(mask) => mask.as_raw().iter().step_by(2).copied().collect(),
        DynamicImage::ImageLuma16(mask) => narrow(mask.as_raw(), 1)?,
        DynamicImage::ImageLumaA16(mask) => narrow(mask.as_raw(), 2)?,
        _ => return Err(NoIndex::Colours),
    };
    Ok((width, height, raw))
}

/// A raw value as an index, which has 8 bits.
fn index_of(value: u16, x: usize, y: usize) -> Result<u8, String> {
    u8::try_from(value).map_err(|_| {
        format!(
            "value {value} at x = {x}, y = {y} is above 255, the largest that is read: give the classes numbers from 0 to \
             255 (where the values name instances, as 26001 does, keep the class alone)"
        )
    })
}

/// The raw indices of a PNG with one channel: the `image` crate would turn a palette into its colours.
fn decode_png_index(bytes: &[u8]) -> Result<(usize, usize, Vec<u8>), NoIndex> {
    let fail = |error: png::DecodingError| match error {
        png::DecodingError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            "is truncated".to_owned()
        }
        error => format!("cannot be decoded: {error}"),
    };
    let limits = png::Limits { bytes: usize::try_from(MAX_DECODER_BYTES).unwrap_or(usize::MAX) };
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), limits);
    decoder.set_transformations(png::Transformations::IDENTITY);
    let mut reader = decoder.read_info().map_err(fail)?;
    let (width, height) = reader.info().size();
    check_size(width, height)?;
    let (colour, depth) = reader.output_color_type();
    let channels = match colour {
        png::ColorType::Grayscale | png::ColorType::Indexed => 1,
        png::ColorType::GrayscaleAlpha => 2,
        png::ColorType::Rgb | png::ColorType::Rgba => return Err(NoIndex::Colours),
    };
    let mut buffer = vec![0; reader.output_buffer_size().ok_or_else(|| "does not fit into memory".to_owned())?];
    let frame = reader.next_frame(&mut buffer).map_err(fail)?;
    if (frame.width, frame.height) != (width, height) {
        return Err("is an animation".to_owned().into());
    }
    let (width, height) = (width as usize, height as usize);
    let mut raw = Vec::with_capacity(width * height);
    for (y, row) in buffer.chunks_exact(frame.line_size).take(height).enumerate() {
        for x in 0..width {
            raw.push(index_of(sample_of_row(row, x * channels, depth), x, y)?);
        }
    }
    Ok((width, height, raw))
}

/// The sample at `place` of a packed row.
fn sample_of_row(row: &[u8], place: usize, depth: png::BitDepth) -> u16 {
    let packed = |bits: usize| {
        let shift = 8 - bits - (place * bits) % 8;
        u16::from((row[place * bits / 8] >> shift) & ((1 << bits) - 1))
    };
    match depth {
        png::BitDepth::One => packed(1),
        png::BitDepth::Two => packed(2),
        png::BitDepth::Four => packed(4),
        png::BitDepth::Eight => u16::from(row[place]),
        png::BitDepth::Sixteen => u16::from_be_bytes([row[2 * place], row[2 * place + 1]]),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::card::tests::card;
    use crate::read::read_rgb;
    use image::{GrayImage, Luma, Rgb};
    use std::path::PathBuf;

    fn read_index(path: &Path) -> Result<(usize, usize, Vec<u8>), DataError> {
        Ok(decode_index(path, &read_file(path)?).map_err(|error| error.at(path))?)
    }

    /// What is wrong with a file that is bad.
    fn reason_of<T: std::fmt::Debug>(read: Result<T, DataError>) -> String {
        match read.unwrap_err() {
            DataError::Bad(bad) => bad.reason,
            other => panic!("{other} is no bad sample"),
        }
    }

    fn map(labels: &str, classes: usize) -> LabelMap {
        card(labels, classes).unwrap().label_map().unwrap()
    }

    fn write_png(path: &Path, colour: png::ColorType, depth: png::BitDepth, size: [u32; 2], data: &[u8]) {
        let mut encoder = png::Encoder::new(std::fs::File::create(path).unwrap(), size[0], size[1]);
        encoder.set_color(colour);
        encoder.set_depth(depth);
        if colour == png::ColorType::Indexed {
            // All entries look alike, so that only the raw index tells them apart.
            encoder.set_palette(vec![7; 48]);
        }
        encoder.write_header().unwrap().write_image_data(data).unwrap();
    }

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::Builder::new().prefix("with space ö ").tempdir().unwrap();
        let path = folder.path().join("some mask ñ.png");
        (folder, path)
    }

    #[test]
    fn every_bad_file_is_one_line_with_its_path() {
        let (folder, path) = folder();
        let bad = |expected: &str| {
            let photo = read_rgb(&path).unwrap_err();
            let mask = read_mask(&path, &map("format = \"index\"", 3)).unwrap_err();
            for error in [photo, mask] {
                let text = error.to_string();
                assert!(text.starts_with(path.to_str().unwrap()) && text.contains(expected), "{text}");
                assert!(!text.contains('\n'), "{text}");
            }
        };
        bad("does not exist");
        std::fs::write(&path, b"").unwrap();
        bad("is empty (0 bytes)");
        std::fs::write(&path, b"this is a text, not an image").unwrap();
        bad("is no image in a known format");
        GrayImage::from_fn(50, 50, |x, y| Luma([(x * y) as u8])).save(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        bad("");
        std::fs::write(&path, &bytes[..20]).unwrap();
        bad("");
        assert!(read_rgb(folder.path()).unwrap_err().to_string().ends_with("is a folder, not a file"));
    }

    #[test]
    fn a_truncated_jpeg_is_an_error_and_a_jpeg_is_no_mask() {
        let (folder, _) = folder();
        let path = folder.path().join("photo.jpg");
        RgbImage::from_fn(64, 64, |x, y| Rgb([x as u8 * 4, y as u8 * 4, (x * y) as u8])).save(&path).unwrap();
        read_rgb(&path).unwrap();
        assert!(reason_of(read_mask(&path, &map("format = \"index\"", 3))).starts_with("is a JPEG"));
        let bytes = std::fs::read(&path).unwrap();
        for length in [bytes.len() - 2, bytes.len() / 2, 30] {
            std::fs::write(&path, &bytes[..length]).unwrap();
            read_rgb(&path).unwrap_err();
        }
    }

    #[test]
    fn a_small_file_that_claims_a_huge_image_is_refused() {
        let (_folder, path) = folder();
        GrayImage::new(1, 1).save(&path).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[16..24].copy_from_slice(&[0, 0, 0x7f, 0xff, 0, 0, 0x7f, 0xff]);
        // The header's checksum must fit, or the file is refused for that.
        let mut crc = 0xffff_ffff_u32;
        for byte in &bytes[12..29] {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
            }
        }
        bytes[29..33].copy_from_slice(&(!crc).to_be_bytes());
        std::fs::write(&path, &bytes).unwrap();
        let message = read_rgb(&path).unwrap_err().to_string();
        assert!(message.contains("is 32767 x 32767 pixels, more than the limit"), "{message}");
        assert!(reason_of(read_index(&path)).contains("more than the limit"));
    }

    #[test]
    fn raw_indices_come_out_of_every_kind_of_mask() {
        use png::{BitDepth, ColorType};
        let (_folder, path) = folder();
        for (colour, depth, data, expected) in [
            (ColorType::Indexed, BitDepth::Eight, vec![0, 5, 15, 1, 2, 3], [0, 5, 15, 1, 2, 3]),
            (ColorType::Indexed, BitDepth::Four, vec![0x05, 0xf0, 0x12, 0x30], [0, 5, 15, 1, 2, 3]),
            (ColorType::Grayscale, BitDepth::Two, vec![0b0001_1000, 0b1101_1000], [0, 1, 2, 3, 1, 2]),
            (ColorType::Grayscale, BitDepth::One, vec![0b0100_0000, 0b1010_0000], [0, 1, 0, 1, 0, 1]),
            (ColorType::Grayscale, BitDepth::Sixteen, vec![0, 0, 0, 5, 0, 255, 0, 1, 0, 2, 0, 3], [0, 5, 255, 1, 2, 3]),
            (
                ColorType::GrayscaleAlpha,
                BitDepth::Eight,
                vec![0, 9, 5, 9, 255, 0, 1, 9, 2, 9, 3, 9],
                [0, 5, 255, 1, 2, 3],
            ),
        ] {
            write_png(&path, colour, depth, [3, 2], &data);
            assert_eq!(read_index(&path).unwrap(), (3, 2, expected.to_vec()), "{colour:?} {depth:?}");
        }
        write_png(&path, ColorType::Grayscale, BitDepth::Sixteen, [1, 1], &[1, 0]);
        assert!(reason_of(read_index(&path)).starts_with("value 256 at x = 0, y = 0"));
        write_png(&path, ColorType::Rgb, BitDepth::Eight, [1, 1], &[1, 2, 3]);
        assert!(reason_of(read_index(&path)).starts_with("has colours where an index mask is expected"));
        let mask = read_mask(&path, &map("format = \"color\"\nignore_colors = [[1, 2, 3]]", 1)).unwrap();
        assert_eq!(mask.labels(), [mentor_types::IGNORE]);
    }

    #[test]
    fn masks_of_16_bits_keep_their_values_or_are_refused() {
        let (folder, png) = folder();
        let tiff = folder.path().join("mask.tiff");
        let luma =
            |values: [u16; 4]| DynamicImage::ImageLuma16(image::ImageBuffer::from_vec(2, 2, values.to_vec()).unwrap());
        for path in [&png, &tiff] {
            luma([0, 7, 8, 255]).save(path).unwrap();
            assert_eq!(read_index(path).unwrap(), (2, 2, vec![0, 7, 8, 255]), "{}", path.display());
            luma([0, 7, 300, 263]).save(path).unwrap();
            let reason = reason_of(read_index(path));
            assert!(reason.starts_with("value 300 at x = 0, y = 1 is above 255"), "{reason}");
            // Nor are they taken for colours, which would be rounded.
            assert!(reason_of(decode_raw(path)).starts_with("value 300"));
            let colours = map("format = \"color\"", 2);
            assert!(reason_of(read_mask(path, &colours)).contains("8 bits a channel"));
            for (last, exact) in [(514, true), (515, false)] {
                let rgb = [0, 2570, 5140, 257, 2570, 5140, 0, 2570, 5140, last, 2570, 5140];
                let picture = image::ImageBuffer::<Rgb<u16>, _>::from_vec(2, 2, rgb.to_vec()).unwrap();
                DynamicImage::ImageRgb16(picture).save(path).unwrap();
                let read = read_mask(path, &map("format = \"color\"", 3));
                match exact {
                    true => assert_eq!(read.unwrap().labels(), [0, 1, 0, 2]),
                    false => assert!(reason_of(read).contains("8 bits a channel")),
                }
            }
        }
    }
}
