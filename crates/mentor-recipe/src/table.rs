//! The table of a study as Markdown: what was measured, beside what the papers say.

use std::collections::{BTreeMap, BTreeSet};

use crate::compute::Compute;
use crate::result::RowResult;
use crate::shares::{Shares, deviation_over_images};
use crate::statistics::{interval, mean, seeds_to_show, spread};
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
    let names = [metrics[0].as_str(), judged_by];
    let against = shared_baseline(study);
    let longer = study.longer_name().and_then(|name| study.row(&name));
    let with_paper = study.rows.iter().any(|row| row.paper.is_some());
    let with_words = study.rows.iter().any(|row| row.expected.is_some());
    let mut heads = vec!["row".to_string(), "steps".to_string()];
    heads.extend(longer.map(|_| "compute".to_string()));
    heads.extend(metrics.iter().cloned());
    heads.extend(against.as_ref().map(|name| format!("difference to {name}").trim_end_matches(" to ").to_string()));
    heads.extend(longer.map(|row| format!("difference to {}", row.name)));
    heads.extend(with_paper.then(|| "paper".to_string()));
    heads.extend(with_words.then(|| "expected".to_string()));

    let mut text = format!("### {}\n\n", plain(&study.title));
    push_line(&mut text, &heads);
    let rule: Vec<String> =
        (0..heads.len()).map(|column| if column == 0 { "---" } else { "---:" }.to_string()).collect();
    push_line(&mut text, &rule);
    for row in &study.rows {
        let own = results_of(study, row, results);
        let mut cells = vec![row.name.clone(), steps(&own)];
        cells.extend(longer.map(|_| times_baseline(study, row, compute)));
        cells.extend(metrics.iter().map(|metric| measured(study, row, &own, metric)));
        if let Some(head) = &against {
            cells.push(to_baseline(study, names, row, results, head.is_empty()));
        }
        cells.extend(longer.map(|other| to_longer(study, names, [row, other], results, compute)));
        cells.extend(with_paper.then(|| row.paper.map(|paper| number(study, paper)).unwrap_or_default()));
        cells.extend(with_words.then(|| row.expected.clone().unwrap_or_default()));
        push_line(&mut text, &cells);
    }
    text.push_str(&origins(study, names, results));
    if let Some(least) = study.min_effect {
        text.push_str(&seeds_for(study, names, least, results));
    }
    text
}

/// The results of a row, one for each of its seeds that has one.
fn results_of<'a>(study: &StudyFile, row: &StudyRow, results: &'a [RowResult]) -> Vec<&'a RowResult> {
    let of_seed = |seed: &u64| results.iter().find(|result| result.row == row.name && result.seed == *seed);
    study.seeds_of(row).iter().filter_map(of_seed).collect()
}

fn steps(results: &[&RowResult]) -> String {
    let mut all: Vec<u64> = results.iter().map(|result| result.steps).collect();
    all.sort_unstable();
    all.dedup();
    all.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
}

fn measured(study: &StudyFile, row: &StudyRow, results: &[&RowResult], metric: &str) -> String {
    let values: Vec<f64> = results.iter().filter_map(|result| value(study, result, metric)).collect();
    let wanted = study.seeds_of(row).len();
    if values.is_empty() {
        return "no result yet".to_string();
    }
    let mut cell = number(study, mean(&values));
    if let Some(spread) = spread(&values) {
        cell.push_str(&format!(" ± {}", number(study, spread)));
    }
    match (values.len(), wanted) {
        (1, 1) => cell.push_str(" (1 seed)"),
        (have, wanted) if have < wanted => cell.push_str(&format!(" ({have} of {wanted} seeds)")),
        _ => {}
    }
    cell
}

/// The baseline of all rows that have one; empty where they have several.
fn shared_baseline(study: &StudyFile) -> Option<String> {
    let names: BTreeSet<&String> =
        study.rows.iter().filter_map(|row| row.baseline.as_ref().or(study.baseline.as_ref())).collect();
    let first = names.first()?;
    Some(if names.len() == 1 { (*first).clone() } else { String::new() })
}

/// What a row computes, as a multiple of what the baseline does.
fn times_baseline(study: &StudyFile, row: &StudyRow, compute: &BTreeMap<String, Compute>) -> String {
    let total = |name: &String| compute.get(name).map(Compute::total);
    let baseline = study.baseline.as_ref().and_then(total);
    total(&row.name).zip(baseline).map_or_else(String::new, |(own, other)| format!("{:.1} x", own / other))
}

/// Whether all results took the same number of steps.
fn same_steps(own: &[&RowResult], others: &[&RowResult]) -> bool {
    let mut all = own.iter().chain(others).map(|result| result.steps);
    let first = all.next();
    all.all(|steps| Some(steps) == first)
}

fn to_baseline(
    study: &StudyFile,
    names: [&str; 2],
    row: &StudyRow,
    results: &[RowResult],
    says_to_what: bool,
) -> String {
    let Some(other) = study.baseline_of(row).filter(|other| other.name != row.name) else {
        let is_one = study.rows.iter().filter_map(|other| study.baseline_of(other)).any(|other| other.name == row.name);
        return if is_one { "baseline".to_string() } else { String::new() };
    };
    let [own, others] = [row, other].map(|row| results_of(study, row, results));
    if !own.is_empty() && !others.is_empty() && !same_steps(&own, &others) {
        return "other steps".to_string();
    }
    let text = difference(study, names, [&own, &others]);
    if says_to_what && !text.is_empty() { format!("{text} to {}", other.name) } else { text }
}

/// The difference of a row to the baseline that trains longer; nothing where it computes less than that.
fn to_longer(
    study: &StudyFile,
    names: [&str; 2],
    [row, longer]: [&StudyRow; 2],
    results: &[RowResult],
    compute: &BTreeMap<String, Compute>,
) -> String {
    if row.name == longer.name {
        return "baseline".to_string();
    }
    let total = |row: &StudyRow| compute.get(&row.name).map_or(0.0, Compute::total);
    if !study.is_compared(row) || total(row) < (1.0 - LESS_COMPUTE) * total(longer) {
        return String::new();
    }
    difference(study, names, [&results_of(study, row, results), &results_of(study, longer, results)])
}

fn difference(study: &StudyFile, [metric, judged_by]: [&str; 2], [own, others]: [&[&RowResult]; 2]) -> String {
    let shares = |seed: u64, results: &[&RowResult]| results.iter().any(|result| result.seed == seed);
    let any_shared = own.iter().any(|result| shares(result.seed, others));
    let values = |from: &[&RowResult], with: &[&RowResult]| -> Vec<f64> {
        let counted = from.iter().filter(|result| !any_shared || shares(result.seed, with));
        counted.filter_map(|result| value(study, result, metric)).collect()
    };
    let (ours, theirs) = (values(own, others), values(others, own));
    if ours.is_empty() || theirs.is_empty() {
        return String::new();
    }
    let gap = signed(study, mean(&ours) - mean(&theirs));
    let over_images = over_images(study, [metric, judged_by], own, others);
    match interval(&pairs(study, metric, own, others), over_images.unwrap_or(0.0)) {
        Some([low, high]) => {
            let noise = if low <= 0.0 && high >= 0.0 { ", within the noise" } else { "" };
            format!("{gap} [{}, {}]{noise}", signed(study, low), signed(study, high))
        }
        None => gap,
    }
}

fn signed(study: &StudyFile, value: f64) -> String {
    let text = number(study, value);
    if text.starts_with('-') { text } else { format!("+{text}") }
}

/// The differences of two rows, seed by seed.
fn pairs(study: &StudyFile, metric: &str, own: &[&RowResult], others: &[&RowResult]) -> Vec<f64> {
    let pair = |result: &&RowResult| {
        let other = others.iter().find(|other| other.seed == result.seed)?;
        Some(value(study, result, metric)? - value(study, other, metric)?)
    };
    own.iter().filter_map(pair).collect()
}

/// How far the mean difference of two rows, on the scale of the table, hangs on the images that they were judged on; `None`
/// where that is not known: images are known by what they add to the score that models are judged by.
fn over_images(
    study: &StudyFile,
    [metric, judged_by]: [&str; 2],
    own: &[&RowResult],
    others: &[&RowResult],
) -> Option<f64> {
    if metric != judged_by {
        return None;
    }
    let pair = |result: &&RowResult| {
        let other = others.iter().find(|other| other.seed == result.seed)?;
        let shares = |result: &RowResult| Shares::read(&result.images).filter(|_| !result.images.is_empty());
        Some([shares(result)?, shares(other)?])
    };
    let pairs: Vec<[Shares; 2]> = own.iter().filter_map(pair).collect();
    Some(deviation_over_images(&pairs)? * if study.percent { 100.0 } else { 1.0 })
}

/// How many seeds each row would need to show a difference of `least` four times of five.
fn seeds_for(study: &StudyFile, names: [&str; 2], least: f64, results: &[RowResult]) -> String {
    let of_row = |row: &StudyRow| {
        let other = study.baseline_of(row).filter(|other| other.name != row.name)?;
        let [own, others] = [row, other].map(|row| results_of(study, row, results));
        let spread = spread(&pairs(study, names[0], &own, &others)).filter(|_| same_steps(&own, &others))?;
        let images = over_images(study, names, &own, &others).unwrap_or(0.0);
        let seeds = seeds_to_show(least, spread, images);
        Some(format!("{} {}", row.name, seeds.map_or("more images".to_string(), |seeds| seeds.to_string())))
    };
    let rows: Vec<String> = study.rows.iter().filter_map(of_row).collect();
    if rows.is_empty() {
        return String::new();
    }
    format!(
        "\nSeeds to show a difference of {} four times of five, about: {}.\n",
        number(study, least),
        rows.join(", ")
    )
}

/// Where the results came from; nothing where there are none.
fn origins(study: &StudyFile, [metric, judged_by]: [&str; 2], results: &[RowResult]) -> String {
    let used: Vec<&RowResult> = study.rows.iter().flat_map(|row| results_of(study, row, results)).collect();
    let distinct = |names: Vec<&str>| {
        let mut names: Vec<&str> = names.into_iter().filter(|name| !name.is_empty()).collect();
        names.sort_unstable();
        names.dedup();
        names.join(", ")
    };
    if used.is_empty() {
        return String::new();
    }
    let devices = distinct(used.iter().map(|result| result.device.as_str()).collect());
    let commits = distinct(used.iter().map(|result| result.commit.as_str()).collect());
    let unit = if study.percent { " in per cent" } else { "" };
    let brackets = match shared_baseline(study) {
        Some(_) if metric == judged_by && used.iter().all(|result| !result.images.is_empty()) => {
            " In brackets 95 % intervals, paired over seeds and images."
        }
        Some(_) => " In brackets 95 % intervals, paired over seeds.",
        None => "",
    };
    format!("\nMean ± sample standard deviation over seeds{unit}.{brackets} Device: {devices}. Commit: {commits}.\n")
}

/// A metric on the scale of the table.
fn value(study: &StudyFile, result: &RowResult, metric: &str) -> Option<f64> {
    result.metrics.get(metric).map(|value| if study.percent { value * 100.0 } else { *value })
}

fn number(study: &StudyFile, value: f64) -> String {
    let text = if study.percent { format!("{value:.2}") } else { format!("{value:.4}") };
    // A small negative number that rounds to zero would be shown as minus zero.
    if text.trim_start_matches(['-', '0', '.']).is_empty() { text.trim_start_matches('-').to_string() } else { text }
}

fn push_line(text: &mut String, cells: &[String]) {
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
        let study = Study::parse(&text, Path::new("s.toml")).unwrap();
        let results = [
            result("alone", 0, 0.5, 400),
            result("pixel_wise", 0, 0.53, 800),
            result("pixel_wise", 1, 0.53, 800),
            result("holistic", 0, 0.56, 800),
            result("holistic", 1, 0.56, 800),
        ];
        let text = table(&study.file, &results, "miou", &BTreeMap::new());
        let last = |row: &str| {
            let line = text.lines().find(|line| line.starts_with(&format!("| {row} |"))).unwrap();
            line.split(" | ").nth(4).unwrap().to_owned()
        };
        assert!(text.contains("| accuracy | difference | paper |"), "{text}");
        assert_eq!(last("pixel_wise"), "other steps");
        assert_eq!(last("holistic"), "+3.00 [+3.00, +3.00] to pixel_wise");
        assert_eq!(last("alone"), "baseline");
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
