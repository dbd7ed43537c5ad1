//! A registry whose certificate is of an authority of its own.

use std::sync::Arc;

use axum::serve::Listener;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::double::{Double, Protocol, reply};
use super::registry;

struct TlsListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (line, peer) = self.listener.accept().await.expect("a client");
            // Who does not trust us hangs up.
            if let Ok(line) = self.acceptor.accept(line).await {
                return (line, peer);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// The authority's certificate, and what one serves with.
fn certificates() -> (String, TlsAcceptor) {
    let mut authority = CertificateParams::new(Vec::new()).expect("parameters");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(authority, KeyPair::generate().expect("a key")).expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let names = CertificateParams::new(vec!["127.0.0.1".to_string()]).expect("parameters");
    let certificate = names.signed_by(&key, &issuer).expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .expect("a certificate and its key");
    (issuer.pem(), TlsAcceptor::from(Arc::new(config)))
}

#[tokio::test]
async fn an_authority_of_ones_own_is_trusted_if_the_table_says_so() {
    let (pem, acceptor) = certificates();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let double = Double::without_a_port(Protocol::Confluent, &url);
    double.put("GET /schemas/types", reply(200, r#"["AVRO"]"#));
    let routes = double.routes();
    tokio::spawn(async move { axum::serve(TlsListener { listener, acceptor }, routes).await });

    let error = registry(&[("schema_registry.url", &url)]).probe().await.unwrap_err();
    assert!(error.to_string().contains("UnknownIssuer. If its certificate"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    let options = [("schema_registry.url", &*url), ("schema_registry.ca", file.to_str().unwrap())];
    let trusting = registry(&options);
    let error = trusting.probe().await.unwrap_err().to_string();
    assert!(error.starts_with("schema_registry.ca: ") && error.contains("No such file"), "{error}");
    std::fs::write(&file, "nothing").unwrap();
    let error = trusting.probe().await.unwrap_err().to_string();
    assert!(error.contains("it has no certificate in PEM"), "{error}");
    std::fs::write(&file, pem).unwrap();
    trusting.probe().await.unwrap();
}
