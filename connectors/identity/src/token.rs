//! Keeps an OAuth token fresh while a client lives.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use tokio::task::JoinHandle;

use crate::{Http, Identity, Token, TokenError};

/// How long the first token may take.
const FIRST: Duration = Duration::from_secs(30);
/// Pauses between questions that were not answered with a token: from, up to.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

/// Where a table's tokens come from.
#[derive(Clone)]
pub struct Bearer {
    pub identity: Identity,
    pub scope: String,
}

impl Bearer {
    pub async fn token(&self) -> Result<FreshToken, TokenError> {
        FreshToken::obtain(self.identity.clone(), self.scope.clone()).await
    }
}

/// A token that is replaced when half of its life is over, long before librdkafka asks for the next one.
#[derive(Clone)]
pub struct FreshToken(Arc<Kept>);

struct Kept {
    state: Arc<Mutex<State>>,
    refreshing: JoinHandle<()>,
}

struct State {
    token: Token,
    /// Why the last question brought no token.
    trouble: Option<TokenError>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.refreshing.abort();
    }
}

impl FreshToken {
    /// Asks until there is a token or a refusal, and refreshes it from then on.
    pub async fn obtain(identity: Identity, scope: String) -> Result<Self, TokenError> {
        let http = Http::new()?;
        let token = first(&identity, &http, &scope).await?;
        let state = Arc::new(Mutex::new(State { token, trouble: None }));
        let refreshing = tokio::spawn(refresh(identity, http, scope, state.clone()));
        Ok(FreshToken(Arc::new(Kept { state, refreshing })))
    }

    /// The token, or why there is none that is still good.
    pub fn current(&self) -> Result<Token, TokenError> {
        let state = self.0.state.lock();
        if state.token.expires > SystemTime::now() {
            return Ok(state.token.clone());
        }
        let expired = || TokenError::Unanswered("the token has expired, and no other came in time".into());
        Err(state.trouble.clone().unwrap_or_else(expired))
    }
}

async fn first(identity: &Identity, http: &Http, scope: &str) -> Result<Token, TokenError> {
    let begun = Instant::now();
    let mut pause = PAUSE.0;
    loop {
        match identity.ask(http, scope).await {
            Err(TokenError::Unanswered(what)) if begun.elapsed() + pause < FIRST => {
                tracing::warn!(identity = identity.describe(), what, "no token yet; asking again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE.1);
            }
            answer => return answer,
        }
    }
}

async fn refresh(identity: Identity, http: Http, scope: String, state: Arc<Mutex<State>>) {
    let mut pause = PAUSE.0;
    loop {
        let left = state.lock().token.expires.duration_since(SystemTime::now()).unwrap_or_default();
        let troubled = state.lock().trouble.is_some();
        tokio::time::sleep(if troubled { pause } else { (left / 2).max(PAUSE.0) }).await;
        match identity.ask(&http, &scope).await {
            Ok(token) => {
                *state.lock() = State { token, trouble: None };
                pause = PAUSE.0;
            }
            Err(error) => {
                tracing::warn!(identity = identity.describe(), %error, "the token was not refreshed; asking again");
                state.lock().trouble = Some(error);
                pause = (pause * 2).min(PAUSE.1);
            }
        }
    }
}

#[cfg(test)]
mod tests;
