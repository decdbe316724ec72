//! The little of YAML in which YOLO's `data.yaml` says its classes and folders: scalars, and lists and maps of these.

/// What such a file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DataYaml {
    /// The names of the classes by their numbers; those that a map skips are empty.
    pub names: Vec<String>,
    /// The values of `train`, `val` and `test`, with the name of the split.
    pub splits: Vec<(String, String)>,
}

/// Reads the keys at the top level that matter; others, and what is written in another way, are passed over.
pub(super) fn read(text: &str) -> DataYaml {
    let lines: Vec<&str> = text.lines().map(without_comment).filter(|line| !line.trim().is_empty()).collect();
    let mut found = DataYaml::default();
    for (at, line) in lines.iter().enumerate() {
        let Some((key, value)) = line.split_once(':').filter(|_| !line.starts_with([' ', '\t', '-'])) else { continue };
        match key.trim() {
            // An indented block, or a list whose dashes stand at the margin.
            "names" if value.trim().is_empty() => {
                let block = lines[at + 1..].iter().take_while(|line| line.starts_with([' ', '\t', '-']));
                found.names = names(block.map(|line| line.trim().to_owned()));
            }
            "names" => found.names = names(inline(value, &lines[at + 1..]).into_iter()),
            "train" | "val" | "test" if !value.trim().is_empty() => {
                found.splits.push((key.trim().to_owned(), scalar(value).to_owned()));
            }
            _ => {}
        }
    }
    found
}

/// The items of `[a, b]` or `{0: a, 1: b}`, which may go on over some lines.
fn inline(value: &str, next: &[&str]) -> Vec<String> {
    let mut text = value.trim().to_owned();
    let mut next = next.iter();
    while !text.ends_with([']', '}'])
        && let Some(line) = next.next()
    {
        text = format!("{text} {}", line.trim());
    }
    let (mut items, mut quote, mut item) = (Vec::new(), None, String::new());
    for letter in text.trim_matches(['[', ']', '{', '}']).chars() {
        match (letter, quote) {
            (',', None) => items.push(std::mem::take(&mut item)),
            ('\'' | '"', None) if item.rsplit(':').next().is_some_and(|rest| rest.trim().is_empty()) => {
                quote = Some(letter);
                item.push(letter);
            }
            (_, Some(end)) if letter == end => {
                quote = None;
                item.push(letter);
            }
            _ => item.push(letter),
        }
    }
    items.push(item);
    items.into_iter().map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect()
}

/// Names from `- name` or `name`, in order, or from `number: name`.
fn names(items: impl Iterator<Item = String>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for item in items {
        let item = item.strip_prefix('-').unwrap_or(&item).trim();
        let numbered = item.split_once(':').and_then(|(number, name)| {
            // More numbers than labels have classes are no list of names.
            Some((scalar(number).parse::<usize>().ok().filter(|number| *number < 10_000)?, name))
        });
        let (place, name) = numbered.unwrap_or((names.len(), item));
        if names.len() <= place {
            names.resize(place + 1, String::new());
        }
        names[place] = scalar(name).to_owned();
    }
    names
}

/// A value without its quotes.
fn scalar(text: &str) -> &str {
    let text = text.trim();
    let inner = |quote: char| text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    inner('"').or_else(|| inner('\'')).unwrap_or(text)
}

/// A line without what stands behind a `#` that begins a word outside of quotes.
fn without_comment(line: &str) -> &str {
    let (mut quote, mut before) = (None, ' ');
    for (at, letter) in line.char_indices() {
        match (letter, quote) {
            ('#', None) if before.is_whitespace() => return line[..at].trim_end(),
            ('\'' | '"', None) => quote = Some(letter),
            (_, Some(end)) if letter == end => quote = None,
            _ => {}
        }
        before = letter;
    }
    line.trim_end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lists_or_maps_in_every_way_that_tools_write_them() {
        for text in [
            "names: ['red cat', dog, \"a, b\"]\nnc: 3",
            "nc: 3\nnames:\n- red cat\n- 'dog'   # a comment\n- \"a, b\"\n",
            "names:\n  0: red cat\n  1: dog\n  2: 'a, b'\nnc: 3\n",
            "names: {0: red cat, 1: dog, 2: \"a, b\"}",
            "names: [\n  'red cat',\n  'dog',\n  'a, b'\n]\n",
        ] {
            assert_eq!(read(text).names, ["red cat", "dog", "a, b"], "{text}");
        }
        assert_eq!(read("names:\n  2: b\n  0: a\n").names, ["a", "", "b"]);
        assert_eq!(read("names: [it's, o#k]").names, ["it's", "o#k"]);
    }

    #[test]
    fn folders_of_splits_are_read_and_the_rest_is_passed_over() {
        let text = "# data\npath: ../datasets/x  # root\ntrain: images/train\nval: \"images/val\"\ntest:\nroboflow:\n  train: 3\n  names: [x]\n";
        let found = read(text);
        let expected = [("train", "images/train"), ("val", "images/val")];
        assert_eq!(found.splits, expected.map(|(name, path)| (name.to_owned(), path.to_owned())));
        assert!(found.names.is_empty());
    }
}
