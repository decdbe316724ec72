//! The letters of HTML: escaped text, numbers, images as data.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::RgbImage;
use image::codecs::jpeg::JpegEncoder;

/// Text that may stand in an element or an attribute.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(letter),
            control if control.is_control() => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}

/// A share as a number of percent with 2 decimals; a dash where there is none.
pub(crate) fn percent(share: Option<f64>) -> String {
    match share.filter(|share| share.is_finite()) {
        Some(share) => format!("{:.2}", 100.0 * share),
        None => "–".to_owned(),
    }
}

/// A difference of two shares in points with its sign; a dash where one is missing.
pub(crate) fn points(difference: Option<f64>) -> String {
    match difference.filter(|difference| difference.is_finite()) {
        Some(difference) if (100.0 * difference).abs() < 0.005 => "0.00".to_owned(),
        Some(difference) => format!("{:+.2}", 100.0 * difference).replace('-', "−"),
        None => "–".to_owned(),
    }
}

/// A number of any size with about four digits.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    match size {
        _ if !value.is_finite() => "–".to_owned(),
        0.0 => "0".to_owned(),
        _ if !(1e-3..1e6).contains(&size) => format!("{value:.2e}"),
        _ => {
            let decimals = (3 - size.log10().floor() as i32).clamp(0, 6) as usize;
            let text = format!("{value:.decimals$}");
            if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
        }
    }
}

/// A whole number with thin spaces between thousands.
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// Seconds in words.
pub(crate) fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        _ if !seconds.is_finite() => "–".to_owned(),
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

/// A CSS colour.
pub(crate) fn css(colour: [u8; 3]) -> String {
    let [r, g, b] = colour;
    format!("#{r:02x}{g:02x}{b:02x}")
}

/// A photo as the address of an `img`: JPEG inside the page.
pub(crate) fn photo_uri(picture: &RgbImage) -> String {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 86).encode_image(picture).expect("a picture fits into memory as JPEG");
    format!("data:image/jpeg;base64,{}", STANDARD.encode(bytes))
}

/// A drawing with few colours as the address of an `img`: PNG inside the page.
pub(crate) fn drawing_uri(picture: &RgbImage) -> String {
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, image::ImageFormat::Png).expect("a picture fits into memory as PNG");
    format!("data:image/png;base64,{}", STANDARD.encode(bytes.into_inner()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_in_text_stays_text() {
        assert_eq!(escape("<b>&\"'\u{7}é\n"), "&lt;b&gt;&amp;&quot;&#39;\u{fffd}é\n");
    }

    #[test]
    fn numbers_without_a_value_are_a_dash() {
        assert_eq!((percent(Some(0.61234)).as_str(), percent(None).as_str()), ("61.23", "–"));
        assert_eq!(percent(Some(f64::NAN)), "–");
        assert_eq!((points(Some(0.0123)).as_str(), points(Some(-0.0123)).as_str()), ("+1.23", "−1.23"));
        assert_eq!((points(Some(-1e-9)).as_str(), points(None).as_str()), ("0.00", "–"));
        assert_eq!(number(f64::INFINITY), "–");
    }

    #[test]
    fn numbers_keep_about_four_digits() {
        let texts: Vec<String> = [0.0, 12345.6, 2.5, 0.012_345, 1.0, 3e-7, -0.5].map(number).to_vec();
        assert_eq!(texts, ["0", "12346", "2.5", "0.01235", "1", "3.00e-7", "-0.5"]);
        assert_eq!(count(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(count(999), "999");
        assert_eq!([5.04, 125.0, 7265.0].map(duration), ["5.0 s", "2 min 05 s", "2 h 01 min"]);
    }

    #[test]
    fn pictures_become_data() {
        assert!(photo_uri(&RgbImage::new(2, 2)).starts_with("data:image/jpeg;base64,/9j/"));
        assert!(drawing_uri(&RgbImage::new(2, 2)).starts_with("data:image/png;base64,iVBOR"));
    }
}
