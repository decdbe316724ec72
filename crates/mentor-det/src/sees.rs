//! What the terms of detection see, keep and make up.

use mentor_distill::Sees;
use mentor_types::Tap;

use crate::companions::Companion;
use crate::context::Context;
use crate::task::Det;
use crate::upload::DetTargets;

impl Sees for Det {
    type Context<'a> = Context<'a>;
    type Companion = Companion;
    type Pseudo = DetTargets;

    fn levels(context: &Context<'_>) -> Vec<Tap> {
        let sides: Vec<_> = [Some(context.student), context.teacher].into_iter().flatten().collect();
        let shared = |level: &Tap| sides.iter().all(|side| side.taps.get(*level).is_some());
        Tap::PYRAMID.into_iter().filter(shared).collect()
    }
}
