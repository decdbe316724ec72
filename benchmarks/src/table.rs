//! Medians, the table and the record.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

/// The value below which a share of the sorted samples lies, between two samples in proportion.
fn quantile(samples: &[f64], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let place = share * last as f64;
    let (low, high) = (place.floor() as usize, place.ceil() as usize);
    sorted[low] + (sorted[high] - sorted[low]) * (place - low as f64)
}

/// The middle of the samples.
pub fn median(samples: &[f64]) -> f64 {
    quantile(samples, 0.5)
}

/// What a process of its own needed for a piece of work: resident memory in MiB, and time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fresh {
    /// Memory of the process with its libraries.
    pub before: f64,
    /// The most while it worked.
    pub peak: f64,
    /// Seconds from the start of the process to the end of the first run.
    pub first_s: f64,
}

impl Fresh {
    /// The memory that the work took.
    pub fn taken(&self) -> f64 {
        self.peak - self.before
    }
}

/// What was found out about a piece of work.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// `group/what`.
    pub name: String,
    /// Milliseconds of each round.
    pub ours_ms: Vec<f64>,
    /// The peer's, round by round; empty where there is no peer.
    pub peer_ms: Vec<f64>,
    /// Images that one run goes through.
    pub images: Option<usize>,
    /// Ours and the peer's.
    pub fresh: Option<(Fresh, Fresh)>,
    /// Why the results do not agree; nothing was measured then.
    pub wrong: Option<String>,
}

impl Row {
    /// Ours over the peer's, round by round.
    pub fn ratios(&self) -> Vec<f64> {
        self.ours_ms.iter().zip(&self.peer_ms).map(|(ours, peer)| ours / peer).collect()
    }

    /// The median of the ratios.
    pub fn ratio(&self) -> f64 {
        median(&self.ratios())
    }

    /// Half of the ratios lie between these.
    fn quartiles(&self) -> [f64; 2] {
        [0.25, 0.75].map(|share| quantile(&self.ratios(), share))
    }

    fn rate(&self, milliseconds: f64) -> Option<f64> {
        self.images.map(|images| images as f64 * 1e3 / milliseconds)
    }

    /// The head of the table.
    pub fn head(name_width: usize) -> String {
        format!(
            "{:<name_width$} {:>10} {:>10} {:>7}  {:<13} {:>19}  {:>13}  {:>13}",
            "", "ours ms", "PyTorch ms", "ratio", "quartiles", "images/s", "peak MiB", "first run s"
        )
    }

    /// The row as a line of the table.
    pub fn line(&self, name_width: usize) -> String {
        if let Some(wrong) = &self.wrong {
            return format!("{:<name_width$} WRONG: {wrong}", self.name);
        }
        let ours = median(&self.ours_ms);
        let mut line = format!("{:<name_width$} {ours:>10.3}", self.name);
        if self.peer_ms.is_empty() {
            let rate = self.rate(ours).map_or_else(String::new, |rate| format!("  {rate:.1} images/s"));
            return line + &rate;
        }
        let (peer, [low, high]) = (median(&self.peer_ms), self.quartiles());
        let quartiles = format!("{low:.2}..{high:.2}");
        let pair = |ours: f64, peer: f64| format!("{ours:.1} : {peer:.1}");
        let rates = self.rate(ours).zip(self.rate(peer)).map_or_else(String::new, |(a, b)| pair(a, b));
        let memory = self.fresh.map_or_else(String::new, |(a, b)| format!("{:.0} : {:.0}", a.taken(), b.taken()));
        let first = self.fresh.map_or_else(String::new, |(a, b)| pair(a.first_s, b.first_s));
        // Writing to a string cannot fail.
        let _ =
            write!(line, " {peer:>10.3} {:>7.2}  {quartiles:<13} {rates:>19}  {memory:>13}  {first:>13}", self.ratio());
        line.trim_end().to_owned()
    }

    /// The row in a record.
    fn json(&self) -> Value {
        let fresh =
            |fresh: Fresh| json!({ "before_mib": fresh.before, "peak_mib": fresh.peak, "first_run_s": fresh.first_s });
        let mut row = json!({ "name": self.name });
        if let Some(wrong) = &self.wrong {
            row["wrong"] = json!(wrong);
            return row;
        }
        row["ours_ms"] = json!(median(&self.ours_ms));
        row["ours_samples_ms"] = json!(self.ours_ms);
        if !self.peer_ms.is_empty() {
            row["peer_ms"] = json!(median(&self.peer_ms));
            row["peer_samples_ms"] = json!(self.peer_ms);
            row["ratio"] = json!(self.ratio());
            row["ratio_quartiles"] = json!(self.quartiles());
        }
        if let Some(images) = self.images {
            row["images"] = json!(images);
        }
        if let Some((ours, peer)) = self.fresh {
            (row["ours_process"], row["peer_process"]) = (fresh(ours), fresh(peer));
        }
        row
    }
}

/// The geometric mean of the ratios of each group, in the order of the table.
pub fn groups(rows: &[Row]) -> Vec<(String, usize, f64)> {
    let mut groups: Vec<(String, Vec<f64>)> = Vec::new();
    for row in rows.iter().filter(|row| row.wrong.is_none() && !row.peer_ms.is_empty()) {
        let name = group(&row.name);
        match groups.iter_mut().find(|(group, _)| *group == name) {
            Some((_, logarithms)) => logarithms.push(row.ratio().ln()),
            None => groups.push((name, vec![row.ratio().ln()])),
        }
    }
    let mean = |values: &[f64]| (values.iter().sum::<f64>() / values.len() as f64).exp();
    groups.into_iter().map(|(name, values)| (name, values.len(), mean(&values))).collect()
}

/// `op/forward` of `op/conv/forward`; `step` of `step/net`.
fn group(name: &str) -> String {
    let (group, rest) = name.split_once('/').unwrap_or((name, ""));
    rest.split_once('/').map_or_else(|| group.to_owned(), |(_, mode)| format!("{group} {mode}"))
}

/// What a record says about all of its rows.
#[derive(Clone, Debug)]
pub struct Circumstances {
    /// The device, for people.
    pub device: String,
    /// Threads of each side.
    pub threads: usize,
    /// The commit that was measured.
    pub commit: String,
    /// The peer's version; none where ours was measured alone.
    pub torch: Option<String>,
    /// The command line, without the options that name files.
    pub command: Vec<String>,
}

/// The record of a run.
pub fn record(about: &Circumstances, rows: &[Row]) -> Value {
    json!({
        "device": about.device,
        "threads": about.threads,
        "commit": about.commit,
        "torch": about.torch,
        "command": about.command,
        "rows": rows.iter().map(Row::json).collect::<Vec<_>>(),
    })
}

/// Today in UTC, as `2026-01-31`.
pub fn today() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    date(seconds / 86_400)
}

/// The date a number of days after 1970-01-01.
fn date(days: u64) -> String {
    let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let (mut year, mut left) = (1970, days);
    while left >= 365 + u64::from(is_leap(year)) {
        left -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while left >= lengths[month] {
        left -= lengths[month];
        month += 1;
    }
    format!("{year}-{:02}-{:02}", month + 1, left + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, ours: &[f64], peer: &[f64]) -> Row {
        Row { name: name.to_owned(), ours_ms: ours.to_vec(), peer_ms: peer.to_vec(), ..Row::default() }
    }

    #[test]
    fn a_median_is_the_middle_or_between_the_two_in_the_middle() {
        assert_eq!(median(&[9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 9.0]), 3.0);
        assert_eq!(median(&[5.0]), 5.0);
        assert!(median(&[]).is_nan());
        assert_eq!(quantile(&[0.0, 1.0, 2.0, 3.0, 4.0], 0.25), 1.0);
    }

    #[test]
    fn a_ratio_is_the_median_over_the_rounds() {
        // One round that a neighbour slowed down on one side must not count.
        let row = row("op/a", &[1.0, 2.0, 30.0], &[2.0, 4.0, 4.0]);
        assert_eq!(row.ratios(), [0.5, 0.5, 7.5]);
        assert_eq!(row.ratio(), 0.5);
        assert!(row.line(10).contains("0.50"), "{}", row.line(10));
    }

    #[test]
    fn groups_have_geometric_means_without_wrong_rows() {
        let wrong = Row { wrong: Some("differs".to_owned()), ..row("op/c/forward", &[], &[]) };
        let rows = [
            row("op/a/forward", &[1.0], &[2.0]),
            wrong,
            row("op/a/forward+backward", &[3.0], &[1.0]),
            row("op/b/forward", &[2.0], &[1.0]),
            row("step/a", &[4.0], &[2.0]),
        ];
        let found = groups(&rows);
        let names: Vec<&str> = found.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, ["op forward", "op forward+backward", "step"]);
        assert!((found[0].2 - 1.0).abs() < 1e-12 && found[0].1 == 2);
        assert!((found[2].2 - 2.0).abs() < 1e-12);
    }

    #[test]
    fn a_record_holds_medians_ratio_samples_and_what_is_wrong() {
        let about = Circumstances {
            device: "cpu (x, 2 threads, AVX2)".to_owned(),
            threads: 2,
            commit: "abc".to_owned(),
            torch: Some("2.0".to_owned()),
            command: vec!["mentor-bench".to_owned()],
        };
        let fresh = Fresh { before: 10.0, peak: 30.0, first_s: 1.5 };
        let rows = [
            Row { images: Some(4), fresh: Some((fresh, fresh)), ..row("step/a", &[1.0, 3.0], &[2.0, 2.0]) },
            Row { wrong: Some("differs".to_owned()), ..row("op/b", &[], &[]) },
            row("op/alone", &[1.0], &[]),
        ];
        let value = record(&about, &rows);
        assert_eq!(value["device"], "cpu (x, 2 threads, AVX2)");
        assert_eq!((&value["threads"], &value["torch"]), (&json!(2), &json!("2.0")));
        let first = &value["rows"][0];
        assert_eq!((&first["ours_ms"], &first["peer_ms"], &first["ratio"]), (&json!(2.0), &json!(2.0), &json!(1.0)));
        assert_eq!(first["ours_samples_ms"], json!([1.0, 3.0]));
        assert_eq!(first["peer_process"], json!({ "before_mib": 10.0, "peak_mib": 30.0, "first_run_s": 1.5 }));
        assert_eq!(value["rows"][1], json!({ "name": "op/b", "wrong": "differs" }));
        assert!(value["rows"][2].get("ratio").is_none());
    }

    #[test]
    fn dates_know_leap_years() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(59), "1970-03-01");
        assert_eq!(date(11_016), "2000-02-29");
        assert_eq!(date(19_782), "2024-02-29");
        assert_eq!(date(20_088), "2024-12-31");
        assert_eq!(date(20_089), "2025-01-01");
    }
}
