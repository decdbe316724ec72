//! The exponential moving average of a network: mean teachers, and weights for evaluation.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;
use burn::tensor::container::TensorContainer;
use mentor_ops::moved_average;

use crate::path::{PathStack, is_buffer};

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
        let mut average = Average { path: PathStack::default(), student: collect.found, decay, buffers: self.buffers };
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
        let value = if copied { student } else { moved_average(teacher, student, self.decay) };
        Param::from_mapped_value(id, value, mapper)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, noise};
    use crate::{Fresh, named_weights, seeded};
    use burn::nn::conv::Conv2d;
    use burn::nn::{BatchNorm, BatchNormConfig};
    use burn::tensor::Device;
    use burn::tensor::ops::ConvOptions;
    use mentor_ops::{batch_norm, conv2d};

    #[derive(Module, Debug)]
    struct Net {
        conv: Conv2d,
        bn: BatchNorm,
    }

    impl Net {
        fn new(seed: u64) -> Self {
            Fresh::seeded(&Device::flex().autodiff(), seed, |fresh| Self {
                conv: seeded::tests::conv([3, 4], 3, fresh),
                bn: fresh.norm(BatchNormConfig::new(4).init(fresh.device())),
            })
        }

        fn forward(&self, x: Tensor<4>) -> Tensor<4> {
            let options = ConvOptions::new([1, 1], [0, 0], [1, 1], 1);
            batch_norm(&self.bn, conv2d(x, self.conv.weight.val(), None, options))
        }
    }

    /// A teacher of one net, and a student that is another one with moved statistics.
    fn pair(buffers: Buffers) -> (Ema<Net>, Net) {
        let teacher = Ema::of(&Net::new(1), buffers);
        let student = Net::new(2);
        let _ = student.forward(noise([2, 3, 6, 6], "x"));
        (teacher, student)
    }

    #[test]
    fn an_update_averages_weights_and_buffers() {
        let (mut teacher, student) = pair(Buffers::Average);
        let (before, moved) = (named_weights(teacher.net()), named_weights(&student));
        assert_ne!(before["bn.running_var"], moved["bn.running_var"]);
        teacher.update(&student, 0.75);
        for (path, (_, after)) in named_weights(teacher.net()) {
            let expected: Vec<f32> =
                before[&path].1.iter().zip(&moved[&path].1).map(|(old, new)| 0.75 * old + 0.25 * new).collect();
            assert_close(&after, &expected, 1e-6, &path);
        }
    }

    #[test]
    fn buffers_can_be_copied() {
        let (mut teacher, student) = pair(Buffers::Copy);
        teacher.update(&student, 0.75);
        let (after, moved) = (named_weights(teacher.net()), named_weights(&student));
        assert_eq!(after["bn.running_mean"], moved["bn.running_mean"]);
        assert_ne!(after["conv.weight"], moved["conv.weight"]);
    }

    #[test]
    fn a_student_that_runs_does_not_move_its_teacher() {
        let student = Net::new(1);
        let teacher = Ema::of(&student, Buffers::Average);
        let before = named_weights(teacher.net());
        let _ = student.forward(noise([2, 3, 6, 6], "x"));
        assert_ne!(named_weights(&student), before);
        assert_eq!(named_weights(teacher.net()), before);
    }

    #[test]
    fn a_teacher_has_no_train_mode() {
        let (teacher, _) = pair(Buffers::Average);
        let before = named_weights(teacher.net());
        let y = teacher.net().forward(noise([2, 3, 6, 6], "x").inner());
        assert!(!y.device().is_autodiff());
        assert_eq!(named_weights(teacher.net()), before);
    }
}
