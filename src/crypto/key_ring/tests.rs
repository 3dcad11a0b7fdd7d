use super::*;
use crate::crypto::jose::Jws;
use crate::crypto::key_record::generate_missing;
use crate::domain::key::Purpose;
use crate::entropy::SystemEntropy;
use serde_json::{Value, json};

use SignatureAlgorithm::{EdDsa, Es256, Ps256, Rs256};

const POLICY: KeyPolicy = KeyPolicy {
    activation_delay: Duration::from_secs(600),
    retire_after: Duration::from_secs(3600),
    hint_retention: Duration::from_secs(90_000),
    rotate_every: Duration::ZERO,
};

fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(secs)
}

fn deployment() -> DeploymentKey {
    DeploymentKey::new(&[1; 32])
}

fn open(records: &[KeyRecord]) -> Result<KeyRing, KeyRingError> {
    KeyRing::open(records, deployment(), POLICY, at(0))
}

fn ring() -> (Vec<KeyRecord>, KeyRing) {
    let records = generate_missing(&[], &deployment(), &SystemEntropy, at(0));
    let ring = open(&records).unwrap();
    (records, ring)
}

/// Adds a version as the store would: the ones before retire when it becomes active.
fn follow(
    records: &mut Vec<KeyRecord>,
    purpose: Purpose,
    algorithm: Option<SignatureAlgorithm>,
    life: KeyLife,
) -> usize {
    let before = || records.iter().filter(|key| key.purpose == purpose);
    let version = before().map(|key| key.version).max().unwrap() + 1;
    for key in records
        .iter_mut()
        .filter(|key| key.is_of(purpose, algorithm))
    {
        key.life.retires_at.get_or_insert(life.activates_at);
        if purpose.signs() {
            let gone_at = life.activates_at.plus(POLICY.retire_after);
            key.life.gone_at.get_or_insert(gone_at);
        }
    }
    let new = NewKey::generate(purpose, algorithm, &SystemEntropy);
    records.push(new.record(version, life, &deployment()));
    records.sort_by_key(|key| (key.purpose.as_str(), key.version));
    let added = |key: &KeyRecord| key.purpose == purpose && key.version == version;
    records.iter().position(added).unwrap()
}

fn kid(token: &str) -> String {
    Jws::parse(token).unwrap().kid.unwrap()
}

fn kids(jwks: &Value) -> Vec<String> {
    let keys = jwks["keys"].as_array().unwrap();
    let kid = |key: &Value| key["kid"].as_str().unwrap().to_owned();
    keys.iter().map(kid).collect()
}

fn claims() -> Value {
    serde_json::json!({ "a": 1 })
}

#[test]
fn a_ring_opens_with_its_own_deployment_key_only() {
    let (records, _) = ring();
    let has = |&purpose: &Purpose| records.iter().any(|record| record.purpose == purpose);
    assert!(Purpose::ALL.iter().all(has));
    let wrong = KeyRing::open(&records, DeploymentKey::new(&[2; 32]), POLICY, at(0));
    assert_eq!(
        wrong.err().unwrap().to_string(),
        "the deployment key does not open id-mac v1: it is not the key this database was set up with"
    );
    let short = open(&records[1..]);
    assert_eq!(short.err(), Some(KeyRingError::Missing(records[0].purpose)));
}

#[test]
fn a_wrapped_key_does_not_open_as_another() {
    let (mut records, _) = ring();
    let stolen = records[0].wrapped.clone();
    records[1].wrapped = stolen;
    assert!(open(&records).is_err());
}

#[test]
fn a_secret_matches_its_client_only() {
    let (_, ring) = ring();
    let (a, b) = (ClientId::new("a"), ClientId::new("b"));
    let secret = Secret::new("s3cret".into());
    let verifier = ring.secret_verifier(&a, &secret);
    assert!(ring.secret_matches(&a, &secret, Some(&verifier)));
    assert!(!ring.secret_matches(&b, &secret, Some(&verifier)));
    assert!(!ring.secret_matches(&a, &Secret::new("s3creT".into()), Some(&verifier)));
    assert!(!ring.secret_matches(&a, &secret, None));
}

#[test]
fn a_nonce_lives_for_two_periods() {
    let (_, ring) = ring();
    let period = Duration::from_secs(60);
    let nonce = ring.device_nonce(at(59), period);
    assert!(ring.device_nonce_is_fresh(&nonce, at(59), period));
    assert!(ring.device_nonce_is_fresh(&nonce, at(119), period));
    assert!(!ring.device_nonce_is_fresh(&nonce, at(120), period));
    assert!(!ring.device_nonce_is_fresh("", at(59), period));
}

#[test]
fn one_purpose_does_not_verify_anothers_statements() {
    let (_, ring) = ring();
    let token = ring.sign_token(Es256, "x", &claims()).unwrap();
    assert_eq!(ring.verify_token::<Value>("x", &token), Ok(claims()));
    assert_eq!(
        ring.verify_challenge::<Value>("x", &token),
        Err(InvalidJws::Signature)
    );
    assert_eq!(
        ring.verify_token::<Value>("x", &ring.sign_challenge("x", &claims())),
        Err(InvalidJws::Signature)
    );
}

#[test]
fn each_algorithm_has_a_key_of_its_own() {
    let (mut records, ring) = ring();
    assert_eq!(
        ring.sign_token(Ps256, "x", &claims()),
        Err(NoSigningKey(Ps256))
    );
    assert!(ring.can_sign_tokens(EdDsa) && !ring.can_sign_tokens(Ps256));
    for algorithm in [Ps256, Rs256] {
        let life = KeyLife::new(at(0), at(0));
        follow(&mut records, Purpose::TokenSigning, Some(algorithm), life);
    }
    ring.reload(&records, at(0)).unwrap();
    let jwks = ring.token_jwks();
    for &algorithm in SignatureAlgorithm::ALL {
        let token = ring.sign_token(algorithm, "x", &claims()).unwrap();
        assert_eq!(ring.verify_token::<Value>("x", &token), Ok(claims()));
        let keys = jwks["keys"].as_array().unwrap();
        let key = keys.iter().find(|key| key["kid"] == kid(&token)).unwrap();
        assert_eq!(key["alg"], algorithm.as_str());
    }
    assert_eq!(kids(&jwks).len(), 4);
}

#[test]
fn a_key_under_another_keys_public_half_is_damaged() {
    let (mut records, _) = ring();
    let (_, public) = crate::crypto::generate::generate(Es256);
    let is_it = |record: &&mut KeyRecord| record.purpose == Purpose::TokenSigning;
    let record = records.iter_mut().find(is_it).unwrap();
    record.public_jwk = Some(public.canonical_jwk());
    let damaged = KeyRingError::Damaged {
        purpose: Purpose::TokenSigning,
        version: 1,
    };
    assert_eq!(open(&records).err(), Some(damaged));
}

#[test]
fn a_signing_key_is_published_used_retired_and_remembered() {
    let (mut records, ring) = ring();
    let old = ring.sign_token(Es256, "JWT", &claims()).unwrap();
    let life = KeyLife::new(at(1000), at(1600));
    let new = follow(&mut records, Purpose::TokenSigning, Some(Es256), life);
    let new = records[new].kid().unwrap();
    for (now, signs, published, verifies, hints) in [
        (1000, kid(&old), 2, true, true),
        (1599, kid(&old), 2, true, true),
        (1600, new.clone(), 2, true, true),
        (5199, new.clone(), 2, true, true),
        (5200, new.clone(), 1, false, true),
        (91_599, new.clone(), 1, false, true),
        (91_600, new.clone(), 1, false, false),
    ] {
        ring.reload(&records, at(now)).unwrap();
        let token = ring.sign_token(Es256, "JWT", &claims()).unwrap();
        assert_eq!(kid(&token), signs, "{now}");
        let jwks = kids(&ring.token_jwks());
        assert!(jwks.contains(&new), "{now}");
        // One more of the other algorithm.
        assert_eq!(jwks.len(), published + 1, "{now}");
        assert_eq!(
            ring.verify_token::<Value>("JWT", &old).is_ok(),
            verifies,
            "{now}"
        );
        assert_eq!(
            ring.verify_hint::<Value>("JWT", &old).is_ok(),
            hints,
            "{now}"
        );
        assert!(ring.verify_token::<Value>("JWT", &token).is_ok(), "{now}");
        assert!(ring.verify_hint::<Value>("at+jwt", &old).is_err(), "{now}");
    }
}

#[test]
fn a_revoked_key_verifies_nothing_at_all() {
    let (mut records, ring) = ring();
    let token = ring.sign_token(Es256, "JWT", &claims()).unwrap();
    let life = KeyLife::new(at(10), at(10));
    follow(&mut records, Purpose::TokenSigning, Some(Es256), life);
    let old = records
        .iter_mut()
        .find(|key| key.kid() == Some(kid(&token)));
    old.unwrap().life.revoked_at = Some(at(10));
    ring.reload(&records, at(10)).unwrap();
    assert_eq!(
        ring.verify_token::<Value>("JWT", &token),
        Err(InvalidJws::Signature)
    );
    assert_eq!(
        ring.verify_hint::<Value>("JWT", &token),
        Err(InvalidJws::Signature)
    );
    assert!(!kids(&ring.token_jwks()).contains(&kid(&token)));
    assert_ne!(
        kid(&ring.sign_token(Es256, "JWT", &claims()).unwrap()),
        kid(&token)
    );
}

#[test]
fn what_a_secret_key_made_outlives_its_rotation() {
    let (mut records, ring) = ring();
    let (client, user) = (ClientId::new("bank"), UserId::new("alice"));
    let secret = Secret::new("s3cret".into());
    let period = Duration::from_secs(60);
    let make = |ring: &KeyRing| {
        (
            ring.make_auth_req_id(&client, Partition(7), at(99), &SystemEntropy),
            ring.secret_verifier(&client, &secret),
            ring.enrolment_code_hash("link", "code"),
            ring.seal("place", b"value"),
            ring.sub_ref(&user),
            ring.device_nonce(at(30), period),
            ring.decoy("login alice"),
        )
    };
    let mut made = vec![make(&ring)];
    let purposes = Purpose::ALL.iter().filter(|purpose| !purpose.signs());
    for &purpose in purposes.clone() {
        follow(&mut records, purpose, None, KeyLife::new(at(20), at(30)));
    }
    // Published, and not used yet.
    ring.reload(&records, at(29)).unwrap();
    let (early, first) = (make(&ring), &made[0]);
    assert_eq!(
        (&early.2, &early.4, &early.5),
        (&first.2, &first.4, &first.5)
    );
    assert!(early.3.starts_with("1."));
    ring.reload(&records, at(30)).unwrap();
    let late = make(&ring);
    assert!(late.2 != first.2 && late.4 != first.4 && late.5 != first.5);
    assert!(late.3.starts_with("2."));
    assert!(late.6 == first.6, "nobody becomes somebody else");
    assert_ne!(ring.decoy("login bob").0, first.6.0);
    made.extend([early, late]);
    // A year later, and after a restart.
    ring.reload(&records, at(31_536_000)).unwrap();
    for ring in [&ring, &open(&records).unwrap()] {
        for (id, verifier, hash, sealed, sub_ref, nonce, _) in &made {
            let handle = ring.open_auth_req_id(&client, id).unwrap();
            assert_eq!(handle.partition, Partition(7));
            assert!(ring.secret_matches(&client, &secret, Some(verifier)));
            assert!(ring.enrolment_code_hashes("link", "code").contains(hash));
            assert_eq!(
                ring.open_sealed("place", sealed).unwrap().as_slice(),
                b"value"
            );
            assert!(ring.sub_ref_matches(&user, sub_ref));
            assert!(!ring.sub_ref_matches(&UserId::new("bob"), sub_ref));
            assert!(ring.device_nonce_is_fresh(nonce, at(30), period));
        }
    }
    // What was made with a revoked one is not accepted.
    for record in records
        .iter_mut()
        .filter(|key| key.life.retires_at.is_some())
    {
        record.life.revoked_at = Some(at(40));
    }
    ring.reload(&records, at(40)).unwrap();
    assert!(ring.open_auth_req_id(&client, &made[0].0).is_none());
    assert!(ring.open_auth_req_id(&client, &made[2].0).is_some());
    assert!(!ring.sub_ref_matches(&user, &made[0].4));
}

#[test]
fn a_checkpoint_under_a_revoked_key_counts_if_it_is_older() {
    let (mut records, ring) = ring();
    let of = |iat: i64| ring.sign_checkpoint("c", &json!({ "iat": iat }));
    let (older, newer, undated) = (of(100), of(101), ring.sign_checkpoint("c", &json!({})));
    follow(
        &mut records,
        Purpose::Audit,
        Some(EdDsa),
        KeyLife::new(at(100), at(100)),
    );
    // Long gone, and good for ever.
    ring.reload(&records, at(31_536_000)).unwrap();
    for statement in [&older, &newer, &undated] {
        assert!(ring.verify_checkpoint::<Value>("c", statement).is_ok());
    }
    let audit = records.iter_mut().find(|key| key.purpose == Purpose::Audit);
    audit.unwrap().life.revoked_at = Some(at(100));
    ring.reload(&records, at(100)).unwrap();
    assert!(ring.verify_checkpoint::<Value>("c", &older).is_ok());
    for statement in [&newer, &undated] {
        assert_eq!(
            ring.verify_checkpoint::<Value>("c", statement),
            Err(InvalidJws::Signature)
        );
    }
}

#[test]
fn a_reload_that_fails_changes_nothing_and_one_that_works_opens_only_what_is_new() {
    let (mut records, ring) = ring();
    let token = ring.sign_token(Es256, "x", &claims()).unwrap();
    let life = KeyLife::new(at(10), at(10));
    let new = follow(&mut records, Purpose::TokenSigning, Some(Es256), life);
    let good = std::mem::replace(&mut records[new].wrapped, "garbage".into());
    assert!(ring.reload(&records, at(10)).is_err());
    assert_eq!(
        kid(&ring.sign_token(Es256, "x", &claims()).unwrap()),
        kid(&token)
    );
    assert_eq!(ring.verify_token::<Value>("x", &token), Ok(claims()));
    records[new].wrapped = good;
    for (index, record) in records.iter_mut().enumerate() {
        if index != new {
            record.wrapped = "not looked at again".into();
        }
    }
    ring.reload(&records, at(10)).unwrap();
    assert_ne!(
        kid(&ring.sign_token(Es256, "x", &claims()).unwrap()),
        kid(&token)
    );
    assert_eq!(ring.verify_token::<Value>("x", &token), Ok(claims()));
    assert!(open(&records).is_err());
}

#[test]
fn an_id_names_255_versions_and_no_more() {
    let (mut records, _) = ring();
    let client = ClientId::new("bank");
    let secret = NewKey::generate(Purpose::IdMac, None, &SystemEntropy);
    let life = KeyLife::new(at(0), at(0));
    records.insert(1, secret.record(255, life, &deployment()));
    let ring = open(&records).unwrap();
    let id = ring.make_auth_req_id(&client, Partition(1), at(9), &SystemEntropy);
    assert_eq!(auth_req_id::key_version(&id), Some(255));
    assert!(ring.open_auth_req_id(&client, &id).is_some());
    records[1] = secret.record(256, life, &deployment());
    let damaged = KeyRingError::Damaged {
        purpose: Purpose::IdMac,
        version: 256,
    };
    assert_eq!(open(&records).err(), Some(damaged));
}
