//! A server and a database on it, and how one is let in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use engine::connector::{OptionKind, OptionSpec, Options, Problem};
use identity::{Bearer, FreshToken, Identity, connection_string};
use tiberius::{AuthMethod, Config, EncryptionLevel};
use tokio::sync::OnceCell;

use crate::trouble::Trouble;

/// The domain of a server that is given by its name alone.
const PUBLIC_CLOUD: &str = "database.windows.net";
/// What tokens for any Azure SQL database are asked for.
const SCOPE: &str = "https://database.windows.net/.default";
const PORT: u16 = 1433;
/// How long it may take to reach the server, and as long again to log in, unless the connection string says it.
const CONNECT: Duration = Duration::from_secs(15);

/// Where the database is, and who asks.
#[derive(Clone)]
pub struct Server {
    pub host: String,
    pub port: u16,
    pub database: String,
    /// How long it may take to reach the server, and as long again to log in.
    pub connect: Duration,
    login: Login,
    encryption: Encryption,
    /// Of an identity, once it was asked for.
    token: Arc<OnceCell<FreshToken>>,
    /// A file with certificates of authorities that are trusted beside those of the system.
    ca: Option<String>,
    /// The name that the certificate has, if it is not the host's.
    certificate_name: Option<String>,
}

#[derive(Clone)]
enum Login {
    Password { user: String, password: String },
    Identity(Identity),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Encryption {
    /// All of it, after the first packet.
    Mandatory,
    /// All of it: TDS 8.0, which SQL Server 2022 and Azure SQL speak.
    Strict,
    /// None: on this machine only.
    Off,
}

/// What a table says of its server.
pub fn options() -> Vec<OptionSpec> {
    let mut options = vec![
        OptionSpec::new(
            "connection_string",
            OptionKind::Secret,
            "as the portal shows it, for ADO.NET (Server=tcp:…;Initial Catalog=…) or JDBC (jdbc:sqlserver://…)",
        )
        .aliases(&["url"]),
        OptionSpec::new(
            "server",
            OptionKind::Text,
            "instead of a connection string: the name of an Azure SQL server, or an address, with a port if it is not 1433",
        ),
        OptionSpec::new("database", OptionKind::Text, "the database, if the connection string does not say it"),
        OptionSpec::new("user", OptionKind::Text, "with server: a SQL login; without, Entra ID").aliases(&["username"]),
        OptionSpec::new("password", OptionKind::Secret, "of the SQL login"),
        OptionSpec::new(
            "encrypt",
            OptionKind::OneOf(&[&["mandatory", "true"], &["strict"], &["off", "false"]]),
            "mandatory (unless said); strict: TLS before anything else (TDS 8.0); off: on this machine only",
        ),
        OptionSpec::new(
            "ca_location",
            OptionKind::Text,
            "a file with the certificate of an authority of your own (PEM)",
        ),
        OptionSpec::new(
            "host_name_in_certificate",
            OptionKind::Text,
            "the name in the certificate, if it is another one",
        ),
    ];
    options.extend(identity::options());
    options
}

/// What is said of a server, in options and in a connection string.
struct Said<'a> {
    options: &'a Options,
    keywords: BTreeMap<String, String>,
}

impl Said<'_> {
    fn find(&self, option: &str, keywords: &[&str]) -> Option<String> {
        let said = self.options.get(option).map(String::from);
        said.or_else(|| keywords.iter().find_map(|name| self.keywords.get(*name)).cloned())
            .filter(|text| !text.is_empty())
    }
}

impl Server {
    pub fn of(options: &Options, environment: &dyn Fn(&str) -> Option<String>) -> Result<Self, Problem> {
        let wrong = |what: String| Problem::option("connection_string", what);
        let keywords = options.get("connection_string").map(parse).transpose().map_err(wrong)?.unwrap_or_default();
        if options.get("server").is_some() && !keywords.is_empty() {
            return Err(Problem::option("server", "the connection string says it already; only one of the two"));
        }
        let said = Said { options, keywords };
        let address = said.find("server", &["server", "datasource", "addr", "address", "networkaddress", "servername"]);
        let Some(address) = address else {
            return Err(Problem::of("a server is needed: either connection_string, or server and database"));
        };
        // Not quoted: it may hold a password.
        if address.contains([';', '@', '=']) {
            let what = "this is no address; is it a connection string? Then give it as connection_string";
            return Err(Problem::option("server", what));
        }
        let port = said.find("", &["port", "portnumber"]).and_then(|port| port.parse().ok());
        let instance = said.find("", &["instance", "instancename"]);
        let (host, port) = parse_address(&address, instance.as_deref(), port, options.get("server").is_some())
            .map_err(|what| Problem::option("server", what))?;
        let Some(database) = said.find("database", &["initialcatalog", "database", "databasename"]) else {
            return Err(Problem::option("database", "say which database"));
        };
        Ok(Server {
            encryption: encryption(&said, &host)?,
            connect: connect(&said)?,
            login: login(&said, environment)?,
            token: Arc::default(),
            ca: said.find("ca_location", &["servercertificate"]),
            certificate_name: said
                .find("host_name_in_certificate", &["hostnameincertificate"])
                .filter(|n| !n.contains('*')),
            host,
            port,
            database,
        })
    }

    /// For errors: what to look at when the server does not let us in.
    pub fn remedy(&self) -> &'static str {
        match self.login {
            Login::Password { .. } => "Check user and password, that SQL logins are allowed, and the server's firewall",
            Login::Identity(_) => {
                "Give the identity a user in the database (CREATE USER [name] FROM EXTERNAL PROVIDER; ALTER ROLE db_datareader, \
                 db_datawriter ADD MEMBER [name]), and check the server's firewall"
            }
        }
    }

    /// Whether a login may be sent on to this host: without encryption, not off this machine.
    pub fn may_go_to(&self, host: &str) -> bool {
        self.encryption != Encryption::Off || is_here(host)
    }

    /// What a connection is opened with. Asks for a token.
    pub async fn config(&self, host: &str, port: u16) -> Result<Config, Trouble> {
        let mut config = Config::new();
        config.host(host);
        config.port(port);
        config.database(&self.database);
        config.application_name("millrace");
        config.encryption(match self.encryption {
            Encryption::Mandatory => EncryptionLevel::Required,
            Encryption::Strict => EncryptionLevel::Strict,
            Encryption::Off => EncryptionLevel::NotSupported,
        });
        if let Some(ca) = &self.ca {
            let unreadable = |e| Trouble::Stopped(format!("ca_location {ca} cannot be read: {e}"));
            config.trust_cert_ca_bundle(tokio::fs::read(ca).await.map_err(unreadable)?);
        }
        if let Some(name) = &self.certificate_name {
            config.hostname_in_certificate(name);
        }
        config.authentication(match &self.login {
            Login::Password { user, password } => AuthMethod::sql_server(user, password),
            Login::Identity(identity) => {
                let bearer = Bearer { identity: identity.clone(), scope: SCOPE.into() };
                let fresh = self.token.get_or_try_init(|| bearer.token()).await;
                let token = fresh.and_then(|fresh| fresh.current()).map_err(Trouble::of_token)?;
                AuthMethod::aad_token(token.value)
            }
        });
        Ok(config)
    }
}

/// The keywords of a connection string of either kind.
fn parse(text: &str) -> Result<BTreeMap<String, String>, String> {
    let Some(url) = text.trim().strip_prefix("jdbc:sqlserver://") else { return connection_string::parse(text) };
    let (address, rest) = url.split_once(';').unwrap_or((url, ""));
    let mut found = connection_string::parse(rest)?;
    if !address.is_empty() {
        found.insert("server".into(), address.into());
    }
    Ok(found)
}

/// `name`, `host`, `tcp:host,port` or `host:port`; with a port, the name of an instance says nothing more.
/// `complete`: whether a name alone is that of an Azure SQL server. In a connection string it is one of the own network.
fn parse_address(
    address: &str,
    instance: Option<&str>,
    port: Option<u16>,
    complete: bool,
) -> Result<(String, u16), String> {
    let address = address.trim().strip_prefix("tcp:").unwrap_or(address.trim());
    let (host, port) = match address.rsplit_once([',', ':']) {
        // An address of IPv6 has colons of its own.
        Some((host, number)) if !host.contains(':') || address.contains(',') => {
            let number = number.trim().parse().map_err(|_| format!("'{number}' is no port"))?;
            (host.trim(), Some(number))
        }
        _ => (address, port),
    };
    let (host, instance) = host.split_once('\\').map_or((host, instance), |(host, instance)| (host, Some(instance)));
    if instance.is_some() && port.is_none() {
        return Err(
            "an instance by name is looked up on the network, which is not done: give its port too (host,port)".into(),
        );
    }
    let port = port.unwrap_or(PORT);
    let host = match host {
        "(local)" | "." | "localhost" => "localhost".to_string(),
        full if full.contains(['.', ':']) => full.to_string(),
        name if complete => format!("{name}.{PUBLIC_CLOUD}"),
        name => name.to_string(),
    };
    Ok((host, port))
}

fn is_here(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// In seconds; 0 would be without a limit, and is taken for none that is said.
/// <https://learn.microsoft.com/dotnet/api/microsoft.data.sqlclient.sqlconnection.connectionstring>
/// <https://learn.microsoft.com/sql/connect/jdbc/setting-the-connection-properties>
fn connect(said: &Said<'_>) -> Result<Duration, Problem> {
    let Some(text) = said.find("", &["connecttimeout", "connectiontimeout", "timeout", "logintimeout"]) else {
        return Ok(CONNECT);
    };
    let wrong = || Problem::option("connection_string", format!("'{text}' is no number of seconds to connect within"));
    let seconds = text.parse::<u32>().map_err(|_| wrong())?;
    Ok(if seconds == 0 { CONNECT } else { Duration::from_secs(seconds.into()) })
}

fn encryption(said: &Said<'_>, host: &str) -> Result<Encryption, Problem> {
    let yes = |text: &str| ["true", "yes", "1"].contains(&text.to_ascii_lowercase().as_str());
    if said.find("", &["trustservercertificate"]).is_some_and(|text| yes(&text)) {
        let what = "TrustServerCertificate would let anybody pose as the server: give its authority's certificate as ca_location";
        return Err(Problem::option("connection_string", what));
    }
    let here = is_here(host);
    match said.find("encrypt", &["encrypt"]).map(|text| text.to_ascii_lowercase()).as_deref() {
        Some("strict") => Ok(Encryption::Strict),
        Some("off" | "false" | "no" | "optional") if here => Ok(Encryption::Off),
        Some("off" | "false" | "no" | "optional") => Err(Problem::option(
            "encrypt",
            format!("without encryption only a server of this machine is asked, and not {host}"),
        )),
        _ => Ok(Encryption::Mandatory),
    }
}

/// <https://learn.microsoft.com/sql/connect/ado-net/sql/azure-active-directory-authentication>
fn login(said: &Said<'_>, environment: &dyn Fn(&str) -> Option<String>) -> Result<Login, Problem> {
    let user = said.find("user", &["userid", "uid", "user", "username"]);
    let password = said.find("password", &["password", "pwd"]);
    let kind = said.find("", &["authentication"]).unwrap_or_default().to_ascii_lowercase().replace(' ', "");
    let mut options = said.options.clone();
    let mut set = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            options.0.entry(name.to_string()).or_insert(value);
        }
    };
    match kind.as_str() {
        "" | "sqlpassword" | "notspecified" => {
            if let Some(user) = user {
                let Some(password) = password else {
                    return Err(Problem::option("password", format!("the login {user} needs one")));
                };
                return Ok(Login::Password { user, password });
            }
        }
        "activedirectorydefault" => {}
        "activedirectorymanagedidentity" | "activedirectorymsi" => {
            set("credential", Some("managed-identity".into()));
            set("client_id", user);
        }
        "activedirectoryworkloadidentity" => {
            set("credential", Some("workload-identity".into()));
            set("client_id", user);
        }
        "activedirectoryserviceprincipal" => {
            set("credential", Some("client-secret".into()));
            set("client_id", user);
            set("client_secret", password);
        }
        _ => {
            let what = "this kind of authentication needs a person: use a SQL login, or Active Directory Default, Managed Identity, \
                        Workload Identity or Service Principal";
            return Err(Problem::option("connection_string", what));
        }
    }
    if said
        .find("", &["integratedsecurity", "trusted_connection"])
        .is_some_and(|text| !text.eq_ignore_ascii_case("false"))
    {
        let what = "logins of Windows are not known here: use a SQL login or Entra ID";
        return Err(Problem::option("connection_string", what));
    }
    Identity::of(&options, environment).map(Login::Identity).map_err(|what| Problem::option("credential", what))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(options: &[(&str, &str)]) -> Result<Server, String> {
        let options = Options(options.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect());
        Server::of(&options, &|_| None).map_err(|problem| problem.message)
    }

    #[test]
    fn a_connection_string_is_read_as_the_portal_shows_it() {
        let ado = "Server=tcp:a.database.windows.net,1433;Initial Catalog=streaming;Persist Security Info=False;User ID=serveradmin;\
                   Password={p;w};MultipleActiveResultSets=False;Encrypt=True;TrustServerCertificate=False;Connection Timeout=30;";
        let jdbc = "jdbc:sqlserver://a.database.windows.net:1433;database=streaming;user=serveradmin@a;password={p;w};encrypt=true;\
                    trustServerCertificate=false;hostNameInCertificate=*.database.windows.net;loginTimeout=30;";
        for text in [ado, jdbc] {
            let found = server(&[("connection_string", text)]).unwrap();
            assert_eq!((found.host.as_str(), found.port), ("a.database.windows.net", 1433));
            assert_eq!((found.database.as_str(), found.encryption), ("streaming", Encryption::Mandatory));
            assert!(
                matches!(&found.login, Login::Password { user, password } if user.starts_with("serveradmin") && password == "p;w")
            );
            assert_eq!(found.certificate_name, None, "a pattern is what the host's name fits");
            assert_eq!(found.connect, Duration::from_secs(30));
        }
    }

    #[test]
    fn the_port_of_a_named_instance_is_enough() {
        let own = "Database=d;User ID=u;Password=p;Connect Timeout=0";
        for address in [
            "Server=db.lan\\SQLEXPRESS,1444;",
            "Data Source=tcp:db.lan\\SQLEXPRESS, 1444;",
            "jdbc:sqlserver://db.lan\\SQLEXPRESS:1444;",
            "jdbc:sqlserver://db.lan;instanceName=SQLEXPRESS;portNumber=1444;",
            "jdbc:sqlserver://;serverName=db.lan\\SQLEXPRESS;port=1444;",
        ] {
            let found = server(&[("connection_string", &format!("{address}{own}"))]).unwrap();
            assert_eq!((found.host.as_str(), found.port, found.connect), ("db.lan", 1444, CONNECT), "{address}");
        }
    }

    #[test]
    fn a_name_is_enough_and_without_a_login_it_is_entra_id() {
        let found = server(&[("server", "telemetry"), ("database", "d")]).unwrap();
        assert_eq!(found.host, "telemetry.database.windows.net");
        assert!(matches!(found.login, Login::Identity(_)));
        let said =
            "Server=a.database.windows.net;Database=d;Authentication=Active Directory Managed Identity;User Id=mine";
        let found = server(&[("connection_string", said)]).unwrap();
        assert!(matches!(found.login, Login::Identity(identity) if identity.describe() == "managed identity mine"));
        let local =
            server(&[("server", "127.0.0.1:1533"), ("database", "d"), ("user", "u"), ("password", "p")]).unwrap();
        assert_eq!((local.host.as_str(), local.port), ("127.0.0.1", 1533));
    }

    #[test]
    fn what_is_unsafe_or_unknown_is_refused_and_no_password_is_shown() {
        let wrong = [
            ("Server=a.b,1;Database=d;User ID=u;Password=topsecret;TrustServerCertificate=true", "ca_location"),
            ("Server=a.b,1;Database=d;User ID=u;Password=topsecret;Encrypt=false", "of this machine"),
            ("Server=a.b\\SQL1;Database=d;User ID=u;Password=topsecret", "give its port"),
            ("jdbc:sqlserver://a.b;instanceName=SQL1;database=d;user=u;password=topsecret", "give its port"),
            ("Server=a.b;Database=d;User ID=u;Password=topsecret;Connect Timeout=soon", "no number of seconds"),
            ("Server=a.b;Database=d;Integrated Security=SSPI", "of Windows"),
            ("Server=a.b;User ID=u;Password=topsecret", "which database"),
            ("Server=a.b;Database=d;Authentication=Active Directory Interactive", "needs a person"),
            ("Server=a.b;Database=d;User ID=u", "needs one"),
        ];
        for (text, part) in wrong {
            let said = server(&[("connection_string", text)]).err().unwrap_or_else(|| panic!("{text} is accepted"));
            assert!(said.contains(part) && !said.contains("topsecret"), "{said}");
        }
        let misplaced = server(&[("server", "Server=a.b;Password=topsecret"), ("database", "d")]).err().unwrap();
        assert!(misplaced.contains("as connection_string") && !misplaced.contains("topsecret"), "{misplaced}");
    }
}
