//! Assertions that say what they saw.

use std::fmt::Debug;

use storage_core::{Error, ErrorKind, Result};

/// The error of a call that must fail in this way.
#[track_caller]
pub(crate) fn refused<T: Debug>(kind: ErrorKind, result: Result<T>) -> Error {
    refused_as(&[kind], result)
}

/// The error of a call that must fail in one of these ways.
#[track_caller]
pub(crate) fn refused_as<T: Debug>(kinds: &[ErrorKind], result: Result<T>) -> Error {
    match result {
        Err(error) if kinds.contains(&error.kind()) => error,
        Err(error) => panic!("expected {kinds:?}, got: {error:?}"),
        Ok(answer) => panic!("expected {kinds:?}, but it went well: {answer:?}"),
    }
}

/// What a closed handle may do: answer, or say that it is `Unavailable`.
#[track_caller]
pub(crate) fn done_or_unavailable<T: Debug>(result: Result<T>) {
    if result.is_err() {
        refused(ErrorKind::Unavailable, result);
    }
}

/// How a broken place may fail.
#[track_caller]
pub(crate) fn refused_as_broken<T: Debug>(result: Result<T>) {
    const BROKEN: &[ErrorKind] = &[
        ErrorKind::Unavailable,
        ErrorKind::NotFound,
        ErrorKind::Unauthorized,
        ErrorKind::Timeout,
        ErrorKind::Config,
        ErrorKind::Corrupt,
    ];
    refused_as(BROKEN, result);
}

/// The error of a batch that must fail in this way, at this write.
#[track_caller]
pub(crate) fn refused_at<T: Debug>(write: usize, kind: ErrorKind, result: Result<T>) -> Error {
    let error = refused(kind, result);
    assert_eq!(error.failed_write(), Some(write), "the failed write of: {error}");
    error
}
