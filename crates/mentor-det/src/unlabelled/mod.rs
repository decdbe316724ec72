//! Learning from unlabelled images: no term yet.

use mentor_distill::terms;

use crate::task::Det;

terms! {
    /// `[unlabelled]`: what is learnt from unlabelled images.
    #[derive(Default)]
    UnlabelledConfig of Det {
        ;
    }
}
