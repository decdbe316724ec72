//! What the terms of segmentation see, keep and make up.

use mentor_distill::Sees;

use crate::companions::Companion;
use crate::context::Context;
use crate::task::Seg;
use crate::views::Pseudo;

impl Sees for Seg {
    type Context<'a> = Context<'a>;
    type Companion = Companion;
    type Pseudo = Pseudo;
}
