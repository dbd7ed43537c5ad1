//! TLS in front of a server that speaks none, as a load balancer has it.

use std::net::SocketAddr;
use std::sync::Arc;

use tds_double::Tls;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

pub struct TlsFront {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl TlsFront {
    /// `protocols`: what it offers to speak behind the TLS, the best first.
    pub async fn bind(tls: &Tls, protocols: &[&str]) -> TlsFront {
        let mut config = tls.config(rustls::DEFAULT_VERSIONS);
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        TlsFront { listener, acceptor: TlsAcceptor::from(Arc::new(config)) }
    }

    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("it has an address")
    }

    /// From now on, whoever gets through the handshake speaks with the server.
    pub fn stand_before(self, server: SocketAddr) {
        tokio::spawn(async move {
            while let Ok((client, _)) = self.listener.accept().await {
                let acceptor = self.acceptor.clone();
                tokio::spawn(async move {
                    let mut client = acceptor.accept(client).await?;
                    let mut server = TcpStream::connect(server).await?;
                    copy_bidirectional(&mut client, &mut server).await
                });
            }
        });
    }
}
