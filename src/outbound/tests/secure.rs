//! Over TLS, with a certificate made here and a name that a resolver maps to this machine.

use super::server::Identity;
use super::*;
use OutboundError as Error;

const NO_CONTENT: &str = "HTTP/1.1 204 No Content\r\n\r\n";

fn trusting(identity: &Identity) -> OutboundPolicy {
    OutboundPolicy {
        extra_roots: vec![identity.certificate.clone()],
        ..development()
    }
}

#[tokio::test]
async fn a_server_under_an_extra_root_is_trusted_and_called_by_its_name() {
    let mut identity = Identity::new(|_| ());
    // Offered h2 as well, the client stays with the one protocol it speaks.
    identity.config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let server = Server::tls(Act::say(NO_CONTENT), identity.config.clone()).await;
    let resolver = Script::new(&[&["127.0.0.1"]]);
    let client = client(trusting(&identity), &resolver);
    let url = format!("https://RP.example:{}/cb", server.port());
    assert_eq!(get(&client, &url).await.unwrap().status, 204);
    assert_eq!(get(&client.clone(), &url).await.unwrap().status, 204);
    let head = &server.heads()[0];
    assert!(head.starts_with("get /cb http/1.1\r\n"), "{head}");
    assert!(
        head.contains(&format!("host: rp.example:{}\r\n", server.port())),
        "{head}"
    );
    assert_eq!(server.hits().await, 1, "clones share connections");
    assert_eq!(resolver.asked(), ["rp.example"]);
}

#[tokio::test]
async fn nobody_else_is_trusted() {
    let ours = Identity::new(|_| ());
    let name = |name: &str| rcgen::SanType::DnsName(name.try_into().unwrap());
    let expired = Identity::new(|params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let not_yet = Identity::new(|params| params.not_before = rcgen::date_time_ymd(2999, 1, 1));
    let other_name = Identity::new(|params| params.subject_alt_names = vec![name("other.example")]);
    let unknown = Identity::new(|_| ());
    for (shown, trusted) in [
        (&unknown, &ours),
        (&expired, &expired),
        (&not_yet, &not_yet),
        (&other_name, &other_name),
    ] {
        let server = Server::tls(Act::say(NO_CONTENT), shown.config.clone()).await;
        let client = client(trusting(trusted), &Script::new(&[&["127.0.0.1"]]));
        let error = get(&client, &format!("https://rp.example:{}/", server.port()))
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Tls(_)), "{error:?}");
        assert!(error.is_retryable());
        assert_eq!(server.heads(), [""; 0], "nothing was said to it");
    }
}

#[tokio::test]
async fn what_is_no_tls_is_not_spoken_to() {
    let text = "HTTP/1.1 204 No Content\r\n\r\n";
    let server = Server::plain(Act::banner(text)).await;
    let client = client(development(), &Script::new(&[&["127.0.0.1"]]));
    let error = get(&client, &format!("https://rp.example:{}/", server.port()))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Tls(_)), "{error:?}");
}

#[tokio::test]
async fn a_handshake_that_does_not_come_ends_by_the_time_to_connect() {
    let server = Server::plain(Act::Hang).await;
    let limits = Limits {
        total: Duration::from_secs(60),
        ..SHORT
    };
    let resolver = Script::new(&[&["127.0.0.1"]]);
    let client = Outbound::with_limits(development(), resolver, limits, Protocol::Http1).unwrap();
    let url = format!("https://rp.example:{}/", server.port());
    let error = tokio::time::timeout(Duration::from_secs(5), get(&client, &url))
        .await
        .unwrap();
    assert!(matches!(error, Err(Error::Timeout(_))), "{error:?}");
}

/// The name means a good address when it is checked and a bad one when it is asked again. If the client
/// asked twice for one connection, it would be refused here, or worse.
#[tokio::test]
async fn a_name_is_looked_up_once_for_a_connection() {
    let identity = Identity::new(|_| ());
    let act =
        Act::close_after("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
    let server = Server::tls(act, identity.config.clone()).await;
    let resolver = Script::new(&[&["127.0.0.1"], &["169.254.169.254"]]);
    let client = client(trusting(&identity), &resolver);
    let url = format!("https://rp.example:{}/", server.port());
    assert_eq!(get(&client, &url).await.unwrap().body, b"ok");
    assert_eq!(resolver.asked().len(), 1);
    // And the next connection is checked anew.
    let error = get(&client, &url).await.unwrap_err();
    assert_eq!(
        error,
        Error::Refused("rp.example has the address 169.254.169.254".into())
    );
    assert_eq!(resolver.asked().len(), 2);
    assert_eq!(server.hits().await, 1);
}

/// Were the check of the URL ever left out, a literal address would pass by the resolver. What it answers
/// is still thrown away.
#[tokio::test]
async fn an_answer_from_a_forbidden_address_is_thrown_away() {
    let identity = Identity::new(|params| {
        params.subject_alt_names = vec![rcgen::SanType::IpAddress([127, 0, 0, 1].into())];
    });
    let server = Server::tls(Act::say(NO_CONTENT), identity.config.clone()).await;
    let url = format!("https://127.0.0.1:{}/", server.port());
    let policy = OutboundPolicy {
        allow_loopback_http: false,
        ..trusting(&identity)
    };
    let client = client(policy, &Arc::default());
    let answer = client
        .exchange(url.parse().unwrap(), OutboundRequest::get(&url))
        .await;
    assert!(matches!(answer, Err(Error::Refused(_))), "{answer:?}");
}

#[test]
fn a_root_that_is_no_certificate_is_found_at_the_start() {
    let policy = OutboundPolicy {
        extra_roots: vec![b"no certificate".to_vec()],
        ..OutboundPolicy::default()
    };
    assert!(Outbound::new(policy).is_err());
    assert!(Outbound::new(OutboundPolicy::default()).is_ok());
}
