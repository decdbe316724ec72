//! Scores for people.

use mentor_report::Comparison;
use mentor_types::{ScoreNames, Scores};

use crate::print::say;

/// A share in percent; a dash where there is none.
pub fn percent(share: Option<f64>) -> String {
    share.map_or("-".to_owned(), |share| format!("{:.2} %", 100.0 * share))
}

/// Every score on a line, then that of each class, in the order of the classes.
pub fn score_lines<S: Scores>(scores: &S, classes: &[String]) -> Vec<String> {
    let record = scores.record(classes);
    let rows = S::NAMES.rows.iter().map(|row| format!("{:<24} {:>9}", row.name, percent(record.get(row.key))));
    let of_class = |class: &String| percent(record.of_class(S::NAMES.by_class, class));
    rows.chain(classes.iter().map(|class| format!("  {class:<22} {:>9}", of_class(class)))).collect()
}

/// Prints the table at the end of a run.
pub fn print_comparison(rows: &[Comparison], names: ScoreNames) {
    let [_, score] = names.main;
    say!("\n{:<28} {:>9}", format!("{score} on val"), "");
    for row in rows {
        say!("{:<28} {:>9}  {}", row.name, percent(row.score), row.note);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mentor_types::{ClassScore, ScoreRecord, ScoreRow};
    use serde_json::json;

    struct Toy;

    impl Scores for Toy {
        const NAMES: ScoreNames = ScoreNames {
            main: ["ap", "AP"],
            rows: &[
                ScoreRow { key: "ap", name: "AP", meaning: "" },
                ScoreRow { key: "recall", name: "recall", meaning: "" },
            ],
            by_class: ClassScore { key: "per_class", column: "ap", name: "AP" },
            counted: "boxes",
            reading: "",
        };

        fn main(&self) -> f64 {
            0.5
        }

        fn record(&self, _classes: &[String]) -> ScoreRecord {
            ScoreRecord::from_iter([("ap", json!(0.5)), ("per_class", json!({"bus": 0.25, "tram": null, "car": 0.75}))])
        }
    }

    #[test]
    fn classes_stand_in_the_order_of_the_card() {
        let lines = score_lines(&Toy, &["tram", "car", "bus"].map(str::to_owned));
        let words: Vec<Vec<&str>> = lines.iter().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words[0], ["AP", "50.00", "%"]);
        assert_eq!(words[1], ["recall", "-"]);
        assert_eq!(words[2..], [vec!["tram", "-"], vec!["car", "75.00", "%"], vec!["bus", "25.00", "%"]]);
    }

    #[test]
    fn a_score_that_is_missing_is_a_dash_and_no_zero() {
        assert_eq!([percent(Some(0.0)), percent(Some(0.4166)), percent(None)], ["0.00 %", "41.66 %", "-"]);
    }
}
