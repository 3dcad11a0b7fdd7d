//! Bytes that are no HTTP, or two kinds of it at once. Whatever comes, nothing is changed and the next
//! caller is served.

use super::backchannel::{GOOD, PATH};
use super::check::assert_unchanged;
use super::wire::{FORM, exchange, parse};
use crate::support::process::Site;
use crate::support::{Backend, TestApp};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const GET: &str = "GET /jwks HTTP/1.1\r\nHost: x\r\n";

/// Bytes, and the status of the one answer they get.
#[rustfmt::skip]
const NO_HTTP: &[(&str, u16)] = &[
    ("\r\n\r\n\r\n\r\nx\r\n\r\n", 400),
    ("hello world\r\n\r\n", 400),
    ("\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\x03\x03", 400),
    ("SSH-2.0-OpenSSH_9.6\r\n\r\n", 400),
    ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    ("{\"jsonrpc\":\"2.0\"}\r\n\r\n", 400),
    ("GET /jwks\r\n\r\n", 400),
    ("GET /jwks HTTP/0.9\r\n\r\n", 400),
    ("GET /jwks HTTP/1.2\r\nHost: x\r\n\r\n", 400),
    ("GET /jwks HTTP/2\r\nHost: x\r\n\r\n", 400),
    ("GET /jwks http/1.1\r\nHost: x\r\n\r\n", 400),
    ("GET  /jwks HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("GET /jw ks HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("GET\t/jwks\tHTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (" GET /jwks HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("G@T /jwks HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("GET /jwks\0 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("GET /jwks\u{e9} HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("GET /jwks HTTP/1.1\r\n\r\n", 400),
    ("GET /jwks HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
    ("GET /jwks HTTP/1.1\r\nHost: x\r\nX\r\n\r\n", 400),
    ("GET /jwks HTTP/1.1\r\nHost: x\r\n: x\r\n\r\n", 400),
    ("GET /jwks HTTP/1.1\r\nHost: x\r\nX y: z\r\n\r\n", 400),
    ("GET /jwks HTTP/1.1\r\nHost: x\r\nX : z\r\n\r\n", 400),
    ("GET /jwks HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n", 400),
    ("GET /jwks HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n", 400),
    ("GET /jwks HTTP/1.1\r\nHost: x\r\nX: a\r\n folded\r\n\r\n", 400),
    ("GET /jwks HTTP/1.1\r\nHost: x\r\n\u{e9}: a\r\n\r\n", 400),
];

/// The framing of a good request in every way that could be read as two lengths. Behind each stands
/// another request, which must not be seen.
#[rustfmt::skip]
const SMUGGLED: &[&str] = &[
    "Content-Length: 29\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nContent-Length: 29",
    "Content-Length: 0\r\nTransfer-Encoding: chunked",
    "Content-Length: 29\r\nContent-Length: 29",
    "Content-Length: 29\r\nContent-Length: 0",
    "Content-Length: 0\r\nContent-Length: 29",
    "Content-Length: 29, 29",
    "Content-Length: +29",
    "Content-Length: -29",
    "Content-Length: 29.0",
    "Content-Length: 0x1d",
    "Content-Length: 2 9",
    "Content-Length: 99999999999999999999999",
    "Content-Length:",
    "Content-Length: x",
    "Content-Length : 29",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: identity, chunked",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    "Transfer-Encoding: \x0bchunked",
    "Transfer-Encoding: \"chunked\"",
    "Transfer-Encoding: ",
    "Transfer-Encoding : chunked",
    "Transfer-Encoding\r\n : chunked",
    "X: y\rTransfer-Encoding: chunked",
];

/// Bodies in chunks that are none.
#[rustfmt::skip]
const BAD_CHUNKS: &[&str] = &[
    "zz\r\nabc\r\n0\r\n\r\n", "-1d\r\nBODY\r\n0\r\n\r\n", "+1d\r\nBODY\r\n0\r\n\r\n", "0x1d\r\nBODY\r\n0\r\n\r\n",
    " 1d\r\nBODY\r\n0\r\n\r\n", "1d\nBODY\n0\n\n", "1d\r\nBODYx\r\n0\r\n\r\n", "1c\r\nBODY\r\n0\r\n\r\n",
    "ffffffffffffffffff\r\nBODY\r\n0\r\n\r\n", "\r\nBODY\r\n0\r\n\r\n", "1d\rBODY\r\n0\r\n\r\n",
];

struct Scene {
    app: TestApp,
    /// The first lines of a good request, without its length.
    head: String,
    before: Vec<(String, Vec<String>)>,
}

async fn scene() -> Scene {
    let app = TestApp::new(Backend::sqlite()).await;
    let (bank, _, _) = app.cast().await;
    let authorization = &bank.credentials;
    assert_eq!(GOOD.len(), 29);
    Scene {
        head: format!(
            "POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\nAuthorization: {authorization}\r\n"
        ),
        before: app.state().await,
        app,
    }
}

impl Scene {
    /// Sends bytes and counts the answers.
    async fn send(&self, bytes: &[u8]) -> (Option<u16>, usize) {
        let said = exchange(self.app.address(), bytes).await;
        let answers = said
            .windows(9)
            .filter(|w| w.starts_with(b"HTTP/1.1 "))
            .count();
        (parse(&said).map(|answer| answer.status), answers)
    }

    /// Sends bytes, says that there will be no more, and waits until the server has closed.
    async fn hang_up(&self, bytes: &[u8]) {
        let mut stream = TcpStream::connect(self.app.address()).await.unwrap();
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        let mut said = Vec::new();
        let closed = stream.read_to_end(&mut said);
        let closed = tokio::time::timeout(Duration::from_secs(20), closed).await;
        assert!(closed.is_ok(), "the server keeps the connection");
    }

    /// Nothing was changed, and the next caller is served.
    async fn goes_on(&self) {
        let close = format!("{GET}Connection: close\r\n\r\n");
        assert_eq!(self.send(close.as_bytes()).await, (Some(200), 1));
        assert_unchanged(&self.before, &self.app.state().await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_http_is_refused() {
    let scene = scene().await;
    let mut cases: Vec<(Vec<u8>, u16)> = NO_HTTP
        .iter()
        .map(|(text, status)| (text.as_bytes().to_vec(), *status))
        .collect();
    let with = |headers: &str| format!("{GET}{headers}\r\n\r\n").into_bytes();
    let many: String = (0..120).map(|i| format!("X-{i}: 1\r\n")).collect();
    cases.push((with(&many), 431));
    cases.push((with(&format!("X: {}", "a".repeat(200_000))), 431));
    cases.push((with(&format!("{}: 1", "X".repeat(200_000))), 431));
    cases.push((
        format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(70_000)).into(),
        400,
    ));
    cases.push((vec![0; 4096], 400));
    cases.push((vec![0xff; 4096], 400));
    let mut every_byte: Vec<u8> = (0..=255).collect();
    every_byte.extend(b"\r\n\r\n");
    cases.push((every_byte, 400));
    for (bytes, status) in &cases {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        let got = scene.send(bytes).await;
        assert_eq!(got, (Some(*status), 1), "{shown:?}");
    }
    scene.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_hides_in_another() {
    let scene = scene().await;
    let hidden = format!(
        "{}Content-Length: 29\r\nConnection: close\r\n\r\n{GOOD}",
        scene.head
    );
    for framing in SMUGGLED {
        let chunked = format!("1d\r\n{GOOD}\r\n0\r\n\r\n{hidden}");
        for body in [chunked, format!("{GOOD}{hidden}"), hidden.clone()] {
            let bytes = format!("{}{framing}\r\n\r\n{body}", scene.head);
            assert_eq!(
                scene.send(bytes.as_bytes()).await,
                (Some(400), 1),
                "{framing:?}"
            );
        }
    }
    for chunks in BAD_CHUNKS {
        let chunks = chunks.replace("BODY", GOOD);
        let bytes = format!(
            "{}Transfer-Encoding: chunked\r\n\r\n{chunks}{hidden}",
            scene.head
        );
        assert_eq!(
            scene.send(bytes.as_bytes()).await,
            (Some(400), 1),
            "{chunks:?}"
        );
    }
    // A body that is refused unread is no request either: at a wrong path, with a wrong method, of a
    // wrong type, too large.
    let padding = "x".repeat(70_000);
    for (start, status) in [
        (scene.head.replace(PATH, "/nowhere"), 404),
        (scene.head.replace("POST", "PUT"), 405),
        (scene.head.replace(FORM, "text/plain"), 400),
        (scene.head.clone(), 400),
        (
            scene.head.clone() + "X-Pad: " + &padding[..1000] + "\r\n",
            413,
        ),
    ] {
        let body = if status == 413 {
            format!("{hidden}{padding}")
        } else {
            hidden.clone()
        };
        let length = body.len();
        let bytes = format!("{start}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}");
        assert_eq!(
            scene.send(bytes.as_bytes()).await,
            (Some(status), 1),
            "{status}"
        );
    }
    scene.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_request_is_none() {
    let scene = scene().await;
    let whole = format!("{}Content-Length: 29\r\n\r\n{GOOD}", scene.head);
    for at in (0..whole.len()).step_by(9) {
        scene.hang_up(&whole.as_bytes()[..at]).await;
    }
    for framing in [
        "Content-Length: 30\r\n\r\n".to_owned() + GOOD,
        "Content-Length: 1000000000\r\n\r\n".to_owned() + GOOD,
        format!("Transfer-Encoding: chunked\r\n\r\n1d\r\n{GOOD}"),
        format!("Transfer-Encoding: chunked\r\n\r\n1d\r\n{GOOD}\r\n"),
        format!("Transfer-Encoding: chunked\r\n\r\n1d\r\n{GOOD}\r\n0\r\n"),
        "Content-Length: 29\r\nExpect: 100-continue\r\n\r\n".into(),
    ] {
        scene
            .hang_up(format!("{}{framing}", scene.head).as_bytes())
            .await;
    }
    // Many who begin and never go on: they hold nobody up.
    let mut idle = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(scene.app.address()).await.unwrap();
        stream
            .write_all(&whole.as_bytes()[..whole.len() - 1])
            .await
            .unwrap();
        idle.push(stream);
    }
    scene.goes_on().await;
    drop(idle);
    scene.goes_on().await;
}

/// Byte by byte a sender could hold a connection for days. Ours is the server's clock, moved by hand.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_trickles_in_is_cut() {
    let scene = scene().await;
    let begin = async |head: &str| {
        let mut stream = TcpStream::connect(scene.app.address()).await.unwrap();
        let first = format!("{head}Content-Length: 29\r\n\r\n{}", &GOOD[..9]);
        stream.write_all(first.as_bytes()).await.unwrap();
        // The server has taken up the request when it answers the next.
        scene.goes_on().await;
        stream
    };
    let json =
        "POST /device/v1/enrolments HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
    for (head, code) in [
        (scene.head.as_str(), r#""error":"invalid_request""#),
        (json, r#""code":"request_timeout""#),
    ] {
        let mut stream = begin(head).await;
        scene.app.clock.advance(Duration::from_secs(9));
        stream.write_all(&GOOD.as_bytes()[9..20]).await.unwrap();
        scene.goes_on().await;
        scene.app.clock.advance(Duration::from_secs(2));
        let mut said = String::new();
        stream.read_to_string(&mut said).await.unwrap();
        assert!(said.starts_with("HTTP/1.1 408 "), "{said}");
        assert!(said.contains(code), "{said}");
        assert!(said.contains("connection: close"), "{said}");
    }
    scene.goes_on().await;
    // Slow, and in time.
    let head = scene.head.replace(PATH, "/introspect") + "Connection: close\r\n";
    let mut stream = begin(&head).await;
    scene.app.clock.advance(Duration::from_secs(9));
    stream.write_all(&GOOD.as_bytes()[9..]).await.unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    assert!(said.starts_with("HTTP/1.1 400 "), "{said}");
}

/// Whoever sends what is no HTTP is told so; it is no error of the operator's.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_http_does_not_reach_the_log() {
    let site = Site::new(Backend::sqlite());
    let mut server = site.serve().await;
    let address = site.url.trim_start_matches("http://");
    for (bytes, status) in NO_HTTP {
        let said = exchange(address, bytes.as_bytes()).await;
        assert_eq!(parse(&said).map(|answer| answer.status), Some(*status));
    }
    server.stop().await;
    let log = server.log();
    assert!(log.contains("drained") && !log.contains("ERROR"), "{log}");
}

/// Shapes that are rare and right: refusing them would be wrong too.
#[tokio::test(flavor = "multi_thread")]
async fn rare_but_right() {
    let app = TestApp::new(Backend::sqlite()).await;
    for request in [
        "GET /jwks HTTP/1.0\r\n\r\n".to_owned(),
        format!("\r\n{GET}Connection: close\r\n\r\n"),
        "GET http://elsewhere.example/jwks HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".into(),
        "GET /%6awks HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".into(),
        "GET /jwks?x=%00 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".into(),
        format!(
            "{GET}Connection: close\r\nX: {}\r\n\r\n",
            "a".repeat(16 * 1024)
        ),
        format!("{GET}Connection: close, Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n\r\n"),
    ] {
        let said = exchange(app.address(), request.as_bytes()).await;
        let answer = parse(&said).unwrap();
        assert_eq!(answer.status, 200, "{request:.60}");
        assert!(answer.json()["keys"].is_array());
    }
}
