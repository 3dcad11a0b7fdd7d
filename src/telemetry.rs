//! Logs and metrics. Neither ever holds a secret or a person's data: types redact themselves, requests
//! and devices appear by the beginning of a hash.

use crate::config::{Log, LogFormat};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use std::sync::OnceLock;
use tracing_subscriber::EnvFilter;

/// Bytes that are no HTTP, or no WebSocket, are their sender's error, and told to the sender; actix logs them
/// as ours. A filter that names these targets shows them again.
const NOT_OURS: &str = "actix_http::h1=off,actix_http::ws=off";

/// Starts logging to standard error. Only the first call of a process counts.
///
/// # Errors
/// When the filter cannot be read.
pub fn init_logs(log: &Log) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(format!("{NOT_OURS},{}", log.filter))
        .map_err(|error| anyhow::anyhow!("log.filter cannot be read: {error}"))?;
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let _ = match log.format {
        LogFormat::Human => logs.with_ansi(false).try_init(),
        LogFormat::Json => logs.json().flatten_event(true).try_init(),
    };
    Ok(())
}

/// The process's metrics; installed at the first call.
pub fn metrics() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let recorder = PrometheusBuilder::new()
            .set_buckets(&[
                0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0,
            ])
            .unwrap_or_else(|_| PrometheusBuilder::new())
            .build_recorder();
        let handle = recorder.handle();
        // Fails only when somebody else installed a recorder: then ours counts nothing, and says so by
        // being empty.
        let _ = metrics::set_global_recorder(recorder);
        handle
    })
}
