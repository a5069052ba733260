//! Peers that have to be installed first.

use std::path::PathBuf;

use super::{RABBITMQ, REDIS};
use crate::context::Context;
use crate::{node, python};

/// Those that there are servers for: the programs, or why there are none. Nothing where peers are left out.
#[derive(Default)]
pub(super) struct Peers {
    pub(super) bullmq: Option<Result<PathBuf, String>>,
    pub(super) python: Option<Result<PathBuf, String>>,
}

impl Peers {
    pub(super) async fn install(context: &Context) -> Self {
        let mut peers = Self::default();
        if context.no_peers {
            return peers;
        }
        context.progress("brokers: installing BullMQ and the Python environment");
        if std::env::var_os(REDIS).is_some() {
            peers.bullmq = Some(node::install(context, "bullmq").await.map_err(|error| format!("{error:#}")));
        }
        if std::env::var_os(RABBITMQ).is_some() {
            peers.python = Some(python::environment(context).await.map_err(|error| format!("{error:#}")));
        }
        peers
    }
}
