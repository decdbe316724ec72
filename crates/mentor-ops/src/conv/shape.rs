//! The sides of a convolution.

/// The sides of a convolution; pairs are (vertical, horizontal).
#[derive(Clone, Debug)]
pub(crate) struct ConvShape {
    pub(crate) images: usize,
    pub(crate) in_channels: usize,
    pub(crate) out_channels: usize,
    /// Every group of output channels sees the group of input channels at its place.
    pub(crate) groups: usize,
    pub(crate) size: [usize; 2],
    pub(crate) out_size: [usize; 2],
    pub(crate) kernel: [usize; 2],
    pub(crate) stride: [usize; 2],
    /// Before the first row and column; that after the last follows from the other sides.
    pub(crate) padding: [usize; 2],
    pub(crate) dilation: [usize; 2],
}

impl ConvShape {
    pub(crate) fn area(&self) -> usize {
        self.size[0] * self.size[1]
    }

    pub(crate) fn out_area(&self) -> usize {
        self.out_size[0] * self.out_size[1]
    }

    pub(crate) fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Input channels of one group.
    pub(crate) fn group_in(&self) -> usize {
        self.in_channels / self.groups
    }

    /// Output channels of one group.
    pub(crate) fn group_out(&self) -> usize {
        self.out_channels / self.groups
    }

    /// How many products are summed for one output pixel: every tap of every input channel.
    pub(crate) fn depth(&self) -> usize {
        self.group_in() * self.taps()
    }

    /// Whether every channel is convolved by itself.
    pub(crate) fn is_depthwise(&self) -> bool {
        self.groups > 1 && self.groups == self.in_channels && self.groups == self.out_channels
    }

    /// The sides of the input.
    pub(crate) fn in_dims(&self) -> [usize; 4] {
        [self.images, self.in_channels, self.size[0], self.size[1]]
    }

    /// The sides of the output.
    pub(crate) fn out_dims(&self) -> [usize; 4] {
        [self.images, self.out_channels, self.out_size[0], self.out_size[1]]
    }

    /// Floats of the input, the output and the weight.
    pub(crate) fn lens(&self) -> [usize; 3] {
        [
            self.images * self.in_channels * self.area(),
            self.images * self.out_channels * self.out_area(),
            self.out_channels * self.depth(),
        ]
    }
}
