//! What the terms of detection see, keep and make up.

use mentor_distill::{Nothing, Sees};

use crate::context::Context;
use crate::task::Det;
use crate::upload::DetTargets;

impl Sees for Det {
    type Context<'a> = Context<'a>;
    type Companion = Nothing;
    type Pseudo = DetTargets;
}
