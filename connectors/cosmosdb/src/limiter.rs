//! How many requests may be under way at once: as many as the service takes without throttling.

use std::time::{Duration, Instant};

/// Where it begins, unless less is allowed.
const FIRST: f64 = 16.0;
/// What is left of it after a throttled request.
const BACK: f64 = 0.7;
/// Requests that were under way together are throttled together: that is one reason to go back, not many.
const TOGETHER: Duration = Duration::from_millis(200);

/// Additive increase, multiplicative decrease.
pub struct Limiter {
    limit: f64,
    most: f64,
    went_back: Option<Instant>,
}

impl Limiter {
    /// `most`: requests at once, whatever the service takes; at least one.
    pub fn new(most: usize) -> Self {
        let most = most.max(1) as f64;
        Limiter { limit: FIRST.min(most), most, went_back: None }
    }

    pub fn limit(&self) -> usize {
        self.limit as usize
    }

    pub fn taken(&mut self) {
        self.limit = (self.limit + 1.0 / self.limit).min(self.most);
    }

    pub fn throttled(&mut self, now: Instant) {
        if self.went_back.is_none_or(|then| now.duration_since(then) > TOGETHER) {
            self.limit = (self.limit * BACK).max(1.0);
            self.went_back = Some(now);
        }
    }
}

/// Request units a second that may be spent. What a request costs is known when it is answered, so as much as others cost is
/// set aside when it is sent.
pub struct Budget {
    /// `None`: whatever the service gives.
    per_second: Option<f64>,
    /// What is left, never more than a second's worth; below zero after a dear request.
    left: f64,
    since: Instant,
    /// What a document has cost lately.
    a_document: f64,
}

/// What a document of a kilobyte costs if little of it is indexed: until it is known better.
const UNKNOWN: f64 = 7.0;
/// How much the last request counts for what a document costs.
const LAST: f64 = 0.2;

impl Budget {
    pub fn new(per_second: Option<f64>, now: Instant) -> Self {
        Budget { per_second, left: per_second.unwrap_or_default(), since: now, a_document: UNKNOWN }
    }

    pub fn is_spent(&self) -> bool {
        self.per_second.is_some() && self.left <= 0.0
    }

    /// Sets aside what so many documents will cost.
    pub fn reserve(&mut self, documents: usize) -> f64 {
        let units = self.a_document * documents as f64;
        self.left -= units;
        units
    }

    /// What they have cost.
    pub fn settle(&mut self, reserved: f64, units: f64, documents: usize) {
        self.left += reserved - units;
        if units > 0.0 {
            self.a_document += LAST * (units / documents.max(1) as f64 - self.a_document);
        }
    }

    /// How long to wait until something may be spent again.
    pub fn wait(&mut self, now: Instant) -> Option<Duration> {
        let per_second = self.per_second?;
        self.left = (self.left + per_second * now.duration_since(self.since).as_secs_f64()).min(per_second);
        self.since = now;
        (self.left <= 0.0).then(|| Duration::from_secs_f64(-self.left / per_second + 0.001))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_while_requests_are_taken_and_goes_back_once_for_those_that_were_throttled_together() {
        let (mut limiter, now) = (Limiter::new(20), Instant::now());
        assert_eq!(limiter.limit(), 16);
        (0..1000).for_each(|_| limiter.taken());
        assert_eq!(limiter.limit(), 20, "never more than is allowed");
        (0..20).for_each(|_| limiter.throttled(now));
        assert_eq!(limiter.limit(), 14);
        (1..100).for_each(|n| limiter.throttled(now + TOGETHER * 2 * n));
        assert_eq!(limiter.limit(), 1, "never none");
    }

    #[test]
    fn what_is_spent_beyond_the_budget_is_waited_for() {
        let now = Instant::now();
        let mut budget = Budget::new(Some(100.0), now);
        assert_eq!(budget.reserve(10), 70.0);
        assert_eq!(budget.wait(now), None);
        assert_eq!(budget.reserve(10), 70.0);
        assert!(budget.is_spent(), "requests that are not answered yet count");
        budget.settle(70.0, 60.0, 10);
        budget.settle(70.0, 90.0, 10);
        assert_eq!(budget.wait(now), Some(Duration::from_millis(501)));
        assert_eq!(budget.wait(now + Duration::from_millis(501)), None);
        assert!((7.0..9.0).contains(&budget.reserve(1)), "a document costs what the last ones cost");
        budget.wait(now + Duration::from_secs(60));
        budget.settle(0.0, 101.0, 1);
        assert!(budget.wait(now + Duration::from_secs(60)).is_some(), "an idle minute saves up a second's worth");
        let mut free = Budget::new(None, now);
        free.settle(0.0, 1e9, 1);
        assert!(free.wait(now).is_none() && !free.is_spent());
    }
}
