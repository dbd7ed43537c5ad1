//! What an administrator grants and limits, asked for in Kafka's own protocol: librdkafka knows nothing of quotas.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// What is granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    Read = 3,
    Write = 4,
    Describe = 8,
    IdempotentWrite = 12,
}

/// What a right is about.
#[derive(Debug, Clone, Copy)]
pub enum Of<'a> {
    Topic(&'a str),
    Group(&'a str),
    Cluster,
}

impl Of<'_> {
    /// In Kafka's words: the kind, and the name.
    fn named(&self) -> (i8, &str) {
        match self {
            Of::Topic(name) => (2, name),
            Of::Group(name) => (3, name),
            Of::Cluster => (4, "kafka-cluster"),
        }
    }
}

const LITERAL: i8 = 3;
const ALLOW: i8 = 3;

const CREATE_ACLS: (i16, i16) = (30, 1);
const DELETE_ACLS: (i16, i16) = (31, 1);
const ALTER_CLIENT_QUOTAS: (i16, i16) = (49, 0);

/// Lets a user do something. Brokers with an authorizer let nobody do anything else.
pub fn grant(bootstrap_server: &str, user: &str, right: Right, of: Of<'_>) {
    ask(bootstrap_server, CREATE_ACLS, &one_right(user, right, of));
}

/// Takes back what was granted.
pub fn take_back(bootstrap_server: &str, user: &str, right: Right, of: Of<'_>) {
    ask(bootstrap_server, DELETE_ACLS, &one_right(user, right, of));
}

/// A list of one right, which says the same where it is granted and where it is looked for.
fn one_right(user: &str, right: Right, of: Of<'_>) -> Vec<u8> {
    let (kind, name) = of.named();
    let mut body = Body::default();
    body.count(1).byte(kind).text(name).byte(LITERAL).text(&format!("User:{user}")).text("*");
    body.byte(right as i8).byte(ALLOW);
    body.0
}

/// Bytes a second that clients of this id may read from each broker.
pub fn limit_reading(bootstrap_server: &str, client_id: &str, bytes_a_second: f64) {
    limit(bootstrap_server, client_id, "consumer_byte_rate", bytes_a_second);
}

/// The same of what they may write.
pub fn limit_writing(bootstrap_server: &str, client_id: &str, bytes_a_second: f64) {
    limit(bootstrap_server, client_id, "producer_byte_rate", bytes_a_second);
}

fn limit(bootstrap_server: &str, client_id: &str, what: &str, a_second: f64) {
    let (remove, only_validate) = (0, 0);
    let mut quota = Body::default();
    quota.count(1).count(1).text("client-id").text(client_id);
    quota.count(1).text(what).float(a_second).byte(remove).byte(only_validate);
    ask(bootstrap_server, ALTER_CLIENT_QUOTAS, &quota.0);
}

/// A request's fields, one after the other.
#[derive(Default)]
struct Body(Vec<u8>);

impl Body {
    fn byte(&mut self, value: i8) -> &mut Body {
        self.0.extend(value.to_be_bytes());
        self
    }

    fn count(&mut self, value: i32) -> &mut Body {
        self.0.extend(value.to_be_bytes());
        self
    }

    fn float(&mut self, value: f64) -> &mut Body {
        self.0.extend(value.to_be_bytes());
        self
    }

    fn text(&mut self, value: &str) -> &mut Body {
        self.0.extend((value.len() as i16).to_be_bytes());
        self.0.extend(value.as_bytes());
        self
    }
}

/// All answers begin alike: a throttle time, how many results, and the first one's error code and message.
fn ask(bootstrap_server: &str, (request, version): (i16, i16), body: &[u8]) {
    let mut message = Body::default();
    message.0.extend([request.to_be_bytes(), version.to_be_bytes()].concat());
    message.count(1).text("administrator").0.extend(body);
    let mut connection = TcpStream::connect(bootstrap_server).expect("the broker listens");
    connection.set_read_timeout(Some(Duration::from_secs(60))).expect("a time limit");
    connection.write_all(&(message.0.len() as i32).to_be_bytes()).expect("the broker takes requests");
    connection.write_all(&message.0).expect("the broker takes requests");
    let mut length = [0; 4];
    connection.read_exact(&mut length).expect("the broker answers");
    let mut answer = vec![0; i32::from_be_bytes(length) as usize];
    connection.read_exact(&mut answer).expect("the broker answers to the end");
    let (correlation, throttle, count) = (4, 4, 4);
    let result = &answer[correlation + throttle + count..];
    assert_eq!(result[..2], [0, 0], "request {request} was refused: {}", String::from_utf8_lossy(&result[2..]));
}
