//! A client as the sink is one: tiberius, and the batches that the sink says.
#![allow(dead_code)]

use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tds_double::{Options, Server, Tls};
use tiberius::error::Error;
use tiberius::{AuthMethod, Client, Config, EncryptionLevel, Row};
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, TokioAsyncWriteCompatExt};

pub type Session = Client<Compat<TcpStream>>;

pub async fn server() -> Server {
    Server::start(Options::default()).await
}

pub fn config(server: &Server) -> Config {
    let mut config = Config::new();
    config.host("127.0.0.1");
    config.port(server.port());
    config.database("streaming");
    config.authentication(AuthMethod::sql_server("millrace", "Str0ng;enough"));
    config.encryption(EncryptionLevel::NotSupported);
    config.handshake_timeout(Some(Duration::from_secs(5)));
    config
}

pub async fn connect(config: Config) -> Result<Session, Error> {
    let line = TcpStream::connect(config.get_addr()).await?;
    line.set_nodelay(true)?;
    Client::connect(config, line.compat_write()).await
}

pub async fn session(server: &Server) -> Session {
    connect(config(server)).await.expect("a session")
}

/// The rows of a batch's last result.
pub async fn run(session: &mut Session, batch: &str) -> Result<Vec<Row>, Error> {
    Ok(session.simple_query(batch).await?.into_results().await?.pop().unwrap_or_default())
}

/// The number and the text of the error that a batch ends with.
pub async fn refused(session: &mut Session, batch: &str) -> (u32, String) {
    match run(session, batch).await {
        Err(Error::Server(token)) => (token.code(), token.message().to_string()),
        Err(other) => panic!("{other}: {batch}"),
        Ok(_) => panic!("it went well: {batch}"),
    }
}

pub async fn number(session: &mut Session, query: &str) -> Option<i64> {
    let rows = run(session, query).await.unwrap_or_else(|error| panic!("{error}: {query}"));
    let row = rows.first().expect("a row");
    row.try_get::<i64, _>(0).or_else(|_| row.try_get::<i32, _>(0).map(|n| n.map(i64::from))).expect("a whole number")
}

/// An authority of our own, and the certificate that it gave 127.0.0.1.
pub fn certificates() -> (String, Tls) {
    let mut authority = CertificateParams::new(Vec::new()).expect("parameters");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(authority, KeyPair::generate().expect("a key")).expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let names = vec!["127.0.0.1".to_string(), "localhost".to_string()];
    let certificate =
        CertificateParams::new(names).expect("parameters").signed_by(&key, &issuer).expect("a certificate");
    (issuer.pem(), Tls { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
}

pub const SETTINGS: &str =
    "SET XACT_ABORT ON; SET NOCOUNT OFF; SET LOCK_TIMEOUT 20000; SET TRANSACTION ISOLATION LEVEL READ COMMITTED;";

pub const MARKERS: &str = "IF OBJECT_ID(N'[dbo].[millrace_markers]', N'U') IS NULL CREATE TABLE [dbo].[millrace_markers] \
    ([job] nvarchar(64) COLLATE Latin1_General_100_BIN2 NOT NULL, [sink] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL, \
    [writer] nvarchar(64) COLLATE Latin1_General_100_BIN2 NOT NULL, [lane] int NOT NULL, [entry] bigint NOT NULL, \
    [updated_at] datetime2(7) NOT NULL, PRIMARY KEY CLUSTERED ([job], [sink], [writer], [lane]));";

/// A commit up to an entry, of what `apply` does; with the marker or not at all.
pub fn show(entry: u64, apply: &str) -> String {
    format!(
        "DECLARE @done bigint; BEGIN TRANSACTION; \
         UPDATE [dbo].[millrace_markers] SET @done = [entry], [entry] = {entry}, [updated_at] = SYSUTCDATETIME() \
         WHERE [job] = N'it''s' AND [sink] = N'out' AND [writer] = N'w' AND [lane] = 0 AND [entry] < {entry}; \
         IF @done IS NOT NULL BEGIN {apply} END; COMMIT TRANSACTION; SELECT @done AS [done];"
    )
}
