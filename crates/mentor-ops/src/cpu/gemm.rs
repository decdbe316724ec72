//! Matrix products of slices by the `gemm` crate, which picks its kernel by the CPU it runs on.

/// A matrix inside a slice.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// `rows` times `columns` values whose rows begin every `row_stride` elements.
    pub(crate) fn new(values: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        let span = span(rows, columns, row_stride);
        assert!(span <= values.len(), "a matrix spans {span} of {} elements", values.len());
        Self { values, rows, columns, row_stride, column_stride: 1 }
    }

    /// The same values with rows and columns swapped.
    pub(crate) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// How many elements lie between the first and the last of a matrix, both counted.
pub(crate) fn span(rows: usize, columns: usize, row_stride: usize) -> usize {
    if rows * columns == 0 { 0 } else { (rows - 1) * row_stride + columns }
}

/// `out = left * right`, or `out += left * right`; on the calling thread alone.
///
/// # Safety
/// The rows of `out`, `row_stride` elements apart, must be valid and written by nobody else, and
/// initialised if the product is added.
pub(crate) unsafe fn multiply_raw(out: *mut f32, row_stride: usize, add: bool, left: Matrix, right: Matrix) {
    assert_eq!(left.columns, right.rows, "the inner sides of a matrix product differ");
    // SAFETY: both operands lie inside their slices (checked when they were made), their sides fit,
    // and the caller answers for `out`. The strides of slices fit an `isize`.
    unsafe {
        gemm::gemm(
            left.rows,
            right.columns,
            left.columns,
            out,
            1,
            row_stride as isize,
            add,
            left.values.as_ptr(),
            left.column_stride as isize,
            left.row_stride as isize,
            right.values.as_ptr(),
            right.column_stride as isize,
            right.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// `out = left * right`, or `out += left * right`, into dense rows.
pub(crate) fn multiply(out: &mut [f32], add: bool, left: Matrix, right: Matrix) {
    assert_eq!(out.len(), left.rows * right.columns, "the output of a matrix product has another size");
    // SAFETY: `out` is exclusive, initialised, and has the product's size.
    unsafe { multiply_raw(out.as_mut_ptr(), right.columns, add, left, right) }
}
