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
