//! Running the tasks that a Celery app sends.

use std::collections::HashMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde_json::{Map, Value};
use storage_core::{
    Consumer, ConsumerOptions, ConsumerReport, ErrorKind, Message, Outcome as Settle, QueueName, QueueStore, Result,
};

use super::outcome::{self, Failure, Outcome};
use super::task::{self, Signature};
use crate::publish::{Letter, Publisher};
use crate::wire::{self, Parcel};

/// A task as it was sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Its id.
    pub id: String,
    /// Its name: `module.function`.
    pub name: String,
    /// Positional arguments.
    pub args: Vec<Value>,
    /// Keyword arguments.
    pub kwargs: Map<String, Value>,
    /// The first task of the chain that it belongs to: itself, where there is none.
    pub root_id: String,
    /// How often its message has been delivered, this time included.
    pub deliveries: u32,
    eta: Option<DateTime<Utc>>,
    expires: Option<DateTime<Utc>>,
    reply_to: Option<String>,
    chain: Vec<Signature>,
}

type Handler = Box<dyn Fn(Request) -> BoxFuture<'static, Result<Value, Failure>> + Send + Sync>;

/// Runs tasks by name. Made by [`Celery::worker`](super::Celery::worker).
///
/// A task whose time has not come goes back until then; an expired one is not run, and revoked. Results and failures are sent to whoever asked, and the
/// next task of a chain is sent on. A handler that panics has failed.
pub struct Worker {
    store: QueueStore,
    queue: QueueName,
    at_broker: String,
    publisher: Arc<Publisher>,
    handlers: HashMap<String, Handler>,
    options: ConsumerOptions,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tasks: Vec<_> = self.handlers.keys().collect();
        f.debug_struct("Worker").field("queue", &self.queue).field("tasks", &tasks).finish_non_exhaustive()
    }
}

fn read(message: &Message) -> Option<Request> {
    let header = |name: &str| message.attributes.get(name).cloned();
    let time = |name: &str| {
        let text = header(name)?;
        // Celery writes local times of UTC without an offset where it is told to.
        let read = DateTime::parse_from_rfc3339(&text).or_else(|_| DateTime::parse_from_rfc3339(&format!("{text}+00:00")));
        read.ok().map(|time| time.with_timezone(&Utc))
    };
    let (id, name) = (header("id")?, header("task")?);
    let mut body: Value = serde_json::from_slice(&message.body).ok()?;
    let parts = body.as_array_mut().filter(|parts| parts.len() == 3)?;
    let embed = parts.pop()?;
    let Value::Object(kwargs) = parts.pop()? else { return None };
    let Value::Array(args) = parts.pop()? else { return None };
    Some(Request {
        root_id: header("root_id").unwrap_or_else(|| id.clone()),
        id,
        name,
        args,
        kwargs,
        deliveries: message.deliveries,
        eta: time("eta"),
        expires: time("expires"),
        reply_to: header(wire::REPLY_TO),
        chain: embed["chain"].as_array().cloned().unwrap_or_default(),
    })
}

impl Worker {
    pub(super) fn new(store: QueueStore, queue: QueueName, at_broker: String, publisher: Arc<Publisher>) -> Self {
        Self { store, queue, at_broker, publisher, handlers: HashMap::new(), options: ConsumerOptions::default() }
    }

    /// Runs the tasks of that name with `handler`.
    #[must_use]
    pub fn task<F>(mut self, name: impl Into<String>, handler: impl Fn(Request) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Value, Failure>> + Send + 'static,
    {
        self.handlers.insert(name.into(), Box::new(move |request| handler(request).boxed()));
        self
    }

    /// How many tasks run at once, and the like.
    #[must_use]
    pub fn options(mut self, options: ConsumerOptions) -> Self {
        self.options = options;
        self
    }

    /// Runs until `shutdown` is ready, then finishes what it has begun.
    ///
    /// # Errors
    /// See [`Consumer::run`].
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> Result<ConsumerReport> {
        let consumer = Consumer::new(&self.store, &self.queue, self.options.clone())?;
        let worker = Arc::new(self);
        let handle = move |message: Message| {
            let worker = Arc::clone(&worker);
            async move { worker.handle(&message).await }
        };
        consumer.run(handle, shutdown).await
    }

    async fn handle(&self, message: &Message) -> Settle {
        let Some(request) = read(message) else { return Settle::reject("not a task message of Celery's protocol 2") };
        let now = Utc::now();
        if request.expires.is_some_and(|at| at <= now) {
            return self.finish(&request, Outcome::Revoked("expired".into())).await;
        }
        if let Some(wait) = request.eta.and_then(|at| (at - now).to_std().ok()).filter(|wait| !wait.is_zero()) {
            return Settle::Retry { reason: "its time has not come".into(), after: Some(wait) };
        }
        let outcome = match self.handlers.get(&request.name) {
            None => Err(Failure::new("NotRegistered", request.name.clone())),
            Some(handler) => {
                let run = AssertUnwindSafe(async { handler(request.clone()).await }).catch_unwind();
                run.await.unwrap_or_else(|_| Err(Failure::new("RuntimeError", "the handler panicked")))
            }
        };
        self.finish(&request, outcome.map_or_else(Outcome::Failure, Outcome::Success)).await
    }

    async fn finish(&self, request: &Request, outcome: Outcome) -> Settle {
        match self.tell(request, &outcome).await {
            Ok(()) => Settle::Done,
            // The task runs again: it may have to bear that anyway.
            Err(error) => Settle::retry(error),
        }
    }

    async fn tell(&self, request: &Request, outcome: &Outcome) -> Result<()> {
        let reply_to = request.reply_to.as_deref().unwrap_or_default();
        if let Outcome::Success(result) = outcome
            && let Some(next) = task::follow(request.chain.clone(), result, &request.id, &request.root_id, reply_to)?
        {
            self.send(&self.at_broker, next).await?;
        }
        if reply_to.is_empty() {
            return Ok(());
        }
        match self.send(reply_to, outcome::reply(&request.id, outcome)?).await {
            // Whoever asked has gone.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            told => told,
        }
    }

    async fn send(&self, to: &str, parcel: Parcel) -> Result<()> {
        self.publisher.publish(vec![Letter { to: to.to_owned(), parcel }]).await
    }
}

/// The headers of a task message, as attributes.
#[cfg(test)]
fn example(headers: &[(&str, &str)], body: &str) -> Message {
    let attributes: storage_core::Attributes =
        headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Message {
        id: storage_core::MessageId("m".into()),
        body: body.to_owned().into(),
        attributes,
        content_type: None,
        priority: 0,
        deliveries: 1,
        enqueued_at: Utc::now(),
        expires_at: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn task_messages_are_read_and_others_are_not() {
        let headers =
            [("id", "1"), ("task", "a.b"), ("eta", "2026-11-27T03:00:00.123456"), ("expires", "2026-11-27T03:00:00+01:00")];
        let request = read(&example(&headers, r#"[[1], {"x": 2}, {"chain": null}]"#)).unwrap();
        assert_eq!((&request.args[..], request.root_id.as_str()), (&[Value::from(1)][..], "1"));
        assert_eq!(request.expires.unwrap().to_rfc3339(), "2026-11-27T02:00:00+00:00");
        assert_eq!(request.eta.unwrap().timestamp_subsec_micros(), 123_456);
        for body in ["", "[]", "[[], [], {}]", "{}", "[[], {}]"] {
            assert!(read(&example(&headers, body)).is_none(), "{body}");
        }
        assert!(read(&example(&[], "[[], {}, {}]")).is_none());
    }
}
