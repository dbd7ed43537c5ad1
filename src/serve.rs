//! What a running job shows to others: `/metrics`, `/status`, `/healthz`, `/readyz`.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use engine::environment::{Environment, System};
use engine::metrics::Metrics;

use crate::prometheus::page;

/// Serves in the background, on loopback and a free port unless told otherwise. Returns the address.
pub async fn serve(listen: Option<&str>, metrics: Arc<Metrics>) -> Result<SocketAddr, String> {
    let wanted = listen.unwrap_or("127.0.0.1:0");
    let listener =
        tokio::net::TcpListener::bind(wanted).await.map_err(|e| format!("cannot listen on {wanted}: {e}"))?;
    let address = listener.local_addr().map_err(|e| e.to_string())?;
    let routes = Router::new()
        .route("/metrics", get(|State(m): State<Arc<Metrics>>| async move { numbers(&m) }))
        .route("/status", get(|State(m): State<Arc<Metrics>>| async move { Json(serde_json::json!(&*m)) }))
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(|State(m): State<Arc<Metrics>>| async move { ready(&m) }))
        .with_state(metrics);
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Ok(address)
}

fn numbers(metrics: &Metrics) -> (StatusCode, String) {
    match page(metrics, System.now()) {
        Ok(page) => (StatusCode::OK, page),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// Ready: the first checkpoint is published.
fn ready(metrics: &Metrics) -> (StatusCode, &'static str) {
    if metrics.checkpoints.count.get() > 0 {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "no checkpoint yet")
    }
}
