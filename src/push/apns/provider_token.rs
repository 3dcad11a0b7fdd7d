//! The token that shows Apple whose app this is: one for all calls, renewed no more often than every 20
//! minutes and no less often than every 60, as Apple demands.

use crate::crypto::jose::SigningKey;
use crate::domain::{Secret, Timestamp};
use serde_json::json;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Young enough for every clock that is a little off.
const RENEW_AFTER: Duration = Duration::from_secs(50 * 60);
/// Apple refuses older ones.
const LONGEST: Duration = Duration::from_secs(60 * 60);
/// Apple refuses more frequent changes.
const SHORTEST: Duration = Duration::from_secs(20 * 60);

/// Signing takes microseconds and happens under the lock: many calls at once share one new token.
pub struct ProviderTokens {
    team_id: String,
    key: SigningKey,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    newest: Option<(Secret, Timestamp)>,
    held_until: Option<Timestamp>,
}

impl ProviderTokens {
    pub fn new(team_id: String, key: SigningKey) -> Self {
        Self {
            team_id,
            key,
            state: Mutex::default(),
        }
    }

    /// The token to use.
    ///
    /// # Errors
    /// There is none, and until then none may be made.
    pub fn current(&self, now: Timestamp) -> Result<Secret, Timestamp> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let held = state.held_until.filter(|until| now < *until);
        let longest = if held.is_some() { LONGEST } else { RENEW_AFTER };
        match (&state.newest, held) {
            (Some((token, made_at)), _) if now.since(*made_at) < longest => Ok(token.clone()),
            (_, Some(until)) => Err(until),
            _ => Ok(self.make(&mut state, now)),
        }
    }

    /// Apple says that `refused` has expired. `None`: it is too young to be replaced, so that something else
    /// must be wrong, such as our clock.
    pub fn renew(&self, refused: &Secret, now: Timestamp) -> Option<Secret> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((token, made_at)) = &state.newest {
            // Somebody else was faster.
            if token.expose() != refused.expose() {
                return Some(token.clone());
            }
            if now.since(*made_at) < SHORTEST {
                return None;
            }
        }
        if state.held_until.is_some_and(|until| now < until) {
            return None;
        }
        Some(self.make(&mut state, now))
    }

    /// Apple has seen too many: no new one for a while.
    pub fn hold(&self, now: Timestamp) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.held_until = Some(now.plus(SHORTEST));
    }

    fn make(&self, state: &mut State, now: Timestamp) -> Secret {
        let claims = json!({ "iss": self.team_id, "iat": now.secs() });
        let token = Secret::new(self.key.sign("JWT", &claims));
        state.newest = Some((token.clone(), now));
        token
    }
}
