//! Who is let in, and how.

mod client;

use client::*;
use tds_double::{Accident, Options, Server, Step};
use tiberius::error::Error;
use tiberius::{AuthMethod, Config, EncryptionLevel};

async fn turned_away(config: Config) -> u32 {
    match connect(config).await {
        Err(Error::Server(token)) => token.code(),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was let in"),
    }
}

#[tokio::test]
async fn the_right_password_opens_and_a_wrong_one_does_not() {
    let server = server().await;
    let mut right = session(&server).await;
    assert_eq!(number(&mut right, "SELECT 1 AS [one]").await, Some(1));

    let mut wrong = config(&server);
    wrong.authentication(AuthMethod::sql_server("millrace", "guessed"));
    assert_eq!(turned_away(wrong).await, 18456);
    let mut elsewhere = config(&server);
    elsewhere.database("another");
    assert_eq!(turned_away(elsewhere).await, 4060);
    assert_eq!(server.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn a_token_opens_and_another_does_not() {
    let server = server().await;
    server.expect_token("a.long.token");
    let mut right = config(&server);
    right.authentication(AuthMethod::aad_token("a.long.token"));
    assert!(connect(right).await.is_ok());
    let mut wrong = config(&server);
    wrong.authentication(AuthMethod::aad_token("another"));
    assert_eq!(turned_away(wrong).await, 18456);
    assert_eq!(server.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn an_encrypted_line_needs_an_authority_that_is_trusted() {
    let (authority, tls) = certificates();
    let server = Server::start(Options { tls: Some(tls), require_encryption: true, ..Options::default() }).await;
    for level in [EncryptionLevel::Required, EncryptionLevel::On, EncryptionLevel::Strict] {
        let mut trusting = config(&server);
        trusting.encryption(level);
        trusting.trust_cert_ca_bundle(authority.clone().into_bytes());
        let mut session = connect(trusting).await.unwrap_or_else(|error| panic!("{error}: {level:?}"));
        let long = "x".repeat(100_000);
        let rows = run(&mut session, &format!("SELECT N'{long}' AS [long]")).await.unwrap();
        assert_eq!(rows[0].get::<&str, _>(0), Some(long.as_str()));
    }
    let mut distrusting = config(&server);
    distrusting.encryption(EncryptionLevel::Required);
    assert!(matches!(connect(distrusting).await, Err(Error::Tls(_) | Error::Io { .. })));
    assert!(connect(config(&server)).await.is_err(), "without encryption nobody is let in");
    assert_eq!(server.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn only_the_login_may_be_encrypted() {
    let (authority, tls) = certificates();
    let server = Server::start(Options { tls: Some(tls), ..Options::default() }).await;
    let mut off = config(&server);
    off.encryption(EncryptionLevel::Off);
    off.trust_cert_ca_bundle(authority.into_bytes());
    let mut session = connect(off).await.unwrap();
    assert_eq!(number(&mut session, "SELECT 2 AS [two]").await, Some(2));
}

#[tokio::test]
async fn a_login_may_be_sent_elsewhere() {
    let server = server().await;
    server.route(Some(("elsewhere.example".into(), 11_000)));
    match connect(config(&server)).await {
        Err(Error::Routing { host, port }) => assert_eq!((host.as_str(), port), ("elsewhere.example", 11_000)),
        other => panic!("{:?}", other.err()),
    }
    server.route(None);
    assert!(connect(config(&server)).await.is_ok());
}

#[tokio::test]
async fn a_login_may_meet_with_accidents() {
    let server = server().await;
    server.accidents(|step| match step {
        Step::Login => Accident::Refuse { number: 40613, class: 17, message: "Not now.".into() },
        _ => Accident::None,
    });
    assert_eq!(turned_away(config(&server)).await, 40613);
    for step in [Step::Connect, Step::Prelogin, Step::Login] {
        let at = step.clone();
        server.accidents(move |step| if *step == at { Accident::CloseBefore } else { Accident::None });
        assert!(connect(config(&server)).await.is_err(), "{step:?}");
    }
}
