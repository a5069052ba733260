//! Backends of blobs in front of another: compression, encryption, mirror, prefix, read-only, cache.
