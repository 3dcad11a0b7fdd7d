//! What an answer tells about a client that did not prove who it is: nothing (S12, S13).

use crate::support::{Backend, TestApp};
use assent::phone::http::{Answer, HttpClient, basic};

/// Everything but the request's id and the time of day.
fn bytes(answer: &Answer) -> String {
    let headers = answer
        .headers
        .iter()
        .filter(|(name, _)| !["x-request-id", "date"].contains(&name.as_str()));
    let mut headers: Vec<_> = headers
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    headers.sort();
    format!("{} {headers:?} {}", answer.status, answer.body)
}

/// An unknown client, a wrong secret and another client's secret cannot be told apart.
#[tokio::test(flavor = "multi_thread")]
async fn who_fails_to_authenticate_learns_nothing() {
    let app = TestApp::new(Backend::sqlite()).await;
    let (bank, shop) = (app.client("bank").await, app.client("shop").await);
    let (almost, one_longer) = (
        &bank.secret[..bank.secret.len() - 1],
        format!("{}A", bank.secret),
    );
    let wrong = [
        ("nobody", bank.secret.as_str()),
        ("nobody", ""),
        ("bank", ""),
        ("bank", "wrong"),
        ("bank", almost),
        ("bank", &one_longer),
        ("bank", &shop.secret),
        ("shop", &bank.secret),
    ];
    let http = HttpClient::new();
    for path in ["/bc-authorize", "/token"] {
        let url = format!("{}{path}", app.url);
        let (mut by_header, mut by_form) = (Vec::new(), Vec::new());
        for (id, secret) in wrong {
            let credentials = basic(id, secret);
            let header = [("authorization", credentials.as_str())];
            by_header.push(bytes(&http.form(&url, &header, &[]).await.unwrap()));
            let form = [("client_id", id), ("client_secret", secret)];
            by_form.push(bytes(&http.form(&url, &[], &form).await.unwrap()));
        }
        // The right secret in the wrong place is a wrong secret.
        let form = [
            ("client_id", "bank"),
            ("client_secret", bank.secret.as_str()),
        ];
        by_form.push(bytes(&http.form(&url, &[], &form).await.unwrap()));
        for answers in [by_header, by_form] {
            assert!(answers[0].starts_with("401 "), "{answers:#?}");
            assert!(
                answers.iter().all(|answer| *answer == answers[0]),
                "{answers:#?}"
            );
        }
    }
}

/// Secrets have no `==`, which would stop at the first byte that differs.
#[test]
fn secrets_cannot_be_compared_by_chance() {
    let source = include_str!("../../../src/domain/secret.rs");
    assert!(source.contains("pub struct Secret(") && source.contains("pub struct AuthReqId("));
    assert!(!source.contains("PartialEq"));
}
