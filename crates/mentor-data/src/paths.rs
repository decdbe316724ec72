//! Paths as cards and lists write them: relative, below a folder that they may not leave, perhaps with a part to fill in.

/// What stands in a pattern for the part that the paths of one image share.
const ID: &str = "{id}";

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

/// Refuses patterns without one `{id}`, and those that lead out of their folder.
pub(crate) fn check_pattern(pattern: &str) -> Result<(), String> {
    if pattern.matches(ID).count() != 1 {
        return Err(format!("`{pattern}` must hold `{ID}` once"));
    }
    check_relative(&fill(pattern, "x"))
}

/// A pattern with its `{id}` filled in.
pub(crate) fn fill(pattern: &str, id: &str) -> String {
    pattern.replacen(ID, id, 1)
}

/// The `{id}` of a path that a pattern made.
pub(crate) fn id_of<'a>(pattern: &str, path: &'a str) -> Result<&'a str, String> {
    let (head, tail) = pattern.split_once(ID).unwrap_or((pattern, ""));
    let id = path.strip_prefix(head).and_then(|rest| rest.strip_suffix(tail));
    id.ok_or_else(|| format!("`{path}` is not of the form `{pattern}`"))
}
