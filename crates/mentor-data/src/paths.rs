//! Paths as cards and lists write them: relative, below a folder that they may not leave, perhaps with a part to fill in.

use std::collections::{BTreeMap, BTreeSet};

/// The part of a pattern that may hold slashes.
const ID: &str = "id";

/// The part of a pattern that holds no dot, so that what stands before the last dot is in other parts.
const EXT: &str = "ext";

/// Refuses paths that lead out of the folder they are relative to.
pub(crate) fn check_relative(path: &str) -> Result<(), String> {
    let drive = path.as_bytes().get(1) == Some(&b':') && path.as_bytes()[0].is_ascii_alphabetic();
    if path.is_empty() {
        return Err("an empty path".to_owned());
    }
    if path.starts_with(['/', '\\']) || drive {
        return Err(format!("`{path}` is an absolute path, must be relative"));
    }
    if path.split(['/', '\\']).any(|part| part == "..") {
        return Err(format!("`{path}` leads out of its folder with `..`"));
    }
    Ok(())
}

/// A name that is one part of a path, so that it cannot lead out of a root.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.contains(['/', '\\']) || name.starts_with('.') {
        return Err(format!("`{name}` must be a plain name, without slashes or leading dots"));
    }
    Ok(())
}

/// A path with parts to fill in, as `{part}/{id}.png`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern<'p> {
    /// What stands before each part, and the part's name.
    parts: Vec<(&'p str, &'p str)>,
    /// What stands behind the last.
    tail: &'p str,
}

/// The parts of a path, by name.
pub(crate) type Filled<'a> = BTreeMap<&'a str, &'a str>;

impl<'p> Pattern<'p> {
    /// # Errors
    /// Where it has no part, or two with nothing between them, or a brace too many.
    pub(crate) fn new(pattern: &'p str) -> Result<Self, String> {
        let (mut parts, mut rest) = (Vec::new(), pattern);
        while let Some((before, behind)) = rest.split_once('{') {
            let (name, tail) =
                behind.split_once('}').ok_or_else(|| format!("`{pattern}` has a `{{` without its `}}`"))?;
            if name.is_empty() || name.contains('{') {
                return Err(format!("`{pattern}` has a part without a plain name"));
            }
            if !parts.is_empty() && before.is_empty() {
                return Err(format!("`{pattern}` has two parts with nothing between them"));
            }
            parts.push((before, name));
            rest = tail;
        }
        if parts.is_empty() {
            return Err(format!("`{pattern}` must hold `{{{ID}}}`, or other parts in braces"));
        }
        Ok(Self { parts, tail: rest })
    }

    /// The names of its parts.
    pub(crate) fn names(&self) -> BTreeSet<&'p str> {
        self.parts.iter().map(|(_, name)| *name).collect()
    }

    /// The path that it makes of some parts.
    pub(crate) fn fill(&self, parts: &Filled<'_>) -> String {
        let part = |(before, name): &(&str, &str)| format!("{before}{}", parts.get(name).copied().unwrap_or_default());
        self.parts.iter().map(part).collect::<String>() + self.tail
    }

    /// The parts of a path that it could have made: each as short as can be, none empty, and none but `{id}` with a slash
    /// in it, nor `{ext}` with a dot; a part that comes twice is the same both times.
    pub(crate) fn parts<'a>(&self, path: &'a str) -> Option<Filled<'a>>
    where
        'p: 'a,
    {
        let mut filled = Filled::new();
        self.match_from(0, path, &mut filled).then_some(filled)
    }

    fn match_from<'a>(&self, index: usize, path: &'a str, filled: &mut Filled<'a>) -> bool
    where
        'p: 'a,
    {
        let Some((before, name)) = self.parts.get(index).copied() else { return path == self.tail };
        let Some(rest) = path.strip_prefix(before) else { return false };
        let known = filled.get(name).copied();
        for (end, _) in rest.char_indices().skip(1).chain([(rest.len(), ' ')]) {
            let part = &rest[..end];
            if part.is_empty() || name != ID && part.contains('/') || name == EXT && part.contains('.') {
                return false;
            }
            if known.is_some_and(|known| known != part) {
                continue;
            }
            filled.insert(name, part);
            if self.match_from(index + 1, &rest[end..], filled) {
                return true;
            }
            match known {
                Some(known) => filled.insert(name, known),
                None => filled.remove(name),
            };
        }
        false
    }
}

/// Refuses what is no pattern, and what leads out of its folder.
pub(crate) fn check_pattern(pattern: &str) -> Result<(), String> {
    let parsed = Pattern::new(pattern)?;
    check_relative(&parsed.fill(&parsed.names().into_iter().map(|name| (name, "x")).collect()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parts(pattern: &str, path: &str) -> Option<String> {
        let parts = Pattern::new(pattern).unwrap().parts(path)?;
        Some(parts.iter().map(|(name, part)| format!("{name}={part}")).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn a_path_is_taken_apart_as_people_would() {
        for (pattern, path, expected) in [
            ("{id}", "2007_000032", Some("id=2007_000032")),
            ("images/{id}.jpg", "images/a/b c.jpg", Some("id=a/b c")),
            ("{tile}/images/{id}.jpg", "Tile 1/images/part_1.jpg", Some("id=part_1 tile=Tile 1")),
            ("/SegNet/CamVid/{part}/{id}.png", "/SegNet/CamVid/val/0016E5.png", Some("id=0016E5 part=val")),
            ("/images/{part}/{city}_{id}.png", "/images/train/jena_07_19.png", Some("city=jena id=07_19 part=train")),
            ("l/{part}/{city}/{city}_{id}_l.png", "l/val/jena/jena_07_l_l.png", Some("city=jena id=07_l part=val")),
            ("l/{part}/{city}/{city}_{id}_l.png", "l/val/jena/bonn_07_l.png", None),
            ("{part}/{id}.png", "a/b/c.png", Some("id=b/c part=a")),
            ("{id}.png", ".png", None),
            ("images/{id}.{ext}", "images/a/b.rf.7.JPG", Some("ext=JPG id=a/b.rf.7")),
            ("{part}.png", "a/b.png", None),
            ("ä{id}ö", "äüö", Some("id=ü")),
        ] {
            assert_eq!(parts(pattern, path).as_deref(), expected, "{pattern} of {path}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_said() {
        for (pattern, expected) in [
            ("a.png", "must hold `{id}`"),
            ("{id", "without its `}`"),
            ("{}x", "without a plain name"),
            ("{a}{b}", "nothing between"),
            ("../{id}", "leads out"),
        ] {
            let message = check_pattern(pattern).unwrap_err();
            assert!(message.contains(expected), "{pattern}: {message}");
        }
    }

    #[test]
    fn parts_make_another_path() {
        let parts = Pattern::new("/images/{part}/{city}_{id}.png").unwrap().parts("/images/train/jena_7.png").unwrap();
        let other = Pattern::new("l/{part}/{city}/{city}_{id}_l.png").unwrap().fill(&parts);
        assert_eq!(other, "l/train/jena/jena_7_l.png");
    }
}
