//! Packets, and the line that they come and go on: MS-TDS 2.2.3.

use std::io::{self, Read, Write};
use std::sync::Arc;

use rustls::{ServerConfig, ServerConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::reader::Violation;

pub const HEADER: usize = 8;
/// Until another size is agreed upon.
pub const FIRST_SIZE: usize = 4096;

pub mod kind {
    pub const BATCH: u8 = 0x01;
    pub const RPC: u8 = 0x03;
    pub const ANSWER: u8 = 0x04;
    pub const ATTENTION: u8 = 0x06;
    pub const BULK: u8 = 0x07;
    pub const TRANSACTION: u8 = 0x0E;
    pub const LOGIN: u8 = 0x10;
    pub const PRELOGIN: u8 = 0x12;
}

pub mod status {
    pub const END: u8 = 0x01;
    pub const IGNORE: u8 = 0x02;
    pub const RESET: u8 = 0x08;
    pub const RESET_KEEPING_TRANSACTION: u8 = 0x10;
}

#[derive(Debug, Clone)]
pub struct Packet {
    pub kind: u8,
    pub status: u8,
    pub data: Vec<u8>,
}

/// Why nothing more comes.
#[derive(Debug)]
pub enum Ended {
    Closed,
    Violated(Violation),
}

impl From<Violation> for Ended {
    fn from(violation: Violation) -> Self {
        Ended::Violated(violation)
    }
}

impl From<io::Error> for Ended {
    fn from(_: io::Error) -> Self {
        Ended::Closed
    }
}

fn violated(what: impl Into<String>) -> Ended {
    Ended::Violated(Violation(what.into()))
}

/// A connection in bytes, encrypted or not. Reading can be given up and begun again: what has come is kept.
pub struct Line {
    stream: TcpStream,
    tls: Option<ServerConnection>,
    incoming: Vec<u8>,
    pub packet_size: usize,
}

impl Line {
    pub fn new(stream: TcpStream) -> Self {
        Line { stream, tls: None, incoming: Vec::new(), packet_size: FIRST_SIZE }
    }

    /// Waits for more bytes; false: there will be none.
    pub async fn fill(&mut self) -> Result<bool, Ended> {
        let mut buffer = vec![0; 32 * 1024];
        loop {
            let count = self.stream.read(&mut buffer).await?;
            if count == 0 {
                return Ok(false);
            }
            let before = self.incoming.len();
            match &mut self.tls {
                None => self.incoming.extend(&buffer[..count]),
                Some(tls) => decrypt(tls, &buffer[..count], &mut self.incoming)?,
            }
            self.flush_tls().await?;
            if self.incoming.len() > before {
                return Ok(true);
            }
        }
    }

    pub async fn first_byte(&mut self) -> Result<u8, Ended> {
        while self.incoming.is_empty() {
            if !self.fill().await? {
                return Err(Ended::Closed);
            }
        }
        Ok(self.incoming[0])
    }

    /// The packet that is there in full, if one is.
    fn buffered(&mut self) -> Result<Option<Packet>, Ended> {
        if self.incoming.len() < HEADER {
            return Ok(None);
        }
        let length = usize::from(u16::from_be_bytes([self.incoming[2], self.incoming[3]]));
        if length < HEADER || length > self.packet_size {
            return Err(violated(format!("a packet of {length} bytes, where {} were agreed upon", self.packet_size)));
        }
        if self.incoming.len() < length {
            return Ok(None);
        }
        let rest = self.incoming.split_off(length);
        let bytes = std::mem::replace(&mut self.incoming, rest);
        let known = status::END | status::IGNORE | status::RESET | status::RESET_KEEPING_TRANSACTION;
        if bytes[1] & !known != 0 {
            return Err(violated(format!("a packet of status 0x{:02X}", bytes[1])));
        }
        Ok(Some(Packet { kind: bytes[0], status: bytes[1], data: bytes[HEADER..].to_vec() }))
    }

    pub async fn packet(&mut self) -> Result<Packet, Ended> {
        loop {
            if let Some(packet) = self.buffered()? {
                return Ok(packet);
            }
            if !self.fill().await? {
                return if self.incoming.is_empty() {
                    Err(Ended::Closed)
                } else {
                    Err(violated("the line ends within a packet"))
                };
            }
        }
    }

    /// Whether an attention has come; it is taken.
    pub fn take_attention(&mut self) -> Result<bool, Ended> {
        if self.incoming.first() != Some(&kind::ATTENTION) {
            return Ok(false);
        }
        Ok(self.buffered()?.is_some())
    }

    /// A message of one kind, of as many packets as it takes. MS-TDS 2.2.1.
    pub async fn message(&mut self, kind: u8) -> Result<Vec<u8>, Ended> {
        let mut data = Vec::new();
        loop {
            let packet = self.packet().await?;
            if packet.kind != kind {
                return Err(violated(format!("a packet of type 0x{:02X} where 0x{kind:02X} is due", packet.kind)));
            }
            data.extend(packet.data);
            if packet.status & status::END != 0 {
                return Ok(data);
            }
        }
    }

    pub async fn send(&mut self, kind: u8, data: &[u8], session: u16) -> Result<(), Ended> {
        let framed = frame(kind, data, self.packet_size, session);
        self.send_bytes(&framed).await
    }

    async fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), Ended> {
        match &mut self.tls {
            None => self.stream.write_all(bytes).await?,
            Some(tls) => {
                tls.writer().write_all(bytes)?;
                self.flush_tls().await?;
            }
        }
        self.stream.flush().await?;
        Ok(())
    }

    async fn flush_tls(&mut self) -> Result<(), Ended> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        let mut outgoing = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut outgoing)?;
        }
        Ok(self.stream.write_all(&outgoing).await?)
    }

    /// TDS 8.0: the line is encrypted before anything is said.
    pub async fn encrypt_at_once(&mut self, config: Arc<ServerConfig>) -> Result<(), Ended> {
        let mut tls = connection(config)?;
        let begun = std::mem::take(&mut self.incoming);
        decrypt(&mut tls, &begun, &mut self.incoming)?;
        self.tls = Some(tls);
        self.flush_tls().await?;
        let mut buffer = vec![0; 16 * 1024];
        while self.tls.as_ref().is_some_and(|tls| tls.is_handshaking()) {
            let count = self.stream.read(&mut buffer).await?;
            if count == 0 {
                return Err(Ended::Closed);
            }
            if let Some(tls) = &mut self.tls {
                decrypt(tls, &buffer[..count], &mut self.incoming)?;
            }
            self.flush_tls().await?;
        }
        Ok(())
    }

    /// TDS 7: the handshake is within packets of PRELOGIN; what follows is not. MS-TDS 2.2.6.5, 3.3.5.1.
    pub async fn encrypt_in_packets(&mut self, config: Arc<ServerConfig>) -> Result<(), Ended> {
        let mut tls = connection(config)?;
        while tls.is_handshaking() {
            let said = self.message(kind::PRELOGIN).await?;
            decrypt(&mut tls, &said, &mut Vec::new())?;
            let mut answer = Vec::new();
            while tls.wants_write() {
                tls.write_tls(&mut answer)?;
            }
            if !answer.is_empty() {
                self.send(kind::PRELOGIN, &answer, 0).await?;
            }
        }
        // What has come behind the handshake is encrypted already.
        let begun = std::mem::take(&mut self.incoming);
        decrypt(&mut tls, &begun, &mut self.incoming)?;
        self.tls = Some(tls);
        Ok(())
    }

    /// Where only the login was to be encrypted.
    pub fn decrypt_no_more(&mut self) {
        self.tls = None;
    }

    pub async fn close(&mut self) {
        let _ = self.stream.shutdown().await;
    }
}

fn connection(config: Arc<ServerConfig>) -> Result<ServerConnection, Ended> {
    let mut tls = ServerConnection::new(config).map_err(|_| Ended::Closed)?;
    tls.set_buffer_limit(None);
    Ok(tls)
}

/// A failed handshake is the client's to report: it may not trust the certificate.
fn decrypt(tls: &mut ServerConnection, mut bytes: &[u8], into: &mut Vec<u8>) -> Result<(), Ended> {
    while !bytes.is_empty() {
        tls.read_tls(&mut bytes)?;
        tls.process_new_packets().map_err(|_| Ended::Closed)?;
        let mut buffer = [0; 8192];
        loop {
            match tls.reader().read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(count) => into.extend(&buffer[..count]),
            }
        }
    }
    Ok(())
}

fn frame(kind: u8, data: &[u8], size: usize, session: u16) -> Vec<u8> {
    let mut framed = Vec::with_capacity(data.len() + data.len() / size * HEADER + HEADER);
    let mut parts = data.chunks(size - HEADER).peekable();
    let mut number = 1u8;
    loop {
        let part = parts.next().unwrap_or_default();
        let last = parts.peek().is_none();
        framed.extend([kind, if last { status::END } else { 0 }]);
        framed.extend(((part.len() + HEADER) as u16).to_be_bytes());
        framed.extend(session.to_be_bytes());
        framed.extend([number, 0]);
        framed.extend(part);
        number = number.wrapping_add(1);
        if last {
            return framed;
        }
    }
}
