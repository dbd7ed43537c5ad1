//! What a client meets when something goes wrong at a time that the test has chosen.

mod client;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use client::*;
use tds_double::{Accident, Server, Step};
use tiberius::IntoRow;
use tiberius::error::Error;

const COMMIT: &str = "BEGIN TRANSACTION; INSERT INTO dbo.t VALUES (1); COMMIT TRANSACTION; SELECT 1 AS [done]";

async fn prepared() -> (Server, Session) {
    let server = server().await;
    server.run("CREATE TABLE dbo.t ([a] int NOT NULL)");
    let session = session(&server).await;
    (server, session)
}

fn once(server: &Server, accident: Accident) {
    let happened = AtomicBool::new(false);
    server.accidents(move |step| match step {
        Step::Batch(text) if text.contains("dbo.t") && !happened.swap(true, Ordering::SeqCst) => accident.clone(),
        _ => Accident::None,
    });
}

fn count(server: &Server) -> String {
    server.query("SELECT COUNT(*) AS [n] FROM dbo.t")[0][0].clone().unwrap()
}

#[tokio::test]
async fn a_line_that_breaks_before_within_or_after_a_batch() {
    for (accident, rows) in [(Accident::CloseBefore, "0"), (Accident::CloseWithin, "0"), (Accident::CloseAfter, "1")] {
        let (server, mut session) = prepared().await;
        once(&server, accident.clone());
        assert!(matches!(run(&mut session, COMMIT).await, Err(Error::Io { .. })), "{accident:?}");
        let mut next = client::session(&server).await;
        run(&mut next, "SET LOCK_TIMEOUT 1000; BEGIN TRANSACTION; DELETE FROM dbo.t WHERE [a] = 9; COMMIT TRANSACTION")
            .await
            .unwrap();
        assert_eq!(count(&server), rows, "{accident:?}");
    }
}

#[tokio::test]
async fn a_batch_that_is_refused_is_not_run() {
    let (server, mut session) = prepared().await;
    once(&server, Accident::Refuse { number: 1205, class: 13, message: "Transaction was deadlocked.".into() });
    assert_eq!(refused(&mut session, COMMIT).await, (1205, "Transaction was deadlocked.".to_string()));
    assert_eq!(count(&server), "0");
    run(&mut session, COMMIT).await.unwrap();
    assert_eq!(count(&server), "1");
}

#[tokio::test]
async fn a_batch_that_is_never_answered_was_run() {
    let (server, mut session) = prepared().await;
    once(&server, Accident::Answerless);
    assert!(tokio::time::timeout(Duration::from_millis(300), run(&mut session, COMMIT)).await.is_err());
    assert_eq!(count(&server), "1");
}

#[tokio::test]
async fn an_answer_may_be_late() {
    let (server, mut session) = prepared().await;
    once(&server, Accident::Delay(Duration::from_millis(200)));
    let since = Instant::now();
    run(&mut session, COMMIT).await.unwrap();
    assert!(since.elapsed() >= Duration::from_millis(200));
}

#[tokio::test]
async fn a_bulk_load_may_break_while_it_comes() {
    let (server, mut session) = prepared().await;
    server.accidents(|step| match step {
        Step::BulkRows { table, packets: 8.. } if table == "t" => Accident::CloseBefore,
        _ => Accident::None,
    });
    let mut load = session.bulk_insert("dbo.t").await.unwrap();
    let mut broken = false;
    for number in 0..200_000 {
        broken = load.send(number.into_row()).await.is_err();
        if broken {
            break;
        }
    }
    assert!(broken || load.finalize().await.is_err());
    assert_eq!(count(&server), "0");
    assert_eq!(server.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn all_lines_may_be_closed_at_once() {
    let (server, mut session) = prepared().await;
    run(&mut session, "BEGIN TRANSACTION; INSERT INTO dbo.t VALUES (1)").await.unwrap();
    server.close_all();
    assert!(run(&mut session, "COMMIT TRANSACTION").await.is_err());
    let mut next = client::session(&server).await;
    run(&mut next, "SET LOCK_TIMEOUT 2000; INSERT INTO dbo.t VALUES (2)").await.unwrap();
    assert_eq!(count(&server), "1");
}

#[tokio::test]
async fn a_driver_may_begin_and_end_transactions_itself() {
    let (server, mut session) = prepared().await;
    session.begin_transaction().await.unwrap();
    run(&mut session, "INSERT INTO dbo.t VALUES (1)").await.unwrap();
    session.save_transaction("here").await.unwrap();
    run(&mut session, "INSERT INTO dbo.t VALUES (2)").await.unwrap();
    run(&mut session, "ROLLBACK TRANSACTION here").await.unwrap();
    session.commit_transaction().await.unwrap();
    assert_eq!(count(&server), "1");
    session.begin_transaction().await.unwrap();
    run(&mut session, "DELETE FROM dbo.t").await.unwrap();
    session.rollback_transaction().await.unwrap();
    assert_eq!(count(&server), "1");
    assert!(server.batches().iter().any(|text| text == "DELETE FROM dbo.t"));
}

#[tokio::test]
async fn nonsense_is_a_violation() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let server = server().await;
    for nonsense in [&[0x12, 1, 0, 9, 0, 0, 1, 0, 7][..], &[1, 1, 0, 8, 0, 0, 1, 0], &[0x12, 1, 0, 3, 0, 0, 0, 0]] {
        let mut line = tokio::net::TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
        line.write_all(nonsense).await.unwrap();
        let mut rest = Vec::new();
        let _ = line.read_to_end(&mut rest).await;
        assert!(rest.is_empty());
    }
    assert_eq!(server.violations().len(), 3, "{:?}", server.violations());
}
