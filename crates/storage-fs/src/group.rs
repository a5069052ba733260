//! A group of jobs that become one entry of the journal, and what they see of each other.

use std::collections::HashMap;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use storage_core::{Error, QueueSpec, Result};

use crate::base::Base;
use crate::journal::{MAX_BATCH_BYTES, Op};
pub(crate) use crate::lane::Lanes;
use crate::state::State;

/// Where a file that the group has touched is, seen from behind the group.
#[derive(Clone, Debug)]
enum Place {
    Here(Bytes),
    Gone,
    /// On the disk still under this name.
    Was(String),
}

pub(crate) struct Group<'a> {
    pub(crate) base: &'a Base,
    /// The time of everything in the group: later groups have later times.
    pub(crate) now: DateTime<Utc>,
    /// See [`State::structure`].
    pub(crate) structure: u64,
    pub(crate) lanes: &'a mut Lanes,
    ops: Vec<Op>,
    places: HashMap<String, Place>,
    /// The numbers of the kept versions of records that the group has written, by folder.
    versions: HashMap<String, Vec<u64>>,
    size: usize,
    sync: bool,
    news: bool,
}

impl<'a> Group<'a> {
    pub(crate) fn new(base: &'a Base, state: &State, lanes: &'a mut Lanes) -> Self {
        Self {
            base,
            now: base.clock.now(),
            structure: state.structure,
            lanes,
            ops: Vec::new(),
            places: HashMap::new(),
            versions: HashMap::new(),
            size: 0,
            sync: false,
            news: false,
        }
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// The group's callers are answered when it is on the disk.
    pub(crate) fn must_be_durable(&mut self) {
        self.sync = true;
    }

    pub(crate) fn read(&self, path: &str) -> Result<Option<Bytes>> {
        match self.places.get(path) {
            Some(Place::Here(bytes)) => Ok(Some(bytes.clone())),
            Some(Place::Gone) => Ok(None),
            Some(Place::Was(earlier)) => self.base.read(earlier),
            None => self.base.read(path),
        }
    }

    pub(crate) fn push(&mut self, op: Op) {
        match &op {
            Op::Write { path, bytes } => drop(self.places.insert(path.clone(), Place::Here(bytes.clone()))),
            Op::Remove { path } => drop(self.places.insert(path.clone(), Place::Gone)),
            Op::Rename { from, to } => {
                let was = self.places.insert(from.clone(), Place::Gone);
                self.places.insert(to.clone(), was.unwrap_or_else(|| Place::Was(from.clone())));
            }
        }
        self.lanes.apply(&op);
        self.size += op.size();
        self.ops.push(op);
    }

    /// Reads the lanes of the queue in `folder` into memory.
    pub(crate) fn load_lanes(&mut self, folder: &str, spec: QueueSpec) -> Result<()> {
        self.lanes.load(self.base, folder, spec, &self.ops)
    }

    /// Messages may have become visible: who waits for some is to look.
    pub(crate) fn tell(&mut self) {
        self.news = true;
    }

    /// What is to be done, whether it must survive a power cut, and whether there are messages to look for.
    pub(crate) fn finish(self) -> (Vec<Op>, bool, bool) {
        (self.ops, self.sync, self.news)
    }
}

/// One batch of a group: what it has staged goes with the group, or, dropped, nowhere.
pub(crate) struct Stage<'g, 'a> {
    pub(crate) group: &'g mut Group<'a>,
    ops: Vec<Op>,
    files: HashMap<String, Option<Bytes>>,
    versions: HashMap<String, Vec<u64>>,
}

impl<'g, 'a> Stage<'g, 'a> {
    pub(crate) fn new(group: &'g mut Group<'a>) -> Self {
        Self { group, ops: Vec::new(), files: HashMap::new(), versions: HashMap::new() }
    }

    pub(crate) fn read(&self, path: &str) -> Result<Option<Bytes>> {
        match self.files.get(path) {
            Some(content) => Ok(content.clone()),
            None => self.group.read(path),
        }
    }

    pub(crate) fn write(&mut self, path: String, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        self.files.insert(path.clone(), Some(bytes.clone()));
        self.ops.push(Op::Write { path, bytes });
    }

    pub(crate) fn remove(&mut self, path: String) {
        self.files.insert(path.clone(), None);
        self.ops.push(Op::Remove { path });
    }

    /// The numbers of the versions kept in `folder`, oldest first, to be changed along with the files.
    pub(crate) fn versions(&mut self, folder: &str) -> Result<&mut Vec<u64>> {
        if !self.versions.contains_key(folder) {
            let known = match self.group.versions.get(folder) {
                Some(known) => known.clone(),
                None => crate::records::history::numbers(self.group.base, folder)?,
            };
            self.versions.insert(folder.to_owned(), known);
        }
        Ok(self.versions.entry(folder.to_owned()).or_default())
    }

    /// Adds everything to the group.
    pub(crate) fn accept(self) -> Result<()> {
        if self.ops.iter().map(Op::size).sum::<usize>() > MAX_BATCH_BYTES {
            return Err(Error::invalid(format!("the batch is too large: {} MiB at most", MAX_BATCH_BYTES >> 20)));
        }
        self.group.versions.extend(self.versions);
        for op in self.ops {
            self.group.push(op);
        }
        Ok(())
    }
}
