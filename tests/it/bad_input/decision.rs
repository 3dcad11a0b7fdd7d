//! `POST /device/v1/requests/{id}/decision`: the challenge that comes back, and the approval.

use super::check::{Case, case, refuse};
use super::forge::{Pen, altered, forgeries, nameless, under_other_kids};
use super::proven;
use super::shapes::{NOT_JSON, bad_json};
use super::wire::Request;
use crate::support::{Backend, TestApp, assert_problem, es256, on_both, show};
use assent::crypto::sha256_base64url;
use assent::domain::{Decision, RequestId};
use assent::phone::{Phone, ShownRequest};
use serde_json::{Value, json};

const CHALLENGE: &str = "ciba-challenge+jwt";
const APPROVAL: &str = "ciba-approval+jwt";

on_both!(
    challenges,
    forged_approvals,
    approvals,
    bodies,
    what_is_over_is_over,
);

struct Scene {
    app: TestApp,
    /// Alice's two phones, and Bob's.
    phone: Phone,
    second: Phone,
    bobs: Phone,
    /// What her first phone shows: one request, and another that the same bank sent.
    shown: ShownRequest,
    other: ShownRequest,
    /// The first request on her second phone, and a request to Bob on his.
    on_second: ShownRequest,
    on_bobs: ShownRequest,
}

async fn scene(backend: Backend) -> Scene {
    let app = TestApp::new(backend).await;
    let (bank, alice, phone) = app.cast().await;
    let second = app.phone(&alice).await;
    let bob = app.user("bob").await;
    let bobs = app.phone(&bob).await;
    let (first, other) = (bank.start("alice").await, bank.start("alice").await);
    let to_bob = bank.start("bob").await;
    Scene {
        shown: show(&phone, &first).await,
        other: show(&phone, &other).await,
        on_second: show(&second, &first).await,
        on_bobs: show(&bobs, &to_bob).await,
        app,
        phone,
        second,
        bobs,
    }
}

fn path(id: RequestId) -> String {
    format!("/device/v1/requests/{id}/decision")
}

impl Scene {
    /// What her phone sends for its first request: proven well, whatever it holds.
    fn post(&self, challenge: &str, approval: &str) -> Request {
        let body = json!({ "challenge": challenge, "approval": approval }).to_string();
        proven(
            &self.phone,
            "POST",
            &path(self.shown.challenge.jti),
            body.as_bytes(),
        )
    }

    /// The claims of her approval, without those that may be left out.
    fn claims(&self, challenge: &str) -> Value {
        json!({
            "iss": self.phone.id(),
            "aud": self.app.url,
            "iat": self.app.now().secs(),
            "jti": "an identifier",
            "challenge_hash": sha256_base64url(challenge.as_bytes()),
            "decision": "approve",
        })
    }

    /// A challenge with a good approval of it.
    fn challenge(&self, name: impl Into<String>, challenge: &str) -> Case {
        let approval = self.phone.sign(APPROVAL, &self.claims(challenge));
        case(
            name,
            self.post(challenge, &approval),
            422,
            "invalid_challenge",
        )
    }

    /// The right challenge with this approval.
    fn approval(&self, name: impl Into<String>, approval: &str) -> Case {
        case(
            name,
            self.post(&self.shown.signed, approval),
            422,
            "invalid_approval",
        )
    }

    /// After all that was refused, a good answer is taken.
    async fn ends_well(&self) {
        let answer = self
            .phone
            .try_answer(&self.shown, Decision::Approve, None)
            .await;
        assert_eq!(answer.unwrap().status, 200);
    }
}

async fn challenges(backend: Backend) {
    let scene = scene(backend).await;
    let keys = &scene.app.services().keys;
    let right = &scene.shown.signed;
    let claims = json!(scene.shown.challenge);
    let (input, signature) = right.rsplit_once('.').unwrap();
    let (header, payload) = input.split_once('.').unwrap();
    #[rustfmt::skip]
    let mut cases = vec![
        scene.challenge("for her second phone", &scene.on_second.signed),
        scene.challenge("for Bob's phone", &scene.on_bobs.signed),
        scene.challenge("of another request", &scene.other.signed),
        scene.challenge("nothing", ""),
        scene.challenge("no JWS", "x"),
        scene.challenge("without signature", &format!("{input}.")),
        scene.challenge("with padding", &format!("{right}=")),
        scene.challenge("with a newline", &format!("{right}\n")),
        scene.challenge("twice", &format!("{right}{right}")),
        scene.challenge("with a NUL", &format!("{right}\0")),
        scene.challenge("longer than 16 KiB", &format!("{header}.{}.{signature}", "A".repeat(17_000))),
        scene.challenge("self-made", &Pen::of(&scene.phone).sign(CHALLENGE, &claims)),
        scene.challenge("by a stranger", &Pen::p256().sign(CHALLENGE, &claims)),
        scene.challenge("by the token key", &es256(keys, CHALLENGE, &claims)),
        scene.challenge("by the audit key", &keys.sign_checkpoint(CHALLENGE, &claims)),
        scene.challenge("as a JWT", &keys.sign_challenge("JWT", &claims)),
        scene.challenge("as an approval", &keys.sign_challenge(APPROVAL, &claims)),
        scene.challenge("of no claims", &keys.sign_challenge(CHALLENGE, &json!({}))),
        scene.challenge("of null", &keys.sign_challenge(CHALLENGE, &Value::Null)),
    ];
    // One bit, anywhere in it; and other words under the same signature.
    for at in (0..right.len()).step_by(7) {
        let mut bytes = right.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let bent = String::from_utf8(bytes).unwrap();
        cases.push(scene.challenge(format!("byte {at} changed"), &bent));
    }
    let mut richer = claims.clone();
    richer["binding_message"] = "Pay 1,000,000".into();
    let richer = assent::crypto::base64url(richer.to_string().as_bytes());
    assert_ne!(richer, payload);
    cases.push(scene.challenge("other words", &format!("{header}.{richer}.{signature}")));
    // Our own signature, under something we would not have signed for this phone and request.
    let other = scene.other.challenge.jti;
    #[rustfmt::skip]
    let wrong = [
        ("iss", json!("https://evil.example")),
        ("iss", json!(format!("{}/", scene.app.url))),
        ("aud", json!(scene.second.id())),
        ("aud", json!([scene.phone.id()])),
        ("aud", json!("")),
        ("jti", json!(other)),
        ("req", json!(other)),
        ("jti", json!("../../x")),
        ("sub_ref", json!(scene.on_bobs.challenge.sub_ref)),
        ("sub_ref", json!("")),
        ("exp", json!("soon")),
        ("scope", json!("openid  admin")),
        ("binding_message", json!("\u{202e}yaP")),
        ("matching", json!("maybe")),
        ("display", json!([])),
    ];
    for (name, value) in wrong {
        let (shown, changed) = altered(&claims, name, value);
        cases.push(scene.challenge(shown, &keys.sign_challenge(CHALLENGE, &changed)));
    }
    refuse(&scene.app, cases).await;
    scene.ends_well().await;
}

async fn forged_approvals(backend: Backend) {
    let scene = scene(backend).await;
    let pen = Pen::of(&scene.phone);
    let claims = scene.claims(&scene.shown.signed);
    let ids = [scene.second.id().to_string(), scene.bobs.id().to_string()];
    let others: Vec<&str> = ids.iter().map(String::as_str).collect();
    let mut forged = forgeries(&pen, APPROVAL, &claims);
    forged.extend(under_other_kids(&pen, APPROVAL, &claims, &others));
    let mut whole = claims.clone();
    whole["uv"] = false.into();
    whole["amr"] = json!([]);
    let order = [
        "iss",
        "aud",
        "iat",
        "jti",
        "challenge_hash",
        "decision",
        "reason",
        "code",
        "uv",
        "amr",
    ];
    forged.push(nameless(&pen, APPROVAL, &whole, &order));
    forged.push((
        "by her second phone".into(),
        scene.second.sign(APPROVAL, &claims),
    ));
    forged.push(("by Bob's phone".into(), scene.bobs.sign(APPROVAL, &claims)));
    for phone in [&scene.second, &scene.bobs] {
        let mut as_her = Pen::of(phone);
        as_her.kid = pen.kid.clone();
        forged.push((
            "by another phone as hers".into(),
            as_her.sign(APPROVAL, &claims),
        ));
    }
    // The words of another decision under the signature of this one.
    let signed = pen.sign(APPROVAL, &claims);
    let parts: Vec<&str> = signed.split('.').collect();
    let mut flipped = claims.clone();
    flipped["decision"] = "deny".into();
    let flipped = assent::crypto::base64url(flipped.to_string().as_bytes());
    forged.push((
        "flipped".into(),
        format!("{}.{flipped}.{}", parts[0], parts[2]),
    ));
    let cases = forged.iter().map(|(name, jwt)| scene.approval(name, jwt));
    refuse(&scene.app, cases.collect()).await;
    scene.ends_well().await;
}

async fn approvals(backend: Backend) {
    let scene = scene(backend).await;
    let right = scene.claims(&scene.shown.signed);
    let (url, now) = (&scene.app.url, scene.app.now().secs());
    let hash = right["challenge_hash"].as_str().unwrap();
    let hash_of = |text: &str| json!(sha256_base64url(text.as_bytes()));
    #[rustfmt::skip]
    let wrong: Vec<(&str, Value)> = vec![
        ("iss", json!(scene.second.id())),
        ("iss", json!(scene.bobs.id())),
        ("iss", json!(url)),
        ("iss", json!("")),
        ("aud", json!(format!("{url}/"))),
        ("aud", json!([url])),
        ("aud", json!("bank")),
        ("aud", json!("")),
        ("iat", json!(now - 301)),
        ("iat", json!(now + 301)),
        ("iat", json!(0)),
        ("iat", json!(-1)),
        ("iat", json!(i64::MIN)),
        ("iat", json!(i64::MAX)),
        ("iat", json!(u64::MAX)),
        ("iat", json!(now as f64)),
        ("iat", json!(now.to_string())),
        ("jti", json!("")),
        ("jti", json!("j".repeat(129))),
        ("challenge_hash", hash_of(&scene.other.signed)),
        ("challenge_hash", hash_of(&scene.on_second.signed)),
        ("challenge_hash", hash_of(&scene.on_bobs.signed)),
        ("challenge_hash", hash_of("")),
        ("challenge_hash", json!(format!("{hash}="))),
        ("challenge_hash", json!(hash.to_lowercase())),
        ("challenge_hash", json!("")),
        ("decision", json!("Approve")),
        ("decision", json!("approve ")),
        ("decision", json!("approved")),
        ("decision", json!("yes")),
        ("decision", json!("")),
        ("decision", json!(true)),
        ("decision", json!({ "approve": null })),
        ("decision", json!(["approve"])),
        ("reason", json!("fraud")),
        ("reason", json!("mistake")),
        ("reason", json!("")),
        ("reason", json!(7)),
        ("code", json!("123456")),
        ("code", json!("")),
        ("code", json!(123_456)),
        ("uv", json!("true")),
        ("uv", json!(1)),
        ("uv", json!(null)),
        ("amr", json!("swk")),
        ("amr", json!([1])),
        ("amr", json!(null)),
        ("acr", json!("urn:x")),
        ("exp", json!(now + 60)),
        ("sub", json!("alice")),
    ];
    let mut cases: Vec<_> = wrong
        .into_iter()
        .map(|(name, value)| {
            let (shown, claims) = altered(&right, name, value);
            scene.approval(shown, &scene.phone.sign(APPROVAL, &claims))
        })
        .collect();
    for reason in ["", "Fraud", "other"] {
        let mut claims = right.clone();
        claims["decision"] = "deny".into();
        claims["reason"] = reason.into();
        cases.push(scene.approval(
            format!("denied for {reason}"),
            &scene.phone.sign(APPROVAL, &claims),
        ));
    }
    // Each approval is good, for the other challenge.
    let other = scene
        .phone
        .sign(APPROVAL, &scene.claims(&scene.other.signed));
    cases.push(scene.approval("of the other request", &other));
    refuse(&scene.app, cases).await;
    scene.ends_well().await;
}

async fn bodies(backend: Backend) {
    let scene = scene(backend).await;
    let signed = &scene.shown.signed;
    let approval = scene.phone.sign(APPROVAL, &scene.claims(signed));
    let good = json!({ "challenge": signed, "approval": approval });
    let target = path(scene.shown.challenge.jti);
    let prove = |body: &[u8]| {
        let request = proven(&scene.phone, "POST", &target, body);
        request
            .without("content-type")
            .with("content-type", "application/json")
    };
    let mut cases: Vec<_> = bad_json(&good, &["challenge", "approval"])
        .into_iter()
        .map(|(name, body)| case(name, prove(&body), 400, "invalid_json"))
        .collect();
    let good = good.to_string();
    for types in NOT_JSON {
        let bare = prove(good.as_bytes()).without("content-type");
        let request = types
            .iter()
            .fold(bare, |r, value| r.with("content-type", value));
        cases.push(case(
            format!("type {types:?}"),
            request,
            415,
            "unsupported_media_type",
        ));
    }
    let padded = |size: usize| [good.as_bytes(), &b" ".repeat(size - good.len())].concat();
    let too_large = prove(&padded(256 * 1024 + 1));
    cases.push(case("256 KiB and 1", too_large, 413, "payload_too_large"));
    refuse(&scene.app, cases).await;
    let largest = prove(&padded(256 * 1024)).send(scene.app.address()).await;
    assert_eq!(largest.status, 200, "{}", largest.body);
}

async fn what_is_over_is_over(backend: Backend) {
    let scene = scene(backend).await;
    let (app, second) = (&scene.app, &scene.second);
    scene.ends_well().await;
    // Another phone, another decision, another person.
    let on_second = second
        .try_answer(&scene.on_second, Decision::Approve, None)
        .await
        .unwrap();
    assert_problem(&on_second, 409, "already_decided");
    let changed = scene
        .phone
        .try_answer(&scene.shown, Decision::Deny, None)
        .await
        .unwrap();
    assert_problem(&changed, 409, "already_decided");
    let stranger = scene
        .bobs
        .try_answer(&scene.shown, Decision::Approve, None)
        .await
        .unwrap();
    assert_problem(&stranger, 422, "invalid_challenge");
    let before = app.state().await;
    app.advance(120);
    let late = scene
        .phone
        .try_answer(&scene.other, Decision::Approve, None)
        .await
        .unwrap();
    assert_problem(&late, 410, "request_expired");
    let target = format!("/device/v1/requests/{}", scene.other.challenge.jti);
    let late = proven(&scene.phone, "GET", &target, b"")
        .send(app.address())
        .await;
    assert_problem(&late, 410, "request_expired");
    super::check::assert_unchanged(&before, &app.state().await);
}
