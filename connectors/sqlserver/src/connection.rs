//! A session on the server.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use socket2::{SockRef, TcpKeepalive};
use tiberius::error::Error;
use tiberius::{Client, Row, ToSql};
use tokio::net::{TcpStream, lookup_host};
use tokio_util::compat::{Compat, TokioAsyncWriteCompatExt};

use crate::server::Server;
use crate::statements;
use crate::trouble::Trouble;

/// So long an address has to answer before the next one of the name is tried beside it.
/// <https://www.rfc-editor.org/rfc/rfc8305#section-5>
const BESIDE: Duration = Duration::from_millis(250);
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
    /// Whether it has its table for rows on their way, and that an index of them.
    pub staged: bool,
    pub indexed: bool,
    last_used: Instant,
}

impl Connection {
    /// `answer`: how long a statement may take.
    pub async fn open(server: &Server, answer: Duration) -> Result<Self, Trouble> {
        let client = login(server, answer).await?;
        let mut connection = Connection { client, staged: false, indexed: false, last_used: Instant::now() };
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
        config.handshake_timeout(Some(server.connect));
        let reached = tokio::time::timeout(server.connect, reach(&host, port)).await;
        let line = reached
            .unwrap_or_else(|late| Err(late.into()))
            .map_err(|e| Trouble::Transient(format!("{host}:{port} is not reached: {e}")))?;
        match Client::connect(config, line.compat_write()).await {
            Err(Error::Routing { host: next, port: at }) if server.may_go_to(&next) => (host, port) = (next, at),
            connected => return connected.map_err(Trouble::of),
        }
    }
    Err(Trouble::Transient(format!("the login was sent on {REDIRECTIONS} times")))
}

async fn reach(host: &str, port: u16) -> std::io::Result<TcpStream> {
    let addresses: Vec<SocketAddr> = lookup_host((host, port)).await?.collect();
    let line = first_to_answer(&addresses).await?;
    line.set_nodelay(true)?;
    let (after, every, tries) = KEEPALIVE;
    let socket = SockRef::from(&line);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(after).with_interval(every).with_retries(tries))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    Ok(line)
}

/// The listener of an availability group has an address in each of its subnets, and only one of them lives; the others may swallow what
/// they are sent. So all are tried beside one another.
/// <https://learn.microsoft.com/sql/database-engine/availability-groups/windows/listeners-client-connectivity-application-failover#MultiSubnetFailover>
async fn first_to_answer(addresses: &[SocketAddr]) -> std::io::Result<TcpStream> {
    let mut failure = std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address");
    let (mut left, mut tried) = (addresses.iter(), FuturesUnordered::new());
    loop {
        tried.extend(left.next().map(TcpStream::connect));
        tokio::select! {
            answer = tried.next() => match answer {
                Some(Ok(line)) => return Ok(line),
                Some(Err(error)) => failure = error,
                None => return Err(failure),
            },
            () = tokio::time::sleep(BESIDE), if left.len() > 0 => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use engine::connector::Options;
    use socket2::{Domain, Socket, Type};

    use super::*;

    const HERE: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

    /// An address that never answers: its queue is full, so that what asks for a line is dropped.
    struct Silent(Socket, Vec<Socket>);

    impl Silent {
        fn new() -> Silent {
            let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            listener.bind(&SocketAddr::from(HERE).into()).unwrap();
            listener.listen(0).unwrap();
            let waiting = |_| {
                let line = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                line.set_nonblocking(true).unwrap();
                // It begins; nobody accepts it.
                let _ = line.connect(&listener.local_addr().unwrap());
                line
            };
            let lines = (0..4).map(waiting).collect();
            Silent(listener, lines)
        }

        fn address(&self) -> SocketAddr {
            assert!(!self.1.is_empty());
            self.0.local_addr().unwrap().as_socket().unwrap()
        }
    }

    async fn within(limit: Duration, addresses: &[SocketAddr]) -> Option<std::io::Result<SocketAddr>> {
        let answer = tokio::time::timeout(limit, first_to_answer(addresses)).await.ok()?;
        Some(answer.and_then(|line| line.peer_addr()))
    }

    #[tokio::test]
    async fn of_the_addresses_of_a_name_the_one_that_answers_is_taken() {
        let (silent, living) = (Silent::new(), TcpListener::bind(HERE).unwrap());
        let living = living.local_addr().map(|at| (at, living)).unwrap();
        let closed = TcpListener::bind(HERE).unwrap().local_addr().unwrap();
        assert!(within(BESIDE, &[silent.address()]).await.is_none(), "it never answers");
        let moment = Duration::from_secs(5);
        let found = within(moment, &[silent.address(), silent.address(), living.0]).await;
        assert_eq!(found.unwrap().unwrap(), living.0);
        // One that refuses is not waited for.
        let found = within(BESIDE / 2, &[closed, living.0, silent.address()]).await;
        assert_eq!(found.unwrap().unwrap(), living.0);
        assert!(within(moment, &[closed, closed]).await.unwrap().is_err());
        assert!(within(moment, &[]).await.unwrap().is_err());
    }

    #[tokio::test]
    async fn a_connection_has_as_long_as_its_string_says() {
        let silent = Silent::new();
        let port = silent.address().port();
        let said = format!("Server=127.0.0.1,{port};Database=d;User ID=u;Password=p;Encrypt=false;Connect Timeout=1");
        let options = Options([("connection_string".to_string(), said)].into());
        let server = Server::of(&options, &|_| None).ok().unwrap();
        let begun = Instant::now();
        let failed = Connection::open(&server, Duration::from_secs(60)).await.err().unwrap();
        assert!(matches!(&failed, Trouble::Transient(what) if what.contains("is not reached")), "{failed}");
        assert!((Duration::from_secs(1)..Duration::from_secs(5)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    }
}
