//! Every task that the commands serve: the one place of the binary that names them.

use anyhow::{Result, bail};
use mentor_data::{Card, ReadLabels};
use mentor_det::Det;
use mentor_recipe::{AnyRecipe, Loaded, Recipe};
use mentor_seg::Seg;
use mentor_types::TaskName;

use crate::show::Show;

/// What a command does with a recipe, of whatever task it is.
pub trait OnRecipe {
    /// What comes of it.
    type Out;

    /// Does it.
    fn on<T: Show>(&self, loaded: Loaded<Recipe<T>>) -> Result<Self::Out>;
}

/// Does it with a recipe of the task that it names.
pub fn on_recipe<C: OnRecipe>(command: &C, recipe: AnyRecipe) -> Result<C::Out> {
    match recipe {
        AnyRecipe::Seg(loaded) => command.on(loaded),
        AnyRecipe::Det(loaded) => command.on(loaded),
    }
}

/// What a command does for a task of which there is no recipe.
pub trait OnTask {
    /// What comes of it.
    type Out;

    /// Does it.
    fn on<T: Show>(&self) -> Result<Self::Out>;
}

/// Does it for the task of a name.
pub fn on_task<C: OnTask>(command: &C, task: TaskName) -> Result<C::Out> {
    match task {
        TaskName::Seg => command.on::<Seg>(),
        TaskName::Det => command.on::<Det>(),
    }
}

/// The net and the optimizer of a first recipe, as its tables.
pub fn first_net(task: TaskName) -> &'static str {
    match task {
        TaskName::Seg => {
            "[student.fcn]\nbackbone = \"resnet18\"\nwidth = 32\noutput_stride = 16\n\n[optimizer.sgd]\nlr = 0.02\n"
        }
        TaskName::Det => {
            "[student.fcos]\nbackbone = \"resnet18\"\nwidth = 16\nlevels = [\"p3\", \"p4\", \"p5\"]\nhead_channels = 64\n\
             head_convs = 2\n\n[optimizer.adamw]\nlr = 0.002\n\n[schedule.poly]\nwarmup_steps = 50\n"
        }
    }
}

/// Does it for the first task whose labels a card has.
pub fn on_card<C: OnTask>(command: &C, card: &Card) -> Result<C::Out> {
    struct Has<'a>(&'a Card);
    impl OnTask for Has<'_> {
        type Out = bool;
        fn on<T: Show>(&self) -> Result<bool> {
            Ok(T::Labels::are_in(self.0))
        }
    }
    for task in TaskName::ALL {
        if on_task(&Has(card), task)? {
            return on_task(command, task);
        }
    }
    bail!("the card `{}` says nothing of labels", card.name)
}
