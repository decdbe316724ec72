//! No two files of a crate need each other, not even by way of others: what depends on what has an order, and a file can
//! be read after those that it uses.
//!
//! A file may use what the `mod.rs` of its folder, or of one around it, holds for all that lies there, though that names its
//! files in turn: together they are one module.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::sources::{crates, rust_files, tokens, without_test_modules};

/// A path of modules from the root of the crate, then perhaps an item.
type Names = Vec<String>;

/// What a file of a crate says of others.
struct File {
    /// The names it hands on, which is no need of its own unless it uses them, too.
    exports: BTreeMap<String, Names>,
    /// The paths that it uses.
    used: Vec<Names>,
}

/// The files of a crate by module, without those that only tests see.
struct Crate(BTreeMap<Names, File>);

impl Crate {
    fn read(source: &Path) -> Self {
        let mut texts: BTreeMap<Names, Vec<String>> = BTreeMap::new();
        for path in rust_files(source) {
            let relative = path.strip_prefix(source).unwrap().with_extension("");
            let mut module: Names = relative.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
            if module.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
                module.pop();
            }
            texts.insert(module, tokens(&without_test_modules(&fs::read_to_string(path).unwrap())));
        }
        let for_tests: Vec<Names> =
            texts.iter().flat_map(|(module, words)| modules_for_tests(words).map(|name| below(module, name))).collect();
        texts.retain(|module, _| !for_tests.iter().any(|name| module.starts_with(name)));
        let modules: BTreeSet<Names> = texts.keys().cloned().collect();
        Self(texts.iter().map(|(module, words)| (module.clone(), File::read(words, module, &modules))).collect())
    }

    /// The module in whose file an item is written, and none for a module or what is not of this crate. Names that a
    /// file hands on are followed to where they come from.
    fn home(&self, path: &[String], depth: usize) -> Option<Names> {
        assert!(depth < 20, "{path:?} is handed on for ever");
        let len = (0..=path.len()).rev().find(|len| self.0.contains_key(&path[..*len]))?;
        let (module, item) = (path[..len].to_vec(), path.get(len)?);
        match self.0[&module].exports.get(item) {
            Some(origin) => self.home(&[origin, &path[len + 1..]].concat(), depth + 1),
            None => Some(module),
        }
    }

    /// The files that a file needs, but for those that it is a part of.
    fn needs(&self, module: &Names) -> BTreeSet<Names> {
        let homes = self.0[module].used.iter().filter_map(|path| self.home(path, 0));
        homes.filter(|home| !module.starts_with(home)).collect()
    }

    /// Groups of files each of which needs all others of its group.
    fn circles(&self) -> BTreeSet<BTreeSet<String>> {
        let needed = |module: &Names| self.needs(module).into_iter().map(|other| other.join("/")).collect();
        let needs: BTreeMap<String, Vec<String>> =
            self.0.keys().map(|module| (module.join("/"), needed(module))).collect();
        let reached = |from: &String| {
            let (mut seen, mut open) = (BTreeSet::new(), vec![from.clone()]);
            while let Some(module) = open.pop() {
                open.extend(needs[&module].iter().filter(|next| seen.insert((*next).clone())).cloned());
            }
            seen
        };
        let reached: BTreeMap<&String, BTreeSet<String>> = needs.keys().map(|from| (from, reached(from))).collect();
        let group = |(from, to): (&&String, &BTreeSet<String>)| -> BTreeSet<String> {
            to.iter().filter(|other| reached[other].contains(*from)).cloned().collect()
        };
        reached.iter().map(group).filter(|group| !group.is_empty()).collect()
    }
}

impl File {
    fn read(words: &[String], module: &Names, modules: &BTreeSet<Names>) -> Self {
        let (mut exports, mut imports, mut rest) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        let mut used = Vec::new();
        let mut at = 0;
        while at < words.len() {
            // `impl Trait + use<'a>` brings in nothing.
            if words[at] != "use" || words.get(at + 1).is_some_and(|next| next == "<") {
                rest.push(words[at].as_str());
                at += 1;
                continue;
            }
            let is_public = at > 0 && ["pub", ")"].contains(&words[at - 1].as_str());
            let end = at + words[at..].iter().position(|word| word == ";").unwrap();
            for (name, path) in uses(&mut words[at + 1..end].iter().map(String::as_str).peekable(), &[]) {
                let Some(path) = absolute(&path, module, modules, &BTreeMap::new()) else { continue };
                assert!(!is_public || name != "*", "{module:?} hands on names that it does not spell");
                used.extend((!is_public).then(|| path.clone()));
                if is_public { &mut exports } else { &mut imports }.insert(name, path);
            }
            at = end;
        }
        let mentioned = mentions(&rest);
        used.extend(mentioned.iter().filter_map(|path| absolute(path, module, modules, &imports)));
        used.extend(mentioned.iter().filter_map(|path| Some([exports.get(&path[0])?, &path[1..]].concat())));
        Self { exports, used }
    }
}

/// The paths in code, among them types and calls by their name alone.
fn mentions(words: &[&str]) -> Vec<Names> {
    let (mut found, mut at) = (Vec::new(), 0);
    while at < words.len() {
        let (before, start) = (at.checked_sub(1).map(|before| words[before]), at);
        while is_name(words[at])
            && words.get(at + 1) == Some(&"::")
            && words.get(at + 2).is_some_and(|word| is_name(word))
        {
            at += 2;
        }
        let is_type = words[start].starts_with(|c: char| c.is_uppercase());
        let is_call = is_name(words[start]) && words.get(at + 1) == Some(&"(");
        if !matches!(before, Some("." | "::" | "fn" | "struct" | "enum" | "trait" | "type"))
            && (at > start || is_type || is_call)
        {
            found.push(words[start..=at].iter().step_by(2).map(|word| (*word).to_owned()).collect());
        }
        at += 1;
    }
    found
}

/// A path as it is from the root of the crate; none where it leads out of the crate, or begins with an item.
fn absolute(
    path: &[String],
    module: &Names,
    modules: &BTreeSet<Names>,
    imports: &BTreeMap<String, Names>,
) -> Option<Names> {
    let (first, rest) = path.split_first()?;
    let start = match first.as_str() {
        "crate" => Names::new(),
        "self" => module.clone(),
        "super" => {
            let parent = module.split_last()?.1.to_vec();
            return if rest.first().is_some_and(|next| next == "super") {
                absolute(rest, &parent, modules, imports)
            } else {
                Some([parent, rest.to_vec()].concat())
            };
        }
        name if modules.contains(&below(module, name)) => below(module, name),
        name => imports.get(name)?.clone(),
    };
    Some([start, rest.to_vec()].concat())
}

fn below(module: &Names, name: &str) -> Names {
    [module.as_slice(), &[name.to_owned()]].concat()
}

fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// The names that a tree of a `use` brings in, each with its path; `*` counts as an item of the module.
fn uses<'a>(words: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>, prefix: &[String]) -> Vec<(String, Names)> {
    let (mut found, mut path) = (Vec::new(), prefix.to_vec());
    while let Some(word) = words.next() {
        match word {
            "::" => {}
            "{" => {
                while words.next_if_eq(&"}").is_none() {
                    found.extend(uses(words, &path));
                    words.next_if_eq(&",");
                }
                return found;
            }
            "as" => {
                let name = words.next().unwrap().to_owned();
                return vec![(name, path)];
            }
            "self" if !path.is_empty() => {}
            word => path.push(word.to_owned()),
        }
        if words.peek().is_none_or(|next| [",", "}"].contains(next)) {
            break;
        }
    }
    let name = path.last().cloned().unwrap();
    found.push((name, path));
    found
}

/// The modules that are declared for tests alone: `#[cfg(test)] mod NAME;`.
fn modules_for_tests(words: &[String]) -> impl Iterator<Item = &str> {
    words.windows(4).enumerate().filter_map(|(at, window)| {
        let [name, mark] = [&window[1], &window[2]];
        let attribute = words[..at].iter().rev().take_while(|word| *word != ";" && *word != "}");
        let is_for_tests = attribute.into_iter().any(|word| word == "test");
        (window[0] == "mod" && mark == ";" && is_for_tests).then_some(name.as_str())
    })
}

#[test]
fn no_files_of_a_crate_need_each_other() {
    let (mut files, mut wrong) = (0, Vec::new());
    for folder in crates() {
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        let read = Crate::read(&folder.join("src"));
        files += read.0.len();
        wrong.extend(read.circles().iter().map(|circle| format!("{name}: a circle of {circle:?}")));
    }
    assert!(files > 150, "{files} files were read");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn circles(files: &[(&str, &str)]) -> Vec<Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let circles = Crate::read(folder.path()).circles();
    circles.into_iter().map(|circle| circle.into_iter().collect()).collect()
}

#[test]
fn circles_are_found_through_names_that_are_handed_on_and_through_third_files() {
    let direct = [("lib.rs", "mod a; mod b;"), ("a.rs", "use crate::b::B;"), ("b.rs", "fn f() { super::a::g(); }")];
    assert_eq!(circles(&direct), [["a", "b"]]);
    let third = [
        ("lib.rs", "mod a; mod b; mod c; pub use {a::A, b::B as Renamed};"),
        ("a.rs", "use crate::{Renamed, other};"),
        ("b.rs", "use crate::c;\nfn f() { c::d::g(); }"),
        ("c/mod.rs", "mod d;"),
        ("c/d.rs", "use super::super::{a::{self, X}, c};"),
    ];
    assert_eq!(circles(&third), [["a", "b", "c/d"]]);
}

#[test]
fn handing_names_on_makes_a_circle_only_with_using_them() {
    let a = ("a.rs", "use crate::b::f;");
    let b = |text: &'static str| [("lib.rs", "mod a; mod b;"), a, ("b/mod.rs", text), ("b/c.rs", "use crate::b::f;")];
    assert_eq!(circles(&b("mod c; pub use crate::a::A; pub fn f() {}")), Vec::<Vec<String>>::new());
    for text in
        ["pub(crate) use crate::a::A;\nstruct B(A);", "pub use crate::a::g;\nfn f() { g(); }", "use crate::a::A;"]
    {
        assert_eq!(circles(&b(text)), [["a", "b"]], "{text}");
    }
}

#[test]
fn a_file_and_its_folder_or_what_tests_use_make_no_circle() {
    let files = [
        ("lib.rs", "mod a; use a::A; pub struct Error;"),
        ("a/mod.rs", "mod b; mod d; #[cfg(test)] mod c; use b::B; pub struct Shared;"),
        ("a/b.rs", "use super::Shared;\nuse crate::Error;\n#[cfg(test)]\nmod tests {\n    use crate::a::d::*;\n}\n"),
        ("a/c.rs", "use super::d::D;"),
        ("a/d.rs", "use super::b::B;\n#[cfg(test)]\nuse super::c::C;"),
    ];
    assert_eq!(circles(&files), Vec::<Vec<String>>::new());
}
