//! The sources of the workspace as text, for what must hold of all of them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::root;

/// The folders of the crates, but for the stand-in of one that is not ours.
pub fn crates() -> Vec<PathBuf> {
    let mut folders: Vec<_> = fs::read_dir(root().join("crates"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().is_some_and(|name| name != "cubecl-llvm"))
        .collect();
    folders.sort();
    folders
}

/// The Rust files under a folder, in order.
pub fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// A text without its test modules: what stands from a `#[cfg(test)]` before `mod NAME {` to that module's end. What
/// follows them stays, and so does every other thing that only tests see.
///
/// rustfmt puts the end of a module on a line of its own, as far in as its beginning.
pub fn without_test_modules(text: &str) -> String {
    let (mut kept, mut lines) = (String::new(), text.lines().peekable());
    while let Some(line) = lines.next() {
        let opens = lines.peek().is_some_and(|next| {
            let words: Vec<&str> = next.split_whitespace().filter(|word| !word.starts_with("pub")).collect();
            matches!(words[..], ["mod", _, "{"])
        });
        if line.trim() == "#[cfg(test)]" && opens {
            let end = format!("{}}}", &line[..line.len() - line.trim_start().len()]);
            assert!(lines.any(|line| line == end), "a test module without an end");
            continue;
        }
        kept.push_str(line);
        kept.push('\n');
    }
    kept
}

/// The words and signs of a text: names, `::` and every other character by itself; no comments, no strings.
pub fn tokens(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let is_word = |at: usize| chars.get(at).is_some_and(|c| c.is_alphanumeric() || *c == '_');
    let (mut found, mut at) = (Vec::new(), 0);
    while at < chars.len() {
        let rest = &chars[at..];
        at = match rest {
            ['/', '/', ..] => past(&chars, at, &['\n']),
            ['/', '*', ..] => past(&chars, at + 2, &['*', '/']),
            ['r', '"' | '#', ..] if at == 0 || !is_word(at - 1) => past_raw_string(&chars, at + 1),
            ['"', ..] => past_string(&chars, at + 1),
            ['\'', '\\', ..] => past(&chars, at + 3, &['\'']),
            ['\'', _, '\'', ..] => at + 3,
            [':', ':', ..] => {
                found.push("::".to_owned());
                at + 2
            }
            _ if is_word(at) => {
                let end = (at..).find(|end| !is_word(*end)).unwrap();
                found.push(chars[at..end].iter().collect());
                end
            }
            [other, ..] => {
                found.extend((!other.is_whitespace()).then(|| other.to_string()));
                at + 1
            }
            [] => unreachable!("the loop ends there"),
        };
    }
    found
}

/// The place behind the next `end` from `at` on.
fn past(chars: &[char], at: usize, end: &[char]) -> usize {
    let rest = chars.get(at..).unwrap_or_default();
    rest.windows(end.len()).position(|window| window == end).map_or(chars.len(), |found| at + found + end.len())
}

fn past_string(chars: &[char], mut at: usize) -> usize {
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// Of a string that begins at its first `#` or quotation mark; a name that begins with `r#` is read over.
fn past_raw_string(chars: &[char], at: usize) -> usize {
    let marks = chars[at..].iter().take_while(|c| **c == '#').count();
    if chars.get(at + marks) != Some(&'"') {
        return at + marks;
    }
    let end: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', marks)).collect();
    past(chars, at + marks + 1, &end)
}

#[test]
fn code_behind_a_test_module_is_kept_and_so_is_a_single_item_for_tests() {
    let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {\n    }\n}\nfn c() {}\n#[cfg(test)]\nmod other;\n\
                mod inner {\n    #[cfg(test)]\n    pub(crate) mod tests {\n        fn d() {}\n    }\n    fn e() {}\n}\n\
                #[cfg(test)]\nfn f() {}\n";
    let kept =
        "fn a() {}\nfn c() {}\n#[cfg(test)]\nmod other;\nmod inner {\n    fn e() {}\n}\n#[cfg(test)]\nfn f() {}\n";
    assert_eq!(without_test_modules(text), kept);
}

#[test]
fn comments_and_strings_are_no_words() {
    let text = "let a: &'a str = r#\"x \" y\"#; // no\n/* nor\n this */ b::c('\\'', 'd', \"e \\\" f\", '\"');";
    let expected = ["let", "a", ":", "&", "'", "a", "str", "=", ";", "b", "::", "c", "(", ",", ",", ",", ")", ";"];
    assert_eq!(tokens(text), expected);
}
