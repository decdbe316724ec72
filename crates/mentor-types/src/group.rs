//! Parameter groups.

/// How an optimizer treats a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// Whether it takes the learning rate of heads.
    pub is_head: bool,
    /// Whether it decays.
    pub decays: bool,
}

impl Group {
    /// That of a weight of this many dimensions outside of heads: norms and biases are vectors, and do not decay.
    #[must_use]
    pub fn of_rank(rank: usize) -> Self {
        Self { is_head: false, decays: rank > 1 }
    }
}
