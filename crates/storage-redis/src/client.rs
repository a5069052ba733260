//! Commands to the servers, over connections that come back by themselves.
//!
//! A connection is shared by many callers. One that failed is dropped, and the next caller makes another; those who come meanwhile wait for
//! that attempt and share its outcome. Every wait has an end. Nothing is sent twice: a command whose answer was lost may have taken effect.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::PubSub;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{MultipleNodeRoutingInfo, Route, RoutingInfo, SingleNodeRoutingInfo, SlotAddr};
use redis::{Cmd, RedisError, RedisResult, Value, cmd};
use storage_core::{BackendInfo, Error, Result};
use tokio::time::{Instant, sleep, timeout};

use crate::config::{Settings, Topology};
use crate::connect::{Connector, Link};
use crate::error::{code, explain, is_fatal, silent, strange, unsent};
use crate::scripts::Script;

/// A connection that was silent for so long is asked for a sign of life before it is trusted: firewalls and servers forget idle ones.
const IDLE: Duration = Duration::from_secs(5);
/// How often a command follows a slot that has moved.
const MAX_REDIRECTS: u32 = 8;
/// How often a command asks whether a slot that is moving has arrived.
const REDIRECT_PAUSE: Duration = Duration::from_millis(50);
/// How often a script is called again because more was due than one call does. Each does a part, so that this is a bound for the sake of one.
const MAX_ROUNDS: u32 = 100_000;

/// The servers of one store.
pub(crate) struct Client {
    connector: Connector,
    info: BackendInfo,
    slots: Box<[Slot]>,
    next: AtomicUsize,
}

/// A place for a connection.
#[derive(Default)]
struct Slot {
    state: Mutex<State>,
    /// Held by who connects.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    link: Option<Link>,
    /// Counts connections, so that a late failure drops the one that it is about.
    generation: u64,
    attempts: u64,
    failure: Option<Error>,
    used: Option<Instant>,
}

impl Slot {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn drop_link(&self, generation: u64) {
        let mut state = self.state();
        if state.generation == generation {
            state.link = None;
        }
    }
}

/// A connection on loan.
struct Loan<'c> {
    slot: &'c Slot,
    generation: u64,
    link: Link,
}

impl Loan<'_> {
    fn note<T>(&self, outcome: &RedisResult<T>) {
        match outcome {
            Err(error) if is_fatal(error) => self.slot.drop_link(self.generation),
            _ => self.slot.state().used = Some(Instant::now()),
        }
    }
}

impl Client {
    pub(crate) fn new(settings: Settings) -> Result<Self> {
        let info = settings.info();
        let slots = (0..settings.connections).map(|_| Slot::default()).collect();
        Ok(Self { connector: Connector::new(settings)?, info, slots, next: AtomicUsize::new(0) })
    }

    pub(crate) fn info(&self) -> &BackendInfo {
        &self.info
    }

    pub(crate) fn topology(&self) -> &Topology {
        &self.connector.settings().topology
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.connector.settings().timeout
    }

    /// A connection for news.
    pub(crate) async fn subscriber(&self) -> Result<PubSub> {
        self.connector.subscriber().await
    }

    /// Lets go of all connections. The next call makes new ones.
    pub(crate) fn disconnect(&self) {
        for slot in &self.slots {
            slot.state().link = None;
        }
    }

    /// Runs a script on the keys, which share a slot.
    pub(crate) async fn script(&self, script: &Script, keys: &[String], arguments: &[&[u8]]) -> Result<Value> {
        let build = |name: &str, text: &str| {
            let mut command = cmd(name);
            command.arg(text).arg(keys.len()).arg(keys);
            for argument in arguments {
                command.arg(argument);
            }
            command
        };
        let key = keys.first().map_or("", String::as_str);
        match self.query(&build("EVALSHA", &script.sha), key).await? {
            Ok(answer) => Ok(answer),
            // The server has not seen it yet, or has forgotten it.
            Err(error) if code(&error) == Some("NOSCRIPT") => {
                self.query(&build("EVAL", &script.text), key).await?.map_err(explain)
            }
            Err(error) => Err(explain(error)),
        }
    }

    /// Runs a script on the messages of a queue until all that is due is done, and answers with what follows its status.
    pub(crate) async fn queue_script(&self, script: &Script, keys: &[String], arguments: &[&[u8]]) -> Result<Answer> {
        let started = Instant::now();
        for _ in 0..MAX_ROUNDS {
            let Value::Array(values) = self.script(script, keys, arguments).await? else { return Err(strange("no list")) };
            match values.first() {
                Some(Value::Int(0)) => return Ok(Answer::Done(values)),
                Some(Value::Int(1)) => return Ok(Answer::NoQueue),
                Some(Value::Int(2)) => {}
                Some(Value::Int(3)) => return Ok(Answer::Lost),
                _ => return Err(strange("an unknown status")),
            }
            if started.elapsed() > self.timeout() {
                break;
            }
        }
        Err(Error::timeout("more messages have become due than could be moved in this time; they are being moved: try again"))
    }

    /// Sends a command to where `key` is.
    pub(crate) async fn command(&self, command: &Cmd, key: &str) -> Result<Value> {
        self.query(command, key).await?.map_err(explain)
    }

    /// Sends a command to every primary.
    pub(crate) async fn everywhere(&self, command: &Cmd) -> Result<Vec<Value>> {
        let loan = self.loan().await?;
        let answer = match loan.link.clone() {
            Link::Single(mut link) => self.in_time(&loan, link.send_packed_command(command)).await?.map(|value| vec![value]),
            Link::Cluster(mut link) => {
                let route = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
                let answer = self.in_time(&loan, link.route_command(command.clone(), route)).await?;
                answer.map(|values| match values {
                    Value::Map(nodes) => nodes.into_iter().map(|(_, value)| value).collect(),
                    Value::Array(values) => values,
                    value => vec![value],
                })
            }
        };
        loan.note(&answer);
        let values = answer.map_err(explain)?;
        values.into_iter().map(|value| value.extract_error().map_err(explain)).collect()
    }

    /// Sends a command. The outer error: it was not sent, or not answered in time.
    async fn query(&self, command: &Cmd, key: &str) -> Result<RedisResult<Value>> {
        let loan = self.loan().await?;
        let answer = match loan.link.clone() {
            Link::Single(mut link) => self.in_time(&loan, link.send_packed_command(command)).await?,
            Link::Cluster(link) => self.in_time(&loan, follow(link, command, key, self.timeout() / 2)).await?,
        };
        let answer = answer.and_then(Value::extract_error);
        loan.note(&answer);
        Ok(answer)
    }

    /// Waits for an answer. A connection that gives none is not used again; who else waits on it goes on waiting.
    async fn in_time<T>(&self, loan: &Loan<'_>, work: impl Future<Output = T>) -> Result<T> {
        let limit = self.timeout();
        match timeout(limit, work).await {
            Ok(answer) => Ok(answer),
            Err(_) => {
                loan.slot.drop_link(loan.generation);
                Err(silent(Some(limit)))
            }
        }
    }

    async fn loan(&self) -> Result<Loan<'_>> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let slot = &self.slots[turn % self.slots.len()];
        let (found, attempts) = {
            let state = slot.state();
            let idle = state.used.is_some_and(|used| used.elapsed() > IDLE);
            (state.link.clone().map(|link| (state.generation, link, idle)), state.attempts)
        };
        if let Some((generation, link, idle)) = found {
            if !idle || self.lives(link.clone()).await {
                return Ok(Loan { slot, generation, link });
            }
            slot.drop_link(generation);
        }
        self.connect(slot, attempts).await
    }

    /// True where the connection answers.
    async fn lives(&self, link: Link) -> bool {
        let limit = self.connector.settings().connect_timeout.min(self.timeout());
        let ping = cmd("PING");
        let answer = async {
            match link {
                Link::Single(mut link) => link.send_packed_command(&ping).await,
                Link::Cluster(mut link) => link.route_command(ping, RoutingInfo::SingleNode(SingleNodeRoutingInfo::Random)).await,
            }
        };
        matches!(timeout(limit, answer).await, Ok(Ok(_)))
    }

    /// Connects, or shares the outcome of who connects at this time. `seen`: how many attempts there had been when the caller came.
    async fn connect<'c>(&self, slot: &'c Slot, seen: u64) -> Result<Loan<'c>> {
        let _turn = slot.turn.lock().await;
        {
            let state = slot.state();
            if let Some(link) = &state.link {
                return Ok(Loan { slot, generation: state.generation, link: link.clone() });
            }
            if let Some(failure) = state.failure.as_ref().filter(|_| state.attempts != seen) {
                return Err(unsent(failure));
            }
        }
        let outcome = self.connector.link().await;
        let mut state = slot.state();
        state.attempts += 1;
        match outcome {
            Ok(link) => {
                state.generation += 1;
                state.failure = None;
                state.used = Some(Instant::now());
                state.link = Some(link.clone());
                Ok(Loan { slot, generation: state.generation, link })
            }
            Err(error) => {
                let told = unsent(&error);
                state.failure = Some(error);
                Err(told)
            }
        }
    }
}

/// What a script on a queue answers.
pub(crate) enum Answer {
    /// The status and what follows it.
    Done(Vec<Value>),
    NoQueue,
    /// The receipt is stale.
    Lost,
}

/// Sends a command to the node of `key`, and after it where its slot moves. What is sent again was refused, and took no effect.
async fn follow(mut link: ClusterConnection, command: &Cmd, key: &str, patience: Duration) -> RedisResult<Value> {
    let home = || SingleNodeRoutingInfo::SpecificNode(Route::with_key(key, SlotAddr::Master));
    let (started, mut redirects) = (Instant::now(), 0);
    let (mut route, mut asking) = (home(), false);
    loop {
        let answer = match asking {
            true => ask(&mut link, command, route).await,
            false => link.route_command(command.clone(), RoutingInfo::SingleNode(route)).await,
        };
        let error = match answer.and_then(Value::extract_error) {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        (route, asking) = match code(&error) {
            Some("MOVED") if redirects < MAX_REDIRECTS => (target(&error).unwrap_or_else(home), false),
            Some("ASK") if redirects < MAX_REDIRECTS => (target(&error).unwrap_or_else(home), true),
            // Keys of the slot lie on two nodes for a while.
            Some("TRYAGAIN" | "CLUSTERDOWN") if started.elapsed() < patience => {
                sleep(REDIRECT_PAUSE).await;
                (home(), false)
            }
            _ => return Err(error),
        };
        redirects += u32::from(matches!(code(&error), Some("MOVED" | "ASK")));
    }
}

/// To a node that is about to take over the slot.
async fn ask(link: &mut ClusterConnection, command: &Cmd, route: SingleNodeRoutingInfo) -> RedisResult<Value> {
    let mut pipeline = redis::pipe();
    pipeline.cmd("ASKING").add_command(command.clone());
    let answers = link.route_pipeline(pipeline, 0, 2, route).await?;
    Ok(answers.into_iter().nth(1).unwrap_or_default())
}

fn target(error: &RedisError) -> Option<SingleNodeRoutingInfo> {
    let (address, _) = error.redirect_node()?;
    let (host, port) = address.rsplit_once(':')?;
    Some(SingleNodeRoutingInfo::ByAddress { host: host.to_owned(), port: port.parse().ok()? })
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("info", &self.info).finish_non_exhaustive()
    }
}
