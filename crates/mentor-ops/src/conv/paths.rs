//! Which kernels compute a convolution: the one door to them all.

use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
use crate::conv::direct::{self, pointwise};
use crate::conv::epilogue::Epilogue;
use crate::conv::shape::ConvShape;
#[cfg(target_arch = "x86_64")]
use crate::conv::winograd;
use crate::conv::{columns, depthwise};
use crate::cpu::instructions::Instructions;
use crate::cpu::simd;

/// A convolution of f32 slices and the kernels that compute it.
#[derive(Debug)]
pub(crate) struct Convolution {
    shape: ConvShape,
    path: Path,
}

#[derive(Clone, Copy, Debug)]
enum Path {
    Depthwise,
    Columns,
    #[cfg(target_arch = "x86_64")]
    Direct(Instructions),
    /// As `Direct`, but for the maps.
    #[cfg(target_arch = "x86_64")]
    Pointwise(Instructions),
    #[cfg(target_arch = "x86_64")]
    Winograd {
        instructions: Instructions,
        /// Whether the gradient of the weight, too, is computed this way.
        has_weight_gradient: bool,
    },
}

impl Convolution {
    /// The convolution of this shape by these instructions; none if we have no kernel for it.
    pub(crate) fn new(shape: ConvShape, instructions: Instructions) -> Option<Self> {
        let path = match instructions {
            _ if shape.is_depthwise() => Path::Depthwise,
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 | Instructions::Avx2 if pointwise::is_pointwise(&shape) => {
                Path::Pointwise(instructions)
            }
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 | Instructions::Avx2 if winograd::suits(instructions, &shape) => {
                Path::Winograd { instructions, has_weight_gradient: winograd::suits_weight_gradient(&shape) }
            }
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 | Instructions::Avx2 => Path::Direct(instructions),
            _ if shape.groups == 1 => Path::Columns,
            _ => return None,
        };
        let sides = [shape.images, shape.in_channels, shape.out_channels, shape.area(), shape.out_area(), shape.taps()];
        assert!(sides.iter().all(|side| *side > 0), "a convolution without any product: {shape:?}");
        assert!(
            shape.in_channels.is_multiple_of(shape.groups) && shape.out_channels.is_multiple_of(shape.groups),
            "channels that are no multiple of the groups: {shape:?}"
        );
        Some(Self { shape, path })
    }

    pub(crate) fn shape(&self) -> &ConvShape {
        &self.shape
    }

    /// Panics if one of input, output and weight has another size than the shape says.
    fn check(&self, x: Option<&[f32]>, y: Option<&[f32]>, weight: Option<&[f32]>) {
        for ((name, values), len) in [("input", x), ("output", y), ("weight", weight)].iter().zip(self.shape.lens()) {
            if let Some(values) = values {
                assert_eq!(values.len(), len, "the {name} of a convolution {:?}", self.shape);
            }
        }
    }

    /// The output map.
    pub(crate) fn forward(&self, x: &[f32], weight: &[f32], epilogue: Epilogue) -> Vec<f32> {
        self.check(Some(x), epilogue.residual, Some(weight));
        for by_channel in [epilogue.scale, epilogue.bias].into_iter().flatten() {
            assert_eq!(by_channel.len(), self.shape.out_channels, "a scale or bias of another size");
        }
        match self.path {
            Path::Depthwise => depthwise::forward(&self.shape, x, weight, epilogue),
            Path::Columns => columns::forward(&self.shape, x, weight, epilogue),
            #[cfg(target_arch = "x86_64")]
            Path::Direct(instructions) => direct::forward(instructions, &self.shape, x, weight, epilogue),
            #[cfg(target_arch = "x86_64")]
            Path::Pointwise(instructions) => pointwise::forward(instructions, &self.shape, x, weight, epilogue),
            #[cfg(target_arch = "x86_64")]
            Path::Winograd { instructions, .. } => winograd::forward(instructions, &self.shape, x, weight, epilogue),
        }
    }

    /// The gradient of the input map for the gradient of the output.
    pub(crate) fn input_gradient(&self, weight: &[f32], grad: &[f32]) -> Vec<f32> {
        self.check(None, Some(grad), Some(weight));
        match self.path {
            Path::Depthwise => depthwise::input_gradient(&self.shape, weight, grad),
            Path::Columns => columns::input_gradient(&self.shape, weight, grad),
            #[cfg(target_arch = "x86_64")]
            Path::Direct(instructions) => direct::input::input_gradient(instructions, &self.shape, weight, grad),
            #[cfg(target_arch = "x86_64")]
            Path::Pointwise(instructions) => pointwise::input_gradient(instructions, &self.shape, weight, grad),
            #[cfg(target_arch = "x86_64")]
            Path::Winograd { instructions, .. } => winograd::input_gradient(instructions, &self.shape, weight, grad),
        }
    }

    /// The gradient of the weight for the gradient of the output.
    pub(crate) fn weight_gradient(&self, x: &[f32], grad: &[f32]) -> Vec<f32> {
        self.check(Some(x), Some(grad), None);
        match self.path {
            Path::Depthwise => depthwise::weight_gradient(&self.shape, x, grad),
            Path::Columns => columns::weight_gradient(&self.shape, x, grad),
            #[cfg(target_arch = "x86_64")]
            Path::Winograd { instructions, has_weight_gradient: true } => {
                winograd::gradient::weight_gradient(instructions, &self.shape, x, grad)
            }
            #[cfg(target_arch = "x86_64")]
            Path::Direct(instructions) | Path::Pointwise(instructions) | Path::Winograd { instructions, .. } => {
                direct::weight::weight_gradient(instructions, &self.shape, x, grad)
            }
        }
    }
}

/// The gradient of the bias: the sum of `grad` over images and pixels.
pub(crate) fn bias_gradient(channels: usize, area: usize, grad: &[f32]) -> Vec<f32> {
    let images = grad.len() / (channels * area);
    let plane = |image: usize, channel: usize| &grad[(image * channels + channel) * area..][..area];
    (0..channels)
        .into_par_iter()
        .map(|channel| (0..images).map(|image| simd::sum(plane(image, channel))).sum::<f64>() as f32)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conv::epilogue::Activation;
    use crate::test_maps::{assert_close, noise_values, with_one_and_four_threads};

    /// The shape of two images, if the kernel fits the padded map.
    fn shape(
        [in_channels, out_channels, groups]: [usize; 3],
        size: [usize; 2],
        [kernel, stride, padding, dilation]: [[usize; 2]; 4],
    ) -> Option<ConvShape> {
        let mut out_size = [0; 2];
        for axis in 0..2 {
            let covered = dilation[axis] * (kernel[axis] - 1) + 1;
            out_size[axis] = (size[axis] + 2 * padding[axis]).checked_sub(covered)? / stride[axis] + 1;
        }
        let images = 2;
        Some(ConvShape { images, in_channels, out_channels, groups, size, out_size, kernel, stride, padding, dilation })
    }

    /// Calls `each(input, output, weight)` with the indices of every product of a convolution.
    fn for_each_product(shape: &ConvShape, mut each: impl FnMut(usize, usize, usize)) {
        let (taps, area, out_area) = (shape.taps(), shape.area(), shape.out_area());
        for plane in 0..shape.images * shape.out_channels {
            let (image, channel) = (plane / shape.out_channels, plane % shape.out_channels);
            let group = channel / shape.group_out();
            for (pixel, term) in (0..out_area).flat_map(|pixel| (0..shape.depth()).map(move |term| (pixel, term))) {
                let (from, tap) = (group * shape.group_in() + term / taps, term % taps);
                let place = |axis: usize, out: usize, tap: usize| {
                    let padded = out * shape.stride[axis] + tap * shape.dilation[axis];
                    padded.checked_sub(shape.padding[axis]).filter(|place| *place < shape.size[axis])
                };
                let y = place(0, pixel / shape.out_size[1], tap / shape.kernel[1]);
                let x = place(1, pixel % shape.out_size[1], tap % shape.kernel[1]);
                if let (Some(y), Some(x)) = (y, x) {
                    let input = (image * shape.in_channels + from) * area + y * shape.size[1] + x;
                    each(input, plane * out_area + pixel, channel * shape.depth() + term);
                }
            }
        }
    }

    /// Output, gradient of the input and gradient of the weight by plain loops in f64.
    fn expected(shape: &ConvShape, [x, grad, weight]: [&[f32]; 3], bias: &[f32]) -> [Vec<f32>; 3] {
        let [mut dx, mut y, mut dw] = shape.lens().map(|len| vec![0.0; len]);
        for (index, y) in y.iter_mut().enumerate() {
            *y = f64::from(bias[index / shape.out_area() % shape.out_channels]);
        }
        for_each_product(shape, |input, output, tap| {
            y[output] += f64::from(x[input]) * f64::from(weight[tap]);
            dx[input] += f64::from(grad[output]) * f64::from(weight[tap]);
            dw[tap] += f64::from(grad[output]) * f64::from(x[input]);
        });
        [y, dx, dw].map(|values| values.into_iter().map(|value| value as f32).collect())
    }

    /// The same by our kernels.
    fn found(convolution: &Convolution, [x, grad, weight]: [&[f32]; 3], bias: &[f32]) -> [Vec<f32>; 3] {
        let y = convolution.forward(x, weight, Epilogue::bias(Some(bias)));
        [y, convolution.input_gradient(weight, grad), convolution.weight_gradient(x, grad)]
    }

    /// All that can compute a shape on this CPU, whether it would be chosen or not.
    fn convolutions(shape: &ConvShape) -> Vec<Convolution> {
        let mut all = Vec::new();
        for instructions in Instructions::available() {
            let Some(chosen) = Convolution::new(shape.clone(), instructions) else {
                assert_eq!(instructions, Instructions::Portable, "no kernel for {shape:?}");
                continue;
            };
            #[cfg(target_arch = "x86_64")]
            if matches!(chosen.path, Path::Direct(_) | Path::Winograd { .. }) {
                all.push(Convolution { shape: shape.clone(), path: Path::Direct(instructions) });
                if winograd::fits(shape) {
                    all.push(Convolution {
                        shape: shape.clone(),
                        path: Path::Winograd { instructions, has_weight_gradient: true },
                    });
                }
                continue;
            }
            all.push(chosen);
        }
        all
    }

    /// Input, gradient of the output, weight and bias: in vectors of exactly their length.
    fn operands(shape: &ConvShape) -> ([Vec<f32>; 3], Vec<f32>) {
        let [x, grad, weight] = shape.lens();
        let maps = [(x, "x"), (grad, "grad"), (weight, "weight")].map(|(len, name)| noise_values(len, name));
        (maps, noise_values(shape.out_channels, "bias"))
    }

    fn assert_as_plain_loops(shape: &ConvShape) {
        let (maps, bias) = operands(shape);
        let maps = maps.each_ref().map(Vec::as_slice);
        let expected = expected(shape, maps, &bias);
        for convolution in convolutions(shape) {
            let found = found(&convolution, maps, &bias);
            for (part, (found, expected)) in
                ["output", "gradient of x", "gradient of weight"].iter().zip(found.iter().zip(&expected))
            {
                assert_close(found, expected, 1e-5, &format!("{part} of {convolution:?}"));
            }
        }
    }

    /// Dilations, strides, paddings, odd sizes, and channels that are no multiple of any register.
    fn check_kernel(kernel: [usize; 2]) {
        let channels = [[3, 5, 1], [4, 6, 2], [9, 17, 1], [8, 12, 4], [1, 1, 1], [5, 5, 5]];
        let sizes = [[1, 1], [7, 10], [2, 3], [5, 17]];
        let mut checked = 0;
        for dilation in [1, 2, 4] {
            for stride in [[1, 1], [2, 2], [3, 3], [1, 2], [2, 1]] {
                for size in sizes {
                    let half = kernel.map(|kernel| (dilation * (kernel - 1)).div_ceil(2));
                    for padding in [[0, 0], half, [size[0] + 2, size[1] + 1]] {
                        let channels = channels[checked % channels.len()];
                        if let Some(shape) = shape(channels, size, [kernel, stride, padding, [dilation; 2]]) {
                            assert_as_plain_loops(&shape);
                            checked += 1;
                        }
                    }
                }
            }
        }
        assert!(checked > 50, "{checked}");
    }

    #[test]
    fn kernels_of_one_are_as_plain_loops() {
        check_kernel([1, 1]);
    }

    #[test]
    fn kernels_of_three_are_as_plain_loops() {
        check_kernel([3, 3]);
    }

    #[test]
    fn kernels_of_five_are_as_plain_loops() {
        check_kernel([5, 5]);
    }

    #[test]
    fn kernels_of_seven_and_uneven_ones_are_as_plain_loops() {
        check_kernel([7, 7]);
        check_kernel([2, 3]);
    }

    #[test]
    fn several_blocks_bands_and_parts_are_as_plain_loops() {
        for (channels, size, kernel, stride) in [
            ([3, 70, 1], [40, 33], 3, 1),
            ([130, 150, 1], [6, 5], 3, 2),
            ([66, 34, 2], [19, 21], 3, 1),
            ([600, 140, 1], [13, 31], 1, 1),
            ([34, 74, 2], [16, 12], 1, 1),
        ] {
            let sides = [[kernel; 2], [stride; 2], [kernel / 2; 2], [1, 1]];
            assert_as_plain_loops(&shape(channels, size, sides).expect("the kernel fits"));
        }
    }

    #[test]
    fn tiles_of_all_dilations_and_paddings_are_as_plain_loops() {
        let mut checked = 0;
        for (dilation, size) in [1, 2, 4].into_iter().flat_map(|dilation| {
            let small = (1..=5).map(|side| [side, side]);
            small.chain([[4, 9], [9, 13], [8, 31]]).map(move |size| (dilation, size))
        }) {
            for padding in [0, dilation, 2 * dilation, 2 * dilation + 1] {
                // The second and the third have so many weights that tasks transform their own.
                for channels in [[17, 34, 1], [9, 290, 1], [290, 5, 1], [22, 14, 2]] {
                    let sides = [[3; 2], [1; 2], [padding; 2], [dilation; 2]];
                    // The larger, the fewer: plain loops take their time.
                    let is_kept = checked % ((size[0] * size[1] / 4) | 1) == 0;
                    if let Some(shape) = shape(channels, size, sides).filter(|_| is_kept) {
                        assert_as_plain_loops(&shape);
                    }
                    checked += 1;
                }
            }
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn winograds_errors_are_of_the_size_of_plain_sums() {
        for (channels, tolerance) in [([64, 8, 1], 3e-6), ([512, 8, 1], 6e-6), ([8, 512, 1], 6e-6)] {
            let shape = shape(channels, [9, 12], [[3; 2], [1; 2], [1; 2], [1; 2]]).expect("the kernel fits");
            let (maps, bias) = operands(&shape);
            let maps = maps.each_ref().map(Vec::as_slice);
            let expected = expected(&shape, maps, &bias);
            for convolution in convolutions(&shape) {
                for (found, expected) in found(&convolution, maps, &bias).iter().zip(&expected) {
                    assert_close(found, expected, tolerance, &format!("{convolution:?}"));
                }
            }
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn winograd_is_chosen_for_wide_maps_of_many_channels_only() {
        let chosen = |channels: [usize; 3], size: [usize; 2], stride: usize, dilation: usize| {
            let sides = [[3; 2], [stride; 2], [dilation; 2], [dilation; 2]];
            let shape = shape(channels, size, sides).expect("the kernel fits");
            Instructions::available().filter(|instructions| *instructions != Instructions::Portable).all(
                |instructions| {
                    let path = Convolution::new(shape.clone(), instructions).expect("microkernels").path;
                    matches!(path, Path::Winograd { .. })
                },
            )
        };
        assert!(chosen([64, 64, 1], [96, 128], 1, 1));
        assert!(chosen([256, 256, 1], [24, 32], 1, 2));
        assert!(chosen([512, 512, 1], [24, 32], 1, 4));
        assert!(!chosen([64, 64, 1], [96, 128], 2, 1));
        assert!(!chosen([3, 64, 1], [96, 128], 1, 1));
        assert!(!chosen([64, 64, 4], [96, 128], 1, 1));
        assert!(!chosen([64, 64, 1], [24, 32], 1, 4));
        assert!(!chosen([512, 512, 1], [8, 8], 1, 1));
        assert!(!chosen([512, 512, 1], [1, 1], 1, 1));
        assert!(!chosen([512, 512, 1], [5, 5], 1, 4));
    }

    /// The epilogue against plain loops over the output of the plain convolution.
    fn assert_finished(shape: &ConvShape, activation: Activation, with_residual: bool) {
        let (maps, bias) = operands(shape);
        let maps = maps.each_ref().map(Vec::as_slice);
        let (scale, residual) = (noise_values(shape.out_channels, "scale"), noise_values(shape.lens()[1], "residual"));
        let epilogue = Epilogue {
            scale: Some(&scale),
            bias: Some(&bias),
            residual: with_residual.then_some(residual.as_slice()),
            activation,
        };
        let [plain, ..] = expected(shape, maps, &vec![0.0; shape.out_channels]);
        let [low, high] = activation.bounds();
        let finished = plain.iter().enumerate().map(|(index, sum)| {
            let channel = index / shape.out_area() % shape.out_channels;
            let residual = if with_residual { residual[index] } else { 0.0 };
            (scale[channel] * sum + bias[channel] + residual).clamp(low, high)
        });
        let expected: Vec<f32> = finished.collect();
        for convolution in convolutions(shape) {
            let found = convolution.forward(maps[0], maps[2], epilogue);
            let what = format!("{convolution:?}, {activation:?}, residual {with_residual}");
            assert_close(&found, &expected, 1e-5, &what);
        }
    }

    #[test]
    fn scale_residual_and_activation_are_as_plain_loops_with_all_instructions() {
        for channels in [[3, 5, 1], [4, 6, 2], [9, 17, 1], [5, 5, 5]] {
            for (size, kernel, stride, dilation) in [([7, 10], 3, 1, 1), ([5, 17], 3, 2, 1), ([9, 33], 1, 1, 1)]
                .into_iter()
                .chain([([11, 16], 3, 1, 2), ([6, 35], 5, 3, 1)])
            {
                let padding = [dilation * (kernel - 1) / 2; 2];
                let shape = shape(channels, size, [[kernel; 2], [stride; 2], padding, [dilation; 2]]);
                for activation in [Activation::Identity, Activation::Relu, Activation::Relu6] {
                    for with_residual in [false, true] {
                        assert_finished(shape.as_ref().expect("the kernel fits"), activation, with_residual);
                    }
                }
            }
        }
    }

    #[test]
    fn nan_stays_nan_behind_an_activation_with_all_instructions() {
        for channels in [[3, 5, 1], [5, 5, 5]] {
            let shape = shape(channels, [5, 19], [[3, 3], [1, 1], [1, 1], [1, 1]]).expect("the kernel fits");
            let (maps, _) = operands(&shape);
            let residual = vec![f32::NAN; shape.lens()[1]];
            let plain = Epilogue { activation: Activation::Relu6, ..Epilogue::bias(None) };
            let of_x = vec![f32::NAN; shape.lens()[0]];
            for convolution in convolutions(&shape) {
                let behind_x = convolution.forward(&of_x, &maps[2], plain);
                let behind_residual =
                    convolution.forward(&maps[0], &maps[2], Epilogue { residual: Some(&residual), ..plain });
                for values in [behind_x, behind_residual] {
                    assert!(values.iter().all(|value| value.is_nan()), "{convolution:?}");
                }
            }
        }
    }

    #[test]
    fn a_nan_reaches_every_pixel_that_sees_it_and_no_further_than_its_tiles() {
        let shape = shape([8, 5, 1], [13, 30], [[3; 2], [1; 2], [1; 2], [1; 2]]).expect("the kernel fits");
        let (mut maps, _) = operands(&shape);
        maps[0][5 * 30 + 16] = f32::NAN;
        for convolution in convolutions(&shape) {
            let y = convolution.forward(&maps[0], &maps[2], Epilogue::bias(None));
            for (index, value) in y.iter().enumerate() {
                let (image, pixel) = (index / (5 * 13 * 30), [index / 30 % 13, index % 30]);
                let sees = (4..=6).contains(&pixel[0]) && (15..=17).contains(&pixel[1]);
                // Tiles of 4 rows and columns: those that begin at row 4, and at columns 12 and 16.
                let is_near = (4..8).contains(&pixel[0]) && (12..20).contains(&pixel[1]);
                assert!(!(image == 0 && sees) || value.is_nan(), "pixel {pixel:?} of {convolution:?}");
                assert!((image == 0 && is_near) || !value.is_nan(), "pixel {pixel:?} of {convolution:?}");
            }
        }
    }

    #[test]
    fn one_and_four_threads_give_the_same_bits_with_all_instructions() {
        for (channels, kernel, stride) in
            [([20, 36, 1], 3, 1), ([20, 36, 1], 3, 2), ([20, 36, 1], 1, 1), ([24, 16, 4], 3, 2), ([9, 9, 9], 3, 1)]
                .into_iter()
                .chain([([70, 33, 1], 3, 1), ([290, 16, 1], 3, 1)])
        {
            let sides = [[kernel; 2], [stride; 2], [kernel / 2; 2], [1, 1]];
            let size = if channels[0] > 100 { [6, 9] } else { [37, 50] };
            let shape = shape(channels, size, sides).expect("the kernel fits");
            let (maps, bias) = operands(&shape);
            let maps = maps.each_ref().map(Vec::as_slice);
            for convolution in convolutions(&shape) {
                let [one, four] = with_one_and_four_threads(|| found(&convolution, maps, &bias));
                assert_eq!(one, four, "{convolution:?}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "the input of a convolution")]
    fn an_input_of_another_size_is_refused() {
        let shape = shape([2, 3, 1], [4, 4], [[3, 3], [1, 1], [1, 1], [1, 1]]).expect("the kernel fits");
        let (maps, _) = operands(&shape);
        let convolution = Convolution::new(shape, Instructions::Portable).expect("dense");
        let _ = convolution.forward(&maps[0][1..], &maps[2], Epilogue::bias(None));
    }
}
