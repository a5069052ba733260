//! [`Exchange`]: tasks and results as `storage-tasks` has them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use storage_core::{
    Arrival, CallEnd, CallNews, Error, ErrorKind, ForeignTasks, Message, NewMessage, QueueBackend as _, QueueName, Receipt,
    Receive, Result, TaskCall,
};
use tokio::sync::OnceCell;

use super::config::Parts;
use super::letter::ORIGIN;
use super::outcome::{self, Outcome, State};
use super::results::{Results, refusal};
use super::send::Sender;
use super::task::Task;
use crate::AmqpQueue;

/// Celery's `task_default_queue`.
const DEFAULT_QUEUE: &str = "celery";
/// For how long results are taken from the reply queue: who does not write them down in this time gets them again.
const TAKEN_FOR: Duration = Duration::from_secs(60);

/// A Celery app's queues and results.
#[derive(Debug)]
pub(super) struct Exchange {
    queues: Arc<AmqpQueue>,
    sender: Sender,
    results: Results,
    reply_queue: QueueName,
    /// The reply queue's name on the broker, once it is there.
    reply_to: OnceCell<String>,
    keep: Duration,
}

impl Exchange {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { settings, results, reply_queue, keep } = parts;
        let queues = Arc::new(AmqpQueue::of_others(settings));
        let sender = Sender::new(Arc::clone(&queues));
        Self { queues, sender, results, reply_queue, reply_to: OnceCell::new(), keep }
    }

    pub(super) fn queues(&self) -> &Arc<AmqpQueue> {
        &self.queues
    }

    pub(super) fn sender(&self) -> &Sender {
        &self.sender
    }

    pub(super) fn results(&self) -> &Results {
        &self.results
    }

    /// Where results of what is sent from here go. The queue is there from now on.
    pub(super) async fn reply_to(&self) -> Result<Option<&str>> {
        if !matches!(self.results, Results::Messages) {
            return Ok(None);
        }
        let make = async || {
            let name = self.queues.at_broker(&self.reply_queue);
            self.make_reply_queue(&name).await.map(|()| name)
        };
        self.reply_to.get_or_try_init(make).await.map(|name| Some(name.as_str()))
    }

    async fn make_reply_queue(&self, name: &str) -> Result<()> {
        let keep = i64::try_from(self.keep.as_millis()).unwrap_or(i64::MAX);
        self.sender.make(name, Some(keep)).await.map(drop)
    }

    /// Tells whoever sent a task of that queue how it ended.
    pub(super) async fn tell(&self, queue: &QueueName, task: &Task, outcome: &Outcome) -> Result<()> {
        self.results.tell(&self.sender, &self.queues.at_broker(queue), task, outcome).await
    }

    pub(super) async fn close(&self) -> Result<()> {
        let closed = match &self.results {
            Results::Values { values, .. } => values.close().await,
            _ => Ok(()),
        };
        self.sender.close().await.and(closed)
    }
}

/// The arguments that an input means: see [`TaskCall::input`].
fn arguments(input: &Value) -> Result<(Vec<Value>, Map<String, Value>)> {
    let bad =
        || Error::invalid("the input's `args` are not a list, or its `kwargs` no object: these names are for a call's arguments");
    match input {
        Value::Null => Ok((Vec::new(), Map::new())),
        Value::Array(args) => Ok((args.clone(), Map::new())),
        Value::Object(object) if !object.is_empty() && object.keys().all(|key| key == "args" || key == "kwargs") => {
            let args = object.get("args").map_or_else(|| Ok(Vec::new()), |args| args.as_array().cloned().ok_or_else(bad))?;
            let kwargs =
                object.get("kwargs").map_or_else(|| Ok(Map::new()), |kwargs| kwargs.as_object().cloned().ok_or_else(bad))?;
            Ok((args, kwargs))
        }
        Value::Object(kwargs) => Ok((Vec::new(), kwargs.clone())),
        one => Ok((vec![one.clone()], Map::new())),
    }
}

#[async_trait]
impl ForeignTasks for Exchange {
    fn default_queue(&self) -> &'static str {
        DEFAULT_QUEUE
    }

    fn message(&self, call: &TaskCall) -> Result<NewMessage> {
        let (args, kwargs) = arguments(&call.input)?;
        let task = Task {
            task: call.name.clone(),
            args,
            kwargs,
            id: Some(call.id.clone()),
            eta: call.not_before,
            expires: call.start_by,
            priority: Some(call.priority).filter(|priority| *priority > 0),
            ..Task::default()
        };
        task.check()?;
        NewMessage::json(&task)
    }

    fn call(&self, message: &Message) -> Result<TaskCall> {
        let task: Task = message.json()?;
        Ok(TaskCall {
            id: task.id.unwrap_or_default(),
            name: task.task,
            input: json!({"args": task.args, "kwargs": task.kwargs}),
            not_before: task.eta,
            start_by: task.expires,
            priority: task.priority.unwrap_or_default(),
            is_own: task.origin.as_deref() == Some(ORIGIN),
        })
    }

    fn refusal(&self, message: &Message) -> Result<Option<String>> {
        Ok(refusal(&message.json()?).map(|failure| failure.to_text()))
    }

    async fn answer(&self, queue: &QueueName, message: &Message, end: &CallEnd) -> Result<()> {
        self.tell(queue, &message.json()?, &end.into()).await
    }

    fn keeps_results(&self) -> bool {
        !matches!(self.results, Results::Messages)
    }

    async fn news_of(&self, ids: &[String]) -> Result<Vec<Option<CallNews>>> {
        Ok(self.results.look_up(ids).await?.into_iter().map(|state| state.and_then(State::news)).collect())
    }

    async fn arrivals(&self, max: u32, wait: Duration) -> Result<Vec<Arrival>> {
        let Some(reply_to) = self.reply_to().await? else {
            tokio::time::sleep(wait).await;
            return Ok(Vec::new());
        };
        let request = Receive::up_to(max).visibility(TAKEN_FOR).wait(wait);
        let deliveries = match self.queues.receive(&self.reply_queue, &request).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // Somebody has removed it: what is on its way finds it again.
                self.make_reply_queue(reply_to).await?;
                return Ok(Vec::new());
            }
            deliveries => deliveries?,
        };
        let (mut arrivals, mut useless) = (Vec::new(), Vec::new());
        for delivery in deliveries {
            match outcome::read(&delivery.message.body).map(|(id, state)| (id, state.news())) {
                Ok((id, Some(news))) => arrivals.push(Arrival { id, news, receipt: delivery.receipt }),
                Ok((_, None)) => useless.push(delivery.receipt),
                Err(error) => {
                    tracing::warn!(queue = %self.reply_queue, %error, "what came is no result of a task");
                    useless.push(delivery.receipt);
                }
            }
        }
        self.settle(&useless).await?;
        Ok(arrivals)
    }

    async fn settle(&self, arrivals: &[Receipt]) -> Result<()> {
        if arrivals.is_empty() {
            return Ok(());
        }
        for outcome in self.queues.delete(&self.reply_queue, arrivals).await? {
            match outcome {
                // It comes again, and says nothing new.
                Err(error) if error.kind() != ErrorKind::LeaseLost => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_arguments() {
        let of = |input: Value| arguments(&input).map(|(args, kwargs)| json!([args, kwargs]));
        assert_eq!(of(json!(null)).unwrap(), json!([[], {}]));
        assert_eq!(of(json!([1, [2]])).unwrap(), json!([[1, [2]], {}]));
        assert_eq!(of(json!({"x": 1, "args": [2]})).unwrap(), json!([[], {"x": 1, "args": [2]}]));
        assert_eq!(of(json!({"args": [2], "kwargs": {"x": 1}})).unwrap(), json!([[2], {"x": 1}]));
        assert_eq!(of(json!({"kwargs": {"x": 1}})).unwrap(), json!([[], {"x": 1}]));
        assert_eq!(of(json!({})).unwrap(), json!([[], {}]));
        assert_eq!(of(json!("a")).unwrap(), json!([["a"], {}]));
        assert!(of(json!({"args": 1})).is_err() && of(json!({"kwargs": []})).is_err());
    }
}
