//! `client_notification_token` (CIBA Core 7.1, RFC 6750 2.1): its length and its letters.

use super::backchannel::PATH;
use super::check::{case, refuse};
use crate::support::{Backend, RelyingParty, TestApp, on_both, registration};
use assent::domain::client::{Delivery, Registration};

on_both!(what_is_no_bearer_token);

const BASE: &str = "scope=openid&login_hint=alice";
/// 22 letters: the fewest that can hold 128 bits.
const SHORTEST: &str = "0123456789abcdefghijAB";

async fn told(app: &TestApp, id: &str, delivery: Delivery) -> RelyingParty {
    let registration = Registration {
        delivery,
        open_requests_per_user: 1000,
        ..registration()
    };
    app.client_with(id, registration).await
}

fn escaped(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

async fn what_is_no_bearer_token(backend: Backend) {
    let settings = vec![("ciba.open_requests_per_user", "1000".into())];
    let app = TestApp::with(backend, settings).await;
    app.cast().await;
    let endpoint = || "http://127.0.0.1:1/".to_owned();
    let ping = Delivery::Ping {
        endpoint: endpoint(),
    };
    let push = Delivery::Push {
        endpoint: endpoint(),
    };
    for (id, delivery) in [("pinged", ping), ("pushed", push)] {
        let shop = told(&app, id, delivery).await;
        let ask = |value: &str| {
            let body = format!("{BASE}&client_notification_token={value}");
            shop.form(PATH, body)
        };
        let mut cases = vec![
            case("missing", shop.form(PATH, BASE), 400, "invalid_request"),
            case("empty", ask(""), 400, "invalid_request"),
            case(
                "twice",
                ask(&format!("{SHORTEST}&client_notification_token={SHORTEST}")),
                400,
                "invalid_request",
            ),
        ];
        let refused = |text: &str| {
            let name = format!("{id} {text:.40?} of {}", text.len());
            case(name, ask(&escaped(text)), 400, "invalid_request")
        };
        cases.extend(lengths(false).iter().map(|text| refused(text)));
        // Every byte that is no letter of a token, wherever it stands.
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-._~+/".contains(c);
        let strange = "\u{80}\u{e9}\u{ff11}\u{202e}\u{200b}\u{feff}\u{1f511}".chars();
        for c in ('\0'..='\u{7f}').filter(|c| !allowed(*c)).chain(strange) {
            for text in [
                format!("{c}{SHORTEST}{SHORTEST}"),
                format!("{SHORTEST}{c}{SHORTEST}"),
                format!("{SHORTEST}{SHORTEST}{c}"),
            ] {
                if !(c == '=' && text.ends_with('=')) {
                    cases.push(refused(&text));
                }
            }
        }
        let raw = [
            BASE.as_bytes(),
            b"&client_notification_token=0123456789abcdefghijAB\xff",
        ]
        .concat();
        let raw = shop.form(PATH, raw);
        cases.push(case("not UTF-8", raw, 400, "invalid_request"));
        refuse(&app, cases).await;

        let mut good = lengths(true);
        good.push(format!("{SHORTEST}-._~+/"));
        good.push(('!'..='~').filter(|c| allowed(*c)).collect());
        for text in good {
            let answer = ask(&escaped(&text)).send(app.address()).await;
            assert_eq!(answer.status, 200, "{text:.40}: {}", answer.body);
        }
    }
}

/// Tokens on this or that side of the bounds; padding fills, and says nothing.
fn lengths(good: bool) -> Vec<String> {
    let of = |letters: usize, padding: usize| "x".repeat(letters) + &"=".repeat(padding);
    let sizes: &[(usize, usize)] = if good {
        &[(22, 0), (22, 2), (23, 1), (1023, 0), (1024, 0), (1022, 2)]
    } else {
        &[
            (1, 0),
            (21, 0),
            (21, 1),
            (21, 9),
            (1, 21),
            (0, 22),
            (1025, 0),
            (1024, 1),
            (60_000, 0),
        ]
    };
    sizes
        .iter()
        .map(|(letters, padding)| of(*letters, *padding))
        .collect()
}
