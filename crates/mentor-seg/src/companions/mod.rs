//! What terms of segmentation keep from step to step, one file each; see [`mentor_distill::Companion`].

pub(crate) mod rival;

use burn::tensor::Tensor;
use mentor_distill::Companion as Moves;

use crate::context::Context;
use crate::task::Seg;

pub use rival::{Discriminator, Rival, RivalExample};

/// One of what a term can keep.
#[derive(Debug)]
pub enum Companion {
    /// A discriminator that is trained against the student.
    Rival(Box<Rival>),
}

impl Moves<Seg> for Companion {
    type Example = RivalExample;

    fn example(&self, context: &Context<'_>) -> RivalExample {
        match self {
            Self::Rival(_) => RivalExample::of(context),
        }
    }

    fn update(&mut self, examples: Vec<RivalExample>, lr_factor: f64) -> Option<Tensor<1>> {
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
