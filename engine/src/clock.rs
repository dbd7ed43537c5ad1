//! How far time has come in each split, and in all of them together.

use serde::{Deserialize, Serialize};

/// Nothing heard yet: minus infinity.
pub const UNHEARD: i64 = i64::MIN;

/// The two clocks of one split, in nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitClock {
    /// The watermark: no later row of the split has an event time before this.
    #[serde(with = "heard")]
    pub event_time: i64,
    /// The highest timestamp that the log itself gave to a record.
    #[serde(with = "heard")]
    pub log_time: i64,
    /// The reader stands at the end that the log itself stated, or has finished: nothing holds the others back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub idle: bool,
}

impl Default for SplitClock {
    fn default() -> Self {
        SplitClock { event_time: UNHEARD, log_time: UNHEARD, idle: false }
    }
}

impl SplitClock {
    /// Takes in what a read brought. Neither clock ever goes back.
    pub fn advance(&mut self, event_time: Option<i64>, log_time: Option<i64>, idle: bool) {
        self.event_time = self.event_time.max(event_time.unwrap_or(UNHEARD));
        self.log_time = self.log_time.max(log_time.unwrap_or(UNHEARD));
        self.idle = idle;
    }
}

/// Which of a split's clocks an operator runs on.
pub type Hand = fn(&SplitClock) -> i64;

/// The clocks of all splits that feed an operator.
#[derive(Debug, Clone, Default)]
pub struct Clocks {
    splits: Vec<Option<SplitClock>>,
    /// The minimum that was reached: it stays while every split is idle, and never goes back.
    reached: Option<i64>,
}

impl Clocks {
    /// Makes a split known. From here on it holds the minimum back until it is heard of.
    pub fn add(&mut self, split: usize, clock: SplitClock) {
        if self.splits.len() <= split {
            self.splits.resize(split + 1, None);
        }
        self.splits[split] = Some(clock);
    }

    pub fn set(&mut self, split: usize, clock: SplitClock) {
        self.add(split, clock);
    }

    pub fn get(&self, split: usize) -> Option<SplitClock> {
        self.splits.get(split).copied().flatten()
    }

    /// The minimum that was reached so far. It does not follow from the clocks of the splits: one that was idle may come
    /// back far behind it.
    pub fn reached(&self) -> i64 {
        self.reached.unwrap_or(UNHEARD)
    }

    /// Goes on where a predecessor's minimum was.
    pub fn go_on_from(&mut self, reached: i64) {
        self.reached = Some(self.reached().max(reached));
    }

    /// The minimum over all splits that are not idle. `UNHEARD` while one was never heard of.
    pub fn minimum(&mut self, hand: Hand) -> i64 {
        let live = self.splits.iter().flatten().filter(|c| !c.idle).map(hand).min();
        let reached = self.reached().max(live.unwrap_or(UNHEARD));
        self.reached = Some(reached);
        reached
    }
}

/// JSON has no minus infinity: a clock that heard nothing is null.
mod heard {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(time: &i64, serializer: S) -> Result<S::Ok, S::Error> {
        (*time != super::UNHEARD).then_some(time).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
        Ok(Option::deserialize(deserializer)?.unwrap_or(super::UNHEARD))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(log_time: i64) -> SplitClock {
        SplitClock { event_time: UNHEARD, log_time, idle: false }
    }

    #[test]
    fn a_split_not_heard_of_holds_the_minimum_at_minus_infinity() {
        let mut clocks = Clocks::default();
        clocks.add(0, at(100));
        clocks.add(1, SplitClock::default());
        assert_eq!(clocks.minimum(|c| c.log_time), UNHEARD);
        clocks.set(1, at(40));
        assert_eq!(clocks.minimum(|c| c.log_time), 40);
    }

    #[test]
    fn an_idle_split_holds_nobody_back_and_coming_back_does_not_turn_the_clock_back() {
        let mut clocks = Clocks::default();
        clocks.add(0, at(100));
        clocks.add(1, SplitClock { idle: true, ..at(40) });
        assert_eq!(clocks.minimum(|c| c.log_time), 100);
        clocks.set(1, at(50));
        assert_eq!(clocks.minimum(|c| c.log_time), 100);
    }

    #[test]
    fn a_silent_clock_is_null_in_the_log() {
        let text = serde_json::to_string(&SplitClock::default()).unwrap();
        assert_eq!(text, r#"{"event_time":null,"log_time":null}"#);
        assert_eq!(serde_json::from_str::<SplitClock>(&text).unwrap(), SplitClock::default());
    }
}
