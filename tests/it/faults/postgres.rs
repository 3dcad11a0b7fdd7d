//! PostgreSQL ends connections, goes away and comes back, and answers are lost on the way: nobody is told
//! anything wrong, and the server recovers by itself.

use super::busy::Busy;
use super::cast::{Cast, assert_unavailable};
use super::invariants;
use super::wire::{Breach, Wire};
use crate::support::Backend;
use crate::support::process::{Site, pause};
use assent::domain::Decision;
use assent::phone::http::HttpClient;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinSet;

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_ended_cost_a_retry_at_most() {
    let site = Site::with(
        Backend::postgres().await,
        vec![("ciba.interval", "1s".into())],
    );
    let (cast, mut server) = Cast::new(&site, 2, 6).await;
    let busy = Busy::start(&cast, 3);
    for _ in 0..8 {
        busy.finish(3).await;
        site.backend
            .execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE datname = current_database() AND pid <> pg_backend_pid()",
            )
            .await;
    }
    busy.finish(3).await;
    let flows = busy.stop().await;
    server.stop().await;
    invariants::check(&site, &flows).await;
    let dropped: u32 = flows.iter().map(|flow| flow.trouble.dropped).sum();
    let refused: u32 = flows.iter().map(|flow| flow.trouble.refused).sum();
    println!("{} requests, {refused} answers of 503", flows.len());
    assert_eq!(dropped, 0, "every request was answered");
    assert!(refused > 0, "nothing was disturbed");
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

/// The reply to a commit is lost, or the commit itself: the server reads back and tells the truth.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_not_reported_is_read_back() {
    let Backend::Postgres(url) = Backend::postgres().await else {
        unreachable!("it is PostgreSQL");
    };
    let (_, address) = url.split_once('@').unwrap();
    let (server, database) = address.split_once('/').unwrap();
    let wire = Wire::to(server.to_owned()).await;
    let through_wire = url.replace(server, &format!("127.0.0.1:{}", wire.port));
    assert!(through_wire.ends_with(database));
    let site = Site::with(
        Backend::Postgres(url),
        vec![
            ("ciba.interval", "1s".into()),
            ("database.url", through_wire),
        ],
    );
    let (cast, mut server) = Cast::new(&site, 1, 1).await;
    let mut flows = Vec::new();
    // PostgreSQL's simple query, which is how sqlx ends a transaction.
    let is_commit = |bytes: &[u8]| bytes.windows(7).any(|bytes| bytes == b"COMMIT\0");
    for breach in [Breach::BeforeItsReply, Breach::BeforeItArrives] {
        let refusals = u32::from(breach == Breach::BeforeItArrives);
        let mut flow = cast.begin(Decision::Approve).await;
        pause(1000).await; // The worker has settled its job, and commits nothing more.
        wire.break_at(breach, is_commit);
        flow.decide().await;
        assert!(wire.has_broken());
        assert_eq!(flow.trouble.refused, refusals, "{breach:?} of a decision");

        wire.break_at(breach, is_commit);
        flow.redeem(0).await;
        assert!(wire.has_broken());
        assert_eq!(flow.tokens.len(), 1, "{breach:?} of an issuance");
        assert_eq!(flow.unanswered, refusals, "{breach:?} of an issuance");
        flows.push(flow);
    }
    for what in ["decision", "issuance"] {
        let said = format!(
            "commit of a{} {what} unknown: reading back",
            if what == "decision" { "" } else { "n" }
        );
        assert_eq!(server.log().matches(&said).count(), 2, "{}", server.log());
    }
    server.stop().await;
    invariants::check(&site, &flows).await;
}

/// A cluster of a test's own.
pub struct Cluster {
    folder: TempDir,
    pub url: String,
}

impl Cluster {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // The cluster's user has to get through.
        let open = std::fs::Permissions::from_mode(0o711);
        std::fs::set_permissions(folder.path(), open).unwrap();
        let mut cluster = Self {
            folder,
            url: String::new(),
        };
        cluster.url = cluster.script("start").trim().to_owned();
        cluster
    }

    pub fn script(&self, verb: &str) -> String {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/postgres");
        let done = Command::new(script)
            .arg(verb)
            .arg(self.folder.path().join("cluster"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "scripts/postgres {verb}: {said}");
        String::from_utf8(done.stdout).unwrap()
    }

    /// Sends a signal to the server and all of its processes.
    fn signal(&self, name: &str) {
        let pid = self.folder.path().join("cluster/data/postmaster.pid");
        let pid = std::fs::read_to_string(pid).unwrap();
        let main = pid.lines().next().unwrap();
        // A child may end by itself in between.
        let script = format!(
            "kill -{name} {main} && for child in $(ps -o pid= --ppid {main}); do \
             kill -{name} $child 2>/dev/null || true; done"
        );
        let sent = Command::new("sh").args(["-c", &script]).status().unwrap();
        assert!(sent.success(), "{script}");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // One that stands still could not be stopped.
        self.signal("CONT");
        self.script("stop");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_database_everybody_is_told_to_come_back() {
    let cluster = Cluster::start();
    let site = Site::new(Backend::Postgres(cluster.url.clone()));
    let (cast, mut server) = Cast::new(&site, 1, 1).await;
    let http = HttpClient::new();
    let status = async |path: &str| {
        let url = format!("{}{path}", site.management_url);
        http.get(&url, &[]).await.unwrap().status
    };
    let mut flow = cast.begin(Decision::Approve).await;
    let held = cast.begin(Decision::Deny).await;
    let shown = flow.look().await;
    let mut polls = JoinSet::new();
    let (bank, id) = (held.bank.clone(), held.auth_req_id.clone());
    polls.spawn(async move { bank.poll(&id, 30).await.unwrap() });
    pause(300).await;

    cluster.script("stop");
    let (bank, phone) = (&flow.bank, &flow.person.phone);
    let mut list = site.launch(site.command(&["user", "list"]));
    let (polled, asked, decided, inbox, ready) = tokio::join!(
        bank.poll(&flow.auth_req_id, 0),
        bank.ask("key", &flow.person.login),
        phone.try_answer(&shown, Decision::Approve, None),
        phone.call("GET", "/device/v1/requests", None),
        status("/readyz"),
    );
    for answer in [
        polled.unwrap(),
        asked.unwrap(),
        decided.unwrap(),
        inbox.unwrap(),
    ] {
        assert_unavailable(&answer);
    }
    for answer in polls.join_all().await {
        assert_unavailable(&answer);
    }
    assert_eq!((ready, status("/livez").await), (503, 200));
    let unwell = site.run(&["healthcheck"]);
    assert_eq!(unwell.code, Some(1));
    assert!(
        unwell.stderr.contains("not ready: the database is"),
        "{unwell:?}"
    );
    let listed = list.ended(Duration::from_secs(30)).await;
    assert_eq!(listed.code(), Some(1));
    let said = list.log();
    assert!(
        said.contains("check database.url and that the server runs"),
        "{said}"
    );

    let url = cluster.script("start");
    assert_eq!(url.trim(), cluster.url, "the cluster came back elsewhere");
    flow.decide().await;
    flow.redeem(0).await;
    assert_eq!((flow.tokens.len(), flow.end.as_str()), (1, "invalid_grant"));
    assert_eq!(status("/readyz").await, 200);
    server.stop().await;
}

/// The machine is there and accepts connections, and nothing on it moves: no error will ever come.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_stands_still_keeps_nobody() {
    let cluster = Cluster::start();
    let site = Site::new(Backend::Postgres(cluster.url.clone()));
    let (cast, mut server) = Cast::new(&site, 1, 1).await;
    let mut flow = cast.begin(Decision::Approve).await;
    let shown = flow.look().await;
    let (bank, phone) = (&flow.bank, &flow.person.phone);

    cluster.signal("STOP");
    // The first finds a connection and waits for its answer; the second has to make one.
    for _ in 0..2 {
        let (polled, asked, decided) = tokio::join!(
            bank.poll(&flow.auth_req_id, 0),
            bank.ask("key", &flow.person.login),
            phone.try_answer(&shown, Decision::Approve, None),
        );
        for answer in [polled, asked, decided.map_err(|error| error.to_string())] {
            assert_unavailable(&answer.unwrap());
        }
    }
    cluster.signal("CONT");
    flow.decide().await;
    flow.redeem(0).await;
    assert_eq!((flow.tokens.len(), flow.end.as_str()), (1, "invalid_grant"));
    server.stop().await;
}
