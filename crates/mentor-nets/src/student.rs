//! What is trained: a net with its adapters.

use burn::module::Module;
use mentor_types::Group;

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

/// A net that says how each of its weights is updated. The default is right for convolutional nets: what does not lie
/// below a field `backbone` is a head, and vectors do not decay.
pub trait Grouped: Module {
    /// The group of the weight at this path in the net, with this many dimensions.
    #[must_use]
    fn group(path: &str, rank: usize) -> Group {
        let is_head = !path.split('.').any(|segment| segment == "backbone");
        Group { is_head, ..Group::of_rank(rank) }
    }
}

impl<N: Grouped> Student<N> {
    /// The group of the weight at this path, with this many dimensions: adapters learn as heads do.
    #[must_use]
    pub fn group(path: &str, rank: usize) -> Group {
        match path.strip_prefix(NET) {
            Some(path) => N::group(path, rank),
            None => Group { is_head: true, ..Group::of_rank(rank) },
        }
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

    #[derive(Module, Debug)]
    struct Net {
        backbone: ConvNorm,
        table: ConvNorm,
    }

    impl Grouped for Net {
        fn group(path: &str, rank: usize) -> Group {
            Group { is_head: !path.starts_with("backbone"), decays: rank > 1 && !path.starts_with("table") }
        }
    }

    #[test]
    fn a_net_says_how_its_weights_are_updated_and_adapters_are_heads() {
        let group = Student::<Net>::group;
        assert_eq!(group("net.backbone.conv.weight", 4), Group { is_head: false, decays: true });
        assert_eq!(group("net.backbone.norm.gamma", 1), Group { is_head: false, decays: false });
        assert_eq!(group("net.table.conv.weight", 4), Group { is_head: true, decays: false });
        assert_eq!(group("adapters.0.0.conv.weight", 4), Group { is_head: true, decays: true });
    }
}
