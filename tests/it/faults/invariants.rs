//! What must hold whatever happened (reference: I1, I2, I3, I4, I6, I9, I10), checked on what relying
//! parties and phones were told, and on what the database holds afterwards.

use super::cast::Flow;
use crate::support::process::Site;
use assent::crypto::sha256_base64url;
use assent::domain::approval::{APPROVAL_TYP, Approval};
use assent::domain::outcome::{DecidedRequest, Issuance};
use assent::domain::{Decision, Outcome};
use assent::phone::statement::KeySet;
use assent::store::sql::ledger::UsedApproval;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Every request that was begun must be among the flows, and every flow must be over.
pub async fn check(site: &Site, flows: &[Flow]) {
    let (forgotten, decided): (Vec<&Flow>, Vec<&Flow>) =
        flows.iter().partition(|flow| flow.is_forgotten());
    let core = site.core().await;
    for flow in &decided {
        let stored = core.services.ledger.lookup(flow.id()).await.unwrap();
        let (outcome, used) = stored.expect("an acknowledged decision is lost");
        check_flow(flow, &outcome, used);
    }
    for flow in forgotten {
        assert!(
            !flow.acknowledged,
            "I3: an acknowledged decision is forgotten"
        );
        assert!(flow.tokens.is_empty(), "I6");
        let stored = core.services.ledger.lookup(flow.id()).await.unwrap();
        assert!(stored.is_none(), "I6: over, and decided all the same");
    }
    core.db.close().await;

    let approved = decided_as(&decided, Decision::Approve);
    let pending = match site.has_redis() {
        true => 0,
        false => flows.len(),
    };
    assert_eq!(site.backend.count("pending_requests").await, pending, "I10");
    assert_eq!(site.backend.count("outcomes").await, decided.len());
    assert_eq!(site.backend.count("issuances").await, approved, "I2");
    check_audit(site, &decided).await;
}

fn check_flow(flow: &Flow, decided: &DecidedRequest, used: Option<UsedApproval>) {
    assert!(flow.acknowledged && !flow.end.is_empty(), "not over");
    let jtis: BTreeSet<String> = flow
        .access_claims()
        .iter()
        .map(|claims| text(claims, "jti"))
        .collect();
    assert!(jtis.len() <= 1, "I2: several sets of tokens, {jtis:?}");
    if flow.decision == Decision::Deny {
        assert_eq!(decided.outcome, Outcome::Denied, "I4");
        assert!(
            jtis.is_empty() && used.is_none(),
            "I4: tokens after a denial"
        );
        assert_eq!(flow.end, "access_denied", "I6");
        return;
    }
    assert_eq!(decided.outcome, Outcome::Approved, "I3");
    assert_eq!(flow.end, "invalid_grant", "I6");
    let used = used.expect("I3: the request is over, and nobody redeemed it");
    assert_eq!(used.kind, Issuance::Issued, "I3");
    assert!(
        jtis.len() == 1 || flow.unanswered > 0,
        "I3: the relying party was always answered, and never got its tokens"
    );
    if let Some(jti) = jtis.first() {
        assert_eq!(used.token_id.as_ref(), Some(jti), "I2");
    }
    check_evidence(flow, decided);
}

/// I1: behind the tokens stands an approval that this very phone signed for this very request.
fn check_evidence(flow: &Flow, decided: &DecidedRequest) {
    let phone = json!({ "keys": [&flow.person.key] });
    let signed = decided.evidence.approval.as_deref().expect("I1: evidence");
    let approval: Approval = KeySet::new(&phone)
        .verify(APPROVAL_TYP, signed)
        .expect("I1: the approval does not verify with the phone's key");
    let challenge = decided.evidence.challenge.as_deref().expect("I1: evidence");
    assert_eq!(approval.decision, Decision::Approve, "I1");
    assert_eq!(
        approval.challenge_hash,
        sha256_base64url(challenge.as_bytes()),
        "I1"
    );
    let shown = super::cast::claims(challenge);
    assert_eq!(text(&shown, "req"), flow.id().to_string(), "I1");
    assert_eq!(text(&shown["client"], "id"), flow.bank.id, "I1");
    for claims in flow.access_claims() {
        assert_eq!(text(&claims, "sub"), flow.person.sub, "I1");
        assert_eq!(text(&claims, "client_id"), flow.bank.id, "I1");
    }
}

/// I9: the audit is whole, and tells of each decision and each issuance exactly once.
async fn check_audit(site: &Site, flows: &[&Flow]) {
    let report = site.json(&["audit", "verify"]);
    assert_eq!(report["findings"], Value::Array(vec![]), "I9");
    let decisions = entries(site, "request.decided").await;
    let issuances = entries(site, "tokens.issued").await;
    assert_eq!(decisions.len(), flows.len(), "I9");
    assert_eq!(issuances.len(), decided_as(flows, Decision::Approve), "I9");
    for flow in flows {
        let outcome = match flow.decision {
            Decision::Approve => "approved",
            Decision::Deny => "denied",
        };
        let entry = &decisions[&flow.id().to_string()];
        assert_eq!(text(entry, "outcome"), outcome, "I9");
        for claims in flow.access_claims() {
            let entry = &issuances[&flow.id().to_string()];
            assert_eq!(text(entry, "token"), text(&claims, "jti"), "I9");
        }
    }
}

/// The audit's payloads of one kind by request; two of one request fail.
async fn entries(site: &Site, kind: &str) -> BTreeMap<String, Value> {
    let payloads = site
        .backend
        .column(&format!(
            "SELECT p.payload FROM audit a JOIN audit_payloads p \
             ON p.partition = a.partition AND p.seq = a.seq WHERE a.kind = '{kind}'"
        ))
        .await;
    let mut entries = BTreeMap::new();
    for payload in payloads {
        let payload: Value = serde_json::from_str(&payload).unwrap();
        let request = text(&payload, "request");
        assert!(
            entries.insert(request, payload).is_none(),
            "I9: {kind} twice"
        );
    }
    entries
}

fn decided_as(flows: &[&Flow], decision: Decision) -> usize {
    flows
        .iter()
        .filter(|flow| flow.decision == decision)
        .count()
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_default().to_owned()
}
