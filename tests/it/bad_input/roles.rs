//! Every signed statement there is, presented in every role but its own (RFC 8725 3.11).

use super::check::{Case, case, refuse};
use super::forge::Pen;
use super::wire::Request;
use super::{proven, with_proof};
use crate::support::{Backend, TestApp, approve, on_both, show};
use assent::crypto::sha256_base64url;
use assent::phone::{EnrolmentLink, Phone};
use serde_json::{Value, json};

on_both!(no_statement_stands_in_for_another);

async fn no_statement_stands_in_for_another(backend: Backend) {
    let app = TestApp::new(backend).await;
    let (bank, alice, phone) = app.cast().await;
    let redeemed = bank.start("alice").await;
    approve(&phone, &redeemed).await;
    let tokens = bank.poll(&redeemed).await.json();
    let waiting = bank.start("alice").await;
    let shown = show(&phone, &waiting).await;
    app.services().checkpoint().await.unwrap();
    let checkpoints = app
        .backend
        .column("SELECT statement FROM checkpoints")
        .await;
    let ticket = app.services().create_enrolment(&alice).await.unwrap();
    let link = EnrolmentLink::parse(ticket.link.expose()).unwrap();
    let scene = Scene {
        candidate: Pen::p256(),
        code: link.code,
        decision: format!("/device/v1/requests/{}/decision", shown.challenge.jti),
        challenge: shown.signed,
        phone: &phone,
        app: &app,
    };
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut statements = vec![
        ("access token", text(&tokens["access_token"])),
        ("ID Token", text(&tokens["id_token"])),
        ("challenge", scene.challenge.clone()),
        ("checkpoint", checkpoints[0].clone()),
        ("handle", waiting.clone()),
    ];
    statements.extend(scene.signed_by_phones());

    let mut cases = vec![];
    let mut good = vec![];
    for (name, jwt) in &statements {
        for role in scene.roles(jwt) {
            if role.own == *name {
                good.push((role.own, role.request));
            } else {
                cases.push(role.refused(name));
            }
        }
        cases.extend(scene.as_client(&bank.credentials, name, jwt));
    }
    assert_eq!(cases.len(), 9 * (5 + 7) - 5);
    refuse(&app, cases).await;
    // In its own role each of them is good; the last two change something.
    good.sort_by_key(|(own, _)| ["enrolment proof", "approval"].contains(own));
    for (own, request) in good {
        let answer = request.send(app.address()).await;
        assert!(
            [200, 201].contains(&answer.status),
            "{own}: {}",
            answer.body
        );
    }
}

struct Scene<'a> {
    app: &'a TestApp,
    phone: &'a Phone,
    /// A phone that would enrol.
    candidate: Pen,
    code: String,
    /// A request that waits: where its answer goes, and its challenge.
    decision: String,
    challenge: String,
}

/// A place where a statement is taken, with one presented there.
struct Role {
    own: &'static str,
    request: Request,
    status: u16,
    error: &'static str,
}

impl Role {
    fn refused(self, statement: &str) -> Case {
        let name = format!("{statement} for {}", self.own);
        case(name, self.request, self.status, self.error)
    }
}

impl Scene<'_> {
    /// What phones sign, each statement good in its own role.
    fn signed_by_phones(&self) -> Vec<(&'static str, String)> {
        let (url, now) = (&self.app.url, self.app.now().secs());
        let hash = |text: &str| sha256_base64url(text.as_bytes());
        let approval = json!({
            "iss": self.phone.id(), "aud": url, "iat": now, "jti": "an identifier", "decision": "approve",
            "challenge_hash": hash(&self.challenge),
        });
        let proof = self.phone.proof_claims("GET", "/device/v1/requests", b"");
        let enrolment = json!({
            "aud": url, "iat": now, "jti": "an identifier", "code_hash": hash(&self.code), "jkt": self.candidate.kid,
        });
        let of_candidate = self.candidate.sign("enrolment-proof+jwt", &enrolment);
        vec![
            ("approval", self.phone.sign("ciba-approval+jwt", &approval)),
            ("device proof", self.phone.sign("device-proof+jwt", &proof)),
            ("enrolment proof", of_candidate),
            // Good in no role here: the enrolled key's statement about itself.
            (
                "her enrolment proof",
                self.phone.sign("enrolment-proof+jwt", &enrolment),
            ),
        ]
    }

    fn roles(&self, jwt: &str) -> Vec<Role> {
        let bearer =
            Request::new("GET", "/userinfo").with("authorization", format!("Bearer {jwt}"));
        let approval = json!({
            "iss": self.phone.id(), "aud": self.app.url, "iat": self.app.now().secs(), "jti": "another",
            "challenge_hash": sha256_base64url(jwt.as_bytes()), "decision": "approve",
        });
        let approval = self.phone.sign("ciba-approval+jwt", &approval);
        let decide = |challenge: &str, approval: &str| {
            let body = json!({ "challenge": challenge, "approval": approval }).to_string();
            proven(self.phone, "POST", &self.decision, body.as_bytes())
        };
        let enrolment = json!({
            "code": self.code, "jwk": self.candidate.jwk(), "platform": "none", "label": "a phone",
            "app_version": "1", "os_version": "1", "proof": jwt,
        });
        let enrol = Request::new("POST", "/device/v1/enrolments").body(enrolment.to_string());
        let role = |own, request, status, error| Role {
            own,
            request,
            status,
            error,
        };
        vec![
            role("access token", bearer, 401, "invalid_token"),
            role(
                "challenge",
                decide(jwt, &approval),
                422,
                "invalid_challenge",
            ),
            role(
                "approval",
                decide(&self.challenge, jwt),
                422,
                "invalid_approval",
            ),
            role(
                "device proof",
                with_proof("GET", "/device/v1/requests", jwt),
                401,
                "invalid_proof",
            ),
            role(
                "enrolment proof",
                enrol.with("content-type", "application/json"),
                422,
                "invalid_enrolment_proof",
            ),
        ]
    }

    /// As whatever a client may send: none of these roles is anybody's yet.
    fn as_client(&self, credentials: &str, name: &str, jwt: &str) -> Vec<Case> {
        let form = |path, body: String| Request::form(path, body);
        let bank = |path, body| form(path, body).with("authorization", credentials);
        let ask = |parameter: &str| {
            let body = format!("scope=openid&{parameter}={jwt}");
            let name = format!("{name} as {parameter}");
            case(name, bank("/bc-authorize", body), 400, "invalid_request")
        };
        let assertion = format!(
            "client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer&client_assertion={jwt}"
        );
        let grant = format!("grant_type=urn:openid:params:grant-type:ciba&auth_req_id={jwt}");
        let as_grant = if name == "handle" {
            case(
                "a handle of nobody",
                form("/token", grant),
                401,
                "invalid_client",
            )
        } else {
            case(
                format!("{name} as handle"),
                bank("/token", grant),
                400,
                "invalid_grant",
            )
        };
        let basic = form("/token", String::new()).with("authorization", format!("Basic {jwt}"));
        vec![
            ask("login_hint_token"),
            ask("id_token_hint"),
            ask("request"),
            case(
                format!("{name} as login"),
                bank("/bc-authorize", format!("scope=openid&login_hint={jwt}")),
                400,
                "unknown_user_id",
            ),
            case(
                format!("{name} as assertion"),
                form("/token", assertion),
                401,
                "invalid_client",
            ),
            case(format!("{name} as Basic"), basic, 401, "invalid_client"),
            as_grant,
        ]
    }
}
