//! The list of the terms of a table.

use mentor_types::{Found, below};

use super::{Sees, Term};

/// A table of a recipe in which terms are switched on; [`terms!`](crate::terms) makes one.
pub trait TermTable<S: Sees>: Sized {
    /// Every term there is, at its defaults.
    fn all() -> Self;

    /// The terms that are on, by name, in the order of the list.
    fn terms(&self) -> Vec<(&'static str, &dyn Term<S>)>;
}

/// Reports values out of range, of the keys that terms share and of their own.
pub fn check_terms<S: Sees>(table: &impl TermTable<S>, found: &mut Found) {
    for (name, term) in table.terms() {
        below(name, found, |found| {
            term.shared().check(found);
            term.check(found);
        });
    }
}

/// Reports what of the terms does not fit a data set of so many classes.
pub fn check_classes<S: Sees>(table: &impl TermTable<S>, classes: usize, found: &mut Found) {
    for (name, term) in table.terms() {
        below(name, found, |found| term.check_classes(classes, found));
    }
}

/// From one line `file::Type` per term: the module, the optional recipe table, and the list of what a
/// recipe switched on. File, table and log column have one name.
///
/// Before the `;` stand the keys of the table that are no terms, as fields with their attributes. The
/// caller depends on `serde` and `schemars`, and gives the type a `Default`: that of a recipe without
/// the table.
#[macro_export]
macro_rules! terms {
    (
        $(#[$attribute:meta])*
        $Table:ident of $Seen:ty {
            $($(#[$key_attribute:meta])* $key:ident: $Key:ty,)*
            ;
            $($file:ident::$Type:ident,)*
        }
    ) => {
        $(mod $file; pub use $file::$Type;)*

        $(#[$attribute])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $Table {
            $($(#[$key_attribute])* pub $key: $Key,)*
            $(
                #[doc = concat!("The table `", stringify!($file), "`. Default off.")]
                #[serde(default, skip_serializing_if = "Option::is_none")]
                pub $file: Option<$Type>,
            )*
        }

        impl $crate::TermTable<$Seen> for $Table {
            #[allow(clippy::needless_update)]
            fn all() -> Self {
                Self { $($file: Some($Type::default()),)* ..Self::default() }
            }

            fn terms(&self) -> Vec<(&'static str, &dyn $crate::Term<$Seen>)> {
                let all: [(&'static str, Option<&dyn $crate::Term<$Seen>>); _] =
                    [$((stringify!($file), self.$file.as_ref().map(|term| term as _))),*];
                all.into_iter().filter_map(|(name, term)| Some((name, term?))).collect()
            }
        }
    };
}
