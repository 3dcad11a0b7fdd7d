//! The approval: what the phone signs over the challenge it showed.

use super::challenge::Matching;
use super::matching::is_code;
use super::{DeviceId, Timestamp};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The JOSE `typ` of an approval.
pub const APPROVAL_TYP: &str = "ciba-approval+jwt";
/// How far a phone's clock may differ from ours, either way.
pub const CLOCK_SKEW: Duration = Duration::from_secs(300);

/// The claims of an approval, or of a denial: the name follows the happy case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    pub iss: DeviceId,
    pub aud: String,
    pub iat: i64,
    pub jti: String,
    /// base64url(SHA-256(the challenge's bytes as received)).
    pub challenge_hash: String,
    pub decision: Decision,
    #[serde(default)]
    pub reason: Option<DenyReason>,
    /// The matching code the person typed.
    #[serde(default)]
    pub code: Option<String>,
    /// The device's own word that it verified the person; recorded as claimed.
    #[serde(default)]
    pub uv: bool,
    /// The device's own word on how (RFC 8176); recorded as claimed.
    #[serde(default)]
    pub amr: Vec<String>,
}

text_enum! {
    /// What the person decided.
    Decision: "decision" {
        Approve = "approve",
        Deny = "deny",
    }
}

text_enum! {
    /// Why the person said no.
    DenyReason: "reason" {
        Fraud = "fraud",
        Mistake = "mistake",
    }
}

/// Why an approval does not answer a challenge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidApproval {
    #[error("iss is not the device that signed")]
    Issuer,
    #[error("aud is not this server")]
    Audience,
    #[error("challenge_hash is not the hash of the challenge")]
    ChallengeHash,
    #[error("iat is too far from the present")]
    Time,
    #[error("jti must have 1 to 128 characters")]
    Jti,
    #[error("reason goes with a denial only")]
    Reason,
    #[error("code goes with the approval of a challenge that asks for one")]
    Code,
    #[error("code must be the digits that the other screen shows")]
    NoCode,
}

impl Approval {
    /// Checks everything but the signature: that this statement, by `device`, to `issuer`, answers the
    /// challenge whose hash is `challenge_hash`.
    pub fn check(
        &self,
        device: &DeviceId,
        issuer: &str,
        challenge_hash: &str,
        matching: Matching,
        now: Timestamp,
    ) -> Result<(), InvalidApproval> {
        let iat = Timestamp::from_secs(self.iat);
        if self.iss != *device {
            Err(InvalidApproval::Issuer)
        } else if self.aud != issuer {
            Err(InvalidApproval::Audience)
        } else if self.challenge_hash != challenge_hash {
            Err(InvalidApproval::ChallengeHash)
        } else if iat.since(now) > CLOCK_SKEW || now.since(iat) > CLOCK_SKEW {
            Err(InvalidApproval::Time)
        } else if self.jti.is_empty() || self.jti.len() > 128 {
            Err(InvalidApproval::Jti)
        } else if self.reason.is_some() && self.decision == Decision::Approve {
            Err(InvalidApproval::Reason)
        } else {
            self.check_code(matching)
        }
    }

    /// Whether there is a code where there must be one. Whether it is right is another question, which ends
    /// the request.
    fn check_code(&self, matching: Matching) -> Result<(), InvalidApproval> {
        match (matching, self.decision, &self.code) {
            (Matching::Code, Decision::Approve, Some(code)) if is_code(code) => Ok(()),
            (Matching::Code, Decision::Approve, _) => Err(InvalidApproval::NoCode),
            (_, _, Some(_)) => Err(InvalidApproval::Code),
            (_, _, None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn approval() -> Approval {
        Approval {
            iss: DeviceId::new("device"),
            aud: "https://as.example".into(),
            iat: 1000,
            jti: "1".into(),
            challenge_hash: "hash".into(),
            decision: Decision::Approve,
            reason: None,
            code: None,
            uv: false,
            amr: vec![],
        }
    }

    #[test]
    fn each_claim_is_checked() {
        let check_against = |matching, change: &dyn Fn(&mut Approval)| {
            let mut changed = approval();
            change(&mut changed);
            changed.check(
                &DeviceId::new("device"),
                "https://as.example",
                "hash",
                matching,
                Timestamp::from_secs(1000),
            )
        };
        let check = |change: &dyn Fn(&mut Approval)| check_against(Matching::None, change);
        assert_eq!(check(&|_| ()), Ok(()));
        assert_eq!(check(&|a| a.iat = 700), Ok(()));
        assert_eq!(check(&|a| a.iat = 1300), Ok(()));
        assert_eq!(
            check(&|a| a.iss = DeviceId::new("other")),
            Err(InvalidApproval::Issuer)
        );
        assert_eq!(
            check(&|a| a.aud = "https://as.example/".into()),
            Err(InvalidApproval::Audience)
        );
        assert_eq!(
            check(&|a| a.challenge_hash = "other".into()),
            Err(InvalidApproval::ChallengeHash)
        );
        assert_eq!(check(&|a| a.iat = 699), Err(InvalidApproval::Time));
        assert_eq!(check(&|a| a.iat = 1301), Err(InvalidApproval::Time));
        assert_eq!(check(&|a| a.iat = i64::MAX), Err(InvalidApproval::Time));
        assert_eq!(check(&|a| a.jti = String::new()), Err(InvalidApproval::Jti));
        assert_eq!(
            check(&|a| a.jti = "x".repeat(129)),
            Err(InvalidApproval::Jti)
        );
        assert_eq!(
            check(&|a| a.reason = Some(DenyReason::Fraud)),
            Err(InvalidApproval::Reason)
        );
        assert_eq!(
            check(&|a| a.code = Some("123456".into())),
            Err(InvalidApproval::Code)
        );
        let with_code = |code: Option<&str>, decision| {
            check_against(Matching::Code, &|a| {
                a.code = code.map(str::to_owned);
                a.decision = decision;
            })
        };
        let (yes, no) = (Decision::Approve, Decision::Deny);
        assert_eq!(with_code(Some("123456"), yes), Ok(()));
        assert_eq!(with_code(None, no), Ok(()));
        assert_eq!(with_code(Some("123456"), no), Err(InvalidApproval::Code));
        assert_eq!(with_code(None, yes), Err(InvalidApproval::NoCode));
        assert_eq!(with_code(Some("12345x"), yes), Err(InvalidApproval::NoCode));
    }
}
