//! Real time, in the one place that may look at it: the harness measures what a clock that is an
//! argument cannot tell.

use assent::clock::{Clock as _, SystemClock};
use std::time::{Duration, Instant};

/// Runs from the moment it is made.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(
        clippy::disallowed_methods,
        reason = "measures real time; decides nothing"
    )]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "measures real time; decides nothing"
    )]
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// Lets time pass.
pub async fn pause(time: Duration) {
    SystemClock.sleep_until(SystemClock.now().plus(time)).await;
}
