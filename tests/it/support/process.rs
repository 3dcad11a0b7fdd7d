//! The real program, as an operator has it: commands that end, and a server that is stopped, killed and
//! started again on the same data and the same ports.

use super::Backend;
use assent::app::{Core, World};
use assent::clock::{Clock as _, SystemClock};
use assent::config::{Config, Overrides};
use assent::phone::http::HttpClient;
use serde_json::Value;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// The deployment key of every site that does not say otherwise.
pub const DEPLOYMENT_KEY: &str = "dGVzdCBkZXBsb3ltZW50IGtleSwgbm90IGEgc2VjcmU";
/// How long anything may take that is not itself a matter of time.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a server keeps from one life to the next: a database, a key, two ports, its settings.
pub struct Site {
    pub backend: Backend,
    pub url: String,
    pub management_url: String,
    folder: TempDir,
    settings: Overrides,
    launched: AtomicU32,
}

impl Site {
    pub fn new(backend: Backend) -> Self {
        Self::with(backend, vec![])
    }

    /// With settings of its own.
    pub fn with(backend: Backend, more: Overrides) -> Self {
        sqlx::any::install_default_drivers();
        let (public, management) = (free_port(), free_port());
        let url = format!("http://127.0.0.1:{public}");
        let settings = vec![
            ("server.mode", "dev".into()),
            ("server.issuer", url.clone()),
            ("server.public_listen", format!("127.0.0.1:{public}")),
            (
                "server.management_listen",
                format!("127.0.0.1:{management}"),
            ),
            ("server.workers", "2".into()),
            ("database.url", backend.url()),
            ("keys.deployment_key", DEPLOYMENT_KEY.into()),
            // A few people are asked all the time, and each request is to have its job.
            ("prompts.per_five_minutes", "1000".into()),
            ("prompts.per_hour", "1000".into()),
            ("prompts.per_day", "1000".into()),
        ];
        Self {
            backend,
            url,
            management_url: format!("http://127.0.0.1:{management}"),
            folder: tempfile::tempdir().unwrap(),
            settings: [settings, more].concat(),
            launched: AtomicU32::new(0),
        }
    }

    /// Where the program runs, and may leave files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Whether pending requests lie in Redis.
    pub fn has_redis(&self) -> bool {
        self.settings.iter().any(|(key, _)| *key == "redis.url")
    }

    /// The program with this site's settings and nothing else in its environment.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program(self.folder(), arguments);
        for (key, value) in &self.settings {
            command.env(variable(key), value);
        }
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Finished {
        finish(self.command(arguments))
    }

    /// What a command prints with `--json`; it must succeed.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let finished = self.run(&[arguments, &["--json"]].concat());
        assert_eq!(finished.code, Some(0), "{arguments:?}: {finished:?}");
        serde_json::from_str(&finished.stdout)
            .unwrap_or_else(|error| panic!("{arguments:?} is no JSON, {error}: {finished:?}"))
    }

    /// The use cases on this site's database, in this process: as the command line has them.
    pub async fn core(&self) -> Core {
        let config = Config::load(None, &self.settings).unwrap();
        Core::migrate_and_open(&config, World::real())
            .await
            .unwrap()
    }

    /// Starts the server and waits until it is ready.
    pub async fn serve(&self) -> ServerProcess {
        self.serve_with(&[]).await
    }

    /// With more in its environment.
    pub async fn serve_with(&self, environment: &[(&str, &str)]) -> ServerProcess {
        let mut command = self.command(&["serve", "--migrate"]);
        command.envs(environment.iter().copied());
        self.serve_by(command).await
    }

    /// Started in its own way.
    pub async fn serve_by(&self, command: Command) -> ServerProcess {
        let mut server = self.launch(command);
        server.wait_until_ready(&self.management_url).await;
        server
    }

    /// Starts another node of the same issuer and waits until it is ready. Returns where it listens.
    pub async fn serve_another(&self) -> (ServerProcess, String) {
        let (public, management) = (free_port(), free_port());
        let mut command = self.command(&["serve"]);
        for (key, port) in [
            ("server.public_listen", public),
            ("server.management_listen", management),
        ] {
            command.env(variable(key), format!("127.0.0.1:{port}"));
        }
        let mut server = self.launch(command);
        let management_url = format!("http://127.0.0.1:{management}");
        server.wait_until_ready(&management_url).await;
        (server, format!("http://127.0.0.1:{public}"))
    }

    /// Starts a program that keeps running.
    pub fn launch(&self, mut command: Command) -> ServerProcess {
        let number = self.launched.fetch_add(1, Ordering::Relaxed);
        let file = |kind: &str| self.folder().join(format!("{number}.{kind}"));
        let (out, err) = (file("out"), file("err"));
        let child = command
            .stdout(File::create(&out).unwrap())
            .stderr(File::create(&err).unwrap())
            .spawn()
            .unwrap();
        ServerProcess { child, out, err }
    }
}

/// The program in a folder, with an empty environment.
pub fn program(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_assent"));
    command
        .env_clear()
        .current_dir(folder)
        .args(arguments)
        .stdin(Stdio::null());
    command
}

/// The variable that sets a dotted key.
pub fn variable(key: &str) -> String {
    format!("ASSENT_{}", key.to_uppercase().replace('.', "__"))
}

/// A command that has ended.
#[derive(Debug)]
pub struct Finished {
    /// `None`: ended by a signal.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

pub fn finish(mut command: Command) -> Finished {
    let output = command.output().unwrap();
    Finished {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A server that runs. Dropped, it is killed.
pub struct ServerProcess {
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl ServerProcess {
    /// What it wrote to standard output.
    pub fn output(&self) -> String {
        fs::read_to_string(&self.out).unwrap()
    }

    /// What it wrote to standard error: its log.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.err).unwrap()
    }

    /// Waits until it can serve.
    async fn wait_until_ready(&mut self, management_url: &str) {
        let http = HttpClient::new();
        let url = format!("{management_url}/readyz");
        let until = SystemClock.now().plus(PATIENCE);
        while SystemClock.now() < until {
            if let Ok(answer) = http.get(&url, &[]).await
                && answer.status == 200
            {
                return;
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the server did not start, {status}:\n{}", self.log());
            }
            pause(20).await;
        }
        panic!("the server does not become ready:\n{}", self.log());
    }

    /// Sends a signal by its name, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("sh")
            .args(["-c", &format!("kill -{name} {}", self.child.id())])
            .status()
            .unwrap();
        assert!(sent.success(), "kill -{name}");
    }

    /// As a power cut: `kill -9`, in the middle of whatever it does.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for the end, which must come within a time.
    pub async fn ended(&mut self, within: Duration) -> ExitStatus {
        let until = SystemClock.now().plus(within);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                SystemClock.now() < until,
                "still running after {within:?}:\n{}",
                self.log()
            );
            pause(10).await;
        }
    }

    /// Asks it to stop, and demands that it drains: exit code 0 within 25 s.
    pub async fn stop(&mut self) {
        self.signal("TERM");
        let status = self.ended(Duration::from_secs(25)).await;
        assert_eq!(status.code(), Some(0), "{}", self.log());
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // Fails when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lets real time pass.
pub async fn pause(millis: u64) {
    let until = SystemClock.now().plus(Duration::from_millis(millis));
    SystemClock.sleep_until(until).await;
}

/// A port that nobody listens on, below those that outgoing connections take: nothing else gets it
/// while a server is down.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = std::process::id() * 131 + NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 10_000 + (number % 10_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
