//! From a path to a checked value: file, TOML, changes, schema, serde, ranges; with all that is wrong at once.

use std::io::Read;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::de::{ReadError, from_node};
use crate::moved::{Moved, follow};
use crate::problem::{Origin, Problem, Problems, nearest};
use crate::schema::schema_of;
use crate::set::{Changes, apply};
use crate::tree::{Document, Entry, Step, parse_path};
use crate::walk::{Finding, walk, walk_key};

/// No file that a person writes is near this many bytes; what is larger was given by mistake.
const MAX_BYTES: u64 = 1 << 20;

/// With more wrong values than these a file is not one with typos, and its ranges do not matter yet.
const MAX_REMOVED: usize = 100;

/// A value that was read and checked, with the text that it came from.
#[derive(Clone, Debug)]
pub struct Loaded<T> {
    /// The value, changes included; every check passed.
    pub value: T,
    /// The file as it was read.
    pub text: String,
    /// The value with all its defaults as TOML, which reads back to an equal value. Equal values have equal texts.
    pub resolved: String,
    /// The path as it was given.
    pub path: PathBuf,
    document: Document,
}

impl<T> Loaded<T> {
    /// Where a dotted key (`distill.pair_wise.at[0].student`) was written: a place in the file, or the argument that set
    /// it; for a key that was left out, where its nearest parent is.
    pub(crate) fn key_position(&self, key: &str) -> Origin {
        self.document.origin(self.document.locate(&parse_path(key)))
    }

    /// A problem with a key that shows only later, such as a file that it names and that is not there.
    pub fn problem(&self, key: &str, message: impl Into<String>) -> Problem {
        late_problem(&self.document, key, &message.into())
    }
}

/// A type that users write as a TOML file.
pub trait TomlFile: DeserializeOwned + Serialize + JsonSchema {
    /// Keys of earlier versions, and where they are now.
    const MOVED: &'static [Moved] = &[];

    /// Pushes what is out of range or contradictory as (dotted key, message); the key may be empty, hold indices
    /// (`at[0].student`) and name what the file leaves out.
    ///
    /// It also runs where single values were wrong or unknown, if the rest makes a value, so that one reading finds as
    /// much as can be found.
    fn check(&self, _problems: &mut Vec<(String, String)>) {}
}

/// Reads a TOML file as a `T`.
///
/// # Errors
/// A path that is no readable TOML file; and then, all together, every change that cannot be applied, every key that has
/// moved, every unknown key and wrong type, what serde refuses, and what [`TomlFile::check`] pushed.
pub fn read<T: TomlFile>(path: &Path, changes: &Changes) -> Result<Loaded<T>, Problems> {
    Draft::open(path, changes)?.read()
}

/// Reads a `T` from TOML text; `path` only names it in messages. Otherwise as [`read`].
///
/// # Errors
/// As [`read`], but for the file.
pub fn parse<T: TomlFile>(text: &str, path: &Path, changes: &Changes) -> Result<Loaded<T>, Problems> {
    Draft::parse(text, path, changes)?.read()
}

/// A TOML file with its changes, of which nobody has asked yet what it says.
#[derive(Clone, Debug)]
pub struct Draft {
    document: Document,
    /// What is wrong with the changes.
    problems: Vec<Problem>,
}

impl Draft {
    /// Opens a file.
    ///
    /// # Errors
    /// A path that is no readable TOML file.
    pub fn open(path: &Path, changes: &Changes) -> Result<Self, Problems> {
        Self::parse(&read_text(path)?, path, changes)
    }

    /// Takes a text; `path` names it in messages.
    ///
    /// # Errors
    /// A text that is not TOML.
    pub fn parse(text: &str, path: &Path, changes: &Changes) -> Result<Self, Problems> {
        let mut document = Document::parse(text, path).map_err(Problems::new)?;
        let problems = apply(&mut document, changes);
        Ok(Self { document, problems })
    }

    /// The value of a key at the top level, before all else is read: what the others mean may depend on it.
    ///
    /// # Errors
    /// That it is missing or misspelt, or that its value is none for it.
    pub fn peek<V: DeserializeOwned + JsonSchema>(&self, key: &str) -> Result<V, Problems> {
        let root = &self.document.root;
        let findings = walk_key(&schema_of::<V>(), root, key);
        let node = root.get(&[Step::Key(key.to_string())]).unwrap_or(root);
        if findings.is_empty() {
            return from_node(node).map_err(|error| self.refusal(error).into());
        }
        Err(Problems::new(findings.into_iter().map(|finding| finding.into_problem(&self.document)).collect()))
    }

    /// Reads it as a `T`.
    ///
    /// # Errors
    /// As [`read`], but for the file.
    pub fn read<T: TomlFile>(mut self) -> Result<Loaded<T>, Problems> {
        let moved = follow(&mut self.document, T::MOVED);
        self.read_rest(moved)
    }

    /// Reads it as a `T` that this program itself wrote, perhaps an earlier version of it: keys that have moved count
    /// where they are now.
    ///
    /// # Errors
    /// As [`read`], but for the file and for moved keys.
    pub fn read_earlier<T: TomlFile>(mut self) -> Result<Loaded<T>, Problems> {
        follow(&mut self.document, T::MOVED);
        self.read_rest(Vec::new())
    }

    fn read_rest<T: TomlFile>(self, moved: Vec<Problem>) -> Result<Loaded<T>, Problems> {
        let findings = walk(&schema_of::<T>(), &self.document.root);
        let changes_hold = self.problems.is_empty();
        if changes_hold && moved.is_empty() && findings.is_empty() {
            return self.finish();
        }
        let mut problems = [self.problems, moved].concat();
        if changes_hold {
            problems.extend(check_the_rest::<T>(&self.document, &findings));
        }
        problems.extend(findings.into_iter().map(|finding| finding.into_problem(&self.document)));
        Err(Problems::new(problems))
    }

    fn finish<T: TomlFile>(self) -> Result<Loaded<T>, Problems> {
        let value: T = from_node(&self.document.root).map_err(|error| self.refusal(error))?;
        let document = self.document;
        let mut late = Vec::new();
        value.check(&mut late);
        if !late.is_empty() {
            return Err(Problems::new(
                late.iter().map(|(key, message)| late_problem(&document, key, message)).collect(),
            ));
        }
        let path = document.path.clone();
        let resolved = toml::to_string(&value).map_err(|error| {
            let message = format!("the value cannot be written as TOML: {error}");
            Problem::new(Origin::Path(path.clone()), "", message)
        })?;
        Ok(Loaded { value, text: document.text.clone(), resolved, path, document })
    }

    /// What serde alone refuses.
    fn refusal(&self, error: ReadError) -> Problem {
        let at = error.at.unwrap_or(self.document.root.at);
        Problem::new(self.document.origin(at), "", error.message)
    }
}

/// Runs the checks on what is left without the wrong values, if that makes a `T`: a typo in one key should not hide a
/// value out of range in another. A misspelt key counts as the one that was meant. What the checks say about a key that
/// was wrong is dropped.
fn check_the_rest<T: TomlFile>(document: &Document, findings: &[Finding]) -> Vec<Problem> {
    if findings.len() > MAX_REMOVED || !findings.iter().all(|finding| finding.removable) {
        return Vec::new();
    }
    let mut rest = document.root.clone();
    let mut gone: Vec<Vec<Step>> = Vec::new();
    let mut meant: Vec<(&[Step], Entry)> = Vec::new();
    for finding in findings {
        // An item of an array cannot go alone: the others would move up.
        let keys = finding.path.iter().rposition(|step| matches!(step, Step::Key(_))).map_or(0, |last| last + 1);
        let path = &finding.path[..keys];
        let taken = rest.take(path);
        gone.push(path.to_vec());
        gone.extend(finding.meant.clone());
        meant.extend(finding.meant.as_deref().zip(taken));
    }
    let mut renamed = rest.clone();
    meant.into_iter().for_each(|(path, taken)| renamed.put(path, taken));
    let Ok(value) = from_node::<T>(&renamed).or_else(|_| from_node::<T>(&rest)) else { return Vec::new() };
    let mut late = Vec::new();
    value.check(&mut late);
    late.retain(|(key, _)| !gone.iter().any(|gone| parse_path(key).starts_with(gone)));
    late.iter().map(|(key, message)| late_problem(document, key, message)).collect()
}

fn late_problem(document: &Document, key: &str, message: &str) -> Problem {
    let origin = document.origin(document.locate(&parse_path(key)));
    let message = if key.is_empty() { message.to_string() } else { format!("`{key}`: {message}") };
    Problem::new(origin, key, message)
}

/// Reads a file that should be short UTF-8 text.
fn read_text(path: &Path) -> Result<String, Problem> {
    let whole = |message: String| Problem::new(Origin::Path(path.to_path_buf()), "", message);
    if path.is_dir() {
        return Err(whole("is a directory, expected a TOML file".to_string()));
    }
    let file = std::fs::File::open(path).map_err(|error| {
        if error.kind() != std::io::ErrorKind::NotFound {
            return whole(format!("cannot be read: {error}"));
        }
        let mut problem = whole("no such file".to_string());
        problem.hint = neighbour(path).map(|name| format!("did you mean `{}`?", path.with_file_name(name).display()));
        problem
    })?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|error| whole(format!("cannot be read: {error}")))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(whole("is larger than 1 MiB, expected a short TOML file".to_string()));
    }
    String::from_utf8(bytes).map_err(|error| {
        let before = String::from_utf8_lossy(&error.as_bytes()[..error.utf8_error().valid_up_to()]).into_owned();
        let column = before.chars().rev().take_while(|letter| *letter != '\n').count() + 1;
        let line = before.matches('\n').count() + 1;
        let origin = Origin::File { path: path.to_path_buf(), line, column };
        Problem::new(origin, "", "this is not UTF-8 text, expected a TOML file")
    })
}

/// The TOML file in the same folder whose name is nearest.
fn neighbour(path: &Path) -> Option<String> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut names: Vec<String> =
        std::fs::read_dir(folder).ok()?.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| name.ends_with(".toml"));
    names.sort();
    let wanted = path.file_stem()?.to_str()?.to_string();
    let stems: Vec<&str> = names.iter().map(|name| name.trim_end_matches(".toml")).collect();
    nearest(&wanted, stems).map(|stem| format!("{stem}.toml"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::sample::{GOOD, Sample, Task, mistakes};

    fn load(text: &str, set: &[&str]) -> Result<Loaded<Sample>, String> {
        let changes = Changes::set(set.iter().copied());
        parse(text, Path::new("a.toml"), &changes).map_err(|problems| problems.to_string())
    }

    /// Writes a file of the given bytes and gives the message without its folder.
    fn message_for(name: &str, bytes: &[u8]) -> String {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(name), bytes).unwrap();
        message_in(folder.path(), name)
    }

    fn message_in(folder: &Path, name: &str) -> String {
        let outcome = read::<Sample>(&folder.join(name), &Changes::none());
        outcome.unwrap_err().to_string().replace(&format!("{}/", folder.display()), "")
    }

    #[test]
    fn a_good_file_is_read_and_its_resolved_text_reads_back_to_the_same() {
        let loaded = load(GOOD, &[]).unwrap();
        assert_eq!(loaded.text, GOOD);
        assert_eq!(loaded.value.views.scale, (0.5, 2.0));
        assert_eq!(loaded.value.train.log_every_steps, 10);
        assert!(loaded.resolved.contains("log_every_steps = 10"));
        let again = load(&loaded.resolved, &[]).unwrap();
        assert_eq!(again.value, loaded.value);
        assert_eq!(again.resolved, loaded.resolved);
        assert!(loaded.resolved.contains("lr = 0.1\n"), "f32 is written as it was read: {}", loaded.resolved);
    }

    #[test]
    fn a_file_that_is_no_toml_gives_one_clear_line() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("quickstart.toml"), GOOD).unwrap();
        std::fs::create_dir(folder.path().join("some dir")).unwrap();
        assert_eq!(message_in(folder.path(), "some dir"), "some dir: is a directory, expected a TOML file");
        assert_eq!(
            message_in(folder.path(), "quikstart.toml").replace(&folder.path().display().to_string(), ""),
            "quikstart.toml: no such file; did you mean `quickstart.toml`?"
        );
        assert_eq!(message_in(folder.path(), "zzz"), "zzz: no such file");
        assert_eq!(message_for("e.toml", b""), "e.toml: the file is empty, expected TOML");
        assert_eq!(message_for("e.toml", b"\xef\xbb\xbf \r\n"), "e.toml: the file is empty, expected TOML");
        assert_eq!(
            message_for("ü b.toml", b"a = 1\nb = \"\xff\""),
            "ü b.toml:2:6: this is not UTF-8 text, expected a TOML file"
        );
        let big = vec![b'#'; MAX_BYTES as usize + 1];
        assert_eq!(message_for("big.toml", &big), "big.toml: is larger than 1 MiB, expected a short TOML file");
    }

    #[test]
    fn a_syntax_error_has_its_line_and_column() {
        assert_eq!(
            message_for("a.toml", b"seed = 1\n[train\n"),
            "a.toml:2:7: TOML syntax: unclosed table, expected `]`"
        );
        assert_eq!(message_for("a.toml", b"seed = 1\nseed = 2\n"), "a.toml:2:1: TOML syntax: duplicate key `seed`");
        assert_eq!(
            message_for("a.toml", b"seed = 99999999999999999999\nb = 1e999"),
            "a.toml:1:8: the integer 99999999999999999999 does not fit into 64 bits\n\
             a.toml:2:5: the number 1e999 is too large"
        );
        let deep = format!("a = {}", "[".repeat(100_000));
        assert!(message_for("a.toml", deep.as_bytes()).starts_with("a.toml:1:"));
    }

    #[test]
    fn a_byte_order_mark_and_windows_newlines_change_nothing() {
        let text = format!("\u{feff}{}", GOOD.replace('\n', "\r\n"));
        assert_eq!(load(&text, &[]).unwrap().value, load(GOOD, &[]).unwrap().value);
        let wrong = text.replace("seed = 0", "seed = -1").replace("# Small", "seeed = 1 # Small");
        assert_eq!(
            mistakes(&wrong).lines().map(|line| line.split(';').next().unwrap()).collect::<Vec<_>>(),
            ["a.toml:1:1: unknown key `seeed` at the top level", "a.toml:4:8: `seed`: must be at least 0, found -1"]
        );
    }

    #[test]
    fn a_file_full_of_mistakes_is_reported_whole() {
        let text: String = (0..10_000).map(|number| format!("k{number} = 1\n")).collect();
        assert_eq!(mistakes(&text).lines().filter(|line| line.contains("unknown key")).count(), 10_000);
    }

    #[test]
    fn a_range_is_checked_at_the_line_of_its_key() {
        assert_eq!(
            mistakes(&GOOD.replace("weight = 10.0", "weight = -1")),
            "a.toml:24:1: `distill.layer_wise.weight`: must be at least 0, found -1"
        );
    }

    #[test]
    fn a_rule_about_a_key_that_was_left_out_points_at_its_table() {
        assert_eq!(
            mistakes(&GOOD.replace("temperature = 2\n", "").replace("weight = 10.0", "weight = 0")),
            "a.toml:23:1: `distill.layer_wise.temperature`: has no effect with weight 0"
        );
    }

    #[test]
    fn a_typo_in_one_key_does_not_hide_a_range_in_another() {
        let text = GOOD.replace("steps = 40", "steps = 0").replace("temperature = 2", "temprature = 2");
        assert_eq!(
            mistakes(&text).lines().map(|line| line.split(';').next().unwrap()).collect::<Vec<_>>(),
            [
                "a.toml:25:1: unknown key `temprature` in [distill.layer_wise]",
                "a.toml:36:1: `train.steps`: must be at least 1, found 0"
            ]
        );
    }

    #[test]
    fn a_misspelt_key_that_is_required_does_not_hide_a_range_in_another() {
        let text = GOOD.replace("steps = 40", "steps = 0").replace("crop_px =", "crop_pix =");
        let found = mistakes(&text);
        assert!(found.starts_with("a.toml:5:1: unknown key `crop_pix`"), "{found}");
        assert!(found.ends_with("a.toml:36:1: `train.steps`: must be at least 1, found 0"), "{found}");
    }

    #[test]
    fn what_the_checks_say_about_a_misspelt_key_is_left_out() {
        // Without a temperature the check would complain about its default.
        let text = GOOD.replace("weight = 10.0", "weight = 0").replace("temperature = 2", "temprature = 2");
        assert_eq!(mistakes(&text).lines().count(), 1, "{}", mistakes(&text));
    }

    #[test]
    fn what_serde_alone_can_refuse_has_its_place() {
        assert_eq!(
            mistakes(&GOOD.replace("backbone = \"resnet18\"", "backbone = \"unheard of\"")),
            "a.toml:13:12: no backbone is named unheard of"
        );
    }

    #[test]
    fn a_mistake_in_an_argument_names_the_argument() {
        let message = |set: &[&str]| load(GOOD, set).unwrap_err();
        assert_eq!(
            message(&["distill.layer_wise.weigth=1"]),
            "--set distill.layer_wise.weigth=1: unknown key `weigth` in [distill.layer_wise]; \
             did you mean `weight`? known keys: `at`, `on`, `temperature`, `weight`"
        );
        assert_eq!(
            message(&["optimizer.sgd.lr=fast"]),
            "--set optimizer.sgd.lr=fast: `optimizer.sgd.lr`: expected a number, found the string \"fast\""
        );
        assert_eq!(message(&["train.steps=0"]), "--set train.steps=0: `train.steps`: must be at least 1, found 0");
        assert_eq!(
            message(&["student.pspnet.backbone=resnet18"]),
            "--set student.pspnet.backbone=resnet18: more than one of `fcn`, `pspnet` in [student]; \
             it takes exactly one, --unset student.fcn"
        );
        assert_eq!(
            message(&["distill.holistic={}"]),
            "--set distill.holistic={}: missing key `weight` in [distill.holistic]; expected a number"
        );
        assert_eq!(message(&["student.fcn.backbone=vgg"]), "--set student.fcn.backbone=vgg: no backbone is named vgg");
    }

    #[test]
    fn arguments_vary_a_file_and_enter_its_resolved_text() {
        let changes = Changes {
            unset: vec!["student".into(), "distill.layer_wise".into()],
            set: vec!["student.pspnet.backbone=resnet50".into(), "distill.holistic.weight=0.1".into()],
        };
        let loaded = parse::<Sample>(GOOD, Path::new("a.toml"), &changes).unwrap();
        assert!(loaded.resolved.contains("[student.pspnet]\nbackbone = \"resnet50\""), "{}", loaded.resolved);
        assert!(!loaded.resolved.contains("layer_wise"));
        assert_eq!(loaded.key_position("distill.holistic.weight").to_string(), "--set distill.holistic.weight=0.1");
        assert_eq!(loaded.key_position("train.steps").to_string(), "a.toml:36:1");
        assert_eq!(loaded.key_position("student.pspnet.width").to_string(), "--set student.pspnet.backbone=resnet50");
        assert_eq!(
            loaded.problem("distill.layer_wise.at[0].student", "gone").to_string(),
            "a.toml:23:2: `distill.layer_wise.at[0].student`: gone"
        );
    }

    /// What a peek at the key `task` says.
    fn peeked(text: &str, set: &[&str]) -> String {
        let draft = Draft::parse(text, Path::new("a.toml"), &Changes::set(set.iter().copied())).unwrap();
        draft.peek::<Task>("task").map_or_else(|problems| problems.to_string(), |task| format!("{task:?}"))
    }

    #[test]
    fn one_key_is_read_before_all_others_and_its_mistakes_are_named_alone() {
        // Another mistake, which a peek does not look at.
        let text = GOOD.replace("seed = 0", "seed = -1");
        assert_eq!(peeked(&text, &[]), "Fit");
        assert_eq!(peeked(&text, &["task=det", "nothing"]), "Det");
        let with = |new: &str| peeked(&text.replace("task = \"fit\"", new), &[]);
        assert_eq!(with(""), "a.toml:1:1: missing key `task` at the top level; expected \"fit\" or \"det\"");
        assert_eq!(with("tsak = \"fit\""), "a.toml:3:1: unknown key `tsak` at the top level; did you mean `task`?");
        let wrong = with("task = \"fitt\"");
        assert_eq!(wrong, "a.toml:3:8: `task`: unknown value \"fitt\"; did you mean \"fit\"? valid: \"fit\", \"det\"");
        assert_eq!(with("task = 1"), "a.toml:3:8: `task`: expected \"fit\" or \"det\", found the integer 1");
        assert_eq!(
            peeked(&text, &["task=dat"]),
            "--set task=dat: `task`: unknown value \"dat\"; did you mean \"det\"? valid: \"fit\", \"det\""
        );
    }
}
