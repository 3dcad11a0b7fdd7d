//! `POST /device/v1/enrolments`: the code, and what a phone says of itself. Its key is in `enrolment_key`.

use super::check::{Case, assert_unchanged, case, refuse};
use super::forge::Pen;
use super::shapes::{BAD_PLATFORMS, BAD_TEXTS, NOT_JSON, bad_json, bad_push_targets};
use super::wire::Request;
use crate::support::{Backend, TestApp, assert_problem, on_both};
use assent::crypto::sha256_base64url;
use assent::domain::User;
use assent::domain::enrolment::EnrolmentCode;
use assent::phone::EnrolmentLink;
use serde_json::{Value, json};

pub const PATH: &str = "/device/v1/enrolments";
pub const TYP: &str = "enrolment-proof+jwt";

on_both!(
    codes,
    six_guesses,
    descriptions,
    bodies,
    what_is_odd_but_good,
);

pub struct Scene {
    pub app: TestApp,
    pub alice: User,
    /// Open, in its two spellings.
    pub code: String,
    pub typed: String,
    /// A phone that nobody knows yet.
    pub pen: Pen,
}

pub async fn scene(backend: Backend) -> Scene {
    let app = TestApp::new(backend).await;
    let alice = app.user("alice").await;
    let (code, typed) = new_code(&app, &alice).await;
    Scene {
        app,
        alice,
        code,
        typed,
        pen: Pen::p256(),
    }
}

pub async fn new_code(app: &TestApp, user: &User) -> (String, String) {
    let ticket = app.services().create_enrolment(user).await.unwrap();
    let link = EnrolmentLink::parse(ticket.link.expose()).unwrap();
    (link.code, ticket.typed_code.expose().to_owned())
}

/// The claims of a good proof that `pen` holds its key, for this code.
pub fn proof_claims(app: &TestApp, pen: &Pen, code: &str) -> Value {
    let canonical = EnrolmentCode::parse(code).map_or(code.to_owned(), |code| code.canonical());
    json!({
        "aud": app.url,
        "iat": app.now().secs(),
        "jti": "an identifier",
        "code_hash": sha256_base64url(canonical.as_bytes()),
        "jkt": pen.kid,
    })
}

/// A good enrolment of a phone with this code.
pub fn enrolment(app: &TestApp, pen: &Pen, code: &str) -> Value {
    json!({
        "code": code,
        "jwk": pen.jwk(),
        "platform": "none",
        "push_target": null,
        "label": "a phone",
        "app_version": "1.0",
        "os_version": "17",
        "proof": pen.sign(TYP, &proof_claims(app, pen, code)),
    })
}

pub fn post(body: impl AsRef<[u8]>) -> Request {
    let request = Request::new("POST", PATH).body(body);
    request.with("content-type", "application/json")
}

impl Scene {
    pub fn good(&self) -> Value {
        enrolment(&self.app, &self.pen, &self.code)
    }

    /// A good enrolment with one member changed.
    pub fn with(&self, name: &str, value: Value) -> Request {
        let mut body = self.good();
        body[name] = value;
        post(body.to_string())
    }

    pub fn proof(&self, name: impl Into<String>, jwt: &str) -> Case {
        case(
            name,
            self.with("proof", jwt.into()),
            422,
            "invalid_enrolment_proof",
        )
    }

    /// After all that was refused, the code is as good as before.
    pub async fn ends_well(&self) {
        let answer = post(self.good().to_string()).send(self.app.address()).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
    }
}

async fn codes(backend: Backend) {
    let scene = scene(backend).await;
    let (app, pen) = (&scene.app, &scene.pen);
    let (used, used_typed) = new_code(app, &scene.alice).await;
    let taken = post(enrolment(app, &Pen::p256(), &used).to_string());
    assert_eq!(taken.send(app.address()).await.status, 201);
    let mallory = app.user("mallory").await;
    let (locked, locked_typed) = new_code(app, &mallory).await;
    app.services().lock_user(&mallory).await.unwrap();
    let (code, typed) = (&scene.code, &scene.typed);
    let letters = typed.replace('-', "");
    #[rustfmt::skip]
    let wrong: Vec<String> = vec![
        "".into(), " ".into(), "x".into(), "-".into(), "\0".into(), "A".repeat(43), "A".repeat(10_000),
        code[..42].into(), format!("{code}A"), format!("{code}="), format!(" {code}"), format!("{code}\n"),
        format!("{code}\0"), code.to_uppercase(), code.to_lowercase(), code.chars().rev().collect(),
        format!("{}+", &code[..42]), format!("{}/", &code[..42]), format!("{}.", &code[..42]),
        letters[..5].into(), letters[..15].into(), format!("{letters}0"), format!("{letters}-{letters}"),
        format!("00000{}", &letters[5..]), format!("UUUUU{}", &letters[5..]), format!("{}\u{e9}", &letters[..15]),
        letters.replace('0', "\u{ff10}") + "\u{200b}", format!("{letters}\t"), letters.chars().rev().collect(),
        "' OR '1'='1".into(), "%".into(), "*****-******-*****".into(), "../../etc/passwd".into(),
        scene.app.url.clone(), format!("{}/enrol#c={code}", scene.app.url), used, used_typed, locked, locked_typed,
    ];
    let cases = wrong.iter().map(|code| {
        let request = post(enrolment(app, pen, code).to_string());
        case(
            format!("{code:.60?}"),
            request,
            403,
            "invalid_enrolment_code",
        )
    });
    refuse(app, cases.collect()).await;
    // One that came too late, by a moment.
    app.advance(600);
    let late = [code, typed].map(|code| {
        let request = post(enrolment(app, pen, code).to_string());
        case("expired", request, 403, "invalid_enrolment_code")
    });
    refuse(app, late.into()).await;
}

/// Five wrong guesses at a typed code end it, in both spellings.
async fn six_guesses(backend: Backend) {
    let scene = scene(backend).await;
    let app = &scene.app;
    let (other_code, other_typed) = new_code(app, &scene.alice).await;
    let last = if scene.typed.ends_with('0') { "1" } else { "0" };
    let guess = format!("{}{last}", &scene.typed[..scene.typed.len() - 1]);
    let send = async |code: &str| {
        let request = post(enrolment(app, &scene.pen, code).to_string());
        request.send(app.address()).await
    };
    for _ in 0..4 {
        assert_problem(&send(&guess).await, 403, "invalid_enrolment_code");
    }
    // What proves nothing, or names another code, is no guess.
    let mut unproven = enrolment(app, &scene.pen, &guess);
    unproven["proof"] = "x".into();
    let unproven = post(unproven.to_string()).send(app.address()).await;
    assert_problem(&unproven, 422, "invalid_enrolment_proof");
    let tries = "SELECT CAST(wrong_tries AS TEXT) FROM enrolments ORDER BY wrong_tries";
    assert_eq!(app.backend.column(tries).await, ["0", "4"]);
    assert_problem(&send(&guess).await, 403, "invalid_enrolment_code");
    let before = app.state().await;
    for code in [&scene.typed, &scene.code, &guess] {
        assert_problem(&send(code).await, 403, "invalid_enrolment_code");
    }
    assert_unchanged(&before, &app.state().await);
    assert_eq!(app.backend.column(tries).await, ["0", "5"]);
    assert_eq!(app.backend.count("devices").await, 0);
    // Her other code is another matter, up to its own fifth guess.
    let last = if other_typed.ends_with('0') { "1" } else { "0" };
    let guess = format!("{}{last}", &other_typed[..other_typed.len() - 1]);
    for _ in 0..4 {
        assert_problem(&send(&guess).await, 403, "invalid_enrolment_code");
    }
    assert_eq!(send(&other_code).await.status, 201);
}

async fn descriptions(backend: Backend) {
    let scene = scene(backend).await;
    let mut cases = vec![];
    for name in ["label", "app_version", "os_version"] {
        for bad in BAD_TEXTS {
            let request = scene.with(name, json!(bad));
            cases.push(case(
                format!("{name} {bad:.40?}"),
                request,
                400,
                "invalid_request",
            ));
        }
        let long = scene.with(name, json!("x".repeat(65)));
        cases.push(case(
            format!("{name} too long"),
            long,
            400,
            "invalid_request",
        ));
    }
    for platform in BAD_PLATFORMS {
        let platform: Value = serde_json::from_str(platform).unwrap();
        let request = scene.with("platform", platform.clone());
        cases.push(case(
            format!("platform {platform}"),
            request,
            400,
            "invalid_json",
        ));
    }
    for (platform, target) in bad_push_targets() {
        let mut body = scene.good();
        body["platform"] = platform.into();
        body["push_target"] = json!(target);
        let request = post(body.to_string());
        cases.push(case(
            format!("{platform} {target:.40?}"),
            request,
            400,
            "invalid_request",
        ));
    }
    for app_id in ["", "a b", "a\n", "é", &"a".repeat(256)] {
        let request = scene.with("app_id", app_id.into());
        cases.push(case(
            format!("app {app_id:.20}"),
            request,
            400,
            "invalid_request",
        ));
    }
    refuse(&scene.app, cases).await;
    let named = scene.with("app_id", "com.example.approver".into());
    let answer = named.send(scene.app.address()).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    let device = scene.app.services().directory.devices_of(&scene.alice.id);
    let app_id = device.await.unwrap()[0].app_id.clone();
    assert_eq!(app_id.unwrap().as_str(), "com.example.approver");
}

async fn bodies(backend: Backend) {
    let scene = scene(backend).await;
    let good = scene.good();
    let members = [
        "code",
        "jwk",
        "platform",
        "push_target",
        "label",
        "app_version",
        "os_version",
        "proof",
    ];
    // A `jwk` of another type is no bad JSON, but a bad key: see `keys`.
    let mut cases: Vec<_> = bad_json(&good, &members)
        .into_iter()
        .filter(|(name, _)| !name.starts_with("jwk = "))
        .map(|(name, body)| case(name, post(body), 400, "invalid_json"))
        .collect();
    for types in NOT_JSON {
        let bare = post(good.to_string()).without("content-type");
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
    let large = good.to_string() + &" ".repeat(256 * 1024);
    cases.push(case("too large", post(large), 413, "payload_too_large"));
    refuse(&scene.app, cases).await;
    scene.ends_well().await;
}

async fn what_is_odd_but_good(backend: Backend) {
    let scene = scene(backend).await;
    let app = &scene.app;
    for spell in [
        str::to_lowercase,
        |code: &str| code.replace('-', " "),
        |code: &str| code.replace('0', "o").replace('1', "l").replace('-', ""),
    ] {
        let (_, typed) = new_code(app, &scene.alice).await;
        let body = enrolment(app, &Pen::ed25519(), &spell(&typed));
        let answer = post(body.to_string()).send(app.address()).await;
        assert_eq!(answer.status, 201, "{}: {}", spell(&typed), answer.body);
    }
    let target = "t".repeat(4096);
    let mut claims = proof_claims(app, &scene.pen, &scene.code);
    claims["push_target_hash"] = sha256_base64url(target.as_bytes()).into();
    let mut body = scene.good();
    body["platform"] = "webpush".into();
    body["push_target"] = target.into();
    body["label"] = "👍".repeat(64).into();
    body["jwk"]["kid"] = "what it calls itself".into();
    body["proof"] = scene.pen.sign(TYP, &claims).into();
    let answer = post(body.to_string()).send(app.address()).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
}
