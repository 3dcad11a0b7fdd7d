//! Redis servers of a test's own, to be killed, held, robbed of data and started again.

use super::process::pause;
use assent::clock::{Clock as _, SystemClock};
use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::net::TcpStream;
use std::ops::Deref;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// How long servers may take to find themselves again.
const PATIENCE: Duration = Duration::from_secs(30);

/// Servers that `scripts/redis` started. Dropped, they end.
pub struct Servers {
    folder: TempDir,
    pub url: String,
    pub servers: Vec<RedisServer>,
}

impl Servers {
    fn start(kind: &str) -> Self {
        let mut started = Self {
            folder: tempfile::tempdir().unwrap(),
            url: String::new(),
            servers: Vec::new(),
        };
        let folder = started.folder.path().join("redis");
        started.url = started.script("start", &[kind]).trim().to_owned();
        let ports = fs::read_to_string(folder.join("ports")).unwrap();
        let server = |port: &str| RedisServer {
            folder: folder.join(port),
            port: port.parse().unwrap(),
        };
        started.servers = ports.split_whitespace().map(server).collect();
        started
    }

    fn script(&self, verb: &str, more: &[&str]) -> String {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/redis");
        let done = Command::new(script)
            .arg(verb)
            .arg(self.folder.path().join("redis"))
            .args(more)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "scripts/redis {verb}: {said}");
        String::from_utf8(done.stdout).unwrap()
    }

    fn on_port(&self, port: u16) -> &RedisServer {
        let found = self.servers.iter().find(|server| server.port == port);
        found.unwrap_or_else(|| panic!("there is no server on port {port}"))
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.script("stop", &[]);
    }
}

/// One process: a server, a replica or a sentinel.
#[derive(Clone)]
pub struct RedisServer {
    folder: PathBuf,
    pub port: u16,
}

impl RedisServer {
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What a command answers; an error fails the test.
    #[track_caller]
    pub fn cli(&self, command: &[&str]) -> String {
        let port = self.port.to_string();
        run(Command::new("redis-cli")
            .args(["-e", "-h", "127.0.0.1", "-p", &port])
            .args(command))
    }

    /// What INFO says about a name; nothing, if the server does not answer.
    pub fn info(&self, name: &str) -> String {
        let port = self.port.to_string();
        let asked = Command::new("redis-cli")
            .args(["-p", &port, "info"])
            .output()
            .unwrap();
        let all = String::from_utf8_lossy(&asked.stdout);
        let mut lines = all.lines().filter_map(|line| line.split_once(':'));
        let found = lines.find(|(found, _)| *found == name);
        found.map_or_else(String::new, |(_, value)| value.trim().to_owned())
    }

    /// Sends a signal by its name, such as `STOP`.
    pub fn signal(&self, name: &str) {
        let pid = fs::read_to_string(self.folder.join("pid")).unwrap();
        let sent = format!("kill -{name} {}", pid.trim());
        run(Command::new("sh").args(["-c", &sent]));
    }

    /// As a power cut: `kill -9`. Afterwards nobody listens any more.
    pub async fn kill(&self) {
        self.signal("KILL");
        eventually("the server dies", || {
            TcpStream::connect(("127.0.0.1", self.port)).is_err()
        })
        .await;
    }

    /// Starts it again on what is left of its data.
    pub async fn restart(&self) {
        // The whole of Redis is this one program; what it is called as says what it does.
        run(Command::new("redis-check-rdb")
            .arg0("redis-server")
            .arg(self.folder.join("conf")));
        eventually("the server starts again", || {
            let ping = Command::new("redis-cli")
                .args(["-p", &self.port.to_string(), "ping"])
                .output();
            ping.is_ok_and(|said| said.stdout.starts_with(b"PONG"))
        })
        .await;
    }

    /// Cuts the last bytes off its append-only file, which a power cut may do. It must be down.
    pub fn cut_aof(&self, bytes: u64) {
        for file in self.aof().filter(|file| named(file, ".incr.aof")) {
            let file = OpenOptions::new().write(true).open(file).unwrap();
            let length = file.metadata().unwrap().len();
            file.set_len(length.saturating_sub(bytes)).unwrap();
        }
    }

    /// Takes all of its data. It must be down.
    pub fn wipe(&self) {
        self.aof().for_each(|file| fs::remove_file(file).unwrap());
    }

    fn aof(&self) -> impl Iterator<Item = PathBuf> {
        let files = fs::read_dir(self.folder.join("appendonlydir")).unwrap();
        files.map(|file| file.unwrap().path())
    }

    /// Becomes a replica of what listens on `port`, and waits until it has everything.
    pub async fn follow(&self, port: u16) {
        self.cli(&["replicaof", "127.0.0.1", &port.to_string()]);
        eventually("the replica follows", || {
            self.info("master_link_status") == "up"
        })
        .await;
    }

    /// A replica becomes a primary, with what it has.
    pub fn promote(&self) {
        self.cli(&["replicaof", "no", "one"]);
    }
}

fn named(file: &Path, end: &str) -> bool {
    file.to_string_lossy().ends_with(end)
}

/// One server.
pub struct Redis(Servers);

impl Redis {
    pub fn start() -> Self {
        Self(Servers::start("single"))
    }

    pub fn server(&self) -> &RedisServer {
        &self.0.servers[0]
    }
}

/// Three primaries, each with a replica.
pub struct RedisCluster(Servers);

impl RedisCluster {
    pub fn start() -> Self {
        Self(Servers::start("cluster"))
    }

    /// Which server is primary for a slot, as `asked` sees it.
    pub fn owner(&self, slot: u16, asked: &RedisServer) -> &RedisServer {
        let nodes = asked.cli(&["cluster", "nodes"]);
        let port = nodes.lines().find_map(|line| owns(line, slot));
        self.on_port(port.expect("nobody owns the slot"))
    }

    /// Any server but this one.
    pub fn other_than(&self, this: &RedisServer) -> &RedisServer {
        let mut others = self.servers.iter().filter(|one| one.port != this.port);
        others.next().expect("six servers")
    }

    /// Waits until another server has taken the place of one that died.
    pub async fn promotion(&self, slot: u16, dead: &RedisServer) -> &RedisServer {
        let asked = self.other_than(dead);
        eventually("a replica is promoted", || {
            self.owner(slot, asked).port != dead.port
        })
        .await;
        self.owner(slot, asked)
    }

    /// Moves one slot from one primary to another, with the keys in it.
    pub fn move_slot(&self, slot: u16, from: &RedisServer, to: &RedisServer) {
        let slot = slot.to_string();
        let id = |server: &RedisServer| server.cli(&["cluster", "myid"]).trim().to_owned();
        let (source, target) = (id(from), id(to));
        to.cli(&["cluster", "setslot", &slot, "importing", &source]);
        from.cli(&["cluster", "setslot", &slot, "migrating", &target]);
        loop {
            let keys = from.cli(&["cluster", "getkeysinslot", &slot, "100"]);
            let keys: Vec<&str> = keys.split_whitespace().collect();
            if keys.is_empty() {
                break;
            }
            let port = to.port.to_string();
            let migrate = ["migrate", "127.0.0.1", &port, "", "0", "5000", "keys"];
            from.cli(&[&migrate[..], &keys].concat());
        }
        for server in [to, from] {
            server.cli(&["cluster", "setslot", &slot, "node", &target]);
        }
    }

    /// The slots of a primary that hold keys with these words in their names.
    pub fn slots_with(&self, words: &str, primary: &RedisServer) -> BTreeSet<u16> {
        let keys = primary.cli(&["keys", &format!("*{words}*")]);
        // Only what stands in braces says which slot it is.
        let tags: BTreeSet<&str> = keys
            .lines()
            .filter_map(|key| Some(key.split_once('{')?.1.split_once('}')?.0))
            .collect();
        let slot = |tag| primary.cli(&["cluster", "keyslot", tag]).trim().parse();
        tags.into_iter().map(|tag| slot(tag).unwrap()).collect()
    }
}

/// The port in a line of CLUSTER NODES, if that server is primary for the slot.
fn owns(line: &str, slot: u16) -> Option<u16> {
    let fields: Vec<&str> = line.split(' ').collect();
    let holds = |range: &&str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        match (first.parse::<u16>(), last.parse()) {
            (Ok(first), Ok(last)) => (first..=last).contains(&slot),
            // A slot on its way, as in `[93-<-292f8b]`.
            _ => false,
        }
    };
    fields.get(8..)?.iter().find(|range| holds(range))?;
    let (address, _) = fields[1].split_once('@')?;
    address.rsplit_once(':')?.1.parse().ok()
}

/// A master, two replicas, and three sentinels of which two must agree.
pub struct RedisSentinel(Servers);

impl RedisSentinel {
    pub fn start() -> Self {
        Self(Servers::start("sentinel"))
    }

    /// Whom the first sentinel names.
    pub fn master(&self) -> &RedisServer {
        let said = self.servers[3].cli(&["sentinel", "get-master-addr-by-name", "assent"]);
        let port = said.lines().nth(1).unwrap().trim().parse();
        self.on_port(port.unwrap())
    }

    /// The two others.
    pub fn replicas_of(&self, master: &RedisServer) -> impl Iterator<Item = &RedisServer> {
        let servers = self.servers[..3].iter();
        servers.filter(|server| server.port != master.port)
    }

    /// Waits until another server has taken the place of one that died.
    pub async fn promotion(&self, dead: &RedisServer) -> &RedisServer {
        eventually("a replica is promoted", || {
            self.master().port != dead.port && self.master().info("role") == "master"
        })
        .await;
        self.master()
    }
}

impl Deref for Redis {
    type Target = Servers;

    fn deref(&self) -> &Servers {
        &self.0
    }
}

impl Deref for RedisCluster {
    type Target = Servers;

    fn deref(&self) -> &Servers {
        &self.0
    }
}

impl Deref for RedisSentinel {
    type Target = Servers;

    fn deref(&self) -> &Servers {
        &self.0
    }
}

/// What a program prints; it must succeed.
#[track_caller]
fn run(command: &mut Command) -> String {
    let done = command.output().unwrap();
    let (said, warned) = (
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr),
    );
    assert!(done.status.success(), "{command:?}: {said}{warned}");
    said.into_owned()
}

/// Waits for what is about to happen.
pub async fn eventually(what: &str, mut happened: impl FnMut() -> bool) {
    let until = SystemClock.now().plus(PATIENCE);
    while !happened() {
        assert!(SystemClock.now() < until, "not within {PATIENCE:?}: {what}");
        pause(20).await;
    }
}
