//! Serves until it is ended: `cargo run -p tds_double --example serve` prints the connection string.
#![allow(clippy::print_stdout, reason = "that is what it is for")]

use tds_double::{Options, Server};

#[tokio::main]
async fn main() {
    let server = Server::start(Options::default()).await;
    println!("{}", server.connection_string());
    std::future::pending::<()>().await;
}
