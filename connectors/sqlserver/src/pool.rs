//! Sessions that are kept between requests.

use std::time::Duration;

use parking_lot::Mutex;

use crate::connection::Connection;
use crate::server::Server;
use crate::trouble::Trouble;

/// Sessions that nobody uses and that are kept all the same.
const IDLE: usize = 16;

/// As many sessions as there are requests at once.
pub struct Pool {
    server: Server,
    /// How long a statement may take.
    answer: Duration,
    idle: Mutex<Vec<Connection>>,
}

impl Pool {
    pub fn new(server: Server, answer: Duration) -> Self {
        Pool { server, answer, idle: Mutex::default() }
    }

    /// A session of the caller's own. What becomes of it is theirs to say: one that is not given back is closed.
    pub async fn take(&self) -> Result<Connection, Trouble> {
        let kept = {
            let mut idle = self.idle.lock();
            idle.retain(Connection::is_fresh);
            idle.pop()
        };
        match kept {
            Some(connection) => Ok(connection),
            None => Connection::open(&self.server, self.answer).await,
        }
    }

    /// Keeps a session that has done all that it was asked.
    pub fn give_back(&self, mut connection: Connection) {
        connection.used();
        let mut idle = self.idle.lock();
        if idle.len() < IDLE {
            idle.push(connection);
        }
    }

    /// Closes those that nobody uses: what ended one session has mostly ended all of them.
    pub fn clear(&self) {
        self.idle.lock().clear();
    }
}
