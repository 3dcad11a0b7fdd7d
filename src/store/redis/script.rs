//! The Lua scripts: each one atomic step on one partition.

use redis::Cmd;
use std::sync::LazyLock;

/// A script and the hash that a server knows it by.
pub struct Script {
    source: &'static str,
    hash: LazyLock<String>,
}

macro_rules! scripts {
    ($($constant:ident = $name:literal),+ $(,)?) => {
        $(pub static $constant: Script = Script {
            source: include_str!(concat!("scripts/", $name, ".lua")),
            hash: LazyLock::new(|| {
                let source = include_str!(concat!("scripts/", $name, ".lua"));
                redis::Script::new(source).get_hash().to_owned()
            }),
        };)+
    };
}

scripts! {
    CREATE = "create",
    POLL = "poll",
    PROJECT = "project",
    NOTE = "note",
    RESERVE = "reserve",
    RELEASE = "release",
    FIRST_USE = "first_use",
    CLAIM = "claim",
    SETTLE = "settle",
    REPLAY = "replay",
}

/// A script with its keys and arguments. All keys lie in one partition.
pub struct Call {
    script: &'static Script,
    keys: Vec<String>,
    arguments: Vec<Vec<u8>>,
}

impl Script {
    pub fn keys<const N: usize>(&'static self, keys: [String; N]) -> Call {
        Call {
            script: self,
            keys: keys.into(),
            arguments: Vec::new(),
        }
    }
}

impl Call {
    pub fn arg(mut self, argument: impl redis::ToRedisArgs) -> Self {
        self.arguments.extend(argument.to_redis_args());
        self
    }

    /// By hash: short, and enough for a server that has seen the script.
    pub fn by_hash(&self) -> Cmd {
        self.command("EVALSHA", &self.script.hash)
    }

    /// In full, for a server that has not, or has forgotten.
    pub fn in_full(&self) -> Cmd {
        self.command("EVAL", self.script.source)
    }

    fn command(&self, verb: &str, script: &str) -> Cmd {
        let mut command = redis::cmd(verb);
        command.arg(script).arg(self.keys.len()).arg(&self.keys);
        for argument in &self.arguments {
            command.arg(argument.as_slice());
        }
        command
    }
}
