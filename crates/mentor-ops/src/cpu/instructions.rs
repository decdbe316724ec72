//! Which vector instructions the CPU operations use.

use std::sync::OnceLock;

/// The environment variable that forces a path.
const VARIABLE: &str = "MENTOR_CPU";

/// The instructions that an operation is computed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Instructions {
    /// AVX-512 (F, BW, DQ and VL): 32 registers of 16 lanes.
    Avx512,
    /// AVX2 and FMA: 16 registers of 8 lanes.
    Avx2,
    /// Whatever there is; convolutions by columns and the `gemm` crate.
    Portable,
}

impl Instructions {
    /// The best first.
    const ALL: [Self; 3] = [Self::Avx512, Self::Avx2, Self::Portable];

    fn name(self) -> &'static str {
        match self {
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Portable => "portable",
        }
    }

    /// As people write it.
    fn title(self) -> &'static str {
        match self {
            Self::Avx512 => "AVX-512",
            Self::Avx2 => "AVX2",
            Self::Portable => "portable",
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn is_available(self) -> bool {
        use std::arch::is_x86_feature_detected as has;
        match self {
            Self::Avx512 => {
                let has_wide = has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl");
                // Its paths use kernels of AVX2, too.
                has_wide && Self::Avx2.is_available()
            }
            Self::Avx2 => has!("avx2") && has!("fma"),
            Self::Portable => true,
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn is_available(self) -> bool {
        self == Self::Portable
    }

    /// All that this CPU can run, the best first.
    pub(crate) fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|instructions| instructions.is_available())
    }

    /// The best that this CPU can run, or the one named.
    fn choose(name: Option<&str>) -> Result<Self, String> {
        let found = match name {
            None => Self::available().next(),
            Some(name) => Self::available().find(|instructions| instructions.name() == name),
        };
        found.ok_or_else(|| {
            let names: Vec<_> = Self::available().map(Self::name).collect();
            format!("{VARIABLE} is `{}`, but this CPU can run {}", name.unwrap_or_default(), names.join(", "))
        })
    }

    /// What this process uses: the best that this CPU can run, or what `MENTOR_CPU` names.
    ///
    /// # Panics
    /// If `MENTOR_CPU` names something unknown, or what this CPU cannot run.
    pub(crate) fn chosen() -> Self {
        static CHOSEN: OnceLock<Instructions> = OnceLock::new();
        *CHOSEN.get_or_init(|| Self::asked().unwrap_or_else(|message| panic!("{message}")))
    }

    fn asked() -> Result<Self, String> {
        let name = std::env::var_os(VARIABLE);
        let name = name.as_ref().map(|name| name.to_string_lossy());
        Self::choose(name.as_deref())
    }
}

/// The instructions that the CPU operations of this process use, for people: `AVX-512`, `AVX2` or `portable`.
///
/// # Errors
/// If the environment variable `MENTOR_CPU` names something unknown, or what this CPU cannot run. The operations
/// would panic.
pub fn instructions() -> Result<&'static str, String> {
    Instructions::asked().map(Instructions::title)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_is_chosen_unless_one_is_named() {
        assert_eq!(Instructions::choose(None).ok(), Instructions::available().next());
        for instructions in Instructions::available() {
            assert_eq!(Instructions::choose(Some(instructions.name())), Ok(instructions));
        }
    }

    #[test]
    fn people_are_told_what_the_operations_use() {
        assert_eq!(instructions(), Ok(Instructions::chosen().title()));
    }

    #[test]
    fn an_unknown_name_is_answered_with_those_that_work() {
        let message = Instructions::choose(Some("avx1024")).err();
        let message = message.as_deref().unwrap_or_default();
        assert!(message.starts_with("MENTOR_CPU is `avx1024`, but this CPU can run "), "{message}");
        assert!(message.ends_with("portable"), "{message}");
    }
}
