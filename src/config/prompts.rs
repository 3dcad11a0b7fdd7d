//! `[prompts]`: how often people may be woken, and what a denial does.

use super::ConfigError;
use crate::domain::prompts::{PromptBudget, PromptBudgets};
use serde::Deserialize;
use std::time::Duration;

const FIVE_MINUTES: Duration = Duration::from_secs(5 * 60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prompts {
    pub per_five_minutes: u32,
    pub per_hour: u32,
    pub per_day: u32,
    #[serde(with = "humantime_serde")]
    pub pause_after_denial: Duration,
    #[serde(with = "humantime_serde")]
    pub block_after_fraud: Duration,
    pub lock_device_after_fraud: bool,
}

impl Prompts {
    pub const fn budgets(&self) -> PromptBudgets {
        PromptBudgets([
            PromptBudget::new(self.per_five_minutes, FIVE_MINUTES),
            PromptBudget::new(self.per_hour, HOUR),
            PromptBudget::new(self.per_day, DAY),
        ])
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let invalid = |key, problem| Err(ConfigError::Invalid { key, problem });
        // Every one is remembered for a day.
        if self.per_day > 1000 {
            return invalid("prompts.per_day", "must be at most 1000");
        }
        if self.pause_after_denial > DAY {
            return invalid("prompts.pause_after_denial", "must be at most 1 day");
        }
        if self.block_after_fraud > 30 * DAY {
            return invalid("prompts.block_after_fraud", "must be at most 30 days");
        }
        Ok(())
    }
}
