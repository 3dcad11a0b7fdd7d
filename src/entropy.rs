//! The one source of randomness. Key generation and signature nonces stay inside the provider.

/// Fills buffers with unpredictable bytes.
pub trait Entropy: Send + Sync {
    fn fill(&self, buffer: &mut [u8]);
}

impl dyn Entropy + '_ {
    /// `N` unpredictable bytes.
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }
}

/// The operating system's generator, through aws-lc.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that draws random bytes"
    )]
    fn fill(&self, buffer: &mut [u8]) {
        // aws-lc aborts rather than return weak bytes; an error here means the machine is unusable.
        aws_lc_rs::rand::fill(buffer)
            .expect("the operating system's random number generator failed");
    }
}
