//! Client authentication, at all endpoints that demand it (RFC 6749 2.3.1, 3.2.1).

use super::check::{case, refuse};
use super::wire::Request;
use crate::support::{Backend, CIBA_GRANT, RelyingParty, TestApp, on_both};
use assent::phone::http::{Answer, basic};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};

const ASK: &str = "scope=openid&login_hint=alice";
const ASSERTION: &str = "client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer\
     &client_assertion=eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJiYW5rIn0.AAAA";

on_both!(
    credentials_in_the_header,
    credentials_in_the_body,
    several_methods_at_once,
    an_unknown_client_and_a_wrong_secret_look_alike,
    names_are_decoded_once,
);

struct Scene {
    app: TestApp,
    /// Uses the header.
    bank: RelyingParty,
    /// Uses the body.
    shop: RelyingParty,
    /// All endpoints, each with a body that is good but for the client.
    endpoints: [(&'static str, String); 5],
}

async fn scene(backend: Backend) -> Scene {
    let app = TestApp::with(backend, vec![("ciba.cancel_endpoint", "true".into())]).await;
    let (bank, _, _) = app.cast().await;
    let shop = app.posting_client("shop").await;
    let id = bank.start("alice").await;
    let poll = format!("grant_type={CIBA_GRANT}&auth_req_id={id}");
    Scene {
        app,
        bank,
        shop,
        endpoints: [
            ("/bc-authorize", ASK.into()),
            ("/token", poll),
            ("/introspect", "token=x".into()),
            ("/revoke", "token=x".into()),
            ("/bc-cancel", format!("auth_req_id={id}")),
        ],
    }
}

async fn credentials_in_the_header(backend: Backend) {
    let scene = scene(backend).await;
    let (secret, other) = (scene.bank.secret.as_str(), scene.shop.secret.as_str());
    let basic = |text: &str| format!("Basic {}", STANDARD.encode(text)).into_bytes();
    let good = basic(&format!("bank:{secret}"));
    let with =
        |before: &str, after: &str| [before.as_bytes(), &good[6..], after.as_bytes()].concat();
    let cut = [&secret[..20], "%0", &secret[20..]].concat();
    let unpadded = good.trim_ascii_end().strip_suffix(b"==").unwrap();
    let mut bent = good.clone();
    bent[unpadded.len() - 1] += 1;
    #[rustfmt::skip]
    let headers: Vec<(&str, Vec<u8>)> = vec![
        ("empty", vec![]),
        ("scheme only", b"Basic".to_vec()),
        ("scheme and a space", b"Basic ".to_vec()),
        ("no scheme", good[6..].to_vec()),
        ("Bearer", with("Bearer ", "")),
        ("Digest", b"Digest username=\"bank\"".to_vec()),
        ("DeviceProof", with("DeviceProof ", "")),
        ("Basically", with("Basically ", "")),
        ("no space", with("Basic", "")),
        ("a tab", with("Basic\t", "")),
        ("a comma behind", with("Basic ", ",")),
        ("another scheme behind", with("Basic ", ", Bearer x")),
        ("padding behind", with("Basic ", "====")),
        ("not base64", b"Basic !!!!".to_vec()),
        ("not ASCII", b"Basic \xc3\xa9\xc3\xa9".to_vec()),
        ("not UTF-8", b"Basic \xff\xfe".to_vec()),
        ("base64 cut", good[..good.len() - 5].to_vec()),
        ("spare bits", bent),
        ("line break inside", with("Basic ", " AAAA")),
        ("no padding", unpadded.to_vec()),
        ("URL alphabet", format!("Basic {}", URL_SAFE.encode("bank:\u{ff}\u{ff}>>>??")).into_bytes()),
        ("Latin-1", [&b"Basic "[..], STANDARD.encode(b"bank:\xe9").as_bytes()].concat()),
        ("no colon", basic(&format!("bank{secret}"))),
        ("only a colon", basic(":")),
        ("no id", basic(&format!(":{secret}"))),
        ("no secret", basic("bank:")),
        ("a space before", basic(&format!(" bank:{secret}"))),
        ("a space behind", basic(&format!("bank:{secret} "))),
        ("a newline behind", basic(&format!("bank:{secret}\n"))),
        ("NUL behind", basic(&format!("bank:{secret}\0"))),
        ("NUL in the id", basic(&format!("bank\0:{secret}"))),
        ("escaped NUL in the id", basic(&format!("bank%00:{secret}"))),
        ("escaped NUL behind", basic(&format!("bank:{secret}%00"))),
        ("escaped Latin-1", basic(&format!("bank:{secret}%e9"))),
        ("a broken escape", basic(&format!("bank:{cut}"))),
        ("escaped twice", basic(&format!("%2562ank:{secret}"))),
        ("a plus behind", basic(&format!("bank:{secret}+"))),
        ("id in capitals", basic(&format!("BANK:{secret}"))),
        ("id not ASCII", basic(&format!("b\u{e4}nk:{secret}"))),
        ("id too long", basic(&format!("{}:{secret}", "b".repeat(256)))),
        ("id of SQL", basic(&format!("bank' OR '1'='1:{secret}"))),
        ("id of LIKE", basic(&format!("%25:{secret}"))),
        ("id of a path", basic(&format!("../bank:{secret}"))),
        ("secret in capitals", basic(&format!("bank:{}", secret.to_uppercase()))),
        ("secret cut", basic(&format!("bank:{}", &secret[..secret.len() - 1]))),
        ("secret and more", basic(&format!("bank:{secret}a"))),
        ("secret twice", basic(&format!("bank:{secret}:{secret}"))),
        ("secret long", basic(&format!("bank:{}", "s".repeat(8000)))),
        ("another's secret", basic(&format!("bank:{other}"))),
        ("another's id", basic(&format!("shop:{secret}"))),
        ("nobody", basic(&format!("nobody:{secret}"))),
        ("a client of the other method", basic(&format!("shop:{other}"))),
    ];
    for (path, body) in &scene.endpoints {
        let request = |value: &Vec<u8>| Request::form(path, body).with("authorization", value);
        let cases = headers
            .iter()
            .map(|(name, value)| case(*name, request(value), 401, "invalid_client"));
        refuse(&scene.app, cases.collect()).await;
    }
}

async fn credentials_in_the_body(backend: Backend) {
    let scene = scene(backend).await;
    let (secret, other) = (&scene.shop.secret, &scene.bank.secret);
    #[rustfmt::skip]
    let bodies = [
        ("nothing", String::new()),
        ("id alone", "client_id=shop".into()),
        ("secret alone", format!("client_secret={secret}")),
        ("both empty", "client_id=&client_secret=".into()),
        ("secret empty", "client_id=shop&client_secret=".into()),
        ("id empty", format!("client_id=&client_secret={secret}")),
        ("nobody", format!("client_id=nobody&client_secret={secret}")),
        ("id in capitals", format!("client_id=SHOP&client_secret={secret}")),
        ("id with a space", format!("client_id=shop+&client_secret={secret}")),
        ("id with a newline", format!("client_id=shop%0a&client_secret={secret}")),
        ("id not ASCII", format!("client_id=sh%C3%B6p&client_secret={secret}")),
        ("id too long", format!("client_id={}&client_secret={secret}", "s".repeat(256))),
        ("id of SQL", format!("client_id=shop'--&client_secret={secret}")),
        ("secret wrong", "client_id=shop&client_secret=guess".into()),
        ("secret with a space", format!("client_id=shop&client_secret={secret}+")),
        ("secret cut", format!("client_id=shop&client_secret={}", &secret[1..])),
        ("secret long", format!("client_id=shop&client_secret={}", "s".repeat(8000))),
        ("another's secret", format!("client_id=shop&client_secret={other}")),
        ("a client of the other method", format!("client_id=bank&client_secret={other}")),
        ("an assertion", ASSERTION.into()),
        ("an assertion and the id", format!("client_id=shop&{ASSERTION}")),
        ("an assertion without a type", "client_assertion=a.b.c".into()),
        ("a type without assertion", "client_id=shop&client_assertion_type=x".into()),
    ];
    for (path, body) in &scene.endpoints {
        let request = |more: &str| Request::form(path, format!("{body}&{more}"));
        let mut cases: Vec<_> = bodies
            .iter()
            .map(|(name, more)| case(*name, request(more), 401, "invalid_client"))
            .collect();
        // Credentials in a URL end up in logs: they are not looked at (RFC 6749 2.3.1).
        let in_url = format!("{path}?client_id=shop&client_secret={secret}");
        cases.push(case(
            "in the URL",
            Request::form(&in_url, body),
            401,
            "invalid_client",
        ));
        refuse(&scene.app, cases).await;
    }
}

async fn several_methods_at_once(backend: Backend) {
    let scene = scene(backend).await;
    let (secret, good) = (&scene.bank.secret, &scene.bank.credentials);
    let (theirs, post) = (basic("shop", &scene.shop.secret), &scene.shop.secret);
    for (path, body) in &scene.endpoints {
        let with = |more: &str, headers: &[&str]| {
            let request = Request::form(path, format!("{body}&{more}"));
            headers
                .iter()
                .fold(request, |r, value| r.with("authorization", value))
        };
        let secret_too = with(&format!("client_id=bank&client_secret={secret}"), &[good]);
        let secret_alone = with(&format!("client_secret={secret}"), &[good]);
        let posted = with(&format!("client_id=shop&client_secret={post}"), &[&theirs]);
        let asserted = with(
            &format!("client_id=shop&client_secret={post}&{ASSERTION}"),
            &[],
        );
        let invalid = "invalid_request";
        refuse(
            &scene.app,
            vec![
                case("header twice", with("", &[good, good]), 400, invalid),
                case(
                    "two clients' headers",
                    with("", &[good, &theirs]),
                    400,
                    invalid,
                ),
                case(
                    "header and a bad one",
                    with("", &[good, "Bearer x"]),
                    400,
                    invalid,
                ),
                case(
                    "header and an empty one",
                    with("", &[good, ""]),
                    400,
                    invalid,
                ),
                case("header and body", secret_too, 400, invalid),
                case("header and secret", secret_alone, 400, invalid),
                case(
                    "header and body, registered for the body",
                    posted,
                    400,
                    invalid,
                ),
                case(
                    "header and assertion",
                    with(ASSERTION, &[good]),
                    400,
                    invalid,
                ),
                case("body and assertion", asserted, 400, invalid),
                case(
                    "another's id beside",
                    with("client_id=shop", &[good]),
                    401,
                    "invalid_client",
                ),
                case(
                    "an unknown id beside",
                    with("client_id=x", &[good]),
                    401,
                    "invalid_client",
                ),
                case(
                    "assertion type beside",
                    with("client_assertion_type=x", &[good]),
                    401,
                    "invalid_client",
                ),
                case(
                    "id twice beside",
                    with("client_id=bank&client_id=bank", &[good]),
                    400,
                    invalid,
                ),
            ],
        )
        .await;
    }
    // Its own id beside the header is allowed (RFC 6749 3.2.1), and an empty one is as good as none.
    for id in ["client_id=bank", "client_id=&client_secret="] {
        let request = scene.bank.form("/bc-authorize", format!("{ASK}&{id}"));
        assert_eq!(request.send(scene.app.address()).await.status, 200, "{id}");
    }
}

async fn an_unknown_client_and_a_wrong_secret_look_alike(backend: Backend) {
    let scene = scene(backend).await;
    let locked = scene.app.client("locked").await;
    scene
        .app
        .services()
        .lock_client(&locked.client.id)
        .await
        .unwrap();
    for (path, body) in &scene.endpoints {
        let in_header = |id: &str, secret: &str| {
            Request::form(path, body).with("authorization", basic(id, secret))
        };
        let in_body = |id: &str, secret: &str| {
            Request::form(
                path,
                format!("{body}&client_id={id}&client_secret={secret}"),
            )
        };
        for (reference, others) in [
            (
                in_header("nobody", "guess"),
                vec![
                    in_header("bank", "guess"),
                    in_header("locked", "guess"),
                    in_header("shop", "guess"),
                    in_header("shop", &scene.shop.secret),
                    in_header("nobody", &scene.bank.secret),
                ],
            ),
            (
                in_body("nobody", "guess"),
                vec![
                    in_body("shop", "guess"),
                    in_body("bank", "guess"),
                    in_body("bank", &scene.bank.secret),
                    in_body("nobody", &scene.shop.secret),
                ],
            ),
        ] {
            let reference = comparable(reference.send(scene.app.address()).await);
            for other in others {
                let other = comparable(other.send(scene.app.address()).await);
                assert_eq!(other, reference);
            }
        }
    }
}

/// All of an answer but what differs from any answer to the next.
fn comparable(answer: Answer) -> (u16, Vec<(String, String)>, String) {
    assert_eq!(answer.status, 401, "{}", answer.body);
    let mut headers = answer.headers;
    headers.retain(|(name, _)| name != "x-request-id" && name != "date");
    headers.sort();
    (answer.status, headers, answer.body)
}

/// RFC 6749 2.3.1: both halves are form-encoded, so any visible id works.
async fn names_are_decoded_once(backend: Backend) {
    let scene = scene(backend).await;
    let odd = "we:ird+%61/&=?\"id";
    let client = scene.app.client(odd).await;
    let secret = &client.secret;
    let raw = |text: String| format!("Basic {}", STANDARD.encode(text));
    for credentials in [
        basic(odd, secret),
        raw(format!("we%3Aird%2B%2561%2F%26%3D%3F%22id:{secret}")),
        raw(format!("%77e%3aird%2b%2561/&=?\"id:{secret}")),
        basic(odd, secret).replace("Basic", "bAsIc"),
        basic(odd, secret).replace(' ', "  "),
    ] {
        let request = Request::form("/bc-authorize", "").with("authorization", &credentials);
        let answer = request.send(scene.app.address()).await;
        assert_eq!(answer.status, 400, "{credentials}: {}", answer.body);
    }
    let request = Request::form("/bc-authorize", "")
        .with("authorization", raw(format!("we:ird+%61/&=?\"id:{secret}")));
    assert_eq!(request.send(scene.app.address()).await.status, 401);
}
