//! Microsoft's own driver as a witness that the protocol is spoken as it expects.
//!
//! `./test` fetches it.

mod client;

use std::process::Command;

use client::*;
use tds_double::{Options, Server};

const TAKE: &str = "INSERT INTO dbo.taken ([id], [name], [amount]) SELECT [id], [name], [amount] FROM @rows";
const ROW_TYPE: &str =
    "CREATE TYPE dbo.row_type AS TABLE ([id] int NOT NULL, [name] nvarchar(20) NULL, [amount] decimal(10,2) NULL)";

#[tokio::test]
async fn the_driver_of_microsoft_finds_a_server() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../target/test-tools/jdbc");
    assert!(std::path::Path::new(folder).exists(), "{folder}: ./test fetches the driver");
    let (_, tls) = certificates();
    let certificate = std::env::temp_dir().join(format!("tds-double-{}.pem", std::process::id()));
    std::fs::write(&certificate, &tls.certificate_pem).unwrap();
    let plain = server().await;
    let encrypted = Server::start(Options { tls: Some(tls), require_encryption: true, ..Options::default() }).await;
    plain.run(ROW_TYPE);
    plain.procedure("dbo.take", "@rows", "dbo.row_type", TAKE);

    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/jdbc/src/Witness.java");
    let ports = [plain.port().to_string(), encrypted.port().to_string()];
    let output = Command::new("java")
        .arg("-cp")
        .arg(format!("{folder}/*"))
        .arg(source)
        .args(ports)
        .arg(&certificate)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}\n{:?}\n{:?}", plain.batches().last(), plain.violations());
    assert_eq!(plain.violations(), Vec::<String>::new());
    assert_eq!(encrypted.violations(), Vec::<String>::new());
}
