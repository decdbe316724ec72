//! The largest of many values, on the device and in fixed shapes: burn sorts on the host of a GPU.

use burn::tensor::{Int, Tensor};

/// How often the interval is halved in which the least of the largest values lies: to one part in four thousand million.
const HALVINGS: usize = 32;

/// Values that are counted one after the other; longer rows are counted in pieces of so many.
const PIECE: usize = 256;

/// The places of the `count` largest of each row, in the order of the places; of equal values the first. Values that differ by
/// less than a part in 2^32 of the row's range may be taken for equal.
///
/// # Shapes
/// `[n, p]`, all finite, `p` below 2^24 and at least `count`; returns `[n, count]`.
pub(crate) fn largest(values_np: &Tensor<2>, count: usize) -> Tensor<2, Int> {
    let places = values_np.dims()[1];
    assert!(0 < count && count <= places && places < 1 << 24, "the {count} largest of {places} values");
    // At least `count` values are no less than `low`, and fewer no less than `high`, unless they are the largest of all.
    let (mut low_n1, mut high_n1) = (values_np.clone().min_dim(1), values_np.clone().max_dim(1));
    for _ in 0..HALVINGS {
        let middle_n1 = (low_n1.clone() + high_n1.clone()).div_scalar(2.0);
        let is_low_n1 = no_less(values_np, &middle_n1).sum_dim(1).greater_equal_scalar(count as f64);
        high_n1 = high_n1.mask_where(is_low_n1.clone().bool_not(), middle_n1.clone());
        low_n1 = low_n1.mask_where(is_low_n1, middle_n1);
    }
    // Of those between the two as many are taken as are missing.
    let (sure_np, enough_np) = (no_less(values_np, &high_n1), no_less(values_np, &low_n1));
    let between_np = enough_np - sure_np.clone();
    let missing_n1 = sure_np.clone().sum_dim(1).neg().add_scalar(count as f64);
    let is_missing = running_sum(&between_np).lower_equal(missing_n1.expand(between_np.shape())).float();
    places_of(&(sure_np + between_np * is_missing), count)
}

/// 1 at the values that are no less than a row's limit.
fn no_less(values_np: &Tensor<2>, limit_n1: &Tensor<2>) -> Tensor<2> {
    values_np.clone().greater_equal(limit_n1.clone().expand(values_np.shape())).float()
}

/// The places of the first `count` ones of each row of zeros and ones, which has as many.
fn places_of(chosen_np: &Tensor<2>, count: usize) -> Tensor<2, Int> {
    let [n, places] = chosen_np.dims();
    let counted_np = running_sum(chosen_np);
    let device = counted_np.device();
    let wanted_nc =
        Tensor::<1, Int>::arange(1..count as i64 + 1, &device).float().unsqueeze_dim::<2>(0).expand([n, count]);
    // How many places there are before the one that is wanted: those at which less than it were counted, found by halves.
    let mut before_nc = Tensor::<2>::zeros([n, count], &device);
    let mut step = places.next_power_of_two();
    while step > 0 {
        let further_nc = before_nc.clone().add_scalar(step as f64);
        let at_nc = further_nc.clone().sub_scalar(1.0).clamp_max((places - 1) as f64).int();
        let is_before = counted_np.clone().gather(1, at_nc).lower(wanted_nc.clone());
        let is_inside = further_nc.clone().lower_equal_scalar(places as f64);
        before_nc = before_nc.mask_where(is_before.bool_and(is_inside), further_nc);
        step /= 2;
    }
    before_nc.clamp_max((places - 1) as f64).int()
}

/// For each place of a row of zeros and ones how many ones there are up to it, its own included.
fn running_sum(chosen_np: &Tensor<2>) -> Tensor<2> {
    let [n, places] = chosen_np.dims();
    let pieces = places.div_ceil(PIECE);
    let missing = Tensor::zeros([n, pieces * PIECE - places], &chosen_np.device());
    let whole: Tensor<3> = Tensor::cat(vec![chosen_np.clone(), missing], 1).reshape([n, pieces, PIECE]);
    let within = whole.cumsum(2);
    let totals = within.clone().narrow(2, PIECE - 1, 1);
    let before = totals.clone().cumsum(1) - totals;
    (within + before).reshape([n, pieces * PIECE]).narrow(1, 0, places)
}

/// 1 at the so many largest of each row, of positive integers that differ from each other, 0 elsewhere and where there are
/// fewer.
///
/// # Shapes
/// `[n, p]` of integers from 0, which are none, to `p`; how many, `[n, 1]`. Returns `[n, p]`.
pub(crate) fn among_largest(numbers_np: &Tensor<2>, count_n1: &Tensor<2>) -> Tensor<2> {
    let places = numbers_np.dims()[1];
    assert!(places < 1 << 23, "{places} places");
    // More than `count` numbers may be no less than `low`; `count` at most are no less than `high`.
    let mut low_n1 = count_n1.zeros_like();
    let mut high_n1 = low_n1.clone().add_scalar((places + 1) as f64);
    for _ in 0..(places + 1).ilog2() + 1 {
        let middle_n1 = (low_n1.clone() + high_n1.clone()).div_scalar(2.0).floor().clamp_min(1.0);
        let is_high_n1 = no_less(numbers_np, &middle_n1).sum_dim(1).lower_equal(count_n1.clone());
        low_n1 = low_n1.mask_where(is_high_n1.clone().bool_not(), middle_n1.clone());
        high_n1 = high_n1.mask_where(is_high_n1, middle_n1);
    }
    no_less(numbers_np, &high_n1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::values;
    use burn::tensor::{Device, TensorData};
    use mentor_types::Key;
    use rand::RngExt;
    use rand::seq::SliceRandom;

    fn rows<const P: usize>(rows: &[[f32; P]]) -> Tensor<2> {
        Tensor::from_data(TensorData::new(rows.concat(), [rows.len(), P]), &Device::flex())
    }

    fn places(found: Tensor<2, Int>) -> Vec<usize> {
        values(found.float()).into_iter().map(|place| place as usize).collect()
    }

    #[test]
    fn the_largest_by_hand() {
        let x = rows(&[[3.0, -1.0, 7.0, 2.0, 5.0], [0.0, 0.0, 0.0, 0.0, 0.0]]);
        assert_eq!(places(largest(&x, 2)), [2, 4, 0, 1]);
        assert_eq!(places(largest(&x, 5)), [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]);
        assert_eq!(places(largest(&rows(&[[1.0, 9.0]]), 1)), [1]);
        // Of equal ones the first, but none before a larger one.
        let x = rows(&[[-1.0, 2.0, -1.0, -1.0, 2.0, -1.0, 3.0]]);
        assert_eq!(places(largest(&x, 2)), [1, 6]);
        assert_eq!(places(largest(&x, 4)), [0, 1, 4, 6]);
    }

    #[test]
    fn the_largest_of_many_are_those_of_a_sort() {
        let mut rng = Key::new(1).rng();
        for (length, count) in [(255, 7), (256, 256), (257, 1), (1000, 333), (4099, 1000)] {
            let noise: Vec<f32> = (0..2 * length).map(|_| 40.0 * rng.random::<f32>() - 30.0).collect();
            let x = Tensor::from_data(TensorData::new(noise.clone(), [2, length]), &Device::flex());
            let found = places(largest(&x, count));
            for (row, found) in noise.chunks(length).zip(found.chunks(count)) {
                let mut order: Vec<usize> = (0..length).collect();
                order.sort_by(|a, b| row[*b].total_cmp(&row[*a]));
                order.truncate(count);
                order.sort_unstable();
                assert_eq!(found, order, "{count} of {length}");
            }
        }
    }

    #[test]
    fn so_many_numbers_are_chosen_of_those_that_there_are() {
        let mut rng = Key::new(2).rng();
        for length in [1, 2, 3, 100, 1023] {
            let mut numbers: Vec<f32> = (1..=length).map(|number| number as f32).collect();
            numbers.shuffle(&mut rng);
            // Some are no candidates.
            numbers.iter_mut().filter(|number| **number % 3.0 == 0.0).for_each(|number| *number = 0.0);
            let there = numbers.iter().filter(|number| **number > 0.0).count();
            for count in [0, 1, length / 2, length, 2 * length] {
                let x = Tensor::from_data(TensorData::new(numbers.clone(), [1, length]), &Device::flex());
                let found = values(among_largest(&x, &rows(&[[count as f32]])));
                assert_eq!(found.iter().sum::<f32>() as usize, count.min(there), "{count} of {there}");
                let least = |chosen: f32| {
                    let own = numbers.iter().zip(&found).filter(|(_, is)| **is == chosen).map(|(number, _)| *number);
                    own.collect::<Vec<_>>()
                };
                let (chosen, others) = (least(1.0), least(0.0));
                let worst = chosen.iter().fold(f32::MAX, |least, number| least.min(*number));
                assert!(others.iter().all(|number| *number < worst) && !chosen.contains(&0.0));
            }
        }
    }
}
