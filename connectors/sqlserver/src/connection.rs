//! A session on the server.

use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};
use tiberius::error::Error;
use tiberius::{Client, Row, ToSql};
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, TokioAsyncWriteCompatExt};

use crate::server::Server;
use crate::statements;
use crate::trouble::Trouble;

/// How long it may take to reach the server, and to log in.
const CONNECT: Duration = Duration::from_secs(15);
/// How often a login may be sent elsewhere.
const REDIRECTIONS: usize = 5;
/// An idle line is asked for its other end after this, and each time this much later; so a server that is gone is noticed within a
/// minute, however long a statement may take.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(30), Duration::from_secs(10), 3);
/// Azure drops lines that are idle for four minutes, without a word.
const IDLE: Duration = Duration::from_secs(120);
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(60);

/// An open session, with the settings that all statements are meant for.
pub struct Connection {
    pub client: Client<Compat<TcpStream>>,
    /// Whether it has its table for rows on their way.
    pub staged: bool,
    last_used: Instant,
}

impl Connection {
    /// `answer`: how long a statement may take.
    pub async fn open(server: &Server, answer: Duration) -> Result<Self, Trouble> {
        let client = login(server, answer).await?;
        let mut connection = Connection { client, staged: false, last_used: Instant::now() };
        connection.run(statements::settings()).await?;
        Ok(connection)
    }

    /// Whether it was used so lately that it need not be doubted.
    pub fn is_fresh(&self) -> bool {
        self.last_used.elapsed() < IDLE
    }

    pub fn used(&mut self) {
        self.last_used = Instant::now();
    }

    /// Runs a batch, and yields the rows of its last result.
    pub async fn run(&mut self, batch: String) -> Result<Vec<Row>, Trouble> {
        let results = self.client.simple_query(batch).await.map_err(Trouble::of)?;
        Ok(results.into_results().await.map_err(Trouble::of)?.pop().unwrap_or_default())
    }

    /// Runs one statement with parameters, and yields its rows.
    pub async fn ask(&mut self, statement: &str, parameters: &[&dyn ToSql]) -> Result<Vec<Row>, Trouble> {
        let rows = self.client.query(statement, parameters).await.map_err(Trouble::of)?;
        rows.into_first_result().await.map_err(Trouble::of)
    }
}

/// Azure SQL may send a client on to where the database is:
/// <https://learn.microsoft.com/azure/azure-sql/database/connectivity-architecture>
async fn login(server: &Server, answer: Duration) -> Result<Client<Compat<TcpStream>>, Trouble> {
    let (mut host, mut port) = (server.host.clone(), server.port);
    for _ in 0..REDIRECTIONS {
        let mut config = server.config(&host, port).await?;
        config.command_timeout(Some(answer));
        config.handshake_timeout(Some(CONNECT));
        let line =
            reach(&host, port).await.map_err(|e| Trouble::Transient(format!("{host}:{port} is not reached: {e}")))?;
        match Client::connect(config, line.compat_write()).await {
            Err(Error::Routing { host: next, port: at }) if server.may_go_to(&next) => (host, port) = (next, at),
            connected => return connected.map_err(Trouble::of),
        }
    }
    Err(Trouble::Transient(format!("the login was sent on {REDIRECTIONS} times")))
}

async fn reach(host: &str, port: u16) -> std::io::Result<TcpStream> {
    let line = tokio::time::timeout(CONNECT, TcpStream::connect((host, port))).await??;
    line.set_nodelay(true)?;
    let (after, every, tries) = KEEPALIVE;
    let socket = SockRef::from(&line);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(after).with_interval(every).with_retries(tries))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    Ok(line)
}
