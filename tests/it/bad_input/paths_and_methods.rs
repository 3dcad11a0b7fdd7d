//! Every path with every method it does not offer, and paths that are nobody's.

use super::check::{case, refuse};
use super::wire::Request;
use super::{proven, with_proof};
use crate::support::{Backend, TestApp, assert_oauth_error, assert_problem, on_both, request_id};

on_both!(ids_in_paths);

#[rustfmt::skip]
const ENDPOINTS: &[(&str, &str)] = &[
    ("/.well-known/openid-configuration", "GET, HEAD"),
    ("/.well-known/oauth-authorization-server", "GET, HEAD"),
    ("/jwks", "GET, HEAD"),
    ("/bc-authorize", "POST"),
    ("/token", "POST"),
    ("/introspect", "POST"),
    ("/revoke", "POST"),
    ("/userinfo", "GET, POST"),
    ("/enrol", "GET, HEAD"),
    ("/device/v1/enrolments", "POST"),
    ("/device/v1/requests", "GET"),
    ("/device/v1/requests/AAAA", "GET"),
    ("/device/v1/requests/AAAA/decision", "POST"),
    ("/device/v1/device", "GET, PATCH, DELETE"),
    ("/device/v1/push-target", "PUT"),
    ("/device/v1/devices", "GET"),
    ("/device/v1/devices/AAAA", "DELETE"),
];

#[rustfmt::skip]
const METHODS: &[&str] = &[
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "get", "Post", "FOO", "G-E-T",
];

/// RFC 9110 15.5.6: refused with the list of what is offered, whoever asks.
#[tokio::test(flavor = "multi_thread")]
async fn methods_that_are_not_offered() {
    let app = TestApp::new(Backend::sqlite()).await;
    let (bank, _, phone) = app.cast().await;
    let before = app.state().await;
    for (path, allowed) in ENDPOINTS {
        for method in METHODS
            .iter()
            .filter(|m| !allowed.split(", ").any(|a| a == **m))
        {
            let with_all = proven(&phone, method, path, b"{}").without("authorization");
            for request in [
                Request::new(method, path),
                with_all.clone().with("authorization", &bank.credentials),
                with_all.with("x-http-method-override", "POST"),
                Request::new(method, &format!("{path}?_method=POST")),
            ] {
                let answer = request.send(app.address()).await;
                let at = format!("{method} {path}: {}", answer.body);
                assert_eq!(
                    (answer.status, answer.header("allow")),
                    (405, Some(*allowed)),
                    "{at}"
                );
                if *method == "HEAD" {
                    assert_eq!(answer.body, "", "{at}");
                } else if path.starts_with("/device/") || *path == "/enrol" {
                    assert_problem(&answer, 405, "method_not_allowed");
                } else {
                    assert_oauth_error(&answer, 405, "invalid_request");
                }
            }
        }
    }
    let address = app.management_url.strip_prefix("http://").unwrap();
    for path in ["/livez", "/readyz", "/metrics"] {
        for method in METHODS.iter().filter(|method| **method != "GET") {
            let answer = Request::new(method, path).send(address).await;
            assert_eq!(
                (answer.status, answer.header("allow")),
                (405, Some("GET")),
                "{method} {path}"
            );
            assert_eq!(answer.body, "");
        }
    }
    super::check::assert_unchanged(&before, &app.state().await);
}

#[rustfmt::skip]
const NOWHERE: &[&str] = &[
    "/", "/index.html", "/token/", "/token//", "//token", "/./token", "/token/.", "/x/../token", "/token/..", "/Token",
    "/TOKEN", "/token%00", "/token%20", "/token%2f", "/%2ftoken", "/%2e%2e/token", "/..%2ftoken", "/token;x=1",
    "/token.json", "/token%3fx", "/token%23", "/%", "/%2", "/%zz", "/%ff", "/%c0%ae%c0%ae/token", "/\\token", "/%5ctoken",
    "/jwks/", "/jwks.json", "/userinfo/", "/.well-known", "/.well-known/", "/.well-known/openid-configuration/",
    "/.well-known/openid-configuration/x", "/.well-known/jwks.json", "/.git/config", "/.env", "/etc/passwd",
    "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/device", "/device/", "/device/v1", "/device/v2/requests",
    "/device/v1/requests/", "/device/v1/requests//decision", "/device/v1/requests/AAAA/", "/device/v1/requests/AAAA/x",
    "/device/v1/requests/AAAA/decision/", "/device/v1/requests/a/b/decision", "/device/v1/devices/", "/device/v1/device/",
    "/device/v1/devices/AAAA/x", "/device/v1/../v1/device", "/admin", "/admin/v1/users", "/metrics", "/livez", "/readyz",
    "/register", "/introspect/", "/revoke/", "/bc-cancel", "/approver/", "/debug/pprof", "/server-status", "/actuator",
];

#[tokio::test(flavor = "multi_thread")]
async fn paths_that_are_nobodys() {
    let app = TestApp::new(Backend::sqlite()).await;
    let (bank, _, phone) = app.cast().await;
    let before = app.state().await;
    let long = format!("/{}", "a".repeat(30_000));
    let deep = "/a".repeat(5000);
    for path in NOWHERE.iter().copied().chain([&*long, &*deep]) {
        for request in [
            Request::new("GET", path),
            bank.form(path, "grant_type=x"),
            proven(&phone, "GET", path, b""),
        ] {
            let bytes = super::wire::exchange(app.address(), &request.to_bytes()).await;
            let answer = super::wire::parse(&bytes).unwrap();
            // What is no URI at all does not reach us: the HTTP layer says 400, without a body.
            if answer.status == 400 {
                assert_eq!(answer.body, "", "{path:.80}");
                continue;
            }
            assert_problem(&answer, 404, "not_found");
            super::check::assert_tells_nothing(&request, &answer);
        }
    }
    super::check::assert_unchanged(&before, &app.state().await);
    // Nobody makes up a label of a metric.
    let metrics = app
        .http
        .get(&format!("{}/metrics", app.management_url), &[])
        .await;
    let metrics = metrics.unwrap().body;
    for odd in ["FOO", "passwd", "aaaa", "%2e", "AAAA", "PROPFIND"] {
        assert!(!metrics.contains(odd), "{odd}");
    }
}

/// Ids that are none, and ids of others, each with a proof for that very path.
async fn ids_in_paths(backend: Backend) {
    let app = TestApp::new(backend).await;
    let (bank, _, phone) = app.cast().await;
    let bob = app.user("bob").await;
    app.phone(&bob).await;
    let hers = request_id(&bank.start("alice").await).to_string();
    let handle = bank.start("alice").await;
    let his = request_id(&bank.start("bob").await).to_string();
    let bent = super::forge::bend(&hers);
    #[rustfmt::skip]
    let ids: Vec<String> = vec![
        "..".into(), ".".into(), "...".into(), "%2e%2e".into(), "%2e".into(), "%2f".into(), "%2F..%2F".into(),
        "..%2f..%2fdevice".into(), "%5c".into(), "%00".into(), "%0a".into(), "%20".into(), "%ff".into(), "%c0%ae".into(),
        "%c3%28".into(), "%".into(), "%2".into(), "%zz".into(), "%252e%252e".into(), "%25".into(), "*".into(), "-".into(),
        "_".into(), "~".into(), ";".into(), ";x=1".into(), "null".into(), "undefined".into(), "0".into(), "-1".into(),
        "1e3".into(), "'".into(), "%27%20OR%201=1--".into(), "%22".into(), "%3Cscript%3E".into(), "$%7Bx%7D".into(),
        "%E2%80%AE".into(), "%F0%9F%92%A3".into(), "AAAA".into(), "A".repeat(42), "A".repeat(43), "A".repeat(44),
        "A".repeat(5000), "%41".repeat(1500), handle, his, bent, hers.to_uppercase(), hers.to_lowercase(),
        format!("{hers}="), format!("{hers}%3D"), format!("{hers}%00"), format!("{hers}%0a"), format!("{hers}%20"),
        format!("%20{hers}"), format!("{hers}%2f"), format!("{hers}%2fdecision"), format!("{hers};x"), format!("{hers}."),
        format!("{hers}%3Fx"), format!("{hers}%23"), format!("{hers}{hers}"), hers[1..].into(), hers[..42].into(),
        phone.id().to_string(), bob.id.to_string(),
    ];
    let mut cases = vec![];
    for id in &ids {
        let target = format!("/device/v1/requests/{id}");
        let get = proven(&phone, "GET", &target, b"");
        cases.push(case(format!("{target:.90}"), get, 404, "request_not_found"));
        let target = format!("{target}/decision");
        let post = proven(
            &phone,
            "POST",
            &target,
            br#"{"challenge":"x","approval":"y"}"#,
        );
        // An id that could be one has a challenge; the one that came with it is none.
        let could_be = id.len() == 43 && assent::domain::RequestId::parse(id).is_some();
        let (status, code) = if could_be {
            (422, "invalid_challenge")
        } else {
            (404, "request_not_found")
        };
        cases.push(case(format!("{target:.90}"), post, status, code));
        if *id != phone.id().to_string() {
            let target = format!("/device/v1/devices/{id}");
            let delete = proven(&phone, "DELETE", &target, b"");
            cases.push(case(
                format!("{target:.90}"),
                delete,
                404,
                "device_not_found",
            ));
        }
    }
    // Without a proof nobody learns whether there is such an id.
    for id in [&hers, &"A".repeat(43), &"..".into()] {
        let target = format!("/device/v1/requests/{id}");
        let bare = Request::new("GET", &target);
        cases.push(case("no proof", bare, 401, "invalid_proof"));
        let other = phone.sign(
            "device-proof+jwt",
            &phone.proof_claims("GET", "/device/v1/requests", b""),
        );
        cases.push(case(
            "another proof",
            with_proof("GET", &target, &other),
            401,
            "invalid_proof",
        ));
    }
    refuse(&app, cases).await;
    // One id has many spellings in a path (RFC 3986 6.2.2.2), but the proof speaks of one of them.
    let spelled = format!("%{:02X}{}", hers.as_bytes()[0], &hers[1..]);
    for (id, proven_id, status) in [
        (&hers, &hers, 200),
        (&spelled, &spelled, 200),
        (&spelled, &hers, 401),
    ] {
        let target = |id: &String| format!("/device/v1/requests/{id}");
        let mut request = proven(&phone, "GET", &target(proven_id), b"");
        request.target = target(id);
        assert_eq!(
            request.send(app.address()).await.status,
            status,
            "{id} {proven_id}"
        );
    }
}
