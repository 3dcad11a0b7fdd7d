use super::*;
use crate::crypto::key_record::{NewKey, generate_missing};
use crate::entropy::SystemEntropy;

fn ring(deployment: &DeploymentKey) -> (Vec<KeyRecord>, KeyRing) {
    let records = generate_missing(&[], deployment, &SystemEntropy, Timestamp::from_millis(0));
    let ring = KeyRing::open(&records, deployment).unwrap();
    (records, ring)
}

#[test]
fn a_ring_opens_with_its_own_deployment_key_only() {
    let (records, _) = ring(&DeploymentKey::new(&[1; 32]));
    let purposes = |of| records.iter().filter(move |record| record.purpose == of);
    assert!(
        Purpose::ALL
            .iter()
            .all(|&purpose| purposes(purpose).count() >= 1)
    );
    let wrong = KeyRing::open(&records, &DeploymentKey::new(&[2; 32]));
    assert!(matches!(
        wrong.err(),
        Some(KeyRingError::DeploymentKey { .. })
    ));
    let short = KeyRing::open(&records[1..], &DeploymentKey::new(&[1; 32]));
    assert_eq!(short.err(), Some(KeyRingError::Missing(records[0].purpose)));
}

#[test]
fn a_wrapped_key_does_not_open_as_another() {
    let deployment = DeploymentKey::new(&[1; 32]);
    let (mut records, _) = ring(&deployment);
    let stolen = records[0].wrapped.clone();
    records[1].wrapped = stolen;
    assert!(KeyRing::open(&records, &deployment).is_err());
}

#[test]
fn a_secret_matches_its_client_only() {
    let (_, ring) = ring(&DeploymentKey::new(&[1; 32]));
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
    let (_, ring) = ring(&DeploymentKey::new(&[1; 32]));
    let period = Duration::from_secs(60);
    let at = Timestamp::from_secs;
    let nonce = ring.device_nonce(at(59), period);
    assert!(ring.device_nonce_is_fresh(&nonce, at(59), period));
    assert!(ring.device_nonce_is_fresh(&nonce, at(119), period));
    assert!(!ring.device_nonce_is_fresh(&nonce, at(120), period));
    assert!(!ring.device_nonce_is_fresh("", at(59), period));
}

#[test]
fn one_purpose_does_not_verify_anothers_statements() {
    let (_, ring) = ring(&DeploymentKey::new(&[1; 32]));
    let token = ring.sign_token(SignatureAlgorithm::Es256, "x", &1).unwrap();
    assert_eq!(ring.verify_token::<u8>("x", &token), Ok(1));
    assert_eq!(
        ring.verify_challenge::<u8>("x", &token),
        Err(InvalidJws::Signature)
    );
    assert_eq!(
        ring.verify_token::<u8>("x", &ring.sign_challenge("x", &1)),
        Err(InvalidJws::Signature)
    );
}

#[test]
fn each_algorithm_has_a_key_of_its_own() {
    let deployment = DeploymentKey::new(&[1; 32]);
    let (mut records, ring) = ring(&deployment);
    let ps256 = SignatureAlgorithm::Ps256;
    assert_eq!(ring.sign_token(ps256, "x", &1), Err(NoSigningKey(ps256)));
    for (version, algorithm) in [(3, ps256), (4, SignatureAlgorithm::Rs256)] {
        let new = NewKey::generate(Purpose::TokenSigning, Some(algorithm), &SystemEntropy);
        records.push(new.into_record(version, &deployment, Timestamp::from_millis(0)));
    }
    let ring = KeyRing::open(&records, &deployment).unwrap();
    let jwks = ring.token_jwks();
    for &algorithm in SignatureAlgorithm::ALL {
        let token = ring.sign_token(algorithm, "x", &1).unwrap();
        assert_eq!(ring.verify_token::<u8>("x", &token), Ok(1));
        let kid = Jws::parse(&token).unwrap().kid.unwrap();
        let keys = jwks["keys"].as_array().unwrap();
        let key = keys.iter().find(|key| key["kid"] == kid).unwrap();
        assert_eq!(key["alg"], algorithm.as_str());
    }
    assert_eq!(jwks["keys"].as_array().unwrap().len(), 4);
}

#[test]
fn a_key_under_another_keys_public_half_is_damaged() {
    let deployment = DeploymentKey::new(&[1; 32]);
    let (mut records, _) = ring(&deployment);
    let (_, public) = crate::crypto::generate::generate(SignatureAlgorithm::Es256);
    let record = records
        .iter_mut()
        .find(|record| record.purpose == Purpose::TokenSigning)
        .unwrap();
    record.public_jwk = Some(public.canonical_jwk());
    let damaged = KeyRingError::Damaged {
        purpose: Purpose::TokenSigning,
        version: 1,
    };
    assert_eq!(KeyRing::open(&records, &deployment).err(), Some(damaged));
}
