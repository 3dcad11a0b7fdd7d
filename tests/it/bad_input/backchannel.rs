//! `POST /bc-authorize`: the form and its parameters. Its headers are in `backchannel_headers`.

use super::check::{case, refuse};
use super::wire::Request;
use crate::support::{Backend, RelyingParty, TestApp, on_both, registration};
use assent::domain::client::{HintKind, Registration};
use assent::service::devices::Actor;

pub const PATH: &str = "/bc-authorize";
pub const GOOD: &str = "scope=openid&login_hint=alice";

on_both!(
    forms,
    parameters,
    who_cannot_be_asked_is_nobody,
    binding_messages,
    what_is_odd_but_good,
);

/// A bank that may have any number of open requests, and Alice with her phone.
pub async fn scene(backend: Backend) -> (TestApp, RelyingParty) {
    let settings = vec![("ciba.open_requests_per_user", "1000".into())];
    let app = TestApp::with(backend, settings).await;
    let bank = app
        .client_with(
            "bank",
            Registration {
                open_requests_per_user: 1000,
                hints: HintKind::ALL.iter().copied().collect(),
                ..registration()
            },
        )
        .await;
    let alice = app.user("alice").await;
    app.phone(&alice).await;
    (app, bank)
}

/// All of them `invalid_request`, though the parameters that matter are there where that is possible.
#[rustfmt::skip]
const BAD_FORMS: &[(&str, &str)] = &[
    ("nothing", ""),
    ("only separators", "&&&&"),
    ("only an equals sign", "="),
    ("JSON", r#"{"scope":"openid","login_hint":"alice"}"#),
    ("semicolons", "scope=openid;login_hint=alice"),
    ("doubled, same value", "scope=openid&scope=openid&login_hint=alice"),
    ("doubled, one spelled out", "%73cope=openid&scope=openid&login_hint=alice"),
    ("doubled, one empty", "scope=&scope=openid&login_hint=alice"),
    ("doubled, one bare", "scope&scope=openid&login_hint=alice"),
    ("unknown name doubled", "x=1&x=2&scope=openid&login_hint=alice"),
    ("empty name doubled", "=1&=2&scope=openid&login_hint=alice"),
    ("NUL in an unknown value", "x=%00&scope=openid&login_hint=alice"),
    ("NUL in a name", "x%00=1&scope=openid&login_hint=alice"),
    ("NUL unescaped", "x=\0&scope=openid&login_hint=alice"),
    ("NUL at the end of a name", "scope%00=openid&login_hint=alice"),
    ("overlong NUL", "x=%c0%80&scope=openid&login_hint=alice"),
    ("lone surrogate", "x=%ed%a0%80&scope=openid&login_hint=alice"),
    ("beyond Unicode", "x=%f4%90%80%80&scope=openid&login_hint=alice"),
    ("cut sequence", "x=%c3&scope=openid&login_hint=alice"),
    ("bad UTF-8 in a name", "%ff=1&scope=openid&login_hint=alice"),
    ("escape cut short", "scope=openid&login_hint=alice&x=%"),
    ("escape of one digit", "x=%4&scope=openid&login_hint=alice"),
    ("escape without digits", "x=%zz&scope=openid&login_hint=alice"),
    ("escape with a sign", "x=%+1&scope=openid&login_hint=alice"),
    ("escape of another kind", "x=%u0041&scope=openid&login_hint=alice"),
];

#[rustfmt::skip]
const PARAMETERS: &[&str] = &[
    "scope", "login_hint", "login_hint_token", "id_token_hint", "binding_message", "acr_values",
    "requested_expiry", "user_code", "client_notification_token", "authorization_details", "request",
    "request_uri", "client_id", "client_secret", "client_assertion", "client_assertion_type",
];

/// What is wrong with the form as such; the same at every endpoint that takes one.
async fn forms(backend: Backend) {
    let (app, bank) = scene(backend).await;
    let form = |name: &str, body: Vec<u8>, status| {
        case(name, bank.form(PATH, body), status, "invalid_request")
    };
    let many = (0..101).map(|i| format!("p{i}=1&")).collect::<String>() + GOOD;
    let padded = |size: usize| format!("{GOOD}&x={}", "a".repeat(size - GOOD.len() - 3));
    let mut cases = vec![
        form("101 parameters", many.into(), 400),
        form("Latin-1", b"scope=openid&login_hint=\xe9".to_vec(), 400),
        form("64 KiB and 1", padded(64 * 1024 + 1).into(), 413),
        form("300 KiB", padded(300 * 1024).into(), 413),
    ];
    for (name, body) in BAD_FORMS {
        cases.push(form(name, body.as_bytes().to_vec(), 400));
    }
    for name in PARAMETERS {
        for bad in ["=1&NAME=1", "=1&NAME=", "=a%00b", "=%e9", "=%", "=%2"] {
            let body = format!("{GOOD}&{name}{}", bad.replace("NAME", name));
            cases.push(form(&body.clone(), body.into(), 400));
        }
    }
    refuse(&app, cases).await;
}

#[rustfmt::skip]
const BAD_SCOPES_AND_HINTS: &[(&str, &str)] = &[
    ("login_hint=alice", "invalid_request"),
    ("scope=&login_hint=alice", "invalid_request"),
    ("scope&login_hint=alice", "invalid_request"),
    ("scope=profile&login_hint=alice", "invalid_request"),
    ("scope=OPENID&login_hint=alice", "invalid_request"),
    ("scope=admin&login_hint=alice", "invalid_request"),
    ("scope=openid,profile&login_hint=alice", "invalid_request"),
    ("scope=+&login_hint=alice", "invalid_scope"),
    ("scope=openid+admin&login_hint=alice", "invalid_scope"),
    ("scope=openid+Profile&login_hint=alice", "invalid_scope"),
    ("scope=openid++profile&login_hint=alice", "invalid_scope"),
    ("scope=+openid&login_hint=alice", "invalid_scope"),
    ("scope=openid+&login_hint=alice", "invalid_scope"),
    ("scope=openid%09profile&login_hint=alice", "invalid_scope"),
    ("scope=openid%0aprofile&login_hint=alice", "invalid_scope"),
    ("scope=openid%0d%0a&login_hint=alice", "invalid_scope"),
    ("scope=openid+%22&login_hint=alice", "invalid_scope"),
    ("scope=openid+%5c&login_hint=alice", "invalid_scope"),
    ("scope=openid+%7f&login_hint=alice", "invalid_scope"),
    ("scope=openid+%C3%A9&login_hint=alice", "invalid_scope"),
    ("scope=openid%C2%A0profile&login_hint=alice", "invalid_scope"),
    ("scope=openid", "invalid_request"),
    ("scope=openid&login_hint=", "invalid_request"),
    ("scope=openid&login_hint", "invalid_request"),
    ("scope=openid&Login_Hint=alice", "invalid_request"),
    ("scope=openid&login_hint=alice&login_hint_token=x", "invalid_request"),
    ("scope=openid&login_hint=alice&login_hint_token=+", "invalid_request"),
    ("scope=openid&login_hint=alice&id_token_hint=x", "invalid_request"),
    ("scope=openid&id_token_hint=x&login_hint_token=x", "invalid_request"),
    ("scope=openid&login_hint=alice&id_token_hint=x&login_hint_token=x", "invalid_request"),
    ("scope=openid&login_hint_token=x.y.z", "invalid_request"),
    ("scope=openid&id_token_hint=x.y.z", "invalid_request"),
];

/// Added to a good form.
#[rustfmt::skip]
const BAD_PARAMETERS: &[(&str, &str, &[&str])] = &[
    ("requested_expiry", "invalid_request", &[
        "0", "00", "-1", "-0", "%2B5", "+5", "5+", "5%0a", "5%09", "1.5", "5.0", "1e3", "0x10", "1_000",
        "1,000", "5s", "NaN", "inf", "null", "true", "%225%22", "%D9%A5", "%EF%BC%95", "%E2%91%A4", "1/2",
    ]),
    ("acr_values", "invalid_request", &["+", "a++b", "+a", "a+", "a%09b", "a%0ab", "%C3%A9", "%22a%22", "%5c"]),
    ("authorization_details", "invalid_authorization_details", &[
        "[]", "{}", "x", "null", "%5B%7B%7D%5D", "%5B%7B%22type%22%3A%22payment_initiation%22%7D%5D",
    ]),
    ("request", "invalid_request", &["x", "a.b.c", "eyJhbGciOiJub25lIn0.e30.", "%7B%7D"]),
    ("request_uri", "invalid_request", &[
        "x", "https%3A%2F%2Frp.example%2Frequest", "urn%3Aietf%3Aparams%3Aoauth%3Arequest_uri%3Ax",
        "file%3A%2F%2F%2Fetc%2Fpasswd", "http%3A%2F%2F169.254.169.254%2F",
    ]),
];

async fn parameters(backend: Backend) {
    let (app, bank) = scene(backend).await;
    let long = format!("scope=openid+{}&login_hint=alice", "a".repeat(40_000));
    let mut cases = vec![case(
        "a long scope",
        bank.form(PATH, long),
        400,
        "invalid_scope",
    )];
    for (body, error) in BAD_SCOPES_AND_HINTS {
        cases.push(case(*body, bank.form(PATH, body), 400, error));
    }
    for (name, error, values) in BAD_PARAMETERS {
        for value in *values {
            let body = format!("{GOOD}&{name}={value}");
            cases.push(case(&body, bank.form(PATH, &body), 400, error));
        }
    }
    refuse(&app, cases).await;
}

#[rustfmt::skip]
const NOBODY: &[&str] = &[
    "nobody", "locked", "phoneless", "bereft", "alice+", "+alice", "ali+ce", "alice%0a", "alice%0d%0a",
    "alice%09", "alice%7f", "alice%C2%85", "alice%C2%A0", "alice%E2%80%A8", "alice%E2%80%8B", "al%D0%B8ce",
    "%E2%80%AEalice", "%2A", "%25", "a%25", "_lice", "alice%27--", "%27+OR+%271%27%3D%271", "alice%22",
    "alice%3B+DROP+TABLE+users", "..%2Falice", "%2E%2E%2F%2E%2E%2Fetc%2Fpasswd", "alice,bob", "-1", "null",
    "%7B%22login%22%3A%22alice%22%7D", "alice%40bank.example", "%24%7Bjndi%3Aldap%3A%2F%2Fx%7D", "%3Cb%3E",
];

/// Nobody by that name, or somebody who cannot be asked: one answer, to the byte.
async fn who_cannot_be_asked_is_nobody(backend: Backend) {
    let (app, bank) = scene(backend).await;
    let locked = app.user("locked").await;
    app.phone(&locked).await;
    app.services().lock_user(&locked).await.unwrap();
    app.user("phoneless").await;
    let bereft = app.user("bereft").await;
    let phone = app.phone(&bereft).await;
    let services = app.services();
    let device = services
        .directory
        .device(&phone.id())
        .await
        .unwrap()
        .unwrap();
    let revoked = services.revoke_device(&device, Actor::Operator).await;
    assert!(revoked.unwrap());
    let ask = |hint: &str| bank.form(PATH, format!("scope=openid&login_hint={hint}"));
    let (long, longer) = ("a".repeat(129), "a".repeat(5000));
    let hints = NOBODY.iter().copied().chain([&*long, &*longer]);
    let cases = hints.map(|hint| case(hint, ask(hint), 400, "unknown_user_id"));
    refuse(&app, cases.collect()).await;
    let nobody = ask("nobody").send(app.address()).await;
    for hint in ["locked", "phoneless", "bereft", "%27--"] {
        let answer = ask(hint).send(app.address()).await;
        assert_eq!(answer.body, nobody.body, "{hint}");
    }
}

/// security.md S33: what is invisible, what turns text around, what a phone makes a link of.
#[rustfmt::skip]
const SPOOFS: &[&str] = &[
    " ", "    ", "a\tb", "a\nb", "a\r\nb", "a\u{7f}b", "a\u{1b}[31mb", "a\u{80}b", "a\u{85}b", "a\u{9b}b",
    "\u{202a}a", "\u{202b}a", "\u{202c}a", "\u{202d}a", "\u{202e}05.21 RUE yaP", "\u{2066}a", "\u{2067}a",
    "\u{2068}a\u{2069}", "\u{200e}a", "\u{200f}a", "\u{61c}a", "Pay\u{200b}Pal", "a\u{200c}b", "a\u{200d}b",
    "a\u{2060}b", "a\u{2061}b", "a\u{feff}b", "a\u{ad}b", "a\u{180e}b", "a\u{fff9}b", "a\u{fffc}b",
    "a\u{fffd}b", "a\u{115f}b", "a\u{3164}b", "a\u{ffa0}b", "a\u{2800}b", "a\u{34f}b", "a\u{fe0f}",
    "a\u{fe00}b", "a\u{e0100}b", "a\u{e0041}b", "a\u{a0}b", "a\u{2003}b", "a\u{3000}b", "a\u{2028}b",
    "a\u{2029}b", "a\u{e000}b", "a\u{f0000}b", "a\u{378}b", "a\u{fdd0}b", "a\u{ffff}b", "\u{300}abc",
    "b\u{301}\u{301}\u{301}\u{301}\u{301}", "👨\u{200d}👩", "https://evil.example/pay", "HTTP://X", "hxxp://x",
    "see evil.example", "www.evil", "evil.example/x?y=1", "evil.example:8443", "//evil.example",
    "user@evil.example", "mailto:x", "tel:+4912", "javascript:alert(1)", "data:text/html,x", "intent:x",
    "ｅｖｉｌ．ｅｘａｍｐｌｅ", "evil。example", "evil｡example", "evil․example", "пример.испытание", "bank.xn--p1ai",
    "(evil.example)", "“evil.example”", "»evil.example«", "→evil.example", "*evil.example*", "=evil.example",
    "a|evil.example", "evil.example…", "evil.example’s", "a/evil.example", ".evil.example.",
];

async fn binding_messages(backend: Backend) {
    let (app, bank) = scene(backend).await;
    let long = ["x".repeat(65), "é".repeat(3000)];
    let texts = SPOOFS
        .iter()
        .copied()
        .chain(long.iter().map(String::as_str));
    let cases = texts.map(|text| {
        let value: String = url::form_urlencoded::byte_serialize(text.as_bytes()).collect();
        let request = bank.form(PATH, format!("{GOOD}&binding_message={value}"));
        case(
            format!("{text:.40?}"),
            request,
            400,
            "invalid_binding_message",
        )
    });
    refuse(&app, cases.collect()).await;
}

/// What the standards tell a server to accept, and the life that the request is given.
#[rustfmt::skip]
const ODD_BUT_GOOD: &[(&str, u32)] = &[
    (GOOD, 120),
    ("&&scope=openid&&login_hint=alice&", 120),
    ("%73%63%6f%70%65=%6fpenid&login%5Fhint=%61lice", 120),
    ("scope=profile+openid&login_hint=alice", 120),
    ("scope=openid+openid&login_hint=alice", 120),
    ("scope=openid&login_hint=ALICE", 120),
    ("scope=openid&login_hint=%EF%BD%81lice", 120),
    ("scope=openid&login_hint=alice&login_hint_token=&id_token_hint=", 120),
    ("scope=openid&login_hint=alice&binding_message=&acr_values=&requested_expiry=&request=", 120),
    ("scope=openid&login_hint=alice&foo=bar&user_code=1234&client_notification_token=+", 120),
    ("scope=openid&login_hint=alice&acr_values=urn:x+urn:y", 120),
    ("scope=openid&login_hint=alice&requested_expiry=1", 1),
    ("scope=openid&login_hint=alice&requested_expiry=0005", 5),
    ("scope=openid&login_hint=alice&requested_expiry=600", 600),
    ("scope=openid&login_hint=alice&requested_expiry=601", 600),
    ("scope=openid&login_hint=alice&requested_expiry=99999999999999999999", 600),
];

async fn what_is_odd_but_good(backend: Backend) {
    let (app, bank) = scene(backend).await;
    let hundred = (0..98).map(|i| format!("p{i}=1&")).collect::<String>() + GOOD;
    let full = format!("{GOOD}&x={}", "a".repeat(64 * 1024 - GOOD.len() - 3));
    assert_eq!(full.len(), 64 * 1024);
    let typed = |value: &str| {
        let request = bank.form(PATH, GOOD).without("content-type");
        (request.with("content-type", value), 120)
    };
    let mut good: Vec<(Request, u32)> = vec![
        (bank.form(PATH, hundred), 120),
        (bank.form(PATH, full), 120),
        (bank.form("/bc-authorize?scope=x&request=y", GOOD), 120),
        typed("application/x-www-form-urlencoded; charset=utf-8"),
        typed("Application/X-WWW-Form-Urlencoded;charset=UTF-8"),
    ];
    for (body, expires_in) in ODD_BUT_GOOD {
        good.push((bank.form(PATH, body), *expires_in));
    }
    for (request, expires_in) in good {
        let answer = request.send(app.address()).await;
        assert_eq!(answer.status, 200, "{request:?}: {}", answer.body);
        assert_eq!(answer.json()["expires_in"], expires_in, "{request:?}");
    }
}
