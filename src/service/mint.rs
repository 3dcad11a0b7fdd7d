//! Makes the tokens, from the challenge that was signed and nothing else.

use super::Services;
use crate::domain::outcome::DecidedRequest;
use crate::domain::request::AMR_DEVICE;
use crate::domain::{Challenge, ClientId, Secret, SignatureAlgorithm, Timestamp, UserId};
use serde::{Deserialize, Serialize};

/// The JOSE `typ` of an access token (RFC 9068 2.1).
pub const ACCESS_TOKEN_TYP: &str = "at+jwt";
/// The JOSE `typ` of an ID Token.
pub const ID_TOKEN_TYP: &str = "JWT";

/// A token response that exists only in memory until the Ledger has committed.
pub struct Minted {
    /// The `jti` of the access token.
    pub token_id: String,
    /// The body of the token response.
    pub response: Secret,
}

/// The claims of an access token (RFC 9068 2.2).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AccessTokenClaims {
    pub iss: String,
    pub sub: UserId,
    pub aud: String,
    pub client_id: ClientId,
    pub exp: i64,
    pub iat: i64,
    pub jti: String,
    pub scope: String,
    pub auth_time: i64,
    pub acr: String,
    pub amr: Vec<String>,
}

/// The claims of an ID Token (OpenID Connect Core 2).
#[derive(Clone, Debug, Serialize)]
struct IdTokenClaims<'a> {
    iss: &'a str,
    sub: &'a UserId,
    aud: &'a ClientId,
    exp: i64,
    iat: i64,
    auth_time: i64,
    acr: &'a str,
    amr: &'a [&'a str],
}

/// A successful token response (CIBA Core 10.1.1).
#[derive(Serialize)]
struct TokenResponse<'a> {
    access_token: &'a str,
    token_type: &'static str,
    expires_in: u64,
    id_token: &'a str,
}

impl Services {
    pub(super) fn mint(
        &self,
        decided: &DecidedRequest,
        challenge: &Challenge,
        now: Timestamp,
    ) -> Minted {
        let token_id = self.random_id();
        let auth_time = decided.decided_at.secs();
        let access_token = AccessTokenClaims {
            iss: self.policy.issuer.clone(),
            sub: decided.user_id.clone(),
            aud: self.policy.issuer.clone(),
            client_id: decided.client_id.clone(),
            exp: now.plus(self.policy.access_token_lifetime).secs(),
            iat: now.secs(),
            jti: token_id.clone(),
            scope: challenge.scope.to_string(),
            auth_time,
            acr: challenge.acr.clone(),
            amr: AMR_DEVICE.iter().map(ToString::to_string).collect(),
        };
        let id_token = IdTokenClaims {
            iss: &self.policy.issuer,
            sub: &decided.user_id,
            aud: &decided.client_id,
            exp: now.plus(self.policy.id_token_lifetime).secs(),
            iat: now.secs(),
            auth_time,
            acr: &challenge.acr,
            amr: AMR_DEVICE,
        };
        let no_key = "every key ring has an ES256 key";
        let sign = SignatureAlgorithm::Es256;
        let response = TokenResponse {
            access_token: &self
                .keys
                .sign_token(sign, ACCESS_TOKEN_TYP, &access_token)
                .expect(no_key),
            token_type: "Bearer",
            expires_in: self.policy.access_token_lifetime.as_secs(),
            id_token: &self
                .keys
                .sign_token(sign, ID_TOKEN_TYP, &id_token)
                .expect(no_key),
        };
        let response = serde_json::to_string(&response).expect("a token response serialises");
        Minted {
            token_id,
            response: Secret::new(response),
        }
    }
}
