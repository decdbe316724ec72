//! How much the rows of a study compute, and the baseline that computes as much as the dearest of them.

use std::collections::BTreeMap;

use burn::tensor::Device;
use mentor_distill::{Stream, TermTable};
use serde_json::json;

use crate::recipe::Recipe;
use crate::study::Study;
use crate::tasks::{NetTable, Task};

/// What a run computes, in multiply-adds of its nets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Compute {
    /// In one step.
    pub a_step: f64,
    /// Its steps.
    pub steps: u64,
}

impl Compute {
    /// What a recipe computes on so many classes: the student's forward pass and its backward pass, which is two of them,
    /// on the streams that it learns from; each teacher's forward pass on the streams that a term of `[distill]` is on;
    /// and that of a labeller of weak views, which is a net like the student. Left out are a second labeller, where terms ask
    /// for student and average, auxiliary heads, and what terms and their companions compute themselves.
    pub fn of<T: Task>(recipe: &Recipe<T>, classes: usize) -> Self {
        let on_cpu = Device::flex();
        let macs = |net: &T::NetConfig| T::macs(&net.init(classes, 0, &on_cpu), recipe.views.crop_px) as f64;
        let [labelled, unlabelled] = [recipe.train.batch_labelled, recipe.train.batch_unlabelled].map(|n| n as f64);
        let taught = recipe.distill.terms();
        let is_on = |stream: Stream| taught.iter().any(|(_, term)| term.shared().on.contains(&stream));
        let taught_images = [(Stream::Labelled, labelled), (Stream::Unlabelled, unlabelled)];
        let taught_images: f64 = taught_images.iter().filter(|(stream, _)| is_on(*stream)).map(|(_, n)| n).sum();
        let weak_images = if recipe.unlabelled.terms().is_empty() { 0.0 } else { unlabelled };
        let student = macs(&recipe.student) * (3.0 * (labelled + unlabelled) + weak_images);
        let teachers: f64 = recipe.teachers.values().map(macs).sum();
        let a_step = (student + teachers * taught_images) * recipe.train.accumulate as f64;
        Self { a_step, steps: recipe.train.steps }
    }

    /// In all steps.
    pub fn total(&self) -> f64 {
        self.a_step * self.steps as f64
    }
}

impl Study {
    /// Adds the row `BASELINE_longer` behind the baseline, and what it computes to `rows`; nothing where no row that is
    /// compared with the baseline computes more than it. A row that is not in `rows` does not count.
    pub fn add_longer_baseline(&mut self, rows: &mut BTreeMap<String, Compute>) {
        let Some((name, baseline)) = self.file.longer_name().zip(self.file.baseline.clone()) else { return };
        let compared = self.file.rows.iter().filter(|row| self.file.is_compared(row));
        let most = compared.filter_map(|row| rows.get(&row.name)).map(Compute::total).fold(0.0, f64::max);
        let Some(own) = rows.get(&baseline).copied() else { return };
        let steps = (most / own.a_step).round() as u64;
        if steps <= own.steps {
            return;
        }
        let place = self.file.rows.iter().position(|row| row.name == baseline).expect("the check found it");
        let mut row = self.file.rows[place].clone();
        (row.paper, row.expected) = (None, None);
        row.name.clone_from(&name);
        row.set.insert("train.steps".to_owned(), json!(steps));
        self.file.rows.insert(place + 1, row);
        rows.insert(name, Compute { steps, ..own });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use mentor_seg::Seg;
    use mentor_toml::Changes;
    use std::path::Path;

    fn of(recipe: &str) -> Compute {
        let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../recipes")).join(recipe);
        Compute::of(&Recipe::<Seg>::read(&path, &Changes::none()).unwrap().value, 7)
    }

    #[test]
    fn a_step_costs_what_its_nets_see() {
        let alone = of("scenes/student_alone.toml");
        let image = alone.a_step / (3.0 * 8.0);
        assert_eq!(of("scenes/fixmatch.toml").a_step, image * (3.0 * 16.0 + 8.0));
        // The teacher's nine times as many channels at the same stride sees both streams.
        let teacher = (of("quickstart.toml").a_step - image * 3.0 * 16.0) / (16.0 * image);
        assert!((8.0..16.0).contains(&teacher), "{teacher}");
        assert_eq!(of("quickstart.toml"), of("scenes/pixel_wise.toml"));
    }

    #[test]
    fn the_longer_baseline_computes_what_the_dearest_row_does() {
        let text = "title = \"t\"\nbaseline = \"alone\"\nbaseline_compute = true\n";
        let row = |name: &str, rest: &str| format!("[[rows]]\nname = \"{name}\"\nrecipe = \"a.toml\"\n{rest}");
        let taught = "set = { \"teachers.big.fcn.weights\" = \"row:teacher\" }\n";
        let text = format!("{text}{}{}{}", row("teacher", ""), row("alone", ""), row("taught", taught));
        let mut study = Study::parse(&text, Path::new("s.toml")).unwrap();
        let costs = [("teacher", 90.0, 100), ("alone", 2.0, 10), ("taught", 7.0, 10)];
        let mut rows = costs.map(|(name, a_step, steps)| (name.to_owned(), Compute { a_step, steps })).into();
        let mut level = study.clone();
        study.add_longer_baseline(&mut rows);
        let names: Vec<&str> = study.file.rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names, ["teacher", "alone", "alone_longer", "taught"]);
        assert_eq!(
            study.jobs().iter().find(|job| job.row == "alone_longer").unwrap().set,
            ["train.steps=35", "seed=0"]
        );
        assert_eq!(rows["alone_longer"], Compute { a_step: 2.0, steps: 35 });
        rows.insert("taught".to_owned(), Compute { a_step: 2.0, steps: 10 });
        level.add_longer_baseline(&mut rows);
        assert_eq!(level.file.rows.len(), 3);
    }

    #[test]
    fn a_longer_baseline_needs_a_baseline_and_its_name() {
        let rows = "[[rows]]\nname = \"a\"\nrecipe = \"a.toml\"\n[[rows]]\nname = \"a_longer\"\nrecipe = \"a.toml\"\n";
        let mistake = |head: &str| {
            let text = format!("title = \"t\"\n{head}baseline_compute = true\n{rows}");
            Study::parse(&text, Path::new("s.toml")).unwrap_err().to_string()
        };
        assert_eq!(mistake(""), "s.toml:2:1: `baseline_compute`: needs a `baseline` to train longer");
        let taken = mistake("baseline = \"a\"\n");
        assert!(taken.ends_with("the row \"a_longer\", which this makes, is there already"), "{taken}");
    }
}
