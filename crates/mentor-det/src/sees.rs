//! What the terms of detection see, keep and make up.

use burn::tensor::Tensor;
use mentor_distill::{Companion, Sees};

use crate::context::Context;
use crate::task::Det;

impl Sees for Det {
    type Context<'a> = Context<'a>;
    type Companion = Nothing;
    type Pseudo = ();
}

/// What terms keep from step to step: no term of detection keeps anything.
#[derive(Debug)]
pub enum Nothing {}

impl Companion<Det> for Nothing {
    type Example = ();

    fn example(&self, _context: &Context<'_>) {
        match *self {}
    }

    fn update(&mut self, _examples: Vec<()>, _lr_factor: f64) -> Option<Tensor<1>> {
        match *self {}
    }

    fn save(&self) -> Vec<u8> {
        match *self {}
    }

    fn load(&mut self, _bytes: &[u8]) -> Result<(), String> {
        match *self {}
    }
}
