//! The table of a study as Markdown: what was measured, beside what the papers say.

use std::collections::{BTreeMap, BTreeSet};

use crate::compute::Compute;
use crate::difference::{Difference, Measure};
use crate::result::RowResult;
use crate::statistics::{mean, seeds_to_show, spread};
use crate::study_file::{StudyFile, StudyRow};

/// How much less than the longer baseline a row may compute to be compared with it.
const LESS_COMPUTE: f64 = 0.1;

/// Renders the table of a study from the results that there are.
///
/// A value is the mean over seeds with the sample standard deviation (divisor n - 1). The difference to a row's baseline
/// is taken over the seeds that both rows have, or over all where they share none, and only where both took the same
/// number of steps; that to the baseline that trains longer only where the row computes as much, by `compute`, what each
/// row computes. With two shared seeds or more a difference has its 95 % interval, over the differences seed by seed and,
/// for `judged_by`, over the images; one that holds zero is called noise. Where the study names no metrics, it shows
/// `judged_by`, the key of the score that models are judged by. Results of rows or seeds that the study does not have are
/// left out. Below the table stand the devices and commits that the results came from.
pub fn table(study: &StudyFile, results: &[RowResult], judged_by: &str, compute: &BTreeMap<String, Compute>) -> String {
    let metrics = study.metrics.clone().unwrap_or_else(|| vec![judged_by.to_owned()]);
    let one = if study.percent { 100.0 } else { 1.0 };
    let measure = Measure { metric: &metrics[0], is_score: metrics[0] == judged_by, one };
    let baselines = study.rows.iter().filter_map(|row| study.baseline_of(row)).map(|row| row.name.as_str()).collect();
    let longer = study.longer_name().and_then(|name| study.row(&name));
    let mut table = StudyTable { study, results, compute, measure, baselines, longer, differences: BTreeMap::new() };
    table.differences = table.to_their_baselines();

    let mut text = format!("### {}\n\n", plain(&study.title));
    let columns = table.columns(&metrics);
    push_line(&mut text, columns.iter().map(|column| column.head.as_str()));
    push_line(&mut text, (0..columns.len()).map(|column| if column == 0 { "---" } else { "---:" }));
    for row in 0..study.rows.len() {
        push_line(&mut text, columns.iter().map(|column| column.cells[row].as_str()));
    }
    text.push_str(&table.origins());
    if let Some(least) = study.min_effect {
        text.push_str(&table.seeds_for(least));
    }
    text
}

struct StudyTable<'a> {
    study: &'a StudyFile,
    results: &'a [RowResult],
    compute: &'a BTreeMap<String, Compute>,
    /// What rows are compared by.
    measure: Measure<'a>,
    /// The rows that others are compared with.
    baselines: BTreeSet<&'a str>,
    /// The one of these that trains longer.
    longer: Option<&'a StudyRow>,
    /// That of each row to its baseline, where both took the same number of steps.
    differences: BTreeMap<&'a str, Difference>,
}

struct Column {
    head: String,
    /// One for each row of the study.
    cells: Vec<String>,
}

impl<'a> StudyTable<'a> {
    fn columns(&self, metrics: &[String]) -> Vec<Column> {
        let mut columns = Vec::new();
        let mut push = |head: String, cell: &dyn Fn(&'a StudyRow) -> String| {
            columns.push(Column { head, cells: self.study.rows.iter().map(cell).collect() });
        };
        push("row".to_string(), &|row| row.name.clone());
        push("steps".to_string(), &|row| {
            let all = steps(&self.results_of(row));
            all.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
        });
        if self.longer.is_some() {
            push("compute".to_string(), &|row| self.times_baseline(row));
        }
        for metric in metrics {
            push(metric.clone(), &|row| self.measured(row, metric));
        }
        match Vec::from_iter(&self.baselines)[..] {
            [] => {}
            [name] => push(format!("difference to {name}"), &|row| self.to_baseline(row)),
            _ => {
                let name = |row| self.baseline(row).map_or_else(String::new, |other| other.name.clone());
                push("beside".to_string(), &name);
                push("difference".to_string(), &|row| self.to_baseline(row));
            }
        }
        if let Some(longer) = self.longer {
            push(format!("difference to {}", longer.name), &|row| self.to_longer(row, longer));
        }
        if self.study.rows.iter().any(|row| row.paper.is_some()) {
            push("paper".to_string(), &|row| row.paper.map(|paper| self.number(paper)).unwrap_or_default());
        }
        if self.study.rows.iter().any(|row| row.expected.is_some()) {
            push("expected".to_string(), &|row| row.expected.clone().unwrap_or_default());
        }
        columns
    }

    /// The results of a row, one for each of its seeds that has one.
    fn results_of(&self, row: &StudyRow) -> Vec<&'a RowResult> {
        let of_seed = |seed: &u64| self.results.iter().find(|result| result.row == row.name && result.seed == *seed);
        self.study.seeds_of(row).iter().filter_map(of_seed).collect()
    }

    fn measured(&self, row: &StudyRow, metric: &str) -> String {
        let measure = Measure { metric, ..self.measure };
        let values: Vec<f64> = self.results_of(row).into_iter().filter_map(|result| measure.of(result)).collect();
        if values.is_empty() {
            return "no result yet".to_string();
        }
        let mut cell = self.number(mean(&values));
        if let Some(spread) = spread(&values) {
            cell.push_str(&format!(" ± {}", self.number(spread)));
        }
        match (values.len(), self.study.seeds_of(row).len()) {
            (1, 1) => cell.push_str(" (1 seed)"),
            (have, wanted) if have < wanted => cell.push_str(&format!(" ({have} of {wanted} seeds)")),
            _ => {}
        }
        cell
    }

    /// What a row computes, as a multiple of what the baseline does.
    fn times_baseline(&self, row: &StudyRow) -> String {
        let total = |name: &String| self.compute.get(name).map(Compute::total);
        let baseline = self.study.baseline.as_ref().and_then(total);
        total(&row.name).zip(baseline).map_or_else(String::new, |(own, other)| format!("{:.1} x", own / other))
    }

    /// The other row that a row is compared with.
    fn baseline(&self, row: &StudyRow) -> Option<&'a StudyRow> {
        self.study.baseline_of(row).filter(|other| other.name != row.name)
    }

    fn to_their_baselines(&self) -> BTreeMap<&'a str, Difference> {
        let of_row = |row: &'a StudyRow| {
            let [own, others] = [row, self.baseline(row)?].map(|row| self.results_of(row));
            let difference = || Difference::of(self.measure, &own, &others);
            Some((row.name.as_str(), (steps(&own) == steps(&others)).then(difference)??))
        };
        self.study.rows.iter().filter_map(of_row).collect()
    }

    fn to_baseline(&self, row: &StudyRow) -> String {
        if let Some(difference) = self.differences.get(row.name.as_str()) {
            return self.difference(difference);
        }
        match self.baseline(row).map(|other| [row, other].map(|row| self.results_of(row))) {
            Some([own, others]) if own.is_empty() || others.is_empty() => String::new(),
            Some(_) => "other steps".to_string(),
            None if self.baselines.contains(row.name.as_str()) => "baseline".to_string(),
            None => String::new(),
        }
    }

    /// The difference of a row to the baseline that trains longer; nothing where it computes less than that.
    fn to_longer(&self, row: &StudyRow, longer: &StudyRow) -> String {
        if row.name == longer.name {
            return "baseline".to_string();
        }
        let total = |row: &StudyRow| self.compute.get(&row.name).map_or(0.0, Compute::total);
        if !self.study.is_compared(row) || total(row) < (1.0 - LESS_COMPUTE) * total(longer) {
            return String::new();
        }
        let difference = Difference::of(self.measure, &self.results_of(row), &self.results_of(longer));
        difference.map_or_else(String::new, |difference| self.difference(&difference))
    }

    fn difference(&self, difference: &Difference) -> String {
        let mean = self.signed(difference.mean);
        let Some([low, high]) = difference.interval else { return mean };
        let noise = if low <= 0.0 && high >= 0.0 { ", within the noise" } else { "" };
        format!("{mean} [{}, {}]{noise}", self.signed(low), self.signed(high))
    }

    /// How many seeds each row would need to show a difference of `least` four times of five.
    fn seeds_for(&self, least: f64) -> String {
        let of_row = |row: &StudyRow| {
            let difference = self.differences.get(row.name.as_str())?;
            let seeds = seeds_to_show(least, difference.spread?, difference.over_images);
            Some(format!("{} {}", row.name, seeds.map_or("more images".to_string(), |seeds| seeds.to_string())))
        };
        let rows: Vec<String> = self.study.rows.iter().filter_map(of_row).collect();
        if rows.is_empty() {
            return String::new();
        }
        let least = self.number(least);
        format!("\nSeeds to show a difference of {least} four times of five, about: {}.\n", rows.join(", "))
    }

    /// Where the results came from; nothing where there are none.
    fn origins(&self) -> String {
        let used: Vec<&RowResult> = self.study.rows.iter().flat_map(|row| self.results_of(row)).collect();
        let distinct = |of: fn(&RowResult) -> &str| {
            let names: BTreeSet<&str> = used.iter().map(|result| of(result)).filter(|name| !name.is_empty()).collect();
            Vec::from_iter(names).join(", ")
        };
        if used.is_empty() {
            return String::new();
        }
        let (devices, commits) = (distinct(|result| &result.device), distinct(|result| &result.commit));
        let unit = if self.study.percent { " in per cent" } else { "" };
        let over_images = self.measure.is_score && used.iter().all(|result| !result.images.is_empty());
        let brackets = match (self.baselines.is_empty(), over_images) {
            (true, _) => "",
            (false, true) => " In brackets 95 % intervals, paired over seeds and images.",
            (false, false) => " In brackets 95 % intervals, paired over seeds.",
        };
        format!(
            "\nMean ± sample standard deviation over seeds{unit}.{brackets} Device: {devices}. Commit: {commits}.\n"
        )
    }

    fn signed(&self, value: f64) -> String {
        let text = self.number(value);
        if text.starts_with('-') { text } else { format!("+{text}") }
    }

    fn number(&self, value: f64) -> String {
        let text = if self.study.percent { format!("{value:.2}") } else { format!("{value:.4}") };
        // A small negative number that rounds to zero would be shown as minus zero.
        let is_zero = text.trim_start_matches(['-', '0', '.']).is_empty();
        if is_zero { text.trim_start_matches('-').to_string() } else { text }
    }
}

/// The numbers of steps that there are, each once.
fn steps(results: &[&RowResult]) -> BTreeSet<u64> {
    results.iter().map(|result| result.steps).collect()
}

fn push_line<'a>(text: &mut String, cells: impl Iterator<Item = &'a str>) {
    for cell in cells {
        text.push_str("| ");
        text.push_str(&plain(cell));
        text.push(' ');
    }
    text.push_str("|\n");
}

/// Text that cannot break out of its cell.
fn plain(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::study::Study;
    use std::path::Path;

    const STUDY: &str = r#"
title = "Aerial | quick"
baseline = "alone"
seeds = [0, 1, 2]
metrics = ["miou", "accuracy"]
[[rows]]
name = "teacher"
recipe = "teacher.toml"
seeds = [0]
[[rows]]
name = "alone"
recipe = "alone.toml"
paper = 69.1
expected = "a paper's table 2"
[[rows]]
name = "pixel_wise"
recipe = "pixel_wise.toml"
[[rows]]
name = "holistic"
recipe = "holistic.toml"
"#;

    fn result(row: &str, seed: u64, miou: f64, steps: u64) -> RowResult {
        RowResult {
            row: row.into(),
            seed,
            key: String::new(),
            metrics: [("miou".to_string(), miou), ("accuracy".to_string(), 0.9)].into(),
            steps,
            device: "cpu".into(),
            commit: "abc".into(),
            seconds: 1.0,
            images: Vec::new(),
        }
    }

    #[test]
    fn a_table_shows_mean_spread_difference_paper_and_what_is_missing() {
        let study = Study::parse(STUDY, Path::new("s.toml")).unwrap();
        let results = [
            result("teacher", 0, 0.8, 900),
            result("alone", 0, 0.5, 400),
            result("alone", 1, 0.51, 400),
            result("alone", 2, 0.55, 400),
            result("pixel_wise", 0, 0.53, 400),
            result("pixel_wise", 1, 0.53, 400),
            result("gone", 0, 0.1, 1),
        ];
        assert_eq!(
            table(&study.file, &results, "miou", &BTreeMap::new()),
            "### Aerial \\| quick\n\n\
             | row | steps | miou | accuracy | difference to alone | paper | expected |\n\
             | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n\
             | teacher | 900 | 80.00 (1 seed) | 90.00 (1 seed) | other steps |  |  |\n\
             | alone | 400 | 52.00 ± 2.65 | 90.00 ± 0.00 | baseline | 69.10 | a paper's table 2 |\n\
             | pixel_wise | 400 | 53.00 ± 0.00 (2 of 3 seeds) | 90.00 ± 0.00 (2 of 3 seeds) | +2.50 [-3.85, +8.85], within the noise |  |  |\n\
             | holistic |  | no result yet | no result yet |  |  |  |\n\
             \nMean ± sample standard deviation over seeds in per cent. In brackets 95 % intervals, paired over seeds. \
             Device: cpu. Commit: abc.\n"
        );
    }

    #[test]
    fn a_difference_has_an_interval_and_a_study_says_how_many_seeds_it_needs() {
        let text = STUDY.replacen("seeds", "min_effect = 1.0\nseeds", 1);
        let study = Study::parse(&text, Path::new("s.toml")).unwrap();
        let rows = [("alone", [0.50, 0.51, 0.55]), ("pixel_wise", [0.53, 0.55, 0.58])];
        let results: Vec<RowResult> = rows
            .iter()
            .flat_map(|(row, scores)| (0..).zip(scores).map(|(seed, score)| result(row, seed, *score, 400)))
            .collect();
        let text = table(&study.file, &results, "miou", &BTreeMap::new());
        // Differences of 3, 4 and 3: mean 3.33, deviation 0.577; t with 2 degrees of freedom is 4.303.
        assert!(text.contains("| +3.33 [+1.90, +4.77] |"), "{text}");
        // (2.802 * 0.577)^2 = 2.6.
        assert!(text.ends_with("four times of five, about: pixel_wise 3.\n"), "{text}");
    }

    #[test]
    fn an_interval_is_wider_where_few_images_make_the_difference() {
        let study = Study::parse(STUDY, Path::new("s.toml")).unwrap();
        let with_images = |row: &str, seed: u64, parts: [u64; 2]| {
            let miou = (parts[0] + parts[1]) as f64 / 200.0;
            let images = parts.map(|part| format!("{part}/100")).to_vec();
            RowResult { images, ..result(row, seed, miou, 400) }
        };
        let results: Vec<RowResult> = (0..3)
            .flat_map(|seed| [with_images("alone", seed, [50, 50]), with_images("pixel_wise", seed, [50, 60])])
            .collect();
        let text = table(&study.file, &results, "miou", &BTreeMap::new());
        // No spread over seeds; of two images, one adds ten: a deviation of 5 / sqrt(2), about.
        let [low, high] = ["[", ", "].map(|before| {
            let line = text.lines().find(|line| line.starts_with("| pixel_wise")).unwrap();
            let cell = line.split_once("+5.00 ").unwrap().1;
            let number: String =
                cell.split_once(before).unwrap().1.chars().take_while(|c| "+-.0123456789".contains(*c)).collect();
            number.parse::<f64>().unwrap()
        });
        assert!((-2.3..-1.5).contains(&low) && (11.5..12.3).contains(&high), "{text}");
        assert!(text.contains("paired over seeds and images."), "{text}");
    }

    #[test]
    fn rows_have_baselines_of_their_own() {
        let text = STUDY.replace("name = \"holistic\"", "name = \"holistic\"\nbaseline = \"pixel_wise\"");
        let text = text.replace("name = \"teacher\"", "name = \"teacher\"\nbaseline = \"alone\"");
        let study = Study::parse(&text, Path::new("s.toml")).unwrap();
        let results = [
            result("alone", 0, 0.5, 400),
            result("pixel_wise", 0, 0.53, 800),
            result("pixel_wise", 1, 0.53, 800),
            result("holistic", 0, 0.56, 800),
            result("holistic", 1, 0.56, 800),
        ];
        let text = table(&study.file, &results, "miou", &BTreeMap::new());
        let cells = |row: &str| {
            let line = text.lines().find(|line| line.starts_with(&format!("| {row} |"))).unwrap();
            line.split(" | ").skip(4).take(2).collect::<Vec<_>>().join(": ")
        };
        assert!(text.contains("| accuracy | beside | difference | paper |"), "{text}");
        // It is compared with no other, since others are compared with it.
        assert_eq!(cells("pixel_wise"), ": baseline");
        assert_eq!(cells("holistic"), "pixel_wise: +3.00 [+3.00, +3.00]");
        assert_eq!(cells("alone"), ": baseline");
    }

    #[test]
    fn a_row_is_compared_at_equal_compute_where_it_computes_as_much() {
        let taught = "recipe = \"holistic.toml\"\nset = { w = \"row:teacher@0\" }";
        let text = STUDY.replacen("seeds", "baseline_compute = true\nseeds", 1);
        let text = text.replace("recipe = \"holistic.toml\"", taught);
        let mut study = Study::parse(&text, Path::new("s.toml")).unwrap();
        let costs = [("teacher", 90.0), ("alone", 1.0), ("pixel_wise", 4.0), ("holistic", 5.0)];
        let mut compute =
            costs.map(|(name, a_step)| (name.to_owned(), Compute { a_step, steps: 400 })).into_iter().collect();
        study.add_longer_baseline(&mut compute);
        let results = [
            result("alone", 0, 0.5, 400),
            result("alone_longer", 0, 0.54, 2000),
            result("teacher", 0, 0.8, 400),
            result("pixel_wise", 0, 0.53, 400),
            result("holistic", 0, 0.56, 400),
        ];
        let text = table(&study.file, &results, "miou", &compute);
        let expected = [
            "| row | steps | compute | miou | accuracy | difference to alone | difference to alone_longer | paper | expected |",
            "| teacher | 400 | 90.0 x | 80.00 (1 seed) | 90.00 (1 seed) | +30.00 |  |  |  |",
            "| alone | 400 | 1.0 x | 50.00 (1 of 3 seeds) | 90.00 (1 of 3 seeds) | baseline |  | 69.10 | a paper's table 2 |",
            "| alone_longer | 2000 | 5.0 x | 54.00 (1 of 3 seeds) | 90.00 (1 of 3 seeds) | other steps | baseline |  |  |",
            "| pixel_wise | 400 | 4.0 x | 53.00 (1 of 3 seeds) | 90.00 (1 of 3 seeds) | +3.00 |  |  |  |",
            "| holistic | 400 | 5.0 x | 56.00 (1 of 3 seeds) | 90.00 (1 of 3 seeds) | +6.00 | +2.00 |  |  |",
        ];
        expected.iter().for_each(|line| assert!(text.contains(line), "{line}\n{text}"));
    }

    #[test]
    fn a_table_without_results_has_no_footer() {
        let study = Study::parse(
            "title = \"t\"\npercent = false\n[[rows]]\nname = \"a\"\nrecipe = \"a.toml\"\n",
            Path::new("s"),
        )
        .unwrap();
        let text = "### t\n\n| row | steps | miou |\n| --- | ---: | ---: |\n| a |  | no result yet |\n";
        assert_eq!(table(&study.file, &[], "miou", &BTreeMap::new()), text);
    }

    #[test]
    fn a_difference_that_rounds_to_zero_has_no_minus() {
        let study = Study::parse(STUDY, Path::new("s.toml")).unwrap();
        let results = [result("alone", 0, 0.5, 4), result("holistic", 0, 0.499999, 4)];
        assert!(table(&study.file, &results, "miou", &BTreeMap::new()).contains("| +0.00 |"));
    }
}
