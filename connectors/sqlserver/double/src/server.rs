//! The server: it listens on this machine, for as long as it is held.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::accident::{Accident, Step};
use crate::connection;
use crate::convert::{to_text, write_moment};
use crate::error::SqlError;
use crate::session::{Database, Rows, Session};
use crate::sql::parser::parse_name;
use crate::types::Type;
use crate::value::Value;

#[derive(Debug, Clone)]
pub struct Tls {
    pub certificate_pem: String,
    pub key_pem: String,
}

#[derive(Debug, Clone)]
pub struct Options {
    pub database: String,
    pub user: String,
    pub password: String,
    pub tls: Option<Tls>,
    /// Whether a client that would go on without encryption is turned away.
    pub require_encryption: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            database: "streaming".into(),
            user: "millrace".into(),
            password: "Str0ng;enough".into(),
            tls: None,
            require_encryption: false,
        }
    }
}

type Accidents = Box<dyn FnMut(&Step) -> Accident + Send>;

/// What connections and the one who tests have in common.
pub struct Shared {
    pub options: Options,
    pub tls: Option<Encrypted>,
    pub database: Arc<Database>,
    accidents: Mutex<Option<Accidents>>,
    batches: Mutex<Vec<String>>,
    violations: Mutex<Vec<String>>,
    route: Mutex<Option<(String, u16)>>,
    token: Mutex<Option<String>>,
}

/// A test that has failed elsewhere does not matter here.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Shared {
    pub fn accident(&self, step: &Step) -> Accident {
        held(&self.accidents).as_mut().map_or(Accident::None, |accidents| accidents(step))
    }

    pub fn heard(&self, text: &str) {
        held(&self.batches).push(text.into());
    }

    pub fn violated(&self, what: String) {
        held(&self.violations).push(what);
    }

    pub fn route(&self) -> Option<(String, u16)> {
        held(&self.route).clone()
    }

    pub fn token(&self) -> Option<String> {
        held(&self.token).clone()
    }

    pub fn wants_token(&self) -> bool {
        held(&self.token).is_some()
    }
}

/// A double of SQL Server. When it is dropped, it is gone, with all that it kept.
pub struct Server {
    shared: Arc<Shared>,
    address: SocketAddr,
    closing: watch::Sender<u64>,
    runtime: Option<tokio::runtime::Runtime>,
    local: Mutex<Session>,
    folder: std::path::PathBuf,
}

static STARTED: AtomicU64 = AtomicU64::new(0);

impl Server {
    /// Listens on a free port of 127.0.0.1. It has threads of its own: a test may wait for it in any way.
    pub async fn start(options: Options) -> Server {
        let number = STARTED.fetch_add(1, Ordering::SeqCst);
        let folder = std::env::temp_dir().join(format!("tds-double-{}-{number}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("a folder for the database");
        let database = Database::create(folder.join("database"), &options.database).expect("a database");
        let shared = Arc::new(Shared {
            tls: options.tls.as_ref().map(Encrypted::of),
            database: Arc::new(database),
            options,
            accidents: Mutex::default(),
            batches: Mutex::default(),
            violations: Mutex::default(),
            route: Mutex::default(),
            token: Mutex::default(),
        });
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a listener that does not block");
        let address = listener.local_addr().expect("an address");
        let (closing, closed) = watch::channel(0);
        runtime.spawn(listen(listener, shared.clone(), closed));
        let local = Session::open(shared.database.clone(), "dbo").expect("a session");
        Server { shared, address, closing, runtime: Some(runtime), local: Mutex::new(local), folder }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// For ADO.NET. <https://learn.microsoft.com/dotnet/api/microsoft.data.sqlclient.sqlconnection.connectionstring>
    pub fn connection_string(&self) -> String {
        let Options { database, user, password, tls, .. } = &self.shared.options;
        let encrypt = if tls.is_some() { "True" } else { "False" };
        let port = self.port();
        format!(
            "Server=tcp:127.0.0.1,{port};Database={database};User ID={user};Password=\"{password}\";Encrypt={encrypt}"
        )
    }

    /// Runs a script as sqlcmd does: batch by batch, each ended by a line that says GO.
    ///
    /// # Panics
    /// If anything in it fails, with what the server says.
    #[track_caller]
    pub fn run_script(&self, script: &str) {
        batches(script).iter().for_each(|batch| self.run(batch));
    }

    /// Runs a batch, by a session of the test's own.
    ///
    /// # Panics
    /// If anything in it fails, with what the server says.
    #[track_caller]
    pub fn run(&self, t_sql: &str) {
        if let Err(error) = self.try_run(t_sql) {
            panic!("{error}: {t_sql}");
        }
    }

    /// The same, for what is to fail.
    pub fn try_run(&self, t_sql: &str) -> Result<(), SqlError> {
        let mut session = held(&self.local);
        session.first_error = None;
        session.batch(t_sql);
        session.take_answer();
        session.first_error.take().map_or(Ok(()), Err)
    }

    /// The rows of a query, each value as text: seven digits of seconds, decimals with all their places.
    ///
    /// # Panics
    /// If it fails.
    #[track_caller]
    pub fn query(&self, t_sql: &str) -> Vec<Vec<Option<String>>> {
        let mut results = self.results(t_sql);
        assert_eq!(results.len(), 1, "one query: {t_sql}");
        results.remove(0)
    }

    /// The same of each query of a batch.
    ///
    /// # Panics
    /// If one fails.
    #[track_caller]
    pub fn results(&self, t_sql: &str) -> Vec<Vec<Vec<Option<String>>>> {
        let results = held(&self.local).read(t_sql).unwrap_or_else(|error| panic!("{error}: {t_sql}"));
        let texts = |(columns, rows): Rows| {
            let text = |(at, value): (usize, Value)| shown(value, columns[at].typed.of);
            rows.into_iter().map(|row| row.into_iter().enumerate().map(text).collect()).collect()
        };
        results.into_iter().map(texts).collect()
    }

    /// Makes a procedure with one parameter of a table type. The body is T-SQL that reads from the parameter.
    ///
    /// # Panics
    /// If it cannot be made.
    #[track_caller]
    pub fn procedure(&self, name: &str, parameter: &str, table_type: &str, body: &str) {
        let of = |text: &str| parse_name(text).unwrap_or_else(|| panic!("{text} is no name"));
        let made = held(&self.local).create_procedure(&of(name), parameter, &of(table_type), body);
        made.unwrap_or_else(|error| panic!("{error}: {name}"));
    }

    /// What is to go wrong from now on.
    pub fn accidents(&self, f: impl FnMut(&Step) -> Accident + Send + 'static) {
        *held(&self.shared.accidents) = Some(Box::new(f));
    }

    /// The texts of all batches and prepared statements so far.
    pub fn batches(&self) -> Vec<String> {
        held(&self.shared.batches).clone()
    }

    /// What clients did that the protocol does not allow.
    pub fn violations(&self) -> Vec<String> {
        held(&self.shared.violations).clone()
    }

    /// Closes every connection. New ones are taken.
    pub fn close_all(&self) {
        self.closing.send_modify(|generation| *generation += 1);
    }

    /// Logins are answered with: log in there.
    pub fn route(&self, to: Option<(String, u16)>) {
        *held(&self.shared.route) = to;
    }

    /// Logins with a token that begins so are let in: as the user of the options' name, if CREATE USER has made one, and else as one
    /// who owns the database.
    pub fn expect_token(&self, token: &str) {
        *held(&self.shared.token) = Some(token.into());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.database.stop();
        self.close_all();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

async fn listen(listener: std::net::TcpListener, shared: Arc<Shared>, closed: watch::Receiver<u64>) {
    let listener = TcpListener::from_std(listener).expect("a listener of this runtime");
    while let Ok((stream, _)) = listener.accept().await {
        let (shared, mut closed) = (shared.clone(), closed.clone());
        closed.mark_unchanged();
        let seen = closed.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = connection::serve(stream, shared, seen) => {}
                _ = closed.changed() => {}
            }
        });
    }
}

/// How a line is encrypted within packets of TDS 7, and before TDS 8.0: the server speaks TLS 1.3 with the latter only.
/// <https://learn.microsoft.com/sql/relational-databases/security/networking/tls-1-3>
pub struct Encrypted {
    pub within_packets: Arc<ServerConfig>,
    pub at_once: Arc<ServerConfig>,
}

impl Encrypted {
    fn of(tls: &Tls) -> Self {
        let mut at_once = tls.config(rustls::DEFAULT_VERSIONS);
        at_once.alpn_protocols = vec![b"tds/8.0".to_vec()];
        Encrypted { within_packets: Arc::new(tls.config(&[&rustls::version::TLS12])), at_once: Arc::new(at_once) }
    }
}

impl Tls {
    /// For any server: whoever comes is let in.
    pub fn config(&self, versions: &[&'static rustls::SupportedProtocolVersion]) -> ServerConfig {
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(self.certificate_pem.as_bytes())
            .collect::<Result<_, _>>()
            .expect("certificates in PEM");
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).expect("a key in PEM");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder =
            ServerConfig::builder_with_provider(provider).with_protocol_versions(versions).expect("versions of TLS");
        builder.with_no_client_auth().with_single_cert(certificates, key).expect("a certificate with its key")
    }
}

/// GO is no word of the server's: it ends what its client sends at once.
/// <https://learn.microsoft.com/sql/t-sql/language-elements/sql-server-utilities-statements-go>
fn batches(script: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    for line in script.lines() {
        if line.trim().eq_ignore_ascii_case("GO") {
            found.push(String::new());
        } else if let Some(batch) = found.last_mut() {
            batch.push_str(line);
            batch.push('\n');
        }
    }
    found
}

fn shown(value: Value, of: Type) -> Option<String> {
    Some(match value {
        Value::Null => return None,
        Value::Blob(bytes) => format!("0x{}", bytes.iter().map(|byte| format!("{byte:02X}")).collect::<String>()),
        Value::Real(number) if of == Type::Real => (number as f32).to_string(),
        Value::Real(number) => number.to_string(),
        Value::Text(text) if of.is_temporal() => write_moment(&text, of),
        Value::Text(text) => text,
        integer => to_text(integer, of),
    })
}
