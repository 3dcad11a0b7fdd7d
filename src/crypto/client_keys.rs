//! stub until merged
use super::jose::{InvalidJws, Jws};
use crate::domain::client::SigningAlgorithm;
use serde::de::DeserializeOwned;
#[derive(Clone)]
pub struct ClientKeySet;
impl ClientKeySet {
    pub fn parse(_: &[u8]) -> Option<Self> {
        None
    }
    pub fn from_json(_: &serde_json::Value) -> Option<Self> {
        None
    }
    pub fn has(&self, _: &str) -> bool {
        false
    }
    pub fn verify<T: DeserializeOwned>(
        &self,
        _: Jws<'_>,
        _: Option<SigningAlgorithm>,
    ) -> Result<T, InvalidJws> {
        Err(InvalidJws::Signature)
    }
}
