//! A registry that has what a test gives it, and answers questions that the real ones would not understand with 400.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response, Uri};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::watch;

const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";

pub struct Double {
    pub url: String,
    shelf: Arc<Shelf>,
    held: watch::Sender<bool>,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Protocol {
    Confluent,
    EventHubs,
}

pub struct Shelf {
    protocol: Protocol,
    held: watch::Receiver<bool>,
    state: Mutex<Content>,
}

#[derive(Default)]
struct Content {
    /// By `GET /path`.
    replies: HashMap<String, Reply>,
    /// What is answered first, whatever the question.
    first: VecDeque<Reply>,
    asked: Vec<Asked>,
    /// The header without which nobody is let in.
    authorization: Option<String>,
}

#[derive(Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

#[derive(Debug, Clone)]
pub struct Asked {
    /// `GET /path`
    pub what: String,
    pub authorization: Option<String>,
    pub body: String,
}

pub fn reply(status: u16, body: impl Into<Vec<u8>>) -> Reply {
    Reply { status, headers: vec![("content-type", MEDIA_TYPE.into())], body: body.into() }
}

impl Reply {
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.retain(|(known, _)| *known != name);
        self.headers.push((name, value.into()));
        self
    }
}

impl Double {
    pub async fn start(protocol: Protocol) -> Self {
        let double = Double::without_a_port(protocol, "");
        double.serve_on(TcpListener::bind("127.0.0.1:0").await.expect("a port"))
    }

    /// One that is there, and that nobody can reach yet.
    pub fn without_a_port(protocol: Protocol, url: &str) -> Self {
        let (held, watched) = watch::channel(false);
        let shelf = Shelf { protocol, held: watched, state: Mutex::default() };
        Double { url: url.into(), shelf: Arc::new(shelf), held }
    }

    pub fn serve_on(mut self, listener: TcpListener) -> Self {
        self.url = format!("http://{}", listener.local_addr().expect("an address"));
        let routes = self.routes();
        tokio::spawn(async move { axum::serve(listener, routes).await });
        self
    }

    pub fn routes(&self) -> Router {
        Router::new().fallback(answer).with_state(self.shelf.clone())
    }

    pub fn put(&self, what: &str, reply: Reply) {
        self.shelf.state.lock().replies.insert(what.into(), reply);
    }

    /// Answers the next question so, whatever it is.
    pub fn first(&self, reply: Reply) {
        self.shelf.state.lock().first.push_back(reply);
    }

    pub fn lets_in(&self, authorization: &str) {
        self.shelf.state.lock().authorization = Some(authorization.into());
    }

    /// Keeps its answers back until it is told otherwise.
    pub fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.shelf.state.lock().asked.clone()
    }

    /// The questions, without what belongs to them.
    pub fn questions(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.what).collect()
    }
}

async fn answer(
    State(shelf): State<Arc<Shelf>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let authorization = headers.get("authorization").map(|value| value.to_str().expect("text").to_string());
    let what = format!("{method} {}", uri.path());
    let body = String::from_utf8(body.to_vec()).expect("text");
    shelf.state.lock().asked.push(Asked { what: what.clone(), authorization: authorization.clone(), body });
    shelf.held.clone().wait_for(|held| !held).await.expect("it lives");
    let wrong = match shelf.protocol {
        Protocol::Confluent => wrong_for_confluent(&method, &uri, &headers),
        Protocol::EventHubs => wrong_for_event_hubs(&method, &uri, &headers),
    };
    let reply = shelf.reply(&what, wrong, authorization);
    let mut response = Response::builder().status(reply.status);
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    response.body(Body::from(reply.body)).expect("an answer")
}

impl Shelf {
    fn reply(&self, what: &str, wrong: Option<String>, authorization: Option<String>) -> Reply {
        let mut state = self.state.lock();
        if let Some(reply) = state.first.pop_front() {
            return reply;
        }
        if let Some(wrong) = wrong {
            return reply(400, format!(r#"{{"message":"{wrong}"}}"#));
        }
        if state.authorization.is_some() && state.authorization != authorization {
            return reply(401, r#"{"error_code":401,"message":"Unauthorized"}"#);
        }
        let missing = match self.protocol {
            Protocol::Confluent => reply(404, r#"{"error_code":40403,"message":"Schema not found"}"#),
            Protocol::EventHubs => {
                reply(404, r#"{"error":{"code":"ItemNotFound","message":"Schema does not exist."}}"#)
            }
        };
        state.replies.get(what).cloned().unwrap_or(missing)
    }
}

fn wrong_for_confluent(method: &Method, uri: &Uri, headers: &HeaderMap) -> Option<String> {
    let is = |name: &str| headers.get(name).is_some_and(|value| value == MEDIA_TYPE);
    let query = if method == Method::GET && uri.path().contains("/versions/") { Some("deleted=true") } else { None };
    if !is("accept") {
        return Some("Accept".into());
    }
    if method == Method::POST && !is("content-type") {
        return Some("Content-Type".into());
    }
    (uri.query() != query).then(|| "query".into())
}

fn wrong_for_event_hubs(method: &Method, uri: &Uri, headers: &HeaderMap) -> Option<String> {
    let known =
        ["application/json; serialization=Avro", "application/json; serialization=Json", "text/vnd.ms.protobuf"];
    if method == Method::PUT && !headers.get("content-type").is_some_and(|kind| known.iter().any(|k| kind == k)) {
        return Some("Content-Type".into());
    }
    (uri.query() != Some("api-version=2023-07-01")).then(|| "api-version".into())
}
