//! `assent audit verify`: a whole audit, and every way of tampering with one.

use super::operator::migrated;
use super::{fails, succeeds};
use crate::support::{Backend, on_both};
use serde_json::{Value, json};

on_both!(the_audit_is_verified_and_tampering_is_found);

async fn the_audit_is_verified_and_tampering_is_found(backend: Backend) {
    let site = migrated(backend);
    succeeds(&site, &["client", "add", "Example Bank", "--id", "bank"]);
    succeeds(&site, &["client", "lock", "bank"]);
    site.serve().await.stop().await;
    let statements = site
        .backend
        .column("SELECT statement FROM checkpoints ORDER BY seq");
    let checkpoint = site.folder().join("checkpoint");
    std::fs::write(&checkpoint, format!("{}\n", statements.await[0])).unwrap();
    succeeds(&site, &["user", "add", "alice"]);

    let whole = succeeds(&site, &["audit", "verify"]);
    assert!(whole.ends_with("\n\nThe audit is whole.\n"), "{whole}");
    let report = site.json(&["audit", "verify", "--checkpoint", "checkpoint"]);
    assert_eq!(
        (&report["chains"], &report["checkpoints"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(
        (&report["not_anchored"], &report["findings"]),
        (&json!(1), &json!([]))
    );
    let lock = "WHERE partition = 256 AND seq = 3";
    for (change, restore, finding) in [
        (
            format!("UPDATE audit SET kind = 'client.added' {lock}"),
            format!("UPDATE audit SET kind = 'client.locked' {lock}"),
            "chain 256: row 3 was changed",
        ),
        (
            format!("UPDATE audit SET at = at + 1 {lock}"),
            format!("UPDATE audit SET at = at - 1 {lock}"),
            "chain 256: row 3 was changed",
        ),
        (
            format!("UPDATE audit_payloads SET payload = payload || ' ' {lock}"),
            format!("UPDATE audit_payloads SET payload = trim(payload) {lock}"),
            "the payload of row 3 was changed",
        ),
        (
            "UPDATE audit_heads SET seq = seq + 1 WHERE partition = 256".into(),
            "UPDATE audit_heads SET seq = seq - 1 WHERE partition = 256".into(),
            "the head does not match its last row",
        ),
        (
            "UPDATE checkpoints SET statement = statement || 'A'".into(),
            "UPDATE checkpoints SET statement = substr(statement, 1, length(statement) - 1)".into(),
            "checkpoint 1:",
        ),
    ] {
        assert!(site.backend.execute(&change).await > 0);
        let done = site.run(&["audit", "verify"]);
        assert_eq!(done.code, Some(1), "{change}: {done:?}");
        assert!(done.stdout.contains(finding), "{change}: {done:?}");
        assert!(
            done.stderr.contains("keep the database as it is"),
            "{done:?}"
        );
        assert!(!done.stdout.contains("is whole"), "{done:?}");
        site.backend.execute(&restore).await;
        assert_eq!(site.run(&["audit", "verify"]).code, Some(0), "{restore}");
    }
    // The newest rows cut off, and the head set back: only a checkpoint can tell.
    for sql in [
        format!("DELETE FROM audit_payloads {lock}"),
        format!("DELETE FROM audit {lock}"),
        "UPDATE audit_heads SET seq = 2, hash = (SELECT hash FROM audit WHERE partition = 256 \
         AND seq = 2) WHERE partition = 256"
            .into(),
    ] {
        assert_eq!(site.backend.execute(&sql).await, 1, "{sql}");
    }
    let done = site.run(&["audit", "verify", "--json"]);
    assert_eq!(done.code, Some(1));
    let report: Value = serde_json::from_str(&done.stdout).unwrap();
    let missing = "chain 256: 1 rows are missing at the end; a checkpoint has seen 3";
    assert_eq!(report["findings"], json!([missing]));
    // And if the checkpoints went too, only one that was kept elsewhere.
    site.backend.execute("DELETE FROM checkpoints").await;
    assert_eq!(site.run(&["audit", "verify"]).code, Some(0));
    let with = ["audit", "verify", "--checkpoint", "checkpoint"];
    let done = site.run(&with);
    assert_eq!(done.code, Some(1));
    assert!(
        done.stdout.contains("the audit was cut or replaced"),
        "{done:?}"
    );
    std::fs::write(&checkpoint, "nonsense").unwrap();
    let done = site.run(&with);
    assert!(
        done.stdout.contains("was not signed by this audit's key"),
        "{done:?}"
    );
    fails(
        &site,
        &["audit", "verify", "--checkpoint", "absent"],
        "cannot read absent",
    );
}
