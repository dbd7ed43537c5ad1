//! `cargo bench -p sqlserver`: events into a table, from staging to the commit, beside the client alone, which is handed finished
//! values. Both are charged the processor time of this process; the server has one of its own.
#![allow(clippy::print_stdout, clippy::expect_used, reason = "a benchmark prints, and stops at what is wrong")]

#[path = "../../cosmosdb/benches/write/events.rs"]
mod events;
#[path = "../../cosmosdb/benches/write/shown.rs"]
mod shown;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type, TimestampNanosecondType};
use engine::connector::{self, ColumnSpec, Origin, TableSpec};
use events::{ROWS, events};
use shown::{cpu_time, shown};
use sqlserver::SqlServerConnector;
use tds_double::{Options, Server};
use tiberius::time::{Date, DateTime2, Time};
use tiberius::{AuthMethod, Client, ColumnData, Config, EncryptionLevel, TokenRow, Uuid};
use tokio::net::TcpStream;
use tokio_util::compat::TokioAsyncWriteCompatExt;

/// Each takes its turn so often; the middle ratio is shown.
const TURNS: usize = 5;
/// What tells the process that is the server from the one that measures.
const IS_SERVER: &str = "MILLRACE_BENCH_SERVER";
const COLUMNS: &str = "[id] uniqueidentifier NOT NULL, [deviceId] nvarchar(100) NOT NULL, [type] nvarchar(10) NOT NULL, \
                       [value] float NOT NULL, [deviceSequenceNumber] bigint NOT NULL, [createdAt] datetime2(7) NOT NULL, \
                       [complexData] nvarchar(max) NOT NULL";

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() {
    if std::env::var_os(IS_SERVER).is_some() {
        let server = Server::start(Options::default()).await;
        server.run(&format!("CREATE TABLE [dbo].[alone] ({COLUMNS}); CREATE TABLE [dbo].[shown] ({COLUMNS});"));
        println!("{} {}", server.port(), server.connection_string());
        std::future::pending::<()>().await;
    }
    let (mut process, port, connection) = start_server();
    println!("{:<28} {:>16} {:>14} {:>7}", "rows per CPU second", "the client alone", "millrace", "ratio");
    let mut turns = vec![];
    for turn in 0..TURNS {
        let rows = events(turn as u64);
        turns.push((alone(port, &rows).await, millrace(&connection, &rows).await));
    }
    turns.sort_by(|a, b| a.1.div_duration_f64(a.0).total_cmp(&b.1.div_duration_f64(b.0)));
    let (alone, subject) = turns[TURNS / 2];
    let rate = |time: Duration| ROWS as f64 / time.as_secs_f64();
    println!("{:<28} {:>16.0} {:>14.0} {:>6.2}x", "append", rate(alone), rate(subject), rate(subject) / rate(alone));
    let _ = process.kill();
}

fn start_server() -> (Child, u16, String) {
    let this = std::env::current_exe().expect("this program");
    let mut process = Command::new(this).env(IS_SERVER, "1").stdout(Stdio::piped()).spawn().expect("it starts");
    let mut line = String::new();
    BufReader::new(process.stdout.take().expect("its output")).read_line(&mut line).expect("its address");
    let (port, connection) = line.trim().split_once(' ').expect("a port and a connection string");
    (process, port.parse().expect("a port"), connection.to_string())
}

/// The rows in one bulk load, as finished values.
async fn alone(port: u16, rows: &RecordBatch) -> Duration {
    let values: Vec<TokenRow<'static>> = (0..rows.num_rows()).map(|row| values(rows, row)).collect();
    let Options { user, password, .. } = Options::default();
    let mut config = Config::new();
    config.host("127.0.0.1");
    config.port(port);
    config.database("streaming");
    config.encryption(EncryptionLevel::NotSupported);
    config.authentication(AuthMethod::sql_server(user, password));
    let line = TcpStream::connect(("127.0.0.1", port)).await.expect("the server is there");
    let mut client = Client::connect(config, line.compat_write()).await.expect("it lets us in");
    let begun = cpu_time();
    let mut bulk = client.bulk_insert("[dbo].[alone]").await.expect("a bulk load");
    for row in values {
        bulk.send(row).await.expect("a row");
    }
    bulk.finalize().await.expect("all rows");
    cpu_time() - begun
}

fn values(rows: &RecordBatch, row: usize) -> TokenRow<'static> {
    let text = |column: usize| rows.column(column).as_string::<i32>().value(row).to_string();
    let ticks = rows.column(5).as_primitive::<TimestampNanosecondType>().value(row) / 100;
    let (days, time) = (ticks / 864_000_000_000 + 719_162, ticks % 864_000_000_000);
    let mut values = TokenRow::with_capacity(rows.num_columns());
    values.push(ColumnData::Guid(Some(Uuid::parse_str(&text(0)).expect("a UUID"))));
    values.push(ColumnData::String(Some(text(1).into())));
    values.push(ColumnData::String(Some(text(2).into())));
    values.push(ColumnData::F64(Some(rows.column(3).as_primitive::<Float64Type>().value(row))));
    values.push(ColumnData::I64(Some(rows.column(4).as_primitive::<Int64Type>().value(row))));
    values.push(ColumnData::DateTime2(Some(DateTime2::new(Date::new(days as u32), Time::new(time as u64, 7)))));
    values.push(ColumnData::String(Some(text(6).into())));
    values
}

async fn millrace(connection: &str, rows: &RecordBatch) -> Duration {
    let options = [("connection_string", connection), ("table", "shown"), ("write", "append")];
    let spec = TableSpec {
        name: "serving".into(),
        columns: rows
            .schema()
            .fields()
            .iter()
            .map(|f| ColumnSpec { field: f.clone(), origin: Origin::Value })
            .collect(),
        primary_key: vec![],
        partition_by: vec![],
        options: connector::Options(
            options.into_iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        ),
    };
    shown(&SqlServerConnector, &spec, rows).await
}
