//! Records on any blobs: one JSON object a record, its ETag the optimistic lock.
