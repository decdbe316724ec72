//! Every TOML file that a user writes, read with all of its mistakes at once and a place for each.
//!
//! A file and the `--set` arguments that change it become one tree whose values know where they were written. The tree is
//! walked against the JSON Schema of its type, read by serde, and checked by the type itself ([`TomlFile`]).

mod de;
mod difference;
mod minimal;
mod moved;
mod problem;
mod read;
#[cfg(test)]
mod sample;
mod schema;
mod set;
mod tree;
mod walk;

pub use difference::Difference;
pub use moved::Moved;
pub use problem::{Origin, Problem, Problems, nearest};
pub use read::{Draft, Loaded, TomlFile, parse, read};
pub use schema::schema_json;
pub use set::{Changes, parse_key};
pub use tree::show_key;
