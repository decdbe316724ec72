//! What terms of detection keep from step to step, one file each; see [`mentor_distill::Companion`].

pub(crate) mod rival;

use burn::tensor::Tensor;
use mentor_distill::Companion as Moves;

use crate::context::Context;
use crate::task::Det;

pub use rival::{LevelDiscriminator, LevelExample, LevelRival};

/// One of what a term can keep.
#[derive(Debug)]
pub enum Companion {
    /// A discriminator of features that is trained against the student.
    Rival(Box<LevelRival>),
}

impl Moves<Det> for Companion {
    type Example = LevelExample;

    fn example(&self, context: &Context<'_>) -> LevelExample {
        match self {
            Self::Rival(rival) => rival.example(context),
        }
    }

    fn update(&mut self, examples: Vec<LevelExample>, lr_factor: f64) -> Option<Tensor<1>> {
        match self {
            Self::Rival(rival) => Some(rival.update(&examples, lr_factor)),
        }
    }

    fn save(&self) -> Vec<u8> {
        match self {
            Self::Rival(rival) => rival.save(),
        }
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), String> {
        match self {
            Self::Rival(rival) => rival.load(bytes),
        }
    }
}
