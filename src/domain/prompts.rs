//! How often a person's phones may be woken, over all clients and nodes: approval by weariness is how
//! push is broken. A request above it still waits in the inbox.

use super::Timestamp;
use std::time::Duration;

/// At most so many prompts in any such span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PromptBudget {
    pub prompts: u32,
    pub within: Duration,
}

impl PromptBudget {
    pub const fn new(prompts: u32, within: Duration) -> Self {
        Self { prompts, within }
    }
}

/// All of which must have room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PromptBudgets(pub [PromptBudget; 3]);

impl PromptBudgets {
    /// How far back prompts count.
    pub fn memory(&self) -> Duration {
        let spans = self.0.iter().map(|budget| budget.within);
        spans.max().unwrap_or_default()
    }

    /// Whether there may be another prompt at `now`, after the ones before.
    pub fn have_room(&self, before: &[Timestamp], now: Timestamp) -> bool {
        self.0.iter().all(|budget| {
            let since = now.minus(budget.within);
            let spent = before.iter().filter(|at| **at > since).count();
            spent < budget.prompts as usize
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BUDGETS: PromptBudgets = PromptBudgets([
        PromptBudget::new(3, Duration::from_secs(300)),
        PromptBudget::new(10, Duration::from_secs(3600)),
        PromptBudget::new(20, Duration::from_secs(86_400)),
    ]);

    #[test]
    fn a_prompt_counts_until_its_span_is_over() {
        let at = Timestamp::from_secs;
        let three = [at(1000), at(1001), at(1299)];
        assert!(BUDGETS.have_room(&three[..2], at(1299)));
        assert!(!BUDGETS.have_room(&three, at(1299)));
        let last = at(1300).minus(Duration::from_millis(1));
        assert!(!BUDGETS.have_room(&three, last));
        assert!(BUDGETS.have_room(&three, at(1300)));
        assert_eq!(BUDGETS.memory(), Duration::from_secs(86_400));
    }

    proptest! {
        /// Whoever asks, and whenever: no span ever holds more than its budget.
        #[test]
        fn no_span_holds_more_than_its_budget(pauses in prop::collection::vec(0_i64..2_000_000, 1..200)) {
            let mut now = 0;
            let mut prompts = Vec::new();
            for pause in pauses {
                now += pause;
                if BUDGETS.have_room(&prompts, Timestamp::from_millis(now)) {
                    prompts.push(Timestamp::from_millis(now));
                }
            }
            for budget in BUDGETS.0 {
                for first in &prompts {
                    let end = first.plus(budget.within);
                    let held = prompts.iter().filter(|at| *at >= first && **at < end).count();
                    prop_assert!(held <= budget.prompts as usize);
                }
            }
        }
    }
}
