//! `mentor list`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use mentor_data::Card;
use mentor_distill::TermTable;
use mentor_seg::Seg;
use mentor_seg::distill::DistillConfig;
use mentor_seg::supervised::SupervisedConfig;
use mentor_seg::unlabelled::UnlabelledConfig;

use super::PlaceArgs;
use crate::print::say;

/// List what recipes can name: nets, terms, data sets, each with its source.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  mentor list")]
pub struct List {
    #[command(flatten)]
    places: PlaceArgs,
}

const NETS: [(&str, &str); 4] = [
    ("fcn", "Long et al. 2015, arXiv 1411.4038; torchvision's form"),
    ("pspnet", "Zhao et al. 2017, arXiv 1612.01105"),
    ("deeplabv3", "Chen et al. 2017, arXiv 1706.05587; torchvision's form"),
    ("deeplabv3plus", "Chen et al. 2018, arXiv 1802.02611"),
];
const BACKBONES: [(&str, &str); 5] = [
    ("resnet18", "He et al. 2016, arXiv 1512.03385"),
    ("resnet34", "He et al. 2016, arXiv 1512.03385"),
    ("resnet50", "He et al. 2016, arXiv 1512.03385"),
    ("resnet101", "He et al. 2016, arXiv 1512.03385"),
    ("mobilenet_v2", "Sandler et al. 2018, arXiv 1801.04381"),
];
impl List {
    /// Runs the command.
    pub fn run(&self) -> Result<ExitCode> {
        section("nets: [student.NAME], [teachers.T.NAME]", &NETS);
        section("backbones: backbone = \"NAME\"", &BACKBONES);
        terms::<SupervisedConfig>("losses on labels: [supervised.NAME]");
        terms::<DistillConfig>("distillation: [distill.NAME]");
        terms::<UnlabelledConfig>("unlabelled images: [unlabelled.NAME]");
        section(
            "optimizers: [optimizer.NAME]",
            &[("sgd", "as torch.optim.SGD"), ("adamw", "Loshchilov & Hutter 2019, arXiv 1711.05101")],
        );
        section(
            "schedules: [schedule.NAME]",
            &[
                ("poly", "(1 - step / steps) ^ power"),
                ("cosine", "Loshchilov & Hutter 2017, arXiv 1608.03983"),
                ("step", "a factor at each milestone"),
            ],
        );
        say!("data sets: [data] card = \"NAME\"");
        let places = self.places.places();
        for name in Card::names(&places.cards) {
            match Card::find(&name, &places.cards) {
                Ok(card) => say!("  {name:<22} {} ({} classes; {})", card.title, card.classes.len(), card.licence),
                Err(error) => say!("  {name:<22} {error}"),
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Every term that a table can name.
fn terms<T: TermTable<Seg>>(title: &str) {
    let all = T::all();
    let rows: Vec<(&str, &str)> = all.terms().into_iter().map(|(name, term)| (name, term.source())).collect();
    section(title, &rows);
}

fn section(title: &str, rows: &[(&str, &str)]) {
    say!("{title}");
    for (name, source) in rows {
        say!("  {name:<22} {source}");
    }
    say!("");
}
