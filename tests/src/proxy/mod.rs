//! A TCP proxy between a client and an HTTP server that does harm by a script: cuts, stalls, answers in the server's place.
//!
//! It works below HTTP clients and servers alike: bytes are passed on as they come. Each connection carries one request (`Connection: close` is added),
//! so that a request can be told from the next. `Host` stays, which signatures cover.

mod http;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::http::{Head, answer, copy, read_head};

/// How long is waited for what should come.
const PATIENCE: Duration = Duration::from_secs(20);

/// What happens to a request that a [`Rule`] fits.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The proxy answers in the server's place, which sees nothing of the request.
    Answer {
        /// 503, 429, …
        status: u16,
        /// `Retry-After`, in seconds.
        retry_after: Option<u64>,
    },
    /// The connection breaks after so many bytes of the request's body went to the server.
    CutRequest(usize),
    /// The connection breaks after so many bytes of the response's body came to the client.
    CutResponse(usize),
    /// The server is given the whole request; the connection breaks before its answer's first byte.
    LoseAnswer,
    /// Nothing comes any more after so many bytes of the response's body; the connection stays.
    StallResponse(usize),
    /// The proxy reads the request and never answers; the server sees nothing of it.
    StallRequest,
}

/// Which requests a fault meets.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The method, or any.
    method: Option<&'static str>,
    /// What the path and query must contain.
    target: String,
    /// How the `Range` header begins, or any or none.
    range: Option<String>,
    /// How many fitting requests go through before the first that is met.
    skip: usize,
    /// How many are met.
    times: usize,
    fault: Fault,
}

impl Rule {
    /// Meets the next request.
    #[must_use]
    pub fn new(fault: Fault) -> Self {
        Self { method: None, target: String::new(), range: None, skip: 0, times: 1, fault }
    }

    /// Requests of this method alone.
    #[must_use]
    pub fn method(mut self, method: &'static str) -> Self {
        self.method = Some(method);
        self
    }

    /// Requests alone whose path and query contain this.
    #[must_use]
    pub fn target(mut self, part: &str) -> Self {
        part.clone_into(&mut self.target);
        self
    }

    /// Requests alone whose `Range` header begins so: `bytes=100-`.
    #[must_use]
    pub fn range(mut self, begin: &str) -> Self {
        self.range = Some(begin.to_owned());
        self
    }

    /// Lets so many fitting requests through first.
    #[must_use]
    pub fn after(mut self, skip: usize) -> Self {
        self.skip = skip;
        self
    }

    /// Meets so many.
    #[must_use]
    pub fn times(mut self, times: usize) -> Self {
        self.times = times;
        self
    }

    fn fits(&self, head: &Head) -> bool {
        let of_range = |begin: &String| head.range.as_ref().is_some_and(|range| range.starts_with(begin));
        self.times > 0
            && self.method.is_none_or(|method| method == head.method)
            && head.target.contains(&self.target)
            && self.range.as_ref().is_none_or(of_range)
    }
}

/// A request that went through the proxy or ended in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its method.
    pub method: String,
    /// Its path and query.
    pub target: String,
    /// Its `Range` header.
    pub range: Option<String>,
    /// True where a fault met it.
    pub harmed: bool,
}

#[derive(Debug, Default)]
struct Script {
    rules: Vec<Rule>,
    seen: Vec<Seen>,
}

impl Script {
    /// Notes a request and takes the fault that meets it.
    fn take(&mut self, head: &Head) -> Option<Fault> {
        let rule = self.rules.iter_mut().find(|rule| rule.fits(head));
        let fault = rule.and_then(|rule| {
            if rule.skip > 0 {
                rule.skip -= 1;
                return None;
            }
            rule.times -= 1;
            Some(rule.fault.clone())
        });
        let (method, target, range) = (head.method.clone(), head.target.clone(), head.range.clone());
        self.seen.push(Seen { method, target, range, harmed: fault.is_some() });
        fault
    }
}

/// The proxy. Ends, with all its connections, when it is dropped.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
    /// True while nobody is let in: connections are closed as they come.
    down: watch::Sender<bool>,
    /// How many requests are being served.
    running: watch::Sender<usize>,
    listener: JoinHandle<()>,
}

impl FaultProxy {
    /// Listens on a free port of this machine for the server at `upstream` (`127.0.0.1:9000`).
    pub async fn start(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::<Mutex<Script>>::default();
        let (down, is_down) = watch::channel(false);
        let running = watch::Sender::new(0);
        let (upstream, shared, counter) = (upstream.to_owned(), Arc::clone(&script), running.clone());
        let listener = tokio::spawn(async move {
            // Dropped with this task, and all connections with it.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                if !*is_down.borrow() {
                    connections.spawn(serve(client, upstream.clone(), Arc::clone(&shared), counter.clone()));
                }
            }
        });
        Self { address, script, down, running, listener }
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Adds a rule; the first that fits a request meets it.
    pub fn harm(&self, rule: Rule) {
        self.script.lock().unwrap().rules.push(rule);
    }

    /// Forgets all rules.
    pub fn heal(&self) {
        self.script.lock().unwrap().rules.clear();
    }

    /// Closes all connections as they come, as a server that is down behind a balancer; or serves again.
    pub fn set_down(&self, down: bool) {
        self.down.send_replace(down);
    }

    /// The requests since the last call, in the order in which their heads came.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.script.lock().unwrap().seen)
    }
}

impl FaultProxy {
    /// Waits until a request has come, since the last call of [`seen`](Self::seen), that fits; it stays among them. Gives up after 20 seconds.
    pub async fn until_seen(&self, fits: impl Fn(&Seen) -> bool) {
        let is_there = |_: &usize| self.script.lock().unwrap().seen.iter().any(&fits);
        self.until(is_there, "the request did not come").await;
    }

    /// Waits until all requests that have come are answered or cut off. Gives up after 20 seconds.
    pub async fn until_idle(&self) {
        self.until(|running| *running == 0, "requests are still under way").await;
    }

    async fn until(&self, is_so: impl FnMut(&usize) -> bool, why_not: &str) {
        let mut running = self.running.subscribe();
        let waited = tokio::time::timeout(PATIENCE, running.wait_for(is_so)).await;
        assert!(matches!(waited, Ok(Ok(_))), "{why_not}");
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

/// One request and its answer. Errors end the connection, which is what they mean on either side.
async fn serve(mut client: TcpStream, upstream: String, script: Arc<Mutex<Script>>, running: watch::Sender<usize>) {
    let Ok(Some((head, body))) = read_head(&mut client).await else { return };
    let fault = script.lock().unwrap().take(&head);
    running.send_modify(|n| *n += 1);
    let _ = match fault {
        Some(Fault::Answer { status, retry_after }) => answer(&mut client, &head, body, status, retry_after).await,
        Some(Fault::StallRequest) => std::future::pending().await,
        fault => pass(client, head, body, &upstream, fault).await,
    };
    running.send_modify(|n| *n -= 1);
}

async fn pass(mut client: TcpStream, head: Head, body: Vec<u8>, upstream: &str, fault: Option<Fault>) -> std::io::Result<()> {
    let mut server = TcpStream::connect(upstream).await?;
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let limit = match fault {
        Some(Fault::CutRequest(bytes)) => Some(bytes),
        _ => None,
    };
    let request = async {
        tokio::io::AsyncWriteExt::write_all(&mut to_server, &head.raw).await?;
        let cut = copy(&body, &mut from_client, &mut to_server, limit).await?;
        // The client has nothing more to say, or was cut off: the answer alone is awaited, or nothing.
        if cut { Err(std::io::ErrorKind::ConnectionReset.into()) } else { std::future::pending().await }
    };
    let response = async {
        match fault {
            Some(Fault::LoseAnswer) => {
                let mut first = [0];
                tokio::io::AsyncReadExt::read_exact(&mut from_server, &mut first).await?;
                return Err(std::io::ErrorKind::ConnectionReset.into());
            }
            Some(Fault::CutResponse(bytes) | Fault::StallResponse(bytes)) => {
                let head = http::read_raw_head(&mut from_server).await?;
                tokio::io::AsyncWriteExt::write_all(&mut to_client, &head.0).await?;
                copy(&head.1, &mut from_server, &mut to_client, Some(bytes)).await?;
            }
            _ => drop(tokio::io::copy(&mut from_server, &mut to_client).await?),
        }
        if matches!(fault, Some(Fault::StallResponse(_))) {
            std::future::pending::<()>().await;
        }
        Ok(())
    };
    // Dropping both sockets with unread bytes resets them, as a broken connection does.
    tokio::select! { end = request => end, end = response => end }
}
