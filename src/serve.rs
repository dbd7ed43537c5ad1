//! What a running job shows to others: `/metrics`, `/status`, `/healthz`, `/readyz`.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use engine::metrics::Metrics;

/// Serves in the background, on loopback and a free port unless told otherwise. Returns the address.
pub async fn serve(listen: Option<&str>, metrics: Arc<Metrics>) -> Result<SocketAddr, String> {
    let wanted = listen.unwrap_or("127.0.0.1:0");
    let listener =
        tokio::net::TcpListener::bind(wanted).await.map_err(|e| format!("cannot listen on {wanted}: {e}"))?;
    let address = listener.local_addr().map_err(|e| e.to_string())?;
    let routes = Router::new()
        .route("/metrics", get(|State(m): State<Arc<Metrics>>| async move { prometheus(&m) }))
        .route("/status", get(|State(m): State<Arc<Metrics>>| async move { Json(serde_json::json!(&*m)) }))
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(|State(m): State<Arc<Metrics>>| async move { ready(&m) }))
        .with_state(metrics);
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Ok(address)
}

/// Ready: the first checkpoint is published.
fn ready(metrics: &Metrics) -> (StatusCode, &'static str) {
    if metrics.checkpoints.count.get() > 0 {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "no checkpoint yet")
    }
}

/// The numbers in Prometheus' text format.
fn prometheus(metrics: &Metrics) -> String {
    let mut out = String::new();
    for (split, m) in metrics.splits.read().iter() {
        for (name, value) in [
            ("source_records_total", m.records.get()),
            ("source_rows_total", m.rows.get()),
            ("source_bytes_total", m.bytes.get()),
            ("source_rejected_total", m.rejected.get()),
            ("source_lag_records", m.lag.get()),
            ("source_offset", m.offset.get()),
        ] {
            let _ = writeln!(out, "millrace_{name}{{split={split:?}}} {value}");
        }
    }
    for (id, m) in metrics.dedup.read().iter() {
        let keys: u64 = m.size.read().values().map(|(keys, _)| keys).sum();
        let bytes: u64 = m.size.read().values().map(|(_, bytes)| bytes).sum();
        for (name, value) in [
            ("dedup_rows_total", m.rows.get()),
            ("dedup_copies_total", m.copies.get()),
            ("dedup_unjudged_total", m.unjudged.get()),
            ("dedup_keys", keys),
            ("dedup_bytes", bytes),
        ] {
            let _ = writeln!(out, "millrace_{name}{{operator={id:?}}} {value}");
        }
    }
    for (sink, m) in metrics.sinks.read().iter() {
        for (name, value) in [
            ("sink_rows_total", m.rows.get()),
            ("sink_commits_total", m.commits.get()),
            ("sink_commit_retries_total", m.retries.get()),
            ("sink_uncommitted_entries", m.uncommitted.get()),
            ("sink_commit_micros", m.last_commit_micros.get()),
        ] {
            let _ = writeln!(out, "millrace_{name}{{sink={sink:?}}} {value}");
        }
    }
    let checkpoints = &metrics.checkpoints;
    for (name, value) in [
        ("dead_letters_total", metrics.dead_letters.get()),
        ("checkpoint_entry", checkpoints.entry.get()),
        ("checkpoints_total", checkpoints.count.get()),
        ("checkpoint_micros", checkpoints.last_micros.get()),
        ("checkpoint_state_bytes", checkpoints.last_bytes.get()),
        ("checkpoint_published_seconds", checkpoints.published_at.get() / 1_000_000_000),
    ] {
        let _ = writeln!(out, "millrace_{name} {value}");
    }
    out
}
