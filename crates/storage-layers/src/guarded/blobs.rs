//! Blobs behind a policy.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use storage_core::{
    BackendInfo, BlobBackend, BlobBody, BlobCapabilities, BlobEntry, BlobMeta, BlobPath, BlobRead, ETag, Engine, GetOptions,
    ListOptions, PutMode, PutOptions, Result, Secret, SignedAccess,
};

use super::Guarded;
use super::body::Body;
use super::reading::GET;
use crate::observe::{Direction, Op};
use crate::policy::{Activity, Call, Limit, Repeat, until_idle};

const fn read(op: Op) -> Call {
    Call { op, repeat: Repeat::Safe, limit: Limit::Call }
}

const fn change(op: Op) -> Call {
    Call { op, repeat: Repeat::Unsafe, limit: Limit::Call }
}

#[async_trait]
impl<B: BlobBackend + ?Sized> BlobBackend for Guarded<B> {
    fn info(&self) -> &BackendInfo {
        self.inner.info()
    }

    fn capabilities(&self) -> &BlobCapabilities {
        self.inner.capabilities()
    }

    async fn create_container(&self) -> Result<bool> {
        self.call(change(Op::CreateContainer), self.info(), None, |_| self.inner.create_container()).await
    }

    async fn put(&self, path: &BlobPath, body: BlobBody, options: &PutOptions) -> Result<BlobMeta> {
        let mut body = Body::new(body, self.policy.retries());
        let limit = body.unseen().map_or(Limit::Own, Limit::bytes);
        let idle = self.policy.timeouts().map(|timeouts| timeouts.idle).filter(|_| limit == Limit::Own);
        let call = Call { op: Op::Put, repeat: Repeat::of_mode(&options.mode), limit };
        let has_more = body.has_more();
        let put = self.policy.run(call, &self.observer, has_more, |_| {
            let activity = Arc::new(Activity::new());
            let body = body.next(&activity);
            async move { until_idle(idle, &activity, self.inner.put(path, body?, options)).await }
        });
        let put = self.observer.watch(call.op, None, put).await;
        let meta = put.map_err(|e| e.with_operation(call.op.name()).with_backend(self.info()))?;
        self.observer.bytes(Direction::Written, meta.size);
        Ok(meta)
    }

    async fn get(&self, path: &BlobPath, options: &GetOptions) -> Result<BlobRead> {
        let read = self.call(GET, self.info(), None, |_| self.inner.get(path, options)).await?;
        Ok(self.watch_read(read))
    }

    async fn head(&self, path: &BlobPath) -> Result<BlobMeta> {
        self.call(read(Op::Head), self.info(), None, |_| self.inner.head(path)).await
    }

    async fn delete(&self, path: &BlobPath, if_match: Option<&ETag>) -> Result<bool> {
        self.call(change(Op::DeleteBlob), self.info(), None, |_| self.inner.delete(path, if_match)).await
    }

    async fn copy(&self, from: &BlobPath, to: &BlobPath, mode: &PutMode) -> Result<BlobMeta> {
        let call = Call { op: Op::Copy, repeat: Repeat::of_mode(mode), limit: Limit::Long };
        self.call(call, self.info(), None, |_| self.inner.copy(from, to, mode)).await
    }

    fn list(&self, options: &ListOptions) -> BoxStream<'static, Result<BlobEntry>> {
        self.watch_list(options)
    }

    fn uri(&self, path: &BlobPath) -> String {
        self.inner.uri(path)
    }

    async fn signed_url(&self, path: &BlobPath, access: SignedAccess, expires_in: Duration) -> Result<Secret> {
        self.call(read(Op::SignedUrl), self.info(), None, |_| self.inner.signed_url(path, access, expires_in)).await
    }

    fn storage_options(&self, engine: Engine) -> Result<BTreeMap<String, Secret>> {
        self.inner.storage_options(engine)
    }

    fn engine_uri(&self, path: &BlobPath, engine: Engine) -> Result<String> {
        self.inner.engine_uri(path, engine)
    }

    async fn ping(&self) -> Result<()> {
        self.ask(read(Op::BlobsPing), self.info(), |_| self.inner.ping()).await
    }

    async fn close(&self) -> Result<()> {
        self.observer.watch(Op::BlobsClose, None, self.inner.close()).await
    }
}
