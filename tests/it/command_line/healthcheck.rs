//! `assent healthcheck` beside a server that is not there, is well, and does not answer. What it says of
//! one without its database: `faults/postgres.rs`.

use super::{fails, succeeds};
use crate::support::Backend;
use crate::support::process::Site;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn it_tells_whether_the_server_can_serve() {
    let site = Site::new(Backend::sqlite());
    fails(&site, &["healthcheck"], "start `assent serve`");
    let mut server = site.serve().await;
    assert_eq!(succeeds(&site, &["healthcheck"]), "ready\n");
    assert_eq!(site.json(&["healthcheck"]), json!({ "ready": true }));
    server.signal("STOP");
    fails(&site, &["healthcheck"], "does not answer");
    server.signal("CONT");
    server.stop().await;
    fails(&site, &["healthcheck"], "cannot be reached");
}
