//! Why a recipe could not be built.

use std::path::PathBuf;

use mentor_data::DataError;
use mentor_nets::WeightsError;
use mentor_scenes::SetError;
use mentor_toml::Problem;
use mentor_train::TrainError;
use mentor_weights::NamedError;
use thiserror::Error;

/// Why a recipe could not be built.
#[derive(Debug, Error)]
pub enum BuildError {
    /// The recipe asks for something that is not there.
    #[error("{0}")]
    Recipe(Problem),
    /// The data are bad.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The scenes of a card cannot be drawn.
    #[error("card `{card}`: {source}")]
    Scenes {
        /// The card.
        card: String,
        /// Why.
        source: SetError,
    },
    /// The scenes of a card are not drawn yet.
    #[error("{}: not drawn yet", folder.display())]
    NotDrawn {
        /// Where they will be kept.
        folder: PathBuf,
    },
    /// There is no folder to keep drawn scenes in.
    #[error(
        "card `{card}` is drawn where it is first used, and there is no folder to keep it in: name one with MENTOR_CACHE"
    )]
    NoCache {
        /// The card.
        card: String,
    },
    /// Weights are bad.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A run folder given as weights is bad.
    #[error(transparent)]
    Run(#[from] TrainError),
    /// The checkpoint of a run does not fit the net of the recipe.
    #[error("{path}: {source}", path = path.display())]
    Checkpoint {
        /// The run.
        path: PathBuf,
        /// What does not fit.
        source: NamedError,
    },
    /// The classes that weights are for are not those of the data.
    #[error("{path}: {reason}", path = path.display())]
    Classes {
        /// The run, or the file of weights.
        path: PathBuf,
        /// The first difference.
        reason: String,
    },
    /// The folder of a run lacks something.
    #[error("{path}: {reason}", path = path.display())]
    NoRun {
        /// The folder.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}
