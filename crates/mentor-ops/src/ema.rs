//! The exponential moving average of a network: mean teachers, and weights for evaluation.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;
use burn::tensor::container::TensorContainer;

use crate::weights::{PathStack, is_buffer};

/// What becomes of batch-norm running statistics in an average.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buffers {
    /// Averaged like the weights.
    Average,
    /// Copied from the student.
    Copy,
}

/// A network whose weights follow those of another: `teacher = decay * teacher + (1 - decay) * student`.
///
/// It has no train mode: it is made with `valid()`, so its running statistics are its own and no
/// gradient reaches it. Weights are matched by path; a weight that one side lacks is a panic.
#[derive(Debug)]
pub struct Ema<M: Module> {
    net: Option<M>,
    buffers: Buffers,
}

impl<M: Module> Ema<M> {
    /// An average that starts as a copy of `student`.
    #[must_use]
    pub fn of(student: &M, buffers: Buffers) -> Self {
        Self { net: Some(student.valid()), buffers }
    }

    /// Replaces the averaged network by what `load` makes of a copy of it.
    ///
    /// # Errors
    /// Those of `load`; the average stays as it was then.
    pub fn resume<E>(&mut self, load: impl FnOnce(M) -> Result<M, E>) -> Result<(), E> {
        self.net = Some(load(self.net().valid())?);
        Ok(())
    }

    /// The averaged network.
    #[must_use]
    pub fn net(&self) -> &M {
        self.net.as_ref().expect("present outside of update")
    }

    /// Moves the average one step towards `student`.
    ///
    /// # Panics
    /// If the two networks do not have the same paths.
    pub fn update(&mut self, student: &M, decay: f64) {
        let mut collect = Collect { path: PathStack::default(), found: TensorContainer::new() };
        student.valid().visit(&mut collect);
        let mut average =
            Average { path: PathStack::default(), student: collect.found, decay, buffers: self.buffers };
        self.net = self.net.take().map(|net| net.map(&mut average));
        assert!(average.student.is_empty(), "the student has weights that its average lacks");
    }
}

struct Collect {
    path: PathStack,
    found: TensorContainer<String>,
}

impl ModuleVisitor for Collect {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.enter(name);
    }
    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.found.register(self.path.dotted(), param.val());
    }
}

struct Average {
    path: PathStack,
    student: TensorContainer<String>,
    decay: f64,
    buffers: Buffers,
}

impl ModuleMapper for Average {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.enter(name);
    }
    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = self.path.dotted();
        let student = self
            .student
            .remove::<Tensor<D>>(&path)
            .unwrap_or_else(|| panic!("the average has a weight `{path}` that the student lacks"));
        let copied = self.buffers == Buffers::Copy && is_buffer(&path);
        let (id, teacher, mapper) = param.consume();
        let value = if copied { student } else { teacher * self.decay + student * (1.0 - self.decay) };
        Param::from_mapped_value(id, value, mapper)
    }
}
