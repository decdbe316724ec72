//! The tiles of a Winograd convolution: where they lie on a map, and how they are cut into blocks.

use crate::conv::shape::ConvShape;

/// Rows and columns of the output of a tile.
pub(crate) const OUT: usize = 4;
/// Rows and columns of the input that a tile sees.
pub(crate) const IN: usize = 6;
/// Products of a tile for every pair of channels.
pub(crate) const PRODUCTS: usize = IN * IN;

/// Tiles of a block: three registers of AVX-512, which is what the products take at a time.
pub(crate) const TILES: usize = 48;

/// The sides of a convolution of 3x3 taps with stride one, or of the gradient of its input.
pub(crate) struct Sides {
    pub(crate) images: usize,
    pub(crate) groups: usize,
    /// Channels of a group.
    pub(crate) in_channels: usize,
    pub(crate) out_channels: usize,
    pub(crate) size: [usize; 2],
    pub(crate) out_size: [usize; 2],
    /// The pixel of the input that the first tap of the first pixel of the output sees.
    pub(crate) origin: [isize; 2],
    pub(crate) dilation: [usize; 2],
}

impl Sides {
    pub(crate) fn forward(shape: &ConvShape) -> Self {
        Self {
            images: shape.images,
            groups: shape.groups,
            in_channels: shape.group_in(),
            out_channels: shape.group_out(),
            size: shape.size,
            out_size: shape.out_size,
            origin: shape.padding.map(|padding| -(padding as isize)),
            dilation: shape.dilation,
        }
    }

    /// The gradient of the input is a convolution of the output's with the taps in reverse.
    pub(crate) fn input_gradient(shape: &ConvShape) -> Self {
        Self {
            in_channels: shape.group_out(),
            out_channels: shape.group_in(),
            size: shape.out_size,
            out_size: shape.size,
            origin: [0, 1].map(|axis| shape.padding[axis] as isize - 2 * shape.dilation[axis] as isize),
            ..Self::forward(shape)
        }
    }

    pub(crate) fn out_area(&self) -> usize {
        self.out_size[0] * self.out_size[1]
    }
}

/// Tiles side by side: those of every `dilation`-th column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) image: usize,
    /// The first pixel of the output of the first tile.
    pub(crate) place: [usize; 2],
    /// The first tile, counted in the block.
    pub(crate) first: usize,
    pub(crate) tiles: usize,
}

/// Tiles that are computed together.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) runs: Vec<Run>,
    pub(crate) tiles: usize,
}

/// Tiles along an axis of `len` pixels, of which those of a phase are every `dilation`-th.
fn tiles_of_phase(len: usize, dilation: usize, phase: usize) -> usize {
    len.saturating_sub(phase).div_ceil(dilation).div_ceil(OUT)
}

/// Tiles of an image of a map.
pub(crate) fn tiles_per_image(out_size: [usize; 2], dilation: [usize; 2]) -> usize {
    let along = |axis: usize| -> usize {
        (0..dilation[axis]).map(|phase| tiles_of_phase(out_size[axis], dilation[axis], phase)).sum()
    };
    along(0) * along(1)
}

/// All tiles of all images, in blocks of about one size: `most` tiles at most, and full registers of
/// `lanes` tiles where there are that many.
pub(crate) fn blocks(sides: &Sides, most: usize, lanes: usize) -> Vec<Block> {
    let ([height, width], [down, right]) = (sides.out_size, sides.dilation);
    let total = sides.images * tiles_per_image(sides.out_size, sides.dilation);
    let size = total.div_ceil(total.div_ceil(most)).next_multiple_of(lanes);
    let mut blocks = vec![Block { runs: Vec::new(), tiles: 0 }];
    for (image, y, x) in
        (0..sides.images).flat_map(|image| (0..down).flat_map(move |y| (0..right).map(move |x| (image, y, x))))
    {
        let across = tiles_of_phase(width, right, x);
        for row in 0..tiles_of_phase(height, down, y) {
            let mut tile = 0;
            while tile < across {
                if blocks.last().is_some_and(|block| block.tiles == size) {
                    blocks.push(Block { runs: Vec::new(), tiles: 0 });
                }
                let Some(block) = blocks.last_mut() else { unreachable!("there is a first block") };
                let tiles = (across - tile).min(size - block.tiles);
                let place = [y + row * OUT * down, x + tile * OUT * right];
                block.runs.push(Run { image, place, first: block.tiles, tiles });
                block.tiles += tiles;
                tile += tiles;
            }
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sides(out_size: [usize; 2], dilation: usize) -> Sides {
        Sides {
            images: 3,
            groups: 1,
            in_channels: 1,
            out_channels: 1,
            size: out_size,
            out_size,
            origin: [0, 0],
            dilation: [dilation; 2],
        }
    }

    #[test]
    fn every_pixel_is_in_one_tile() {
        for (out_size, dilation) in [([1, 1], 1), ([1, 1], 4), ([7, 10], 1), ([5, 33], 2), ([24, 30], 4), ([3, 2], 3)] {
            let [height, width] = out_size;
            let mut seen = vec![0; 3 * height * width];
            for block in blocks(&sides(out_size, dilation), 48, 16) {
                assert_eq!(block.runs.iter().map(|run| run.tiles).sum::<usize>(), block.tiles);
                assert!((1..=48).contains(&block.tiles), "{} tiles", block.tiles);
                for run in block.runs {
                    let (rows, columns) = (0..OUT, 0..OUT * run.tiles);
                    for (row, column) in rows.flat_map(|row| columns.clone().map(move |column| (row, column))) {
                        let [y, x] = [run.place[0] + row * dilation, run.place[1] + column * dilation];
                        if y < height && x < width {
                            seen[(run.image * height + y) * width + x] += 1;
                        }
                    }
                }
            }
            assert!(seen.iter().all(|count| *count == 1), "{out_size:?}, dilation {dilation}");
        }
    }

    #[test]
    fn blocks_are_of_about_one_size() {
        // 3 images of 5 by 5 tiles: 75 in all.
        let tiles = |most: usize| -> Vec<usize> {
            blocks(&sides([20, 20], 1), most, 16).iter().map(|block| block.tiles).collect()
        };
        assert_eq!(tiles_per_image([20, 20], [1, 1]), 25);
        assert_eq!(tiles(48), [48, 27]);
        assert_eq!(tiles(96), [75]);
        assert_eq!(tiles(32), [32, 32, 11]);
    }
}
