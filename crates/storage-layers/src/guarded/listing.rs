//! A listing of blobs: idle timeouts, and going on where it broke.

use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use storage_core::{BlobBackend, BlobEntry, Error, ListOptions, Result};
use tokio::time::timeout;

use super::Guarded;
use crate::observe::Op;
use crate::policy::{Call, Limit, Repeat, Tries};

const LIST: Call = Call { op: Op::List, repeat: Repeat::Safe, limit: Limit::Call };

type Entries = BoxStream<'static, Result<BlobEntry>>;

/// A listing that can be gone on with.
struct Listing<B: ?Sized> {
    guarded: Guarded<B>,
    options: ListOptions,
    /// `None`: to be opened, for the first time or again.
    entries: Option<Entries>,
    /// What the last entry sorts by.
    last: Option<String>,
    tries: Tries,
}

impl<B: BlobBackend + ?Sized> Guarded<B> {
    /// Lists, and watches over the listing.
    pub(super) fn watch_list(&self, options: &ListOptions) -> Entries {
        let (guarded, options) = (self.clone(), options.clone());
        let listing = Listing { guarded, options, entries: None, last: None, tries: Tries::of_calls() };
        futures::stream::try_unfold(listing, |mut listing| async move {
            let entry =
                listing.next().await.map_err(|e| e.with_operation(LIST.op.name()).with_backend(listing.guarded.inner.info()))?;
            Ok(entry.map(|entry| (entry, listing)))
        })
        .boxed()
    }
}

impl<B: BlobBackend + ?Sized> Listing<B> {
    async fn next(&mut self) -> Result<Option<BlobEntry>> {
        loop {
            match self.entry().await {
                Ok(Some(entry)) => {
                    if self.guarded.policy.retries() {
                        self.last = Some(entry.sort_key());
                        self.tries.progressed();
                    }
                    return Ok(Some(entry));
                }
                Ok(None) => return Ok(None),
                Err(error) => {
                    self.entries = None;
                    let Guarded { policy, observer, .. } = &self.guarded;
                    self.tries.again(policy, observer, LIST.op, LIST.repeat, error).await?;
                }
            }
        }
    }

    async fn entry(&mut self) -> Result<Option<BlobEntry>> {
        let Some(entries) = &mut self.entries else { return self.open().await };
        let idle = self.guarded.policy.timeouts().map(|timeouts| timeouts.idle);
        match idle {
            None => entries.try_next().await,
            Some(idle) => timeout(idle, entries.try_next())
                .await
                .map_err(|_| Error::timeout(format!("the service listed nothing for {idle:?}")))?,
        }
    }

    /// Opens the listing behind the last entry and answers its first.
    async fn open(&mut self) -> Result<Option<BlobEntry>> {
        let mut options = self.options.clone();
        if let Some(last) = &self.last {
            options.start_after = Some(last.clone());
        }
        let mut entries = self.guarded.inner.list(&options);
        let Guarded { policy, observer, .. } = &self.guarded;
        let first = observer.watch(LIST.op, None, policy.once(LIST, entries.try_next())).await?;
        policy.succeeded();
        self.entries = Some(entries);
        Ok(first)
    }
}
