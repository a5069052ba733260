//! The operations, named as errors name them.

/// Makes the enumeration and its names.
macro_rules! ops {
    ($($op:ident = $name:literal,)*) => {
        /// An operation of a backend.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Op { $($op,)* }

        impl Op {
            /// How many there are.
            #[cfg(feature = "metrics")]
            pub(crate) const COUNT: usize = [$(Self::$op,)*].len();

            /// `records.commit`.
            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$op => $name,)* }
            }
        }
    };
}

ops! {
    CreateTable = "records.create_table",
    AlterTable = "records.alter_table",
    DropTable = "records.drop_table",
    Tables = "records.tables",
    RecordsGet = "records.get",
    Scan = "records.scan",
    Count = "records.count",
    Sweep = "records.sweep",
    Commit = "records.commit",
    History = "records.history",
    Backup = "records.backup",
    RecordsPing = "records.ping",
    RecordsClose = "records.close",
    CreateQueue = "queues.create",
    DeleteQueue = "queues.delete_queue",
    Queues = "queues.list",
    QueueSpec = "queues.spec",
    Send = "queues.send",
    Receive = "queues.receive",
    DeleteMessages = "queues.delete",
    UpdateMessage = "queues.update",
    DeadLetter = "queues.dead_letter",
    Redrive = "queues.redrive",
    Peek = "queues.peek",
    Stats = "queues.stats",
    Purge = "queues.purge",
    QueuesPing = "queues.ping",
    QueuesClose = "queues.close",
    CreateContainer = "blobs.create_container",
    Put = "blobs.put",
    BlobGet = "blobs.get",
    Head = "blobs.head",
    DeleteBlob = "blobs.delete",
    Copy = "blobs.copy",
    List = "blobs.list",
    SignedUrl = "blobs.signed_url",
    BlobsPing = "blobs.ping",
    BlobsClose = "blobs.close",
}
