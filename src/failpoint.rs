//! Named steps at which a test may end the process, as a power cut would.
//!
//! Without the `failpoints` feature this is an empty function.

/// Ends the process if the environment names this step: `ASSENT_FAILPOINT=step`, or `step:n` for its
/// nth time.
#[cfg(feature = "failpoints")]
#[expect(
    clippy::disallowed_methods,
    reason = "a test's way into a process of its own; never in a release"
)]
pub fn hit(step: &str) {
    use std::sync::atomic::{AtomicU32, Ordering};
    static HITS: AtomicU32 = AtomicU32::new(0);
    let Ok(wanted) = std::env::var("ASSENT_FAILPOINT") else {
        return;
    };
    let (name, nth) = wanted.split_once(':').unwrap_or((&wanted, "1"));
    if name == step && Ok(HITS.fetch_add(1, Ordering::SeqCst) + 1) == nth.parse() {
        std::process::abort();
    }
}

#[cfg(not(feature = "failpoints"))]
pub const fn hit(_step: &str) {}
