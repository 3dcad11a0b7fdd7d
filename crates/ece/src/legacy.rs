//! The coding before the standard (`aesgcm`). `web-push` names it; it is never made.

use crate::{Error, Result};

/// A message in that coding: there is none.
#[derive(Debug)]
pub enum AesGcmEncryptedBlock {}

impl AesGcmEncryptedBlock {
    pub fn headers(&self, _vapid_public_key: Option<&[u8]>) -> Vec<(&'static str, String)> {
        match *self {}
    }

    pub fn body(&self) -> String {
        match *self {}
    }
}

/// # Errors
/// Always: browsers have long spoken `aes128gcm`.
pub fn encrypt_aesgcm(
    _remote_pub: &[u8],
    _remote_auth: &[u8],
    _data: &[u8],
) -> Result<AesGcmEncryptedBlock> {
    Err(Error::Legacy)
}
