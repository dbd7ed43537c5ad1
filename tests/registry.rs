//! A schema registry that others wrote: Apicurio, which speaks as Confluent's does.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::process::start;
use crate::wait::wait_for;

/// How long it may take until it answers.
const STARTED: Duration = Duration::from_secs(120);

/// One that runs here until it is dropped. It forgets what it knew.
pub struct Registry {
    process: Child,
    port: u16,
}

impl Registry {
    pub fn start() -> Registry {
        let port = free_port();
        let mut java = Command::new("java");
        java.args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            .args(["-Dquarkus.http.host=127.0.0.1", "-Dquarkus.management.host=127.0.0.1"])
            .arg(format!("-Dquarkus.http.port={port}"))
            .arg(format!("-Dquarkus.management.port={}", free_port()))
            .arg("-jar")
            .arg(runner())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut registry = Registry { process: start(java), port };
        wait_for("the schema registry", STARTED, || {
            let exited = registry.process.try_wait().ok().flatten();
            assert!(exited.is_none(), "the registry ended: {exited:?}");
            answers(port).then_some(())
        });
        registry
    }

    /// Where it speaks as Confluent's.
    pub fn url(&self) -> String {
        url_of(self.port)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Whether it says which subjects it has.
fn answers(port: u16) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut line = TcpStream::connect(("127.0.0.1", port))?;
        let question = "GET /apis/ccompat/v7/subjects HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        line.write_all(question.as_bytes())?;
        let mut answer = String::new();
        line.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

fn url_of(port: u16) -> String {
    format!("http://127.0.0.1:{port}/apis/ccompat/v7")
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it has an address").port()
}

/// A way to a registry that is shut at first: whoever comes is turned away.
pub struct Door {
    port: u16,
    open: Arc<AtomicBool>,
}

impl Door {
    pub async fn to(registry: &Registry) -> Door {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let door = Door { port: listener.local_addr().expect("it has an address").port(), open: Arc::default() };
        let (open, behind) = (door.open.clone(), registry.port);
        tokio::spawn(async move {
            while let Ok((mut caller, _)) = listener.accept().await {
                if open.load(Ordering::Relaxed)
                    && let Ok(mut registry) = tokio::net::TcpStream::connect(("127.0.0.1", behind)).await
                {
                    tokio::spawn(async move { tokio::io::copy_bidirectional(&mut caller, &mut registry).await });
                }
            }
        });
        door
    }

    pub fn url(&self) -> String {
        url_of(self.port)
    }

    pub fn open(&self) {
        self.open.store(true, Ordering::Relaxed);
    }
}

fn runner() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-tools/apicurio");
    let jar = folder.join("apicurio-registry-app-3.0.9-runner.jar");
    assert!(jar.exists(), "{} is missing; ./test installs what tests need", jar.display());
    jar
}
