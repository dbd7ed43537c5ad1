//! What is tried until it works: with a growing pause between tries, which `/status` shows, and until a stated time has passed.

use std::time::Duration;

use crate::environment::{Environment, backoff};
use crate::metrics::Health;

/// The tries of one thing.
pub struct Patience<'a> {
    environment: &'a dyn Environment,
    health: &'a Health,
    give_up_after: Option<Duration>,
    /// Since which failure it has come no further than this: what goes request by request comes forward between two.
    since: Option<Duration>,
    reached: u64,
    tries: u32,
}

impl<'a> Patience<'a> {
    /// The first try begins. `reached`: see [`Patience::after`].
    pub fn new(
        environment: &'a dyn Environment,
        health: &'a Health,
        give_up_after: Option<Duration>,
        reached: u64,
    ) -> Self {
        Patience { environment, health, give_up_after, since: None, reached, tries: 0 }
    }

    /// Waits until it is time for the next try, after one that failed. `reached`: how far it has come by now, in whatever it
    /// comes forward by. Fails with the stated time if it has failed for so long and come no further: then it is given up. A first
    /// failure never is, however long that try took.
    pub async fn after(&mut self, place: &str, what: &str, reached: u64) -> Result<(), Duration> {
        self.health.suffer(format!("{place}: {what}"));
        let now = self.environment.elapsed();
        let since = match self.since {
            Some(since) if reached == self.reached => since,
            _ => now,
        };
        (self.since, self.reached) = (Some(since), reached);
        let waited = now.saturating_sub(since);
        if let Some(most) = self.give_up_after.filter(|most| waited >= *most) {
            return Err(most);
        }
        self.environment.sleep(backoff(self.environment, self.tries)).await;
        self.tries += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::System;

    #[tokio::test]
    async fn what_comes_forward_is_not_given_up() {
        let health = Health::default();
        let most = Duration::from_millis(100);
        let tries = async |comes_forward: bool| {
            let mut patience = Patience::new(&System, &health, Some(most), 0);
            for tried in 1..8 {
                let reached = if comes_forward { tried } else { 0 };
                if patience.after("table t", "nobody answers", reached).await.is_err() {
                    return false;
                }
                // Longer than what is bounded, all in all, and shorter from one try to the next.
                tokio::time::sleep(most / 4).await;
                patience.tries = 0;
            }
            true
        };
        assert!(tries(true).await, "each try brought something");
        assert!(!tries(false).await, "none did");
        assert_eq!(health.trouble.read().as_deref(), Some("table t: nobody answers"));
    }
}
