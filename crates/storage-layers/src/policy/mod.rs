//! How calls to a backend are guarded: timeout, retry, circuit breaker, limits.
