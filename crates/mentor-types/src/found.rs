//! What a check of settings found.

/// Dotted key below the table that was checked, and message, for each problem.
pub type Found = Vec<(String, String)>;

/// Adds what `check` finds, with `prefix.` before its keys.
pub fn below(prefix: &str, found: &mut Found, check: impl FnOnce(&mut Found)) {
    let mut inner = Found::new();
    check(&mut inner);
    found.extend(inner.into_iter().map(|(key, message)| (format!("{prefix}.{key}"), message)));
}

/// Reports a weight that is negative or not finite.
pub fn check_weight(key: &str, weight: f64, found: &mut Found) {
    if !weight.is_finite() || weight < 0.0 {
        found.push((key.to_owned(), format!("a weight is a number of at least 0, found {weight}")));
    }
}

/// Reports a number that is negative or not finite.
pub fn check_at_least_0(key: &str, value: f64, found: &mut Found) {
    if !(value.is_finite() && value >= 0.0) {
        found.push((key.to_owned(), format!("must be at least 0, found {value}")));
    }
}

/// Reports a probability outside `[0, 1]`.
pub fn check_probability(key: &str, value: f64, found: &mut Found) {
    if !(0.0..=1.0).contains(&value) {
        found.push((key.to_owned(), format!("a probability lies in [0, 1], found {value}")));
    }
}
