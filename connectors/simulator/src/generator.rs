//! Events of many devices, each on its own schedule.
//!
//! Fields, their order and their form are those of the Iot-Telemetry-Simulator as the seed's `simulator/` folder runs it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Write;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// What is simulated.
#[derive(Debug, Clone)]
pub struct Settings {
    pub devices: u32,
    /// Events a second, of all devices together, without copies.
    pub rate: f64,
    /// After each send the same message is sent again with the probability 1/N, again and again; 0 for never.
    pub duplicate_every: u32,
    pub seed: u64,
    /// Nanoseconds since 1970 at which the devices start.
    pub start: i64,
}

/// One event, as it is sent `1 + copies` times.
#[derive(Debug, Clone)]
pub struct Event {
    pub id: u128,
    pub device: u32,
    pub sequence: u64,
    /// When it is due, nanoseconds since 1970.
    pub due: i64,
    pub copies: u32,
    pub payload: Vec<u8>,
}

/// Yields events in the order in which they are due.
pub struct Generator {
    random: StdRng,
    settings: Settings,
    interval: i64,
    due: BinaryHeap<Reverse<(i64, u32)>>,
    sequences: Vec<u64>,
}

impl Generator {
    pub fn new(settings: Settings) -> Self {
        let mut random = StdRng::seed_from_u64(settings.seed);
        let interval = ((settings.devices as f64 / settings.rate.max(1e-9)) * 1e9).max(1.0) as i64;
        // Each device waits for a random part of its interval and then keeps an absolute schedule.
        let due = (0..settings.devices).map(|d| Reverse((settings.start + random.random_range(0..interval), d))).collect();
        let sequences = vec![0; settings.devices as usize];
        Generator { random, settings, interval, due, sequences }
    }

    /// When the next event is due.
    pub fn next_due(&self) -> Option<i64> {
        self.due.peek().map(|Reverse((due, _))| *due)
    }

    fn value(&mut self) -> String {
        format!("0.{}", self.random.random_range(0..i32::MAX))
    }

    fn payload(&mut self, id: u128, device: u32, sequence: u64, due: i64) -> Vec<u8> {
        let mut text = String::with_capacity(860);
        let kind = if self.random.random_bool(0.5) { "TEMP" } else { "CO2" };
        let created = chrono::DateTime::from_timestamp_nanos(due);
        let hundreds_of_nanos = created.timestamp_subsec_nanos() / 100;
        let _ = write!(
            text,
            r#"{{"eventId": "{}","value": {},"deviceId": "contoso-device-id-{device:06}","deviceSequenceNumber": {sequence},"type": "{kind}","createdAt": "{}.{hundreds_of_nanos:07}Z","complexData": {{"#,
            uuid::Uuid::from_u128(id),
            self.value(),
            created.format("%Y-%m-%dT%H:%M:%S"),
        );
        for index in 1..=23 {
            let separator = if index == 1 { "" } else { "," };
            let _ = write!(text, r#"{separator}"moreData{index}": {}"#, self.value());
        }
        text.push_str("}}");
        text.into_bytes()
    }
}

impl Iterator for Generator {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        let Reverse((due, device)) = self.due.pop()?;
        self.due.push(Reverse((due + self.interval, device)));
        let sequence = self.sequences[device as usize];
        self.sequences[device as usize] += 1;
        let id = uuid::Builder::from_random_bytes(self.random.random()).into_uuid().as_u128();
        let payload = self.payload(id, device, sequence, due);
        let every = self.settings.duplicate_every;
        let mut copies = 0;
        while every > 0 && self.random.random_range(0..every) == 0 {
            copies += 1;
            // With N = 1 every draw says yes: the seed's simulator would never end.
            if every == 1 {
                break;
            }
        }
        Some(Event { id, device, sequence, due, copies, payload })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(seed: u64) -> Settings {
        Settings { devices: 10, rate: 1000.0, duplicate_every: 20, seed, start: 1_700_000_000_000_000_000 }
    }

    #[test]
    fn the_event_is_the_seed_s() {
        let event = Generator::new(settings(1)).next().unwrap();
        let json: serde_json::Value = serde_json::from_slice(&event.payload).unwrap();
        assert_eq!(json["eventId"].as_str().unwrap(), uuid::Uuid::from_u128(event.id).to_string());
        assert_eq!(json["deviceSequenceNumber"], 0);
        assert_eq!(json["complexData"].as_object().unwrap().len(), 23);
        assert!(json["value"].as_f64().unwrap() < 1.0);
        let created = json["createdAt"].as_str().unwrap();
        assert_eq!((created.len(), &created[19..20], &created[27..]), (28, ".", "Z"));
        assert!((800..=880).contains(&event.payload.len()), "{} bytes", event.payload.len());
    }

    #[test]
    fn the_same_seed_tells_the_same_story_and_another_one_does_not() {
        let story = |seed| Generator::new(settings(seed)).take(50).map(|e| e.payload).collect::<Vec<_>>();
        assert_eq!(story(1), story(1));
        assert_ne!(story(1), story(2));
    }

    #[test]
    fn devices_count_from_zero_and_copies_come_as_often_as_asked() {
        let events: Vec<Event> = Generator::new(settings(3)).take(10_000).collect();
        assert!(events.windows(2).all(|w| w[0].due <= w[1].due));
        let of_one: Vec<u64> = events.iter().filter(|e| e.device == 4).map(|e| e.sequence).collect();
        assert!(of_one.iter().enumerate().all(|(i, s)| *s == i as u64));
        let copies: u32 = events.iter().map(|e| e.copies).sum();
        assert!((400..=660).contains(&copies), "{copies} copies of 10000 at 1/20");
    }
}
