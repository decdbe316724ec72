//! Walks a document against the JSON Schema of its type and finds every mistake in one go.
//!
//! serde stops at its first error; the walk does not. It understands what schemars writes for plain structs, options,
//! lists, tuples, maps and externally tagged enums, which is all that a file may be made of. Ranges that depend on
//! more than one number are not its business.

use serde_json::{Map, Value as Json};

use crate::problem::{Problem, nearest, nearest_few};
use crate::tree::{At, Document, Entry, Node, Step, Value, show_key, show_path};

/// A mistake, with its place in the tree.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) at: At,
    pub(crate) path: Vec<Step>,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    /// Whether the rest can be judged without the key at `path`, or with it under the name that was meant: true for a lone
    /// wrong value, false for a table.
    pub(crate) removable: bool,
    /// The key that was probably meant, where `path` is not a valid one.
    pub(crate) meant: Option<Vec<Step>>,
}

impl Finding {
    /// The same with its place in words.
    pub(crate) fn into_problem(self, document: &Document) -> Problem {
        let origin = document.origin(self.at);
        Problem { origin, key: show_path(&self.path), message: self.message, hint: self.hint }
    }
}

/// Everything in `root` that `schema` does not allow.
pub(crate) fn walk(schema: &Json, root: &Node) -> Vec<Finding> {
    let mut walker = Walker { schema, path: Vec::new(), found: Vec::new() };
    walker.value(schema, root);
    walker.found
}

/// What `schema` does not allow at one key of `root`, which must be there.
pub(crate) fn walk_key(schema: &Json, root: &Node, key: &str) -> Vec<Finding> {
    let mut walker = Walker { schema, path: Vec::new(), found: Vec::new() };
    let entries = if let Value::Table(entries) = &root.value { entries.as_slice() } else { &[] };
    let misspelt = || entries.iter().find(|entry| nearest(&entry.key, [key]).is_some());
    match (entries.iter().find(|entry| entry.key == key), misspelt()) {
        (Some(entry), _) => walker.child(schema, entry),
        (None, Some(entry)) => {
            let message = format!("unknown key `{}` {}", entry.key, walker.place());
            walker.push(entry.key_at, message, Some(format!("did you mean `{key}`?")), false);
        }
        (None, None) => walker.missing(key, Some(schema), root),
    }
    walker.found
}

struct Walker<'s> {
    schema: &'s Json,
    path: Vec<Step>,
    found: Vec<Finding>,
}

/// The alternatives of a closed list: names that stand alone, and names that head a table.
struct Choice<'s> {
    names: Vec<&'s str>,
    tables: Vec<(&'s str, &'s Json)>,
}

/// The keys that a table may have, sorted, and those of them that are not written yet.
struct KnownKeys<'s> {
    all: Vec<&'s str>,
    free: Vec<&'s str>,
}

impl<'s> KnownKeys<'s> {
    fn new(properties: Option<&'s Map<String, Json>>, entries: &[Entry]) -> Self {
        let mut all: Vec<&str> = properties.into_iter().flat_map(Map::keys).map(String::as_str).collect();
        all.sort_unstable();
        let free = all.iter().copied().filter(|key| !entries.iter().any(|entry| entry.key == *key)).collect();
        Self { all, free }
    }

    /// The known keys in words; where there are many, those that are nearest to what was found.
    fn list(&self, found: &str) -> String {
        if self.all.is_empty() {
            return "it takes no keys".to_string();
        }
        let shown: Vec<String> = nearest_few(found, &self.all).iter().map(|key| format!("`{key}`")).collect();
        let others = self.all.len() - shown.len();
        let others = if others == 0 { String::new() } else { format!(" and {others} others") };
        format!("known keys: {}{others}", shown.join(", "))
    }
}

impl<'s> Walker<'s> {
    fn value(&mut self, schema: &'s Json, node: &Node) {
        let alternatives = self.alternatives(schema, 0);
        match alternatives.as_slice() {
            [] => self.finite(node),
            [only] => self.plain(only, node),
            many => match choice(many) {
                Some(choice) => self.choice(&choice, node),
                None => self.union(many, node),
            },
        }
    }

    /// The object schemas that a value may match, with references followed and `null` left out: TOML has none, an
    /// absent key stands for it. None at all means that anything goes.
    fn alternatives(&self, schema: &'s Json, depth: usize) -> Vec<&'s Map<String, Json>> {
        let Some(object) = schema.as_object().filter(|_| depth < 16) else { return Vec::new() };
        if let Some(reference) = object.get("$ref").and_then(Json::as_str) {
            let target = self.schema.pointer(reference.trim_start_matches('#'));
            return target.map(|target| self.alternatives(target, depth + 1)).unwrap_or_default();
        }
        for key in ["anyOf", "oneOf", "allOf"] {
            if let Some(several) = object.get(key).and_then(Json::as_array) {
                return several.iter().flat_map(|one| self.alternatives(one, depth + 1)).collect();
            }
        }
        let is_null = object.get("type").is_some_and(|kind| kind == "null");
        let says_nothing = !["type", "enum", "const", "properties"].iter().any(|key| object.contains_key(*key));
        if is_null || says_nothing { Vec::new() } else { vec![object] }
    }

    fn plain(&mut self, schema: &'s Map<String, Json>, node: &Node) {
        let kinds = kinds(schema);
        let allows = |kind: &str| kinds.contains(&kind);
        match &node.value {
            Value::String(text) if allows("string") || kinds.is_empty() => {
                let names = names(schema);
                if !names.is_empty() && !names.contains(&text.as_str()) {
                    self.unknown_name(text, &names, node.at);
                }
            }
            Value::Integer(number) if allows("integer") || allows("number") => {
                self.range(schema, *number as f64, &number.to_string(), node.at);
            }
            Value::Float(number) if allows("number") => {
                self.finite(node);
                self.range(schema, *number, &format!("{number:?}"), node.at);
            }
            Value::Boolean(_) if allows("boolean") => {}
            Value::Array(items) if allows("array") => self.array(schema, items, node),
            Value::Table(entries) if allows("object") => self.table(schema, entries, node),
            _ => self.mismatch(&expectation(schema), node),
        }
    }

    fn array(&mut self, schema: &'s Map<String, Json>, items: &[Node], node: &Node) {
        let count = items.len() as u64;
        let bound = |key: &str| schema.get(key).and_then(Json::as_u64);
        if bound("minItems").is_some_and(|least| count < least) || bound("maxItems").is_some_and(|most| count > most) {
            self.mismatch(&expectation(schema), node);
            return;
        }
        let places = schema.get("prefixItems").and_then(Json::as_array);
        for (index, item) in items.iter().enumerate() {
            let item_schema = places.and_then(|places| places.get(index)).or_else(|| schema.get("items"));
            if let Some(item_schema) = item_schema {
                self.path.push(Step::Index(index));
                self.value(item_schema, item);
                self.path.pop();
            }
        }
    }

    fn table(&mut self, schema: &'s Map<String, Json>, entries: &[Entry], node: &Node) {
        let properties = schema.get("properties").and_then(Json::as_object);
        // A struct that does not deny unknown keys would drop them in silence; ours never do.
        let others = schema.get("additionalProperties").filter(|others| **others != Json::Bool(false));
        let known = KnownKeys::new(properties, entries);
        let mut meant = Vec::new();
        for entry in entries {
            match properties.and_then(|properties| properties.get(&entry.key)).or(others) {
                Some(child) => self.child(child, entry),
                None => meant.extend(self.unknown_key(entry, &known)),
            }
        }
        let required = schema.get("required").and_then(Json::as_array).into_iter().flatten();
        for key in required.filter_map(Json::as_str).filter(|key| known.free.contains(key)) {
            // A misspelt key has been reported as such; that it is missing too would be the same mistake twice.
            if !meant.contains(&key) {
                self.missing(key, properties.and_then(|properties| properties.get(key)), node);
            }
        }
    }

    fn child(&mut self, schema: &'s Json, entry: &Entry) {
        self.path.push(Step::Key(entry.key.clone()));
        self.value(schema, &entry.node);
        self.path.pop();
    }

    /// Reports an unknown key and gives the known one, not yet written, that was probably meant.
    fn unknown_key(&mut self, entry: &Entry, known: &KnownKeys<'s>) -> Option<&'s str> {
        let meant = nearest(&entry.key, known.free.iter().copied());
        let guess = meant.or_else(|| nearest(&entry.key, known.all.iter().copied()));
        let list = known.list(&entry.key);
        let hint = guess.map(|guess| format!("did you mean `{guess}`? {list}")).unwrap_or(list);
        let place = self.place();
        self.path.push(Step::Key(entry.key.clone()));
        self.found.push(Finding {
            at: entry.key_at,
            path: self.path.clone(),
            message: format!("unknown key `{}` {place}", entry.key),
            hint: Some(hint),
            removable: meant.is_some() || !entry.node.holds_table(),
            meant: meant.map(|meant| self.sibling(meant)),
        });
        self.path.pop();
        meant
    }

    fn missing(&mut self, key: &str, schema: Option<&'s Json>, node: &Node) {
        let place = self.place();
        self.path.push(Step::Key(key.to_string()));
        let name = show_path(&self.path);
        let alternatives = schema.map(|schema| self.alternatives(schema, 0)).unwrap_or_default();
        let tables = choice(&alternatives).filter(|choice| choice.names.is_empty() && choice.tables.len() > 1);
        let (message, hint) = match (tables, alternatives.as_slice()) {
            (Some(choice), _) => {
                (format!("missing table [{name}]"), Some(format!("write one of {}", choice.show(&name))))
            }
            (None, [only]) if kinds(only) == ["object"] => (format!("missing table [{name}]"), None),
            (None, [only]) => (format!("missing key `{key}` {place}"), Some(format!("expected {}", expectation(only)))),
            (None, many) => {
                let hint = choice(many).map(|choice| format!("expected {}", choice.show(&name)));
                (format!("missing key `{key}` {place}"), hint)
            }
        };
        self.push(node.at, message, hint, false);
        self.path.pop();
    }

    fn choice(&mut self, choice: &Choice<'s>, node: &Node) {
        let name = show_path(&self.path);
        match &node.value {
            Value::String(text) if choice.names.contains(&text.as_str()) => {}
            Value::String(text) if choice.tables.iter().any(|(table, _)| table == text) => {
                let message = format!("`{name}`: {text:?} is a table, not a string");
                self.push(node.at, message, Some(format!("write [{name}.{text}]")), false);
            }
            Value::String(text) if choice.tables.is_empty() => self.unknown_name(text, &choice.names, node.at),
            Value::Table(entries) if !choice.tables.is_empty() => self.tagged(choice, entries, node),
            _ => self.mismatch(&choice.show(&name), node),
        }
    }

    /// A table whose one key picks the alternative.
    fn tagged(&mut self, choice: &Choice<'s>, entries: &[Entry], node: &Node) {
        let name = show_path(&self.path);
        let mut known = Vec::new();
        for entry in entries {
            let table = choice.tables.iter().find(|(table, _)| *table == entry.key);
            if let Some((_, schema)) = table {
                self.child(schema, entry);
            } else if choice.names.contains(&entry.key.as_str()) {
                self.keyless(entry);
            } else {
                let valid = choice.all();
                let guess = nearest(&entry.key, valid.iter().copied());
                let list = format!("valid: {}", choice.show(&name));
                let hint = guess.map(|guess| format!("did you mean `{guess}`? {list}")).unwrap_or(list);
                let message = format!("unknown name `{}` in [{name}]", entry.key);
                self.push(entry.key_at, message, Some(hint), false);
                continue;
            }
            known.push(entry);
        }
        match known.as_slice() {
            [] if entries.is_empty() => {
                let message = format!("[{name}] is empty");
                self.push(node.at, message, Some(format!("write one of {}", choice.show(&name))), false);
            }
            [] | [_] => {}
            [first, others @ ..] => {
                for other in others {
                    let message = format!("more than one of `{}`, `{}` in [{name}]", first.key, other.key);
                    let how = if matches!(other.key_at, At::Argument(_)) { "--unset " } else { "remove " };
                    let hint = format!("it takes exactly one, {how}{name}.{}", show_key(&first.key));
                    self.push(other.key_at, message, Some(hint), false);
                }
            }
        }
    }

    /// `[schedule.constant]`, the table form of a name that stands alone, holds nothing.
    fn keyless(&mut self, entry: &Entry) {
        self.path.push(Step::Key(entry.key.clone()));
        match &entry.node.value {
            Value::Table(keys) => {
                for key in keys {
                    self.unknown_key(key, &KnownKeys::new(None, keys));
                }
            }
            _ => self.mismatch("an empty table", &entry.node),
        }
        self.path.pop();
    }

    /// Alternatives that are not a closed list: what any one of them allows is right.
    fn union(&mut self, alternatives: &[&'s Map<String, Json>], node: &Node) {
        let before = self.found.len();
        for alternative in alternatives {
            self.plain(alternative, node);
            if self.found.len() == before {
                return;
            }
            self.found.truncate(before);
        }
        let expected: Vec<String> = alternatives.iter().map(|one| expectation(one)).collect();
        self.mismatch(&expected.join(" or "), node);
    }

    fn unknown_name(&mut self, text: &str, valid: &[&str], at: At) {
        let guess = nearest(text, valid.iter().copied());
        let list: Vec<String> = valid.iter().map(|name| format!("{name:?}")).collect();
        let list = format!("valid: {}", list.join(", "));
        let hint = guess.map(|guess| format!("did you mean {guess:?}? {list}")).unwrap_or(list);
        let message = format!("`{}`: unknown value {text:?}", show_path(&self.path));
        self.push(at, message, Some(hint), true);
    }

    fn mismatch(&mut self, expected: &str, node: &Node) {
        let message = format!("`{}`: expected {expected}, found {}", show_path(&self.path), node.describe());
        let hint = match node.value {
            Value::Float(number) if expected == "an integer" && number.fract() == 0.0 && number.abs() < 1e15 => {
                Some(format!("write {number:.0} without a point or an exponent"))
            }
            _ => None,
        };
        self.push(node.at, message, hint, !node.holds_table());
    }

    fn range(&mut self, schema: &Map<String, Json>, number: f64, shown: &str, at: At) {
        let bound = |key: &str| schema.get(key).and_then(Json::as_f64).map(|bound| (bound, &schema[key]));
        let broken = [
            bound("minimum").filter(|(least, _)| number < *least).map(|(_, least)| format!("at least {least}")),
            bound("maximum").filter(|(most, _)| number > *most).map(|(_, most)| format!("at most {most}")),
            bound("exclusiveMinimum").filter(|(low, _)| number <= *low).map(|(_, low)| format!("above {low}")),
            bound("exclusiveMaximum").filter(|(high, _)| number >= *high).map(|(_, high)| format!("below {high}")),
        ];
        for limit in broken.into_iter().flatten() {
            let message = format!("`{}`: must be {limit}, found {shown}", show_path(&self.path));
            self.push(at, message, None, true);
        }
    }

    /// TOML writes `nan` and `inf`; no setting means either.
    fn finite(&mut self, node: &Node) {
        if let Value::Float(number) = node.value
            && !number.is_finite()
        {
            self.mismatch("a finite number", node);
        }
    }

    fn push(&mut self, at: At, message: String, hint: Option<String>, removable: bool) {
        self.found.push(Finding { at, path: self.path.clone(), message, hint, removable, meant: None });
    }

    /// The path of a key beside the current one.
    fn sibling(&self, key: &str) -> Vec<Step> {
        let mut path = self.path.clone();
        path.pop();
        path.push(Step::Key(key.to_string()));
        path
    }

    /// Where the current table is, in words.
    fn place(&self) -> String {
        if self.path.is_empty() { "at the top level".to_string() } else { format!("in [{}]", show_path(&self.path)) }
    }
}

impl<'s> Choice<'s> {
    /// The alternatives as a reader would write them under the key `name`.
    fn show(&self, name: &str) -> String {
        let names = self.names.iter().map(|name| format!("{name:?}"));
        let tables = self.tables.iter().map(|(table, _)| format!("[{name}.{table}]"));
        names.chain(tables).collect::<Vec<_>>().join(", ")
    }

    fn all(&self) -> Vec<&'s str> {
        self.names.iter().copied().chain(self.tables.iter().map(|(table, _)| *table)).collect()
    }
}

/// Reads alternatives as a closed list, if each is a list of names or a table with one required key.
fn choice<'s>(alternatives: &[&'s Map<String, Json>]) -> Option<Choice<'s>> {
    let mut choice = Choice { names: Vec::new(), tables: Vec::new() };
    for alternative in alternatives {
        let listed = names(alternative);
        let properties = alternative.get("properties").and_then(Json::as_object);
        let required = alternative.get("required").and_then(Json::as_array);
        match (properties, required) {
            _ if !listed.is_empty() => choice.names.extend(listed),
            (Some(properties), Some(required)) if properties.len() == 1 && required.len() == 1 => {
                choice.tables.extend(properties.iter().map(|(name, schema)| (name.as_str(), schema)));
            }
            _ => return None,
        }
    }
    Some(choice)
}

/// The strings that a schema lists under `enum` or `const`.
fn names(schema: &Map<String, Json>) -> Vec<&str> {
    let listed = schema.get("enum").and_then(Json::as_array).into_iter().flatten();
    listed.chain(schema.get("const")).filter_map(Json::as_str).collect()
}

/// The types that a schema allows, without `null`.
fn kinds(schema: &Map<String, Json>) -> Vec<&str> {
    match schema.get("type") {
        Some(Json::String(kind)) => vec![kind.as_str()],
        Some(Json::Array(several)) => several.iter().filter_map(Json::as_str).filter(|kind| *kind != "null").collect(),
        _ => Vec::new(),
    }
}

/// What a schema asks for, in words.
fn expectation(schema: &Map<String, Json>) -> String {
    let listed = names(schema);
    if !listed.is_empty() {
        let listed: Vec<String> = listed.iter().map(|name| format!("{name:?}")).collect();
        return listed.join(" or ");
    }
    let bound = |key: &str| schema.get(key).and_then(Json::as_u64);
    let words: Vec<String> = kinds(schema)
        .into_iter()
        .map(|kind| match (kind, bound("minItems"), bound("maxItems")) {
            ("number", ..) => "a number".to_string(),
            ("integer", ..) => "an integer".to_string(),
            ("boolean", ..) => "true or false".to_string(),
            ("object", ..) => "a table".to_string(),
            ("array", Some(least), Some(most)) if least == most => format!("an array of {least}"),
            ("array", Some(least), Some(most)) => format!("an array of {least} to {most}"),
            ("array", Some(least), None) => format!("an array of at least {least}"),
            ("array", None, Some(most)) => format!("an array of at most {most}"),
            ("array", None, None) => "an array".to_string(),
            (other, ..) => format!("a {other}"),
        })
        .collect();
    words.join(" or ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::sample::{GOOD, mistakes};

    /// The mistakes after one piece of the good sample was replaced.
    fn with(old: &str, new: &str) -> String {
        assert_eq!(GOOD.matches(old).count(), 1, "{old}");
        mistakes(&GOOD.replace(old, new))
    }

    #[test]
    fn a_good_file_has_no_mistakes() {
        assert_eq!(mistakes(GOOD), "");
    }

    #[test]
    fn an_unknown_key_has_its_nearest_neighbour_and_the_known_ones() {
        assert_eq!(
            with("temperature = 2", "  temprature = 2"),
            "a.toml:25:3: unknown key `temprature` in [distill.layer_wise]; did you mean `temperature`? \
             known keys: `at`, `on`, `temperature`, `weight`"
        );
        assert_eq!(
            with("temperature = 2", "colour = 2"),
            "a.toml:25:1: unknown key `colour` in [distill.layer_wise]; \
             known keys: `at`, `on`, `temperature`, `weight`"
        );
        assert_eq!(
            with("[distill.layer_wise]", "[distill.layer-wise]"),
            "a.toml:23:10: unknown key `layer-wise` in [distill]; did you mean `layer_wise`? \
             known keys: `holistic`, `layer_wise`"
        );
        assert_eq!(
            with("student = \"c5\"", "studnt = \"c5\""),
            "a.toml:26:9: unknown key `studnt` in [distill.layer_wise.at[0]]; did you mean `student`? \
             known keys: `student`, `teacher`"
        );
    }

    #[test]
    fn a_misspelt_key_that_is_required_is_reported_once() {
        assert_eq!(
            with("crop_px", "crop_pix"),
            "a.toml:5:1: unknown key `crop_pix` at the top level; did you mean `crop_px`? known keys: \
             `buffers`, `crop_px`, `distill`, `ema`, `optimizer`, `schedule`, `teachers`, `train` and 4 others"
        );
    }

    #[test]
    fn a_wrong_type_says_what_was_found() {
        assert_eq!(
            with("temperature = 2", "temperature = \"hot\""),
            "a.toml:25:15: `distill.layer_wise.temperature`: expected a number, found the string \"hot\""
        );
        assert_eq!(with("seed = 0", "seed = 0.5"), "a.toml:4:8: `seed`: expected an integer, found the number 0.5");
        assert_eq!(
            with("seed = 0", "seed = 1e3"),
            "a.toml:4:8: `seed`: expected an integer, found the number 1000.0; write 1000 without a point or an exponent"
        );
        assert_eq!(
            with("task = \"fit\"", "task = 1"),
            "a.toml:3:8: `task`: expected \"fit\" or \"det\", found the integer 1"
        );
        assert_eq!(with("steps = 40", "steps = true"), "a.toml:36:9: `train.steps`: expected an integer, found true");
        assert_eq!(
            with("steps = 40", "steps = 1979-05-27"),
            "a.toml:36:9: `train.steps`: expected an integer, found the date 1979-05-27"
        );
        assert_eq!(
            with("[train]\nsteps = 40", "[[train]]\nsteps = 40"),
            "a.toml:35:1: `train`: expected a table, found an array of 1"
        );
        assert_eq!(
            with("on = [\"labelled\"]", "on = \"labelled\""),
            "a.toml:27:6: `distill.layer_wise.on`: expected an array, found the string \"labelled\""
        );
    }

    #[test]
    fn a_number_outside_of_its_type_or_of_all_numbers_is_out_of_range() {
        assert_eq!(with("seed = 0", "seed = -1"), "a.toml:4:8: `seed`: must be at least 0, found -1");
        assert_eq!(
            with("scale = [0.5, 2]", "scale = [0.5, nan]"),
            "a.toml:9:15: `views.scale[1]`: expected a finite number, found the number NaN"
        );
        assert_eq!(
            with("classes = 3", "classes = 256"),
            "a.toml:37:11: `train.classes`: must be at most 255, found 256"
        );
    }

    #[test]
    fn tuples_and_fixed_arrays_have_a_length() {
        assert_eq!(
            with("crop_px = [192, 256]", "crop_px = [192]"),
            "a.toml:5:11: `crop_px`: expected an array of 2, found an array of 1"
        );
        assert_eq!(
            with("scale = [0.5, 2]", "scale = [1, 2, 3]"),
            "a.toml:9:9: `views.scale`: expected an array of 2, found an array of 3"
        );
        assert_eq!(
            with("jitter = [0.1, 3]", "jitter = [0.1, 3.5]"),
            "a.toml:10:16: `views.jitter[1]`: expected an integer, found the number 3.5"
        );
    }

    #[test]
    fn what_is_missing_is_reported_at_its_table() {
        assert_eq!(
            with("weight = 10.0\n", ""),
            "a.toml:23:1: missing key `weight` in [distill.layer_wise]; expected a number"
        );
        assert_eq!(with("[train]\nsteps = 40\nclasses = 3\n", ""), "a.toml:1:1: missing table [train]");
        assert_eq!(
            with("[student.fcn]\nbackbone = \"resnet18\"\n", ""),
            "a.toml:1:1: missing table [student]; write one of [student.fcn], [student.pspnet]"
        );
        assert_eq!(
            with("task = \"fit\"\n", ""),
            "a.toml:1:1: missing key `task` at the top level; expected \"fit\" or \"det\""
        );
        assert_eq!(
            with("[schedule.poly]\npower = 0.9\n", ""),
            "a.toml:1:1: missing key `schedule` at the top level; expected \"constant\", [schedule.poly]"
        );
    }

    #[test]
    fn a_name_that_is_not_in_its_list_has_its_nearest_neighbour() {
        assert_eq!(
            with("buffers = \"average\"", "buffers = \"averge\""),
            "a.toml:6:11: `buffers`: unknown value \"averge\"; did you mean \"average\"? valid: \"average\", \"copy\""
        );
        assert_eq!(
            with("student = \"c5\"", "student = \"c9\""),
            "a.toml:26:19: `distill.layer_wise.at[0].student`: unknown value \"c9\"; did you mean \"c4\"? \
             valid: \"c4\", \"c5\""
        );
    }

    #[test]
    fn exactly_one_table_picks_the_alternative() {
        assert_eq!(
            with("[student.fcn]", "[student.fnc]"),
            "a.toml:12:10: unknown name `fnc` in [student]; did you mean `fcn`? valid: [student.fcn], [student.pspnet]"
        );
        assert_eq!(
            with("[student.fcn]", "[student.pspnet]\n[student.fcn]"),
            "a.toml:12:1: missing key `backbone` in [student.pspnet]; expected a string\n\
             a.toml:13:10: more than one of `pspnet`, `fcn` in [student]; it takes exactly one, remove student.pspnet"
        );
        assert_eq!(
            with("[student.fcn]\nbackbone = \"resnet18\"", "[student]"),
            "a.toml:12:1: [student] is empty; write one of [student.fcn], [student.pspnet]"
        );
        assert_eq!(
            with("[optimizer.sgd]\nlr = 0.1", "[optimizer]\nsgd = 0.1"),
            "a.toml:30:7: `optimizer.sgd`: expected a table, found the number 0.1"
        );
        assert_eq!(
            with("[optimizer.sgd]\nlr = 0.1", "[optimizer.sgd]\nlr = 0.1\nnesterov = 1"),
            "a.toml:31:12: `optimizer.sgd.nesterov`: expected true or false, found the integer 1"
        );
    }

    #[test]
    fn a_table_written_as_a_string_is_told_how_to_be_a_table() {
        let text = GOOD.replace("[student.fcn]\nbackbone = \"resnet18\"\n", "");
        assert_eq!(
            mistakes(&text.replace("seed = 0", "seed = 0\nstudent = \"fcn\"")),
            "a.toml:5:11: `student`: \"fcn\" is a table, not a string; write [student.fcn]"
        );
        assert_eq!(
            mistakes(&text.replace("seed = 0", "seed = 0\nstudent = \"unet\"")),
            "a.toml:5:11: `student`: expected [student.fcn], [student.pspnet], found the string \"unet\""
        );
    }

    #[test]
    fn a_name_without_settings_is_a_string_or_an_empty_table() {
        let table = |text: &str| with("[schedule.poly]\npower = 0.9\n", text);
        assert_eq!(table("[schedule.constant]\n"), "");
        assert_eq!(
            table("[schedule.constant]\npower = 1\n"),
            "a.toml:33:1: unknown key `power` in [schedule.constant]; it takes no keys"
        );
        let text = GOOD.replace("[schedule.poly]\npower = 0.9\n", "");
        assert_eq!(mistakes(&text.replace("seed = 0", "seed = 0\nschedule = \"constant\"")), "");
    }

    #[test]
    fn a_map_takes_any_name_and_checks_what_is_under_it() {
        assert_eq!(
            with("[teachers.\"my big\".pspnet]", "[teachers.\"my big\".psp]"),
            "a.toml:15:20: unknown name `psp` in [teachers.\"my big\"]; did you mean `pspnet`? \
             valid: [teachers.\"my big\".fcn], [teachers.\"my big\".pspnet]"
        );
        assert_eq!(
            with("width = 16", "width = \"wide\""),
            "a.toml:17:9: `teachers.\"my big\".pspnet.width`: expected an integer, found the string \"wide\""
        );
    }

    #[test]
    fn every_mistake_is_reported_at_once_in_the_order_of_the_file() {
        let text = GOOD
            .replace("seed = 0", "sed = 0")
            .replace("crop_px = [192, 256]", "crop_px = [192, \"wide\"]")
            .replace("[student.fcn]", "[student.fnc]")
            .replace("weight = 10.0", "weight = \"much\"")
            .replace("steps = 40", "stepz = 40");
        let lines: Vec<String> =
            mistakes(&text).lines().map(|line| line.split(';').next().unwrap().to_string()).collect();
        assert_eq!(
            lines,
            [
                "a.toml:4:1: unknown key `sed` at the top level",
                "a.toml:5:17: `crop_px[1]`: expected an integer, found the string \"wide\"",
                "a.toml:12:10: unknown name `fnc` in [student]",
                "a.toml:24:10: `distill.layer_wise.weight`: expected a number, found the string \"much\"",
                "a.toml:36:1: unknown key `stepz` in [train]",
            ]
        );
    }
}
