//! The scripts that do the work inside the server, each in one step.

use std::sync::LazyLock;

/// A script, and the name by which a server that has run it once knows it.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) text: String,
    pub(crate) sha: String,
}

impl Script {
    fn new(text: String) -> Self {
        let sha = redis::Script::new(&text).get_hash().to_owned();
        Self { text, sha }
    }
}

/// A script on the messages of a queue.
macro_rules! on_messages {
    ($($name:ident = $file:literal;)*) => {
        $(pub(crate) static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new([include_str!("lua/queue.lua"), "\n", include_str!($file)].concat()));)*
    };
}

/// A script that stands alone.
macro_rules! alone {
    ($($name:ident = $file:literal;)*) => {
        $(pub(crate) static $name: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!($file).to_owned()));)*
    };
}

on_messages! {
    SEND = "lua/send.lua";
    RECEIVE = "lua/receive.lua";
    DELETE = "lua/delete.lua";
    UPDATE = "lua/update.lua";
    DEAD_LETTER = "lua/dead_letter.lua";
    REDRIVE = "lua/redrive.lua";
    PEEK = "lua/peek.lua";
    STATS = "lua/stats.lua";
    PURGE = "lua/purge.lua";
}

alone! {
    CREATE = "lua/create.lua";
    REMOVE = "lua/remove.lua";
    RELIST = "lua/relist.lua";
    UNLIST = "lua/unlist.lua";
}

/// A script on the records of tables.
macro_rules! on_records {
    ($($name:ident = $($part:expr),+;)*) => {
        $(pub(crate) static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new([include_str!("lua/records/head.lua"), "\n", $($part),+].concat()));)*
    };
}

on_records! {
    COMMIT = "local send\n", include_str!("lua/records/commit.lua");
    // The same with messages: what sends them is the queue's own script, as a function of its keys and arguments.
    COMMIT_AND_SEND = "local function send(KEYS, ARGV)\n", include_str!("lua/queue.lua"), "\n", include_str!("lua/send.lua"),
        "\nend\n", include_str!("lua/records/commit.lua");
    GET = include_str!("lua/records/get.lua");
    SCAN = include_str!("lua/records/scan.lua");
    COUNT = include_str!("lua/records/count.lua");
    SWEEP = include_str!("lua/records/sweep.lua");
    CHANGE_TABLE = include_str!("lua/records/change.lua");
    BEGIN_REWRITE = include_str!("lua/records/begin.lua");
    COPY = include_str!("lua/records/copy.lua");
}

alone! {
    TIDY = "lua/records/tidy.lua";
    HISTORY = "lua/records/history.lua";
    CREATE_TABLE = "lua/records/create.lua";
    DROP_TABLE = "lua/records/drop.lua";
    FINISH_REWRITE = "lua/records/finish.lua";
    ABANDON_REWRITE = "lua/records/abandon.lua";
    PURGE_TABLE = "lua/records/purge.lua";
}
