//! Whom the client never calls. What counts is not the error but that nobody was called.

use super::*;
use OutboundError as Error;
use std::process::Command;

#[tokio::test]
async fn a_name_that_means_an_inner_address_is_never_connected_to() {
    let server = Server::plain(Act::say("HTTP/1.1 204 No Content\r\n\r\n")).await;
    let url = format!("https://rp.example:{}/", server.port());
    for answer in [
        &["127.0.0.1"][..],
        &["::1"],
        &["::ffff:127.0.0.1"],
        &["0.0.0.0"],
        &["::"],
        &["64:ff9b::7f00:1"],
        // One good address does not buy in a bad one, first or last.
        &["1.1.1.1", "127.0.0.1"],
        &["127.0.0.1", "1.1.1.1"],
        &["2606:4700::1111", "1.1.1.1", "::ffff:127.0.0.1"],
        &["1.1.1.1", "169.254.169.254"],
    ] {
        let resolver = Script::new(&[answer]);
        let error = get(&client(production(&server), &resolver), &url)
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Refused(_)), "{answer:?}: {error:?}");
        assert!(!error.is_retryable());
        assert_eq!(resolver.asked(), ["rp.example"]);
    }
    assert_eq!(server.hits().await, 0);
}

#[tokio::test]
async fn an_address_in_any_notation_is_neither_looked_up_nor_connected_to() {
    let server = Server::plain(Act::say("HTTP/1.1 204 No Content\r\n\r\n")).await;
    let resolver = Script::new(&[&["127.0.0.1"]]);
    let client = client(production(&server), &resolver);
    for host in [
        "127.0.0.1",
        "127.0.0.1.",
        "127.1",
        "2130706433",
        "0x7f.1",
        "0x7f000001",
        "017700000001",
        "0177.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "0",
        "%31%32%37.0.0.1",
        "１２７.0.0.1",
        "①②⑦.0.0.1",
        "127。0。0。1",
        "localhost",
        "localhost.",
        "LOCALHOST",
        "a.localhost",
        "vm",
        "user@127.0.0.1",
        "rp.example@127.0.0.1",
    ] {
        for scheme in ["https", "http"] {
            let url = format!("{scheme}://{host}:{}/", server.port());
            let error = get(&client, &url).await.unwrap_err();
            assert!(matches!(error, Error::Refused(_)), "{url}: {error:?}");
        }
    }
    assert_eq!(server.hits().await, 0);
    assert_eq!(resolver.asked(), [""; 0]);
}

#[tokio::test]
async fn development_opens_loopback_and_nothing_else() {
    let server = Server::plain(Act::say("HTTP/1.1 204 No Content\r\n\r\n")).await;
    for address in [
        "10.0.0.1",
        "169.254.169.254",
        "192.168.1.1",
        "fd00::1",
        "0.0.0.0",
        "::ffff:127.0.0.1",
    ] {
        let resolver = Script::new(&[&["127.0.0.1", address]]);
        let url = format!("https://rp.example:{}/", server.port());
        let error = get(&client(development(), &resolver), &url)
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Refused(_)), "{address}: {error:?}");
    }
    // Plain http is for names that can only mean this machine.
    let resolver = Script::new(&[&["127.0.0.1"]]);
    let url = format!("http://rp.example:{}/", server.port());
    let error = get(&client(development(), &resolver), &url)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Refused(_)), "{error:?}");
    assert_eq!(server.hits().await, 0);
}

#[tokio::test]
async fn localhost_is_this_machine_whatever_the_dns_says() {
    let server = Server::plain(Act::say("HTTP/1.1 204 No Content\r\n\r\n")).await;
    let resolver = Script::new(&[&["1.1.1.1"]]);
    for host in ["localhost", "rp.localhost"] {
        let url = format!("http://{host}:{}/", server.port());
        assert_eq!(
            get(&client(development(), &resolver), &url)
                .await
                .unwrap()
                .status,
            204
        );
    }
    assert_eq!(server.hits().await, 2);
    assert_eq!(resolver.asked(), [""; 0]);
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_not_followed() {
    let inner = Server::plain(Act::say(
        "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret",
    ))
    .await;
    for status in [300, 301, 302, 303, 305, 307, 308] {
        for location in [
            format!("http://127.0.0.1:{}/", inner.port()),
            format!("//localhost:{}/", inner.port()),
            "http://169.254.169.254/latest/meta-data/".to_owned(),
        ] {
            let act =
                format!("HTTP/1.1 {status} X\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
            let answer = try_against(Act::Say(act)).await.unwrap();
            assert_eq!((answer.status, answer.body.len()), (status, 0));
        }
    }
    assert_eq!(inner.hits().await, 0);
}

#[tokio::test]
async fn a_header_cannot_smuggle_another() {
    let server = Server::plain(Act::say("HTTP/1.1 204 No Content\r\n\r\n")).await;
    let client = client(development(), &Arc::default());
    for value in ["a\r\nx-admin: 1", "a\nb", "a\0b", "\u{7f}"] {
        let url = format!("http://127.0.0.1:{}/", server.port());
        let request = OutboundRequest::get(url).header("authorization", value);
        let error = client.send(request).await.unwrap_err();
        assert!(matches!(error, Error::Refused(_)), "{value:?}: {error:?}");
        assert!(!format!("{error:?}").contains("x-admin"));
    }
    assert_eq!(server.hits().await, 0);
}

#[tokio::test]
async fn names_without_addresses_do_not_resolve() {
    for resolver in [Script::new(&[]), Script::new(&[&[]])] {
        let error = get(
            &client(OutboundPolicy::default(), &resolver),
            "https://rp.example/",
        )
        .await;
        let error = error.unwrap_err();
        assert!(matches!(error, Error::Resolve(_)), "{error:?}");
        assert!(error.is_retryable());
    }
}

/// A resolver that does not answer.
struct Silent;

#[async_trait]
impl HostResolver for Silent {
    async fn lookup(&self, _: &str) -> io::Result<Vec<IpAddr>> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn what_a_registrant_sees_does_not_tell_ports_apart() {
    let silent =
        Outbound::with_limits(development(), Arc::new(Silent), SHORT, Protocol::Http1).unwrap();
    let server = Server::plain(Act::Hang).await;
    let at = |port: u16| format!("https://rp.example:{port}/");
    let closed = Server::plain(Act::Hang).await.port();
    let open = Server::plain(Act::banner("SSH-2.0-OpenSSH_9.2\r\n")).await;
    let here = client(development(), &Script::new(&[&["127.0.0.1"]]));
    let blocked = client(production(&server), &Script::new(&[&["127.0.0.1"]]));
    let unknown = client(development(), &Script::new(&[]));
    let errors = [
        ("connect", get(&here, &at(closed)).await),
        ("timeout", get(&here, &at(server.port())).await),
        ("tls", get(&here, &at(open.port())).await),
        ("refused", get(&blocked, &at(server.port())).await),
        ("refused", get(&blocked, "https://10.0.0.1/").await),
        ("resolve", get(&unknown, "https://rp.example/").await),
        ("timeout", get(&silent, "https://rp.example/").await),
        ("broken", try_against(Act::close_after("")).await),
        (
            "too_large",
            try_against(Act::close_after(
                "HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n",
            ))
            .await,
        ),
    ];
    for (kind, error) in errors {
        let error = error.unwrap_err();
        assert_eq!(error.to_string(), "the endpoint gave no usable answer");
        assert!(std::error::Error::source(&error).is_none());
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(!error.detail().is_empty());
    }
}

#[tokio::test]
async fn the_system_resolver_answers() {
    let found = crate::outbound::SystemResolver::default()
        .lookup("localhost")
        .await
        .unwrap();
    assert!(
        !found.is_empty() && found.iter().all(IpAddr::is_loopback),
        "{found:?}"
    );
}

/// The environment of a process cannot be changed safely, so another process runs one of these tests,
/// with all the variables set by which clients are sent to a proxy.
#[tokio::test]
async fn no_proxy_of_the_environment_is_used() {
    let proxy = Server::plain(Act::Hang).await;
    let at = format!("http://127.0.0.1:{}", proxy.port());
    let test = "outbound::tests::refusals::localhost_is_this_machine_whatever_the_dns_says";
    let mut other = Command::new(std::env::current_exe().unwrap());
    other
        .args(["--exact", test])
        .env_remove("NO_PROXY")
        .env_remove("no_proxy");
    for name in [
        "HTTP_PROXY",
        "http_proxy",
        "HTTPS_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
    ] {
        other.env(name, &at);
    }
    let run = tokio::task::spawn_blocking(move || other.output().unwrap())
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(run.status.success() && said.contains("1 passed"), "{said}");
    assert_eq!(proxy.hits().await, 0);
}
