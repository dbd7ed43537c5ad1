//! A database of SQL Server for a test: the double; or, if `MILLRACE_TEST_SQLSERVER` has a connection string, a schema of its own in a
//! real one, which stays there to be looked at.

use tds_double::{Options, Server};
use tiberius::time::{Date, Time};
use tiberius::{Client, ColumnData, Config, EncryptionLevel, Row};
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, TokioAsyncWriteCompatExt};
use uuid::Uuid;

/// The schema that tests write.
const DBO: &str = "[dbo]";

pub enum Database {
    Double(Server),
    Real { connection: String, schema: String },
}

impl Database {
    pub async fn start() -> Database {
        let Ok(connection) = std::env::var("MILLRACE_TEST_SQLSERVER") else {
            return Database::Double(Server::start(Options::default()).await);
        };
        let schema = format!("millrace_{}", Uuid::new_v4().simple());
        let database = Database::Real { connection, schema: schema.clone() };
        database.run(&format!("CREATE SCHEMA [{schema}];"));
        database
    }

    /// The double.
    pub fn server(&self) -> &Server {
        match self {
            Database::Double(server) => server,
            Database::Real { .. } => panic!("a real server has no accidents on request"),
        }
    }

    /// What a job's table says to reach a table, or with `procedure` a procedure, of the schema.
    pub fn connection(&self, option: &str, name: &str) -> String {
        let (connection, schema) = match self {
            Database::Double(server) => (server.connection_string(), "dbo"),
            Database::Real { connection, schema } => (connection.clone(), schema.as_str()),
        };
        format!("connector = 'sqlserver', connection_string = '{connection}', \"{option}\" = '{schema}.{name}'")
    }

    /// Runs a batch.
    pub fn run(&self, t_sql: &str) {
        match self {
            Database::Double(server) => server.run(t_sql),
            Database::Real { .. } => drop(self.ask(t_sql)),
        }
    }

    /// The rows of a query, each value as text.
    pub fn query(&self, t_sql: &str) -> Vec<Vec<Option<String>>> {
        match self {
            Database::Double(server) => server.query(t_sql),
            Database::Real { .. } => {
                self.ask(t_sql).iter().map(|row| row.cells().map(|(_, value)| text(value)).collect()).collect()
            }
        }
    }

    /// Makes a procedure with one parameter of a table type.
    pub fn procedure(&self, name: &str, parameter: &str, of: &str, body: &str) {
        match self {
            Database::Double(server) => server.procedure(&format!("dbo.{name}"), parameter, &format!("dbo.{of}"), body),
            Database::Real { .. } => self
                .run(&format!("CREATE PROCEDURE {DBO}.[{name}] {parameter} {DBO}.[{of}] READONLY AS BEGIN {body} END")),
        }
    }

    /// What the job did that the protocol does not allow, as far as anyone looks.
    pub fn violations(&self) -> Vec<String> {
        if let Database::Double(server) = self { server.violations() } else { vec![] }
    }

    fn ask(&self, t_sql: &str) -> Vec<Row> {
        let Database::Real { connection, schema } = self else { return vec![] };
        let t_sql = t_sql.replace(DBO, &format!("[{schema}]"));
        let asked = async {
            let mut client = client(connection).await;
            let rows = client.simple_query(&t_sql).await.unwrap_or_else(|e| panic!("{e}: {t_sql}"));
            rows.into_first_result().await.unwrap_or_else(|e| panic!("{e}: {t_sql}"))
        };
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(asked))
    }
}

async fn client(connection: &str) -> Client<Compat<TcpStream>> {
    let mut config = Config::from_ado_string(connection).expect("a connection string for ADO.NET");
    // To the client that means: encrypt the login. To millrace it means nothing at all, and only on this machine.
    if connection.to_lowercase().contains("encrypt=false") {
        config.encryption(EncryptionLevel::NotSupported);
    }
    let line = TcpStream::connect(config.get_addr()).await.expect("the server is there");
    Client::connect(config, line.compat_write()).await.expect("it lets us in")
}

fn text(value: &ColumnData<'_>) -> Option<String> {
    let moment = |date: Date, time: Time| {
        let seconds = i64::from(date.days()) * 86_400 + (time.increments() / 10_000_000) as i64;
        let at = chrono::NaiveDate::from_ymd_opt(1, 1, 1)?.and_hms_opt(0, 0, 0)? + chrono::TimeDelta::seconds(seconds);
        Some(format!("{}.{:07}", at.format("%Y-%m-%d %H:%M:%S"), time.increments() % 10_000_000))
    };
    match value {
        ColumnData::U8(n) => n.map(|n| n.to_string()),
        ColumnData::I16(n) => n.map(|n| n.to_string()),
        ColumnData::I32(n) => n.map(|n| n.to_string()),
        ColumnData::I64(n) => n.map(|n| n.to_string()),
        ColumnData::F32(n) => n.map(|n| n.to_string()),
        ColumnData::F64(n) => n.map(|n| n.to_string()),
        ColumnData::Bit(bit) => bit.map(|bit| u8::from(bit).to_string()),
        ColumnData::String(text) => text.as_ref().map(|text| text.to_string()),
        ColumnData::Binary(bytes) => {
            bytes.as_ref().map(|bytes| bytes.iter().fold("0x".to_string(), |text, byte| format!("{text}{byte:02X}")))
        }
        ColumnData::Guid(id) => id.map(|id| id.to_string()),
        ColumnData::Numeric(number) => number.map(|number| number.to_string()),
        ColumnData::Date(date) => moment((*date)?, Time::new(0, 7)).map(|text| text[..10].to_string()),
        ColumnData::DateTime2(at) => moment((*at)?.date(), (*at)?.time()),
        ColumnData::DateTimeOffset(at) => {
            let utc = moment((*at)?.datetime2().date(), (*at)?.datetime2().time())?;
            Some(format!("{utc} +00:00"))
        }
        other => panic!("no test reads {other:?}"),
    }
}
