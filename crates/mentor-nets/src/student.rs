//! What is trained: a net with its adapters.

use burn::module::Module;

use crate::Adapter;

/// What the paths of the net's weights begin with among those of a [`Student`].
pub const NET: &str = "net.";

/// A student and the learnable adapters of its distillation terms. The optimizer and the checkpoint see
/// both; averages, evaluation and exports see the net alone.
#[derive(Module, Debug)]
pub struct Student<N: Module> {
    /// The net.
    pub net: N,
    /// For each teacher, in the order of their names, one for each term and place that asks for one.
    pub adapters: Vec<Vec<Adapter>>,
}

impl<N: Module> Student<N> {
    /// Whether the weight of this path is of a head or an adapter: all but those of the backbone.
    #[must_use]
    pub fn is_head(path: &str) -> bool {
        !path.split('.').any(|segment| segment == "backbone")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ConvNorm, ConvSpec, Fresh};
    use burn::tensor::Device;
    use mentor_types::{AdapterKind, AdapterSpec};
    use mentor_weights::named_weights;

    #[test]
    fn the_weights_of_the_net_have_their_prefix_and_those_of_adapters_another() {
        let device = Device::flex();
        let net = Fresh::seeded(&device, 1, |fresh| ConvNorm::new(ConvSpec::new(3, 4, 3), fresh));
        let kind = AdapterKind::Conv { kernel: 1 };
        let spec = AdapterSpec { name: "pair_wise@c5".to_owned(), kind, student_channels: 4, teacher_channels: 2 };
        let alone = named_weights(&net);
        let student = Student { net, adapters: vec![vec![Adapter::fresh(&spec, 1, &device)]] };
        let all = named_weights(&student);
        let below: Vec<&str> = all.keys().filter_map(|path| path.strip_prefix(NET)).collect();
        assert_eq!(below, alone.keys().collect::<Vec<_>>());
        assert_eq!(all.len(), alone.len() + 1);
    }
}
