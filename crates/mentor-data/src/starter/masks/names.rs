//! The names of classes, where a folder has a table of them.

use std::collections::BTreeMap;
use std::path::Path;

use super::super::is_class_name;
use super::values::MaskTable;
use crate::error::DataError;
use crate::files::{Below, read_text};

/// The names of tables, in lower case, as labelling tools export them.
const TABLES: [&str; 8] = [
    "_classes.csv",
    "class_dict.csv",
    "classes.csv",
    "labelmap.txt",
    "label_colors.txt",
    "classes.txt",
    "labels.txt",
    "class_names.txt",
];

/// Names by the value or by the colour that stands for them in masks.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// The table that they are from.
    file: Option<String>,
    by_value: BTreeMap<u8, String>,
    by_colour: BTreeMap<[u8; 3], String>,
}

impl Names {
    /// Those of the first table that can be read: lines of `value, name`, of `name, red, green, blue`, of
    /// `name:red,green,blue::`, of `red green blue name`, or of a name alone.
    ///
    /// # Errors
    /// A file that the system does not give out.
    pub fn find(folder: &Path) -> Result<Self, DataError> {
        let is_table = |path: &Path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_lowercase();
            TABLES.contains(&name.as_str())
        };
        let place = |file: &String| {
            let name = file.rsplit('/').next().unwrap_or(file).to_lowercase();
            (TABLES.iter().position(|table| *table == name), file.clone())
        };
        let mut files = Below::of(folder, folder, &is_table)?.files;
        files.sort_by_key(place);
        for file in files {
            let text = match read_text(&folder.join(&file)) {
                Ok(text) => text,
                Err(error @ DataError::Io { .. }) => return Err(error),
                Err(_) => continue,
            };
            let found = Self::read(&text);
            if !found.by_value.is_empty() || !found.by_colour.is_empty() {
                return Ok(Self { file: Some(file), ..found });
            }
        }
        Ok(Self::default())
    }

    fn read(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let parts = parts_of(line);
            let numbers: Vec<u8> = parts.iter().filter_map(|part| part.parse().ok()).collect();
            let name = parts.iter().find(|part| is_class_name(part));
            match (name, numbers.as_slice()) {
                (Some(name), [red, green, blue]) => {
                    found.by_colour.insert([*red, *green, *blue], (*name).to_owned());
                }
                (Some(name), [value, red, green, blue]) => {
                    found.by_value.insert(*value, (*name).to_owned());
                    found.by_colour.insert([*red, *green, *blue], (*name).to_owned());
                }
                (Some(name), [value]) if parts.len() == 2 => {
                    found.by_value.insert(*value, (*name).to_owned());
                }
                (Some(name), []) if parts.len() == 1 => {
                    let next = found.by_value.len();
                    found.by_value.extend(u8::try_from(next).ok().map(|next| (next, (*name).to_owned())));
                }
                _ => {}
            }
        }
        found
    }

    /// The name of a class: that of the table, or `class_0`, `class_1` and so on.
    pub fn of(&self, table: &MaskTable, class: usize) -> String {
        let named = self.known(table, class);
        let taken = |name: &&String| (0..class).all(|other| self.known(table, other) != Some(name));
        named.filter(taken).cloned().unwrap_or_else(|| format!("class_{class}"))
    }

    fn known(&self, table: &MaskTable, class: usize) -> Option<&String> {
        match table.values.get(class) {
            Some(value) => self.by_value.get(value),
            None => self.by_colour.get(&table.classes[class]),
        }
    }

    /// How many classes have their names from where, for people.
    pub fn said(&self, table: &MaskTable) -> Option<String> {
        let named = (0..table.classes.len()).filter(|class| self.known(table, *class).is_some()).count();
        let file = self.file.as_ref()?;
        Some(format!("names of {named} of {} classes from {file}", table.classes.len()))
    }
}

/// The cells of a line.
fn parts_of(line: &str) -> Vec<&str> {
    let cells: Vec<&str> = line.split([',', ':', ';', '\t']).map(str::trim).filter(|cell| !cell.is_empty()).collect();
    // `red green blue name` has blanks, and so may a name.
    match cells.first() {
        Some(first) if first.contains(' ') && first.starts_with(|letter: char| letter.is_ascii_digit()) => {
            line.splitn(4, [' ', '\t']).map(str::trim).collect()
        }
        _ => cells,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Named<K> = Vec<(K, String)>;

    fn read(text: &str) -> (Named<u8>, Named<[u8; 3]>) {
        let Names { by_value, by_colour, .. } = Names::read(text);
        (by_value.into_iter().collect(), by_colour.into_iter().collect())
    }

    fn named<K: Copy>(all: &[(K, &str)]) -> Named<K> {
        all.iter().map(|(key, name)| (*key, (*name).to_owned())).collect()
    }

    #[test]
    fn tables_of_labelling_tools_are_read() {
        for (text, values, colours) in [
            ("Pixel Value, Class\n0, background\n1, a b\n", &[(0, "background"), (1, "a b")][..], &[][..]),
            ("name,r,g,b\nroad,128,64,0\nsky,1,2,3\n", &[], &[([1, 2, 3], "sky"), ([128, 64, 0], "road")]),
            (
                "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:9,8,7::\n",
                &[],
                &[([0, 0, 0], "background"), ([9, 8, 7], "cat")],
            ),
            (
                "64 128 64\tAnimal\n192 0 128 \tArch way\n",
                &[],
                &[([64, 128, 64], "Animal"), ([192, 0, 128], "Arch way")],
            ),
            (
                "index,name,r,g,b\n0,background,0,0,0\n5,tree,1,1,1\n",
                &[(0, "background"), (5, "tree")],
                &[([0, 0, 0], "background"), ([1, 1, 1], "tree")],
            ),
            ("cat\r\ndog\n", &[(0, "cat"), (1, "dog")], &[]),
        ] {
            assert_eq!(read(text), (named(values), named(colours)), "{text}");
        }
    }
}
