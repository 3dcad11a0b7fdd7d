//! Every signed statement there is, presented in every role but its own (RFC 8725 3.11).

use super::check::{Case, assert_unchanged, case, refuse};
use super::forge::Pen;
use super::hint_tokens::{ISSUER, believing};
use super::wire::Request;
use super::{proven, with_proof};
use crate::support::rp_endpoint::RpEndpoint;
use crate::support::{
    Backend, CIBA_GRANT, RelyingParty, TestApp, approve, on_both, registration, show,
};
use assent::crypto::sha256_base64url;
use assent::domain::SignatureAlgorithm;
use assent::domain::client::{
    ClientAuthentication, Delivery, Grant, HintKind, KeySource, Registration, SecretTransport,
};
use assent::phone::{EnrolmentLink, Phone};
use serde_json::{Value, json};

const NOTIFICATION_TOKEN: &str = "notification-token-0123456789";

on_both!(no_statement_stands_in_for_another);

/// A client that takes everything, with as many open requests as it likes.
fn generous(authentication: ClientAuthentication, delivery: Delivery) -> Registration {
    let mut registration = Registration {
        authentication,
        delivery,
        hints: HintKind::ALL.iter().copied().collect(),
        open_requests_per_user: 1000,
        ..registration()
    };
    registration.grants.insert(Grant::RefreshToken);
    registration
}

async fn no_statement_stands_in_for_another(backend: Backend) {
    // One key signs assertions and hints, and the phone's key is a client's too: only what they say of
    // themselves keeps the statements apart.
    let pen = Pen::p256();
    let more = vec![
        ("ciba.open_requests_per_user", "1000".into()),
        ("ciba.cancel_endpoint", "true".into()),
    ];
    let (app, _folder) = believing(backend, json!([pen.jwk_with_kid()]), more).await;
    let alice = app.user("alice").await;
    let phone = app.phone(&alice).await;
    let basic = || ClientAuthentication::Secret(SecretTransport::Basic);
    let bank = generous(basic(), Delivery::Poll);
    let bank = app.client_with("bank", bank).await;
    let endpoint = RpEndpoint::new(&[]).await;
    let delivery = Delivery::Push {
        endpoint: endpoint.url.clone(),
    };
    let shop = app.client_with("shop", generous(basic(), delivery)).await;
    let keys = json!({ "keys": [pen.jwk_with_kid(), Pen::of(&phone).jwk_with_kid()] });
    let signs = ClientAuthentication::PrivateKeyJwt {
        algorithm: SignatureAlgorithm::Es256,
        keys: KeySource::Jwks(keys),
    };
    let signs = generous(signs, Delivery::Poll);
    app.client_with("signer", signs).await;

    let redeemed = bank.start("alice").await;
    approve(&phone, &redeemed).await;
    let tokens = bank.poll(&redeemed).await.json();
    let asked = shop.ask(&[
        ("scope", "openid"),
        ("login_hint", "alice"),
        ("client_notification_token", NOTIFICATION_TOKEN),
    ]);
    let asked = asked.await.json();
    approve(&phone, asked["auth_req_id"].as_str().unwrap()).await;
    app.run_jobs().await;
    let pushed = endpoint.received()[0].json();
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
        bank: &bank,
        shop: &shop,
    };
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut statements = vec![
        ("access token", text(&tokens["access_token"])),
        ("ID Token", text(&tokens["id_token"])),
        ("pushed ID Token", text(&pushed["id_token"])),
        ("challenge", scene.challenge.clone()),
        ("checkpoint", checkpoints[0].clone()),
        ("handle", waiting.clone()),
    ];
    statements.extend(scene.signed_by_phones());
    statements.extend(scene.signed_by_clients(&pen));

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
        cases.extend(scene.as_client(name, jwt));
    }
    assert_eq!(cases.len(), 12 * (9 + 6) - 9);
    refuse(&app, cases).await;
    scene.are_no_tokens(&statements).await;
    // In its own role each of them is good; the last two change something.
    good.sort_by_key(|(own, _)| ["enrolment proof", "approval"].contains(own));
    assert_eq!(good.len(), 9);
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
    /// It polls.
    bank: &'a RelyingParty,
    /// It gets its tokens pushed.
    shop: &'a RelyingParty,
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

    /// What clients and those who name people sign, each statement good in its own role.
    fn signed_by_clients(&self, pen: &Pen) -> Vec<(&'static str, String)> {
        let (url, now) = (&self.app.url, self.app.now().secs());
        let assertion = json!({
            "iss": "signer", "sub": "signer", "aud": url, "iat": now, "exp": now + 60, "jti": "an identifier",
        });
        let hint = json!({
            "iss": ISSUER, "aud": url, "iat": now, "exp": now + 60, "jti": "an identifier",
            "sub_id": { "format": "email", "email": "alice" },
        });
        vec![
            ("client assertion", pen.sign("JWT", &assertion)),
            ("login_hint_token", pen.sign("JWT", &hint)),
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
        let hint = |client: &RelyingParty, name: &str| {
            let token = format!("client_notification_token={NOTIFICATION_TOKEN}");
            client.form(
                "/bc-authorize",
                format!("scope=openid&{token}&{name}={jwt}"),
            )
        };
        let assertion = format!(
            "client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer&client_assertion={jwt}"
        );
        let asserted = Request::form("/introspect", format!("token=x&{assertion}"));
        let enrol = enrol.with("content-type", "application/json");
        let prove = with_proof("GET", "/device/v1/requests", jwt);
        let (hers, decide) = (decide(jwt, &approval), decide(&self.challenge, jwt));
        let invalid = "invalid_request";
        #[rustfmt::skip]
        let roles = vec![
            role("access token", bearer, 401, "invalid_token"),
            role("challenge", hers, 422, "invalid_challenge"),
            role("approval", decide, 422, "invalid_approval"),
            role("device proof", prove, 401, "invalid_proof"),
            role("enrolment proof", enrol, 422, "invalid_enrolment_proof"),
            role("ID Token", hint(self.bank, "id_token_hint"), 400, invalid),
            role("pushed ID Token", hint(self.shop, "id_token_hint"), 400, invalid),
            role("login_hint_token", hint(self.bank, "login_hint_token"), 400, invalid),
            role("client assertion", asserted, 401, "invalid_client"),
        ];
        roles
    }

    /// As whatever else a client may send: none of these roles is anybody's.
    fn as_client(&self, name: &str, jwt: &str) -> Vec<Case> {
        let ask = |body: String| {
            self.bank
                .form("/bc-authorize", format!("scope=openid&{body}"))
        };
        let basic = Request::form("/token", "").with("authorization", format!("Basic {jwt}"));
        let refresh = format!("grant_type=refresh_token&refresh_token={jwt}");
        let grant = format!("grant_type={CIBA_GRANT}&auth_req_id={jwt}");
        let (poll, cancel) = if name == "handle" {
            // Its own role, yet not for everybody.
            let cancel = self.shop.form("/bc-cancel", format!("auth_req_id={jwt}"));
            let nobody = case(
                "a handle of nobody",
                Request::form("/token", grant),
                401,
                "invalid_client",
            );
            (
                nobody,
                case("a handle of another", cancel, 400, "invalid_grant"),
            )
        } else {
            let cancel = self.bank.form("/bc-cancel", format!("auth_req_id={jwt}"));
            let poll = self.bank.form("/token", grant);
            (
                case(format!("{name} as handle"), poll, 400, "invalid_grant"),
                case(format!("{name} to cancel"), cancel, 400, "invalid_grant"),
            )
        };
        let refresh = self.bank.form("/token", refresh);
        let request = ask(format!("login_hint=alice&request={jwt}"));
        let login = ask(format!("login_hint={jwt}"));
        vec![
            case(
                format!("{name} as request"),
                request,
                400,
                "invalid_request",
            ),
            case(format!("{name} as login"), login, 400, "unknown_user_id"),
            case(format!("{name} as Basic"), basic, 401, "invalid_client"),
            case(
                format!("{name} as refresh token"),
                refresh,
                400,
                "invalid_grant",
            ),
            poll,
            cancel,
        ]
    }

    /// Of all of them only the access token is one, and only for its client; whoever revokes the others
    /// revokes nothing.
    async fn are_no_tokens(&self, statements: &[(&'static str, String)]) {
        let before = self.app.state().await;
        for (name, jwt) in statements {
            for client in [self.bank, self.shop] {
                let own = *name == "access token" && client.client.id.as_str() == "bank";
                let about = client.introspect(jwt).await.json();
                assert_eq!(about["active"], own, "{name}: {about}");
                if !own {
                    let revoked = client.revoke(jwt).await;
                    assert_eq!((revoked.status, revoked.body.as_str()), (200, ""), "{name}");
                }
            }
        }
        assert_unchanged(&before, &self.app.state().await);
    }
}
