//! The command as people and scripts use it: the real binary, in a folder of its own, with a clean environment.

mod blobs;
mod check;
mod crash;
mod demo;
mod frame;
mod queues;
mod records;
mod support;
mod tasks;
mod worker;
