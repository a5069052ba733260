//! What makes a backend fit for production, as backends in front of it: a policy (timeout, retry, circuit breaker, limits), metrics and
//! tracing, and transforms of blobs.

pub mod policy;
pub mod transform;
