//! The JSON Schema of a type, for editors and for the walk.

use schemars::JsonSchema;

/// The schema as a JSON value, as serde reads the type (not as it writes it).
pub(crate) fn schema_of<T: JsonSchema>() -> serde_json::Value {
    schemars::schema_for!(T).to_value()
}

/// The JSON Schema of `T` as indented JSON text with a final newline, with `$schema` and the type's name as `title`.
pub fn schema_json<T: JsonSchema>() -> String {
    format!("{:#}\n", schema_of::<T>())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    /// A small table.
    #[derive(schemars::JsonSchema)]
    #[expect(dead_code, reason = "only its schema is looked at")]
    struct Small {
        /// Steps to take.
        steps: u32,
    }

    #[test]
    fn a_schema_has_a_dialect_a_title_and_the_doc_comments() {
        let text = super::schema_json::<Small>();
        assert!(text.ends_with("}\n"));
        let schema: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert_eq!(schema["title"], "Small");
        assert_eq!(schema["description"], "A small table.");
        assert_eq!(schema["properties"]["steps"]["description"], "Steps to take.");
    }
}
