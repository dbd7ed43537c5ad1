//! One client: from the first byte to the last.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::accident::{Accident, Step};
use crate::collation::Collation;
use crate::error::SqlError;
use crate::login::{self, Login, feature};
use crate::packet::{Ended, FIRST_SIZE, Line, kind, status};
use crate::prelogin::{self, Encryption};
use crate::reader::{Read, Reader, Violation, violation};
use crate::rpc;
use crate::server::Shared;
use crate::session::Session;
use crate::tokens::{Answer, Done, command};
use crate::transaction;

/// The first byte of a TLS handshake, and so of TDS 8.0.
const TLS_HANDSHAKE: u8 = 0x16;
const TDS_8: u32 = 0x0800_0000;

/// `closed`: changes when all connections are to be closed.
pub async fn serve(stream: TcpStream, shared: Arc<Shared>, closed: watch::Receiver<u64>) {
    let _ = stream.set_nodelay(true);
    let mut connection = Connection { line: Line::new(stream), shared, session: None, strict: false, closed };
    if let Err(Ended::Violated(Violation(what))) = connection.run().await {
        connection.shared.violated(what);
    }
    connection.line.close().await;
}

struct Connection {
    line: Line,
    shared: Arc<Shared>,
    session: Option<Session>,
    strict: bool,
    closed: watch::Receiver<u64>,
}

type Went<T = ()> = Result<T, Ended>;

/// What is to happen at a step, once delays are over.
enum Course {
    AsUsual,
    Close,
    CloseAfter,
    CloseWithin,
    Refuse(SqlError),
    Answerless,
}

async fn course(shared: &Shared, step: Step) -> Course {
    match shared.accident(&step) {
        Accident::None => Course::AsUsual,
        Accident::CloseBefore => Course::Close,
        Accident::CloseAfter => Course::CloseAfter,
        Accident::CloseWithin => Course::CloseWithin,
        Accident::Refuse { number, class, message } => Course::Refuse(SqlError::new(number, class, message)),
        Accident::Answerless => Course::Answerless,
        Accident::Delay(time) => {
            tokio::time::sleep(time).await;
            Course::AsUsual
        }
    }
}

impl Connection {
    async fn run(&mut self) -> Went {
        if !matches!(course(&self.shared, Step::Connect).await, Course::AsUsual) {
            return Ok(());
        }
        self.agree().await?;
        if self.log_in().await? {
            self.serve_requests().await?;
        }
        Ok(())
    }

    /// MS-TDS 2.2.6.5.
    async fn agree(&mut self) -> Went {
        if self.line.first_byte().await? == TLS_HANDSHAKE {
            let Some(tls) = &self.shared.tls else { return Err(Ended::Closed) };
            self.line.encrypt_at_once(tls.at_once.clone()).await?;
            self.strict = true;
        }
        let client = prelogin::read(&self.line.message(kind::PRELOGIN).await?)?;
        let course = course(&self.shared, Step::Prelogin).await;
        match course {
            Course::AsUsual | Course::CloseAfter => {}
            Course::Answerless => return self.stay_silent().await,
            _ => return Err(Ended::Closed),
        }
        let agreed =
            prelogin::agree(client.encryption, self.shared.tls.is_some(), self.shared.options.require_encryption);
        let answer = prelogin::answer(&client, agreed, self.shared.wants_token());
        self.line.send(kind::ANSWER, &answer, 0).await?;
        if matches!(course, Course::CloseAfter) {
            return Err(Ended::Closed);
        }
        if self.strict {
            return Ok(());
        }
        match (agreed, &self.shared.tls) {
            (Encryption::Required, _) if client.encryption == Encryption::NotSupported => Err(Ended::Closed),
            (Encryption::NotSupported, _) | (_, None) => Ok(()),
            (_, Some(tls)) => {
                self.line.encrypt_in_packets(tls.within_packets.clone()).await?;
                self.strict = agreed != Encryption::Off;
                Ok(())
            }
        }
    }

    async fn log_in(&mut self) -> Went<bool> {
        let message = self.line.message(kind::LOGIN).await?;
        let login = login::read(&message)?;
        // `strict`: all of the line is encrypted, and not the login alone.
        if !self.strict {
            self.line.decrypt_no_more();
        }
        let course = course(&self.shared, Step::Login).await;
        let admitted = match &course {
            Course::Close | Course::CloseWithin => return Ok(false),
            Course::Refuse(error) => Err(error.clone()),
            _ => admit(&self.shared, &login).await,
        };
        let mut answer = Answer::default();
        let session = match admitted {
            Ok(session) => session,
            Err(error) => {
                answer.error(&error, "", 1);
                answer.done(Done::Statement, command::NONE, None, true);
                self.line.send(kind::ANSWER, &answer.finish(), 0).await?;
                return Ok(false);
            }
        };
        match course {
            Course::CloseAfter => return Ok(false),
            Course::Answerless => return self.stay_silent().await.map(|()| false),
            _ => {}
        }
        let size = if login.packet_size == 0 { FIRST_SIZE as u32 } else { login.packet_size.clamp(512, 32_767) };
        self.welcome(&login, size, &mut answer);
        self.line.send(kind::ANSWER, &answer.finish(), session.id as u16).await?;
        self.line.packet_size = size as usize;
        let routed = self.shared.route().is_some();
        self.session = Some(session);
        Ok(!routed)
    }

    /// What a login is answered with: MS-TDS 2.2.7.14 and the changes of 2.2.7.9.
    fn welcome(&self, login: &Login, size: u32, answer: &mut Answer) {
        let name = &self.shared.database.name;
        answer.change_text(1, name, "master");
        answer.info(5701, &format!("Changed database context to '{name}'."));
        answer.change_bytes(7, &Collation::default().bytes(), &[]);
        answer.change_text(2, "us_english", "");
        answer.info(5703, "Changed language setting to us_english.");
        answer.login(if login.version == TDS_8 { [8, 0, 0, 0] } else { [0x74, 0, 0, 4] });
        answer.change_text(4, &size.to_string(), &FIRST_SIZE.to_string());
        let mut features = Vec::new();
        if login.token.is_some() {
            features.push((feature::TOKEN, Vec::new()));
        }
        if login.features.contains(&feature::UTF8) {
            features.push((feature::UTF8, vec![1]));
        }
        if !features.is_empty() {
            answer.features(&features);
        }
        if let Some((host, port)) = self.shared.route() {
            answer.route(&host, port);
        }
        answer.done(Done::Statement, command::NONE, None, false);
    }

    /// Nothing is ever said again; what comes is swallowed, until the client goes.
    async fn stay_silent(&mut self) -> Went {
        loop {
            self.line.packet().await?;
        }
    }

    async fn serve_requests(&mut self) -> Went {
        loop {
            let request = self.request().await?;
            let Some((kind, data)) = request else { continue };
            let went = match kind {
                kind::BATCH => self.batch(data).await,
                kind::RPC => self.rpc(data).await,
                kind::BULK => self.bulk(data).await,
                kind::TRANSACTION => self.transaction(data).await,
                other => return Err(Violation(format!("a message of type 0x{other:02X}")).into()),
            };
            if !went? {
                return Ok(());
            }
        }
    }

    /// The next message; none: it was taken back.
    async fn request(&mut self) -> Went<Option<(u8, Vec<u8>)>> {
        let mut data = Vec::new();
        let mut packets = 0;
        let mut of = None;
        loop {
            let packet = self.line.packet().await?;
            if packet.kind == kind::ATTENTION {
                self.send(Answer::attention()).await?;
                if let Some(session) = &mut self.session {
                    session.announced = None;
                }
                return Ok(None);
            }
            if *of.get_or_insert(packet.kind) != packet.kind {
                return Err(
                    Violation(format!("a packet of type 0x{:02X} within a message of another", packet.kind)).into()
                );
            }
            packets += 1;
            if packets == 1 {
                self.reset(packet.status).await?;
            }
            data.extend(packet.data);
            if packet.status & status::END != 0 {
                if packet.status & status::IGNORE != 0 {
                    return Ok(None);
                }
                return Ok(Some((packet.kind, data)));
            }
            if packet.kind == kind::BULK && packets % 4 == 0 {
                self.bulk_is_coming(packets).await?;
            }
        }
    }

    async fn bulk_is_coming(&mut self, packets: usize) -> Went {
        let table = self.announced_table();
        match course(&self.shared, Step::BulkRows { table, packets }).await {
            Course::AsUsual | Course::Refuse(_) => Ok(()),
            Course::Answerless => self.stay_silent().await,
            _ => Err(Ended::Closed),
        }
    }

    fn announced_table(&self) -> String {
        let announced = self.session.as_ref().and_then(|session| session.announced.as_ref());
        announced.map(|load| load.relation.name.clone()).unwrap_or_default()
    }

    async fn reset(&mut self, flags: u8) -> Went {
        if flags & (status::RESET | status::RESET_KEEPING_TRANSACTION) != 0 {
            self.work(|session| {
                session.reset();
                session.answer.change_bytes(18, &[], &[]);
            })
            .await?;
        }
        Ok(())
    }

    async fn batch(&mut self, data: Vec<u8>) -> Went<bool> {
        let mut reader = Reader::new(&data);
        let descriptor = read_headers(&mut reader)?;
        let text = crate::reader::utf16(reader.rest())?;
        self.shared.heard(&text);
        self.step(Step::Batch(text.clone()), descriptor, move |session, half| {
            if half {
                session.half(&text)
            } else {
                session.batch(&text)
            };
        })
        .await
    }

    async fn rpc(&mut self, data: Vec<u8>) -> Went<bool> {
        let mut reader = Reader::new(&data);
        let descriptor = read_headers(&mut reader)?;
        let requests = rpc::read(&mut reader)?;
        let Some(session) = &self.session else { return Ok(false) };
        let texts: Vec<String> = requests.iter().map(|request| request.text(session)).collect();
        texts.iter().for_each(|text| self.shared.heard(text));
        self.step(Step::Rpc(texts.join("\n")), descriptor, move |session, half| {
            let count = if half { requests.len() / 2 } else { requests.len() };
            for request in requests.into_iter().take(count) {
                if !rpc::run(session, request) {
                    break;
                }
            }
        })
        .await
    }

    async fn transaction(&mut self, data: Vec<u8>) -> Went<bool> {
        let mut reader = Reader::new(&data);
        let descriptor = read_headers(&mut reader)?;
        let request = transaction::read(&mut reader)?;
        self.step(Step::Transaction(request.of), descriptor, move |session, half| {
            if !half {
                transaction::run(session, &request);
            }
        })
        .await
    }

    async fn bulk(&mut self, data: Vec<u8>) -> Went<bool> {
        let Some(session) = &mut self.session else { return Ok(false) };
        let Some(mut load) = session.announced.take() else {
            return Err(Violation("a bulk load that INSERT BULK did not announce".into()).into());
        };
        let descriptor = session.descriptor();
        let table = load.relation.name.clone();
        let rows = load.rows(&data)?;
        self.step(Step::Bulk { table }, descriptor, move |session, half| {
            let _ = match rows {
                Ok(rows) if !half => session.load(&load, rows),
                Ok(_) => Ok(()),
                Err(error) => session.fail(error),
            };
        })
        .await
    }

    /// Runs a request, and answers it, as far as no accident comes between. False: the line is to be closed.
    async fn step(
        &mut self,
        step: Step,
        descriptor: u64,
        work: impl FnOnce(&mut Session, bool) + Send + 'static,
    ) -> Went<bool> {
        let course = course(&self.shared, step).await;
        // From the moment on that a test closes all lines, nothing is begun.
        if self.closed.has_changed().unwrap_or(true) {
            return Ok(false);
        }
        match course {
            Course::Close => return Ok(false),
            Course::Refuse(error) => {
                self.work(move |session| {
                    let _ = session.fail(error);
                })
                .await?;
                return self.answer().await;
            }
            _ => {}
        }
        let half = matches!(course, Course::CloseWithin);
        let cancelled = self
            .work(move |session| {
                if session.descriptor() == descriptor {
                    return work(session, half);
                }
                let message =
                    "New request is not allowed to start because it should come with valid transaction descriptor.";
                let _ = session.fail(SqlError::new(3989, 16, message));
            })
            .await?;
        match course {
            Course::CloseAfter | Course::CloseWithin => Ok(false),
            Course::Answerless => self.stay_silent().await.map(|()| false),
            // The request's answer ends early, and the attention has one of its own: MS-TDS 2.2.1.7, and what drivers wait for.
            _ if cancelled => {
                self.answer().await?;
                self.send(Answer::attention()).await.map(|()| true)
            }
            _ => self.answer().await,
        }
    }

    async fn answer(&mut self) -> Went<bool> {
        let Some(session) = &mut self.session else { return Ok(false) };
        let said = session.take_answer();
        self.send(said).await.map(|()| true)
    }

    async fn send(&mut self, said: Vec<u8>) -> Went {
        let id = self.session.as_ref().map_or(0, |session| session.id as u16);
        self.line.send(kind::ANSWER, &said, id).await
    }

    /// Lets the session work where it may wait. True: the client has called it off.
    async fn work(&mut self, work: impl FnOnce(&mut Session) + Send + 'static) -> Went<bool> {
        let Some(mut session) = self.session.take() else { return Err(Ended::Closed) };
        let cancelled = session.cancelled.clone();
        cancelled.store(false, Ordering::SeqCst);
        let interrupt = session.interrupt_handle();
        let mut job = tokio::task::spawn_blocking(move || {
            work(&mut session);
            session
        });
        // Whoever closes the line from elsewhere calls off what is running, too.
        let mut call = Call { cancelled: cancelled.clone(), interrupt, over: false };
        let mut gone = None;
        let session = loop {
            tokio::select! {
                done = &mut job => break done.map_err(|_| Violation("the double has failed".into()))?,
                more = self.line.fill(), if gone.is_none() => match more.and_then(|more| if more { self.line.take_attention() } else { Err(Ended::Closed) }) {
                    Ok(true) => call.off(),
                    Ok(false) => {}
                    Err(ended) => {
                        call.off();
                        gone = Some(ended);
                    }
                },
            }
        };
        call.over = true;
        let called_off = cancelled.load(Ordering::SeqCst);
        self.session = Some(session);
        gone.map_or(Ok(called_off), Err)
    }
}

async fn admit(shared: &Shared, login: &Login) -> Result<Session, SqlError> {
    let options = &shared.options;
    let failed = |user: &str| SqlError::new(18456, 14, format!("Login failed for user '{user}'."));
    match (&login.token, shared.token()) {
        (Some(token), Some(expected)) if token.starts_with(&expected) => {}
        (Some(_), _) => return Err(failed("<token-identified principal>")),
        (None, _) => {
            let known = login.user.eq_ignore_ascii_case(&options.user) && login.password == options.password;
            if !known {
                return Err(failed(&login.user));
            }
        }
    }
    let database = &shared.database;
    if !login.database.is_empty() && !login.database.eq_ignore_ascii_case(&database.name) {
        let message = format!("Cannot open database \"{}\" requested by the login. The login failed.", login.database);
        return Err(SqlError::new(4060, 11, message));
    }
    let (database, user) = (database.clone(), options.user.clone());
    let open = if login.token.is_some() { Session::of_external } else { Session::open };
    let opened = tokio::task::spawn_blocking(move || open(database, &user)).await;
    opened.unwrap_or_else(|_| Err(SqlError::new(4060, 11, "The session cannot be opened.")))
}

/// A request that is running.
struct Call {
    cancelled: Arc<AtomicBool>,
    interrupt: rusqlite::InterruptHandle,
    over: bool,
}

impl Call {
    fn off(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
        self.interrupt.interrupt();
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.over {
            self.off();
        }
    }
}

/// MS-TDS 2.2.5.3 ALL_HEADERS: the transaction's descriptor among them.
fn read_headers(reader: &mut Reader<'_>) -> Read<u64> {
    let total = reader.u32()? as usize;
    let Some(length) = total.checked_sub(4) else { return violation("ALL_HEADERS of no length") };
    let mut headers = Reader::new(reader.take(length)?);
    let mut descriptor = None;
    while !headers.is_empty() {
        let size = headers.u32()? as usize;
        let of = headers.u16()?;
        let Some(rest) = size.checked_sub(6) else { return violation("ALL_HEADERS: a header of no length") };
        let mut data = Reader::new(headers.take(rest)?);
        if of == 2 {
            descriptor = Some(data.u64()?);
            if data.u32()? != 1 || !data.is_empty() {
                return violation("ALL_HEADERS: one request at a time");
            }
        } else if of != 1 && of != 3 {
            return violation(format!("ALL_HEADERS: header {of}"));
        }
    }
    descriptor.map_or_else(|| violation("ALL_HEADERS: no transaction descriptor"), Ok)
}
