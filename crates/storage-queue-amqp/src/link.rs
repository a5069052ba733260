//! Connections to the broker, made anew where they broke.

use std::sync::Arc;

use lapin::{Channel, Connection, ConnectionProperties};
use storage_core::Result;
use tokio::sync::Mutex;

use crate::config::Settings;
use crate::error::{lapin, within};

/// What a connection is for. A broker that is short of memory reads nothing more from connections that send: consumers must get on with
/// their acknowledgements.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Role {
    Send,
    Receive,
}

/// The two connections of a handle. Each is made when it is first wanted, and again after it broke: one that broke takes its channels with it, and
/// whoever used one asks for another.
pub(crate) struct Link {
    settings: Settings,
    connections: [Mutex<Option<Arc<Connection>>>; 2],
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Needs tokio's runtime, as all of the client does.
async fn connect(settings: &Settings, properties: ConnectionProperties) -> Result<Connection> {
    // Else rustls panics in a program that has another cryptography compiled in beside this one. Only the first one counts: a program that has chosen
    // one keeps it.
    #[cfg(feature = "tls")]
    drop(rustls::crypto::ring::default_provider().install_default());
    let runtime = lapin::runtime::default_runtime().map_err(lapin)?;
    Connection::connect_uri_with_config(settings.uri(), properties, settings.tls(), runtime).await.map_err(lapin)
}

impl Link {
    pub(crate) fn new(settings: Settings) -> Self {
        Self { settings, connections: [Mutex::default(), Mutex::default()] }
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) async fn connection(&self, role: Role) -> Result<Arc<Connection>> {
        let connect = async {
            // Held while connecting: others would do no better meanwhile.
            let mut slot = self.connections[role as usize].lock().await;
            if let Some(connection) = slot.as_ref().filter(|c| c.status().connected()) {
                return Ok(Arc::clone(connection));
            }
            *slot = None;
            let properties = ConnectionProperties::default().with_connection_name("storage".into());
            let connection = Arc::new(connect(&self.settings, properties).await?);
            *slot = Some(Arc::clone(&connection));
            Ok(connection)
        };
        within(self.settings.timeout, connect).await
    }

    /// A channel of its own.
    pub(crate) async fn channel(&self, role: Role) -> Result<Channel> {
        let connection = self.connection(role).await?;
        let opened = within(self.settings.timeout, async { connection.create_channel().await.map_err(lapin) }).await;
        if opened.is_err() {
            self.forget(role, &connection).await;
        }
        opened
    }

    /// Gives up a connection that does not answer.
    async fn forget(&self, role: Role, connection: &Arc<Connection>) {
        let mut slot = self.connections[role as usize].lock().await;
        if slot.as_ref().is_some_and(|current| Arc::ptr_eq(current, connection)) {
            *slot = None;
        }
    }

    /// Does something on a channel that is thrown away afterwards: what fails there, such as asking for a queue that is missing, closes it.
    pub(crate) async fn briefly<T>(&self, work: impl AsyncFnOnce(&Channel) -> Result<T, lapin::Error>) -> Result<T> {
        let channel = self.channel(Role::Receive).await?;
        let outcome = within(self.settings.timeout, async { work(&channel).await.map_err(lapin) }).await;
        if channel.status().connected() {
            // Nobody waits for the answer to a farewell.
            drop(tokio::time::timeout(std::time::Duration::from_millis(200), channel.close(200, "done".into())).await);
        }
        outcome
    }

    /// Closes what is not in use any more. Channels in use keep their connection.
    pub(crate) async fn close(&self) {
        for slot in &self.connections {
            *slot.lock().await = None;
        }
    }
}
