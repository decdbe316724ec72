//! What a term asks of a learnable bridge between student and teacher.

/// What an adapter computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdapterKind {
    /// A convolution without bias, `kernel` by `kernel` (odd), that keeps the size of the map.
    Conv {
        /// Side of the kernel.
        kernel: usize,
    },
}

/// An adapter that a term asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterSpec {
    /// The term and place that it serves, as in the log (`pair_wise@c5`).
    pub name: String,
    /// What it computes.
    pub kind: AdapterKind,
    /// Channels of the student's features.
    pub student_channels: usize,
    /// Channels of the teacher's.
    pub teacher_channels: usize,
}
