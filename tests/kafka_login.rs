//! Ways to be let in by a broker, and what is said when one is not: soon, with what to check, and without a secret.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;

use crate::broker::{Broker, BrokerSettings, Listener};
use crate::certificates::Certificates;
use crate::numbers::{all, job, send, shown};

/// How long a refused start may take, on a loaded machine.
const REFUSED_WITHIN: Duration = Duration::from_secs(45);

const CONNECTION_STRING: &str = "Endpoint=sb://localhost/;SharedAccessKeyName=listen;SharedAccessKey=abc+topsecret=";

/// A broker with a listener for each way in.
fn guarded(certificates: &Certificates) -> Broker {
    const PLAIN: &str = "org.apache.kafka.common.security.plain.PlainLoginModule required";
    const SCRAM: &str = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
    const OAUTH: &str = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required";
    let listener = |name, protocol, host| Listener { name, protocol, host };
    let properties = [
        ("listener.name.plain.sasl.enabled.mechanisms", "PLAIN".to_string()),
        ("listener.name.plain.plain.sasl.jaas.config", format!("{PLAIN} user_alice=\"alice-topsecret\";")),
        ("listener.name.scram.sasl.enabled.mechanisms", "SCRAM-SHA-512,SCRAM-SHA-256".into()),
        ("listener.name.scram.scram-sha-512.sasl.jaas.config", SCRAM.into()),
        ("listener.name.scram.scram-sha-256.sasl.jaas.config", SCRAM.into()),
        ("listener.name.oauth.sasl.enabled.mechanisms", "OAUTHBEARER".into()),
        (
            "listener.name.oauth.oauthbearer.sasl.jaas.config",
            format!("{OAUTH} unsecuredLoginStringClaim_sub=\"broker\";"),
        ),
        // A login ends with its token: whoever does not come with a new one is shown the door.
        ("listener.name.oauth.oauthbearer.connections.max.reauth.ms", "60000".into()),
        ("listener.name.eh.sasl.enabled.mechanisms", "PLAIN".into()),
        ("listener.name.eh.plain.sasl.jaas.config", format!("{PLAIN} user_$ConnectionString=\"{CONNECTION_STRING}\";")),
        ("listener.name.mtls.ssl.client.auth", "required".into()),
        ("ssl.keystore.type", "PEM".into()),
        ("ssl.keystore.location", "{folder}/broker.pem".into()),
        ("ssl.truststore.type", "PEM".into()),
        ("ssl.truststore.location", "{folder}/ca.crt".into()),
        // As Event Hubs has it.
        ("connections.max.idle.ms", "10000".into()),
        ("message.max.bytes", "1048588".into()),
    ];
    Broker::start(BrokerSettings {
        listeners: vec![
            listener("PLAIN", "SASL_PLAINTEXT", "127.0.0.1"),
            listener("SCRAM", "SASL_PLAINTEXT", "127.0.0.1"),
            listener("OAUTH", "SASL_PLAINTEXT", "127.0.0.1"),
            listener("EH", "SASL_SSL", "localhost"),
            listener("MTLS", "SSL", "localhost"),
        ],
        properties: properties.map(|(name, value)| (name.to_string(), value)).into(),
        format: vec![
            "--add-scram".into(),
            "SCRAM-SHA-512=[name=bob,password=bob-topsecret]".into(),
            "--add-scram".into(),
            "SCRAM-SHA-256=[name=carol,iterations=8192,password=carol-topsecret]".into(),
        ],
        files: ["broker.pem", "ca.crt"].map(|name| (name.to_string(), certificates.content(name))).into(),
        ..BrokerSettings::default()
    })
}

/// A topic with ten numbers in it.
async fn ten(broker: &Broker) -> String {
    let topic = broker.topic("login", 1).await;
    send(&broker.properties(), &topic, 0..10, 0..1);
    topic
}

/// Reads the topic to its end, connected like this.
fn accepted(connection: &str) {
    let job = job(&format!("{connection}, 'scan.bounded.mode' = 'latest-offset'"));
    let mut run = job.start();
    assert_eq!(run.wait().code(), Some(0), "{connection}\n{}", run.said());
    assert_eq!(shown(&job), all(0..10));
}

/// Is not let in, and says all of this.
fn refused(connection: &str, texts: &[&str]) {
    let job = job(connection);
    let begun = Instant::now();
    let mut run = job.start();
    assert_eq!(run.wait().code(), Some(1), "{connection}\n{}", run.said());
    assert!(begun.elapsed() < REFUSED_WITHIN, "{:?}", begun.elapsed());
    for text in texts {
        assert!(run.said().contains(text), "{connection}\ndoes not say {text:?}:\n{}", run.said());
    }
    assert!(!run.said().contains("topsecret"), "a secret is shown:\n{}", run.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_and_certificates_let_in_and_wrong_ones_are_named() {
    let certificates = Certificates::new();
    let broker = guarded(&certificates);
    let topic = ten(&broker).await;
    let kafka = |listener: &str, properties: &[(&str, &str)]| {
        let properties: String = properties.iter().map(|(n, v)| format!(", 'properties.{n}' = '{v}'")).collect();
        let servers = broker.listener(listener);
        format!("connector = 'kafka', bootstrap_servers = '{servers}', topic = '{topic}'{properties}")
    };
    let sasl = |listener: &str, mechanism: &str, user: &str, password: &str| {
        let properties = [
            ("security.protocol", "SASL_PLAINTEXT"),
            ("sasl.mechanism", mechanism),
            ("sasl.username", user),
            ("sasl.password", password),
        ];
        kafka(listener, &properties)
    };
    accepted(&sasl("PLAIN", "PLAIN", "alice", "alice-topsecret"));
    accepted(&sasl("SCRAM", "SCRAM-SHA-512", "bob", "bob-topsecret"));
    accepted(&sasl("SCRAM", "SCRAM-SHA-256", "carol", "carol-topsecret"));
    let check_password = ["does not let us in", "Check properties.security.protocol", "properties.sasl.password"];
    refused(&sasl("PLAIN", "PLAIN", "alice", "wrong-topsecret"), &check_password);
    refused(&sasl("SCRAM", "SCRAM-SHA-512", "bob", "wrong-topsecret"), &check_password);
    refused(&sasl("PLAIN", "SCRAM-SHA-256", "carol", "carol-topsecret"), &check_password);

    let (ca, other) = (certificates.file("ca.crt"), certificates.file("other.crt"));
    let (certificate, key) = (certificates.file("client.crt"), certificates.file("client.key"));
    let tls = |ca: &str| {
        let properties = [
            ("security.protocol", "SSL"),
            ("ssl.ca.location", ca),
            ("ssl.certificate.location", &certificate),
            ("ssl.key.location", &key),
        ];
        kafka("MTLS", &properties)
    };
    accepted(&tls(&ca));
    refused(&tls(&other), &["certificate verify failed", "Check properties.ssl.ca.location"]);

    let hub = |connection_string: &str, ca: &str| {
        let endpoint = broker.listener("EH");
        format!(
            "connector = 'eventhubs', connection_string = '{connection_string}', endpoint = '{endpoint}',
             topic = '{topic}', 'properties.ssl.ca.location' = '{ca}'"
        )
    };
    accepted(&hub(CONNECTION_STRING, &ca));
    let wrong_key = CONNECTION_STRING.replace("abc", "xyz");
    refused(&hub(&wrong_key, &ca), &["does not let us in", "Check connection_string"]);
    refused(&hub(CONNECTION_STRING, &other), &["certificate verify failed", "Check properties.ssl.ca.location"]);
}

/// A token service: what it gives lives for a while, until it gives nothing more.
#[derive(Clone)]
pub struct TokenService {
    pub url: String,
    lifetime: Duration,
    pub given: Arc<AtomicUsize>,
    refuses: Arc<AtomicBool>,
}

impl TokenService {
    pub async fn start(lifetime: Duration) -> TokenService {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("a bound port"));
        let service = TokenService { url, lifetime, given: Arc::default(), refuses: Arc::default() };
        let routes = Router::new().fallback(give).with_state(service.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        service
    }
}

async fn give(State(service): State<TokenService>) -> (StatusCode, String) {
    if service.refuses.load(Relaxed) {
        let no = r#"{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided."}"#;
        return (StatusCode::UNAUTHORIZED, no.into());
    }
    service.given.fetch_add(1, Relaxed);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_secs();
    let lifetime = service.lifetime.as_secs();
    let claims = format!(r#"{{"sub":"millrace","iat":{now},"exp":{}}}"#, now + lifetime);
    let token = format!("{}.{}.", token_head(), base64(claims.as_bytes()));
    (StatusCode::OK, format!(r#"{{"access_token":"{token}","expires_in":{lifetime}}}"#))
}

/// What each token begins with: it is not signed.
pub fn token_head() -> String {
    base64(br#"{"alg":"none"}"#)
}

/// For URLs and without padding, as tokens have it.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let digit = |number: u32, place: usize| DIGITS[(number >> (18 - 6 * place)) as usize & 63] as char;
    let group = |chunk: &[u8]| {
        let number = (0..3).fold(0, |n, i| n << 8 | chunk.get(i).copied().unwrap_or(0) as u32);
        (0..=chunk.len()).map(|place| digit(number, place)).collect::<String>()
    };
    bytes.chunks(3).map(group).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn entra_id_lets_in_and_its_token_is_renewed_while_the_job_runs() {
    let certificates = Certificates::new();
    let broker = guarded(&certificates);
    let topic = ten(&broker).await;
    let service = TokenService::start(Duration::from_secs(10)).await;
    let (url, endpoint) = (&service.url, broker.listener("OAUTH"));
    let with = |credential: &str| {
        format!(
            "connector = 'eventhubs', namespace = 'ns', endpoint = '{endpoint}', topic = '{topic}',
             tenant_id = 't', client_id = 'app', {credential}, authority_host = '{url}',
             'properties.security.protocol' = 'SASL_PLAINTEXT'"
        )
    };
    let file = certificates.file("federated");
    std::fs::write(&file, "of-kubernetes").expect("a file can be written");
    accepted(&with(&format!("federated_token_file = '{file}'")));

    let with_secret = with("client_secret = 'topsecret'");
    let job = job(&with_secret);
    let mut run = job.start();
    run.wait_until_read(10);
    let before = service.given.load(Relaxed);
    for round in 1..=4 {
        run.wait_until("another token", |_| service.given.load(Relaxed) >= before + round);
        let from = round as u64 * 10;
        send(&broker.properties(), &topic, from..from + 10, 0..1);
        run.wait_until_read(from + 10);
    }
    run.terminate();
    assert_eq!(run.wait().code(), Some(0), "{}", run.said());
    assert_eq!(shown(&job), all(0..50));

    service.refuses.store(true, Relaxed);
    refused(&with_secret, &["invalid_client: AADSTS7000215: Invalid client secret provided.", "AZURE_CLIENT_SECRET"]);
}
