//! Why a command has no answer, and whether another try can help.

use crate::store::StoreError;
use redis::{ErrorKind, RedisError, ServerErrorKind};
use std::sync::Arc;
use std::time::Duration;

/// Why a command has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Redis(#[from] RedisError),
    #[error("no answer from Redis within {0:?}")]
    Slow(Duration),
    #[error("no Redis server is in charge of partition {0}")]
    Nobody(u8),
    #[error("{0}")]
    Unreachable(String),
    /// One failure of many commands.
    #[error(transparent)]
    Shared(Arc<Failure>),
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        Self::Unavailable(Box::new(failure))
    }
}

/// Whether the server does not allow this user the command.
pub fn is_forbidden(error: &StoreError) -> bool {
    let StoreError::Unavailable(cause) = error else {
        return false;
    };
    match cause.downcast_ref() {
        Some(Failure::Redis(error)) => error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm),
        _ => false,
    }
}

/// Whether the server was asked as part of a cluster and is none.
pub fn is_no_cluster(error: &StoreError) -> bool {
    let StoreError::Unavailable(cause) = error else {
        return false;
    };
    match cause.downcast_ref() {
        Some(Failure::Redis(error)) => error.to_string().contains("cluster support disabled"),
        _ => false,
    }
}

impl Failure {
    /// Whether another server, or the same one on another connection, may do better.
    pub fn is_worth_another_look(&self) -> bool {
        match self {
            Self::Nobody(_) => true,
            Self::Shared(failure) => failure.is_worth_another_look(),
            Self::Slow(_) | Self::Unreachable(_) => false,
            // An old primary that was cut off from its replicas: another may be in charge by now.
            Self::Redis(error) if error.code() == Some("NOREPLICAS") => true,
            Self::Redis(error) => match error.kind() {
                ErrorKind::Server(kind) => matches!(
                    kind,
                    ServerErrorKind::Moved
                        | ServerErrorKind::Ask
                        | ServerErrorKind::TryAgain
                        | ServerErrorKind::ClusterDown
                        | ServerErrorKind::MasterDown
                        | ServerErrorKind::ReadOnly
                        | ServerErrorKind::BusyLoading
                ),
                _ => error.is_io_error() || error.is_connection_dropped(),
            },
        }
    }

    /// Whether the connection it came over is of no use any more.
    pub fn breaks_the_connection(&self) -> bool {
        match self {
            Self::Redis(error) => {
                error.is_io_error()
                    || error.is_connection_dropped()
                    || error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
            }
            Self::Shared(failure) => failure.breaks_the_connection(),
            Self::Slow(_) | Self::Nobody(_) | Self::Unreachable(_) => false,
        }
    }
}
