//! Events of many devices, each on its own schedule.
//!
//! Fields, their order and their form are those of the Iot-Telemetry-Simulator as the seed's `simulator/` folder runs it.
//! An event is a function of the settings and its number, so that a reader can begin anywhere: all devices have the same
//! interval and differ by when they start, hence every round visits them in the same order.

use crate::random::Random;

/// What is simulated.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Devices of each instance.
    pub devices: u32,
    /// Simulators that run side by side. Each drives the same device ids, with its own sequence numbers from 0.
    pub instances: u32,
    /// Events a second, of all instances together, without copies.
    pub rate: f64,
    /// After each send the same message is sent again with the probability 1/N, again and again; 0 for never.
    pub duplicate_every: u32,
    pub seed: u64,
    /// Nanoseconds since 1970 at which the devices start.
    pub start: i64,
}

impl Default for Settings {
    /// The seed's smallest test: 1,000 events a second of 1,000 devices.
    fn default() -> Self {
        Settings { devices: 1000, instances: 1, rate: 1000.0, duplicate_every: 1000, seed: 0, start: 0 }
    }
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
    settings: Settings,
    interval: i64,
    /// The order of one round: how long after its beginning, and whose turn it is.
    turns: Vec<(i64, u32)>,
    next: u64,
    clock: Clock,
}

/// Domains of the draws, so that none tells another.
const STARTS: u64 = 1;
const CONTENT: u64 = 2;
const COPIES: u64 = 3;

impl Generator {
    pub fn new(settings: Settings) -> Self {
        let (devices, instances) = (settings.devices.max(1), settings.instances.max(1));
        let slots = u64::from(devices) * u64::from(instances);
        let interval = ((slots as f64 / settings.rate.max(1e-9)) * 1e9).max(1.0) as i64;
        // Each device waits for a random part of its interval and then keeps an absolute schedule.
        let turn = |slot| {
            let phase = Random::of(settings.seed, STARTS, slot).below(interval as u64) as i64;
            (phase, (slot % u64::from(devices)) as u32)
        };
        let mut turns: Vec<_> = (0..slots).map(turn).collect();
        turns.sort();
        Generator { settings, interval, turns, next: 0, clock: Clock::default() }
    }

    /// When the next event is due.
    pub fn next_due(&self) -> Option<i64> {
        Some(self.due(self.next))
    }

    /// When event number `n` is due.
    pub fn due(&self, n: u64) -> i64 {
        let (round, (phase, _)) = self.turn(n);
        self.settings.start + phase + round as i64 * self.interval
    }

    /// How often event number `n` is sent again.
    pub fn copies(&self, n: u64) -> u32 {
        let every = u64::from(self.settings.duplicate_every);
        if every == 0 {
            return 0;
        }
        let mut random = Random::of(self.settings.seed, COPIES, n);
        let mut copies = 0;
        // With N = 1 every draw says yes: the seed's simulator would never end.
        while random.below(every) == 0 && (every > 1 || copies == 0) {
            copies += 1;
        }
        copies
    }

    /// Event number `n`.
    pub fn event(&mut self, n: u64) -> Event {
        let mut payload = Vec::with_capacity(880);
        let id = self.write(n, &mut payload);
        let (sequence, (_, device)) = self.turn(n);
        Event { id, device, sequence, due: self.due(n), copies: self.copies(n), payload }
    }

    /// Appends the payload of event number `n`; returns its id.
    pub fn write(&mut self, n: u64, out: &mut Vec<u8>) -> u128 {
        let (sequence, (_, device)) = self.turn(n);
        let due = self.due(n);
        let mut random = Random::of(self.settings.seed, CONTENT, n);
        let id = uuid::Builder::from_random_bytes(random.wide().to_le_bytes()).into_uuid();
        let mut digits = itoa::Buffer::new();
        let mut hyphenated = uuid::Uuid::encode_buffer();
        out.extend_from_slice(br#"{ "eventId": ""#);
        out.extend_from_slice(id.hyphenated().encode_lower(&mut hyphenated).as_bytes());
        out.extend_from_slice(br#"", "value": 0."#);
        out.extend_from_slice(digits.format(random.positive()).as_bytes());
        out.extend_from_slice(br#", "deviceId": "contoso-device-id-"#);
        push_padded(out, u64::from(device), 6);
        out.extend_from_slice(br#"", "deviceSequenceNumber": "#);
        out.extend_from_slice(digits.format(sequence).as_bytes());
        out.extend_from_slice(if random.below(2) == 0 { br#", "type": "TEMP"# } else { br#", "type": "CO2"# });
        out.extend_from_slice(br#"", "createdAt": ""#);
        self.clock.push(out, due);
        out.extend_from_slice(br#"", "complexData": { "#);
        for name in MORE_DATA {
            out.extend_from_slice(name);
            out.extend_from_slice(digits.format(random.positive()).as_bytes());
        }
        out.extend_from_slice(b" } }");
        id.as_u128()
    }

    fn turn(&self, n: u64) -> (u64, (i64, u32)) {
        let slots = self.turns.len() as u64;
        (n / slots, self.turns[(n % slots) as usize])
    }
}

impl Iterator for Generator {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        let event = self.event(self.next);
        self.next += 1;
        Some(event)
    }
}

const MORE_DATA: [&[u8]; 23] = [
    br#""moreData1": 0."#,
    br#", "moreData2": 0."#,
    br#", "moreData3": 0."#,
    br#", "moreData4": 0."#,
    br#", "moreData5": 0."#,
    br#", "moreData6": 0."#,
    br#", "moreData7": 0."#,
    br#", "moreData8": 0."#,
    br#", "moreData9": 0."#,
    br#", "moreData10": 0."#,
    br#", "moreData11": 0."#,
    br#", "moreData12": 0."#,
    br#", "moreData13": 0."#,
    br#", "moreData14": 0."#,
    br#", "moreData15": 0."#,
    br#", "moreData16": 0."#,
    br#", "moreData17": 0."#,
    br#", "moreData18": 0."#,
    br#", "moreData19": 0."#,
    br#", "moreData20": 0."#,
    br#", "moreData21": 0."#,
    br#", "moreData22": 0."#,
    br#", "moreData23": 0."#,
];

/// Writes times with seven fractional digits. The calendar is asked once a second.
#[derive(Default)]
struct Clock {
    second: Option<i64>,
    text: String,
}

impl Clock {
    fn push(&mut self, out: &mut Vec<u8>, time: i64) {
        let second = time.div_euclid(1_000_000_000);
        if self.second != Some(second) {
            self.second = Some(second);
            let moment = chrono::DateTime::from_timestamp(second, 0).unwrap_or_default();
            self.text = moment.format("%Y-%m-%dT%H:%M:%S.").to_string();
        }
        out.extend_from_slice(self.text.as_bytes());
        push_padded(out, time.rem_euclid(1_000_000_000) as u64 / 100, 7);
        out.push(b'Z');
    }
}

fn push_padded(out: &mut Vec<u8>, number: u64, width: usize) {
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(number);
    out.resize(out.len() + width.saturating_sub(digits.len()), b'0');
    out.extend_from_slice(digits.as_bytes());
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn settings(seed: u64) -> Settings {
        Settings {
            devices: 10,
            instances: 1,
            rate: 1000.0,
            duplicate_every: 20,
            seed,
            start: 1_700_000_000_000_000_000,
        }
    }

    #[test]
    fn the_event_is_the_seed_s() {
        for event in Generator::new(settings(1)).take(200) {
            let text = std::str::from_utf8(&event.payload).unwrap();
            let json: serde_json::Value = serde_json::from_str(text).unwrap();
            let fields = ["eventId", "value", "deviceId", "deviceSequenceNumber", "type", "createdAt", "complexData"];
            let places: Vec<_> = fields.iter().map(|f| text.find(&format!("\"{f}\"")).unwrap()).collect();
            assert!(places.is_sorted(), "the fields come in the seed's order: {text}");
            assert_eq!(json["eventId"].as_str().unwrap(), uuid::Uuid::from_u128(event.id).to_string());
            assert_eq!(json["eventId"].as_str().unwrap().as_bytes()[14], b'4', "a random UUID");
            assert_eq!(json["deviceId"].as_str().unwrap(), format!("contoso-device-id-{:06}", event.device));
            assert_eq!(json["deviceSequenceNumber"], event.sequence);
            assert!(["TEMP", "CO2"].contains(&json["type"].as_str().unwrap()));
            let more = json["complexData"].as_object().unwrap();
            assert!((1..=23).all(|i| more[&format!("moreData{i}")].as_f64().unwrap() < 1.0) && more.len() == 23);
            assert!((0.0..1.0).contains(&json["value"].as_f64().unwrap()));
            let created = json["createdAt"].as_str().unwrap();
            assert_eq!((created.len(), &created[19..20], &created[27..]), (28, ".", "Z"));
            let created = chrono::DateTime::parse_from_rfc3339(created).unwrap();
            assert_eq!(created.timestamp_nanos_opt().unwrap(), event.due / 100 * 100);
            assert!((825..=870).contains(&event.payload.len()), "{} bytes", event.payload.len());
        }
    }

    #[test]
    fn its_size_is_the_seed_s() {
        let sizes: Vec<usize> = Generator::new(Settings { start: 1_700_000_000_000_000_000, ..Settings::default() })
            .take(20_000)
            .map(|e| e.payload.len())
            .collect();
        let mean = sizes.iter().sum::<usize>() as f64 / sizes.len() as f64;
        assert!(
            (843.0..850.0).contains(&mean),
            "the reference measured 848 bytes, with longer sequence numbers: {mean}"
        );
    }

    #[test]
    fn values_are_digits_behind_the_point_and_so_not_uniform() {
        let values: Vec<f64> = Generator::new(settings(5))
            .take(20_000)
            .map(|e| serde_json::from_slice::<serde_json::Value>(&e.payload).unwrap()["value"].as_f64().unwrap())
            .collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let upper_half = values.iter().filter(|v| **v >= 0.5).count() as f64 / values.len() as f64;
        assert!((0.33..0.35).contains(&mean), "the reference's mean is 0.34, this is {mean}");
        assert!((0.24..0.28).contains(&upper_half), "26 % of the reference's values are above 0.5, here {upper_half}");
    }

    #[test]
    fn the_same_seed_tells_the_same_story_and_another_one_does_not() {
        let story = |seed| Generator::new(settings(seed)).take(50).map(|e| e.payload).collect::<Vec<_>>();
        assert_eq!(story(1), story(1));
        assert_ne!(story(1), story(2));
    }

    /// Positions in a job log outlive the program that wrote them: the story of a seed is a stored format.
    #[test]
    fn the_story_of_a_seed_never_changes() {
        let event = Generator::new(settings(1)).event(1_000_000);
        let text = String::from_utf8(event.payload).unwrap();
        let golden = r#"{ "eventId": "8762ba22-8ced-495c-955d-d2624544329a", "value": 0.206511671, "deviceId": "contoso-device-id-000000", "deviceSequenceNumber": 100000, "type": "TEMP", "createdAt": "2023-11-14T22:30:00.0003746Z", "complexData": { "moreData1": 0.780112908, "moreData2": 0.765579171, "#;
        assert_eq!(&text[..golden.len()], golden);
    }

    #[test]
    fn an_event_is_the_same_whether_one_comes_to_it_or_begins_there() {
        let mut walked = Generator::new(settings(9));
        let mut begun = Generator::new(settings(9));
        for (n, event) in (0u64..).zip(walked.by_ref().take(500)).skip(490) {
            let direct = begun.event(n);
            assert_eq!((direct.payload, direct.due, direct.copies), (event.payload, event.due, event.copies));
        }
    }

    #[test]
    fn devices_count_from_zero_and_copies_come_as_often_as_asked() {
        let events: Vec<Event> = Generator::new(settings(3)).take(10_000).collect();
        assert!(events.windows(2).all(|w| w[0].due <= w[1].due));
        let of_one: Vec<u64> = events.iter().filter(|e| e.device == 4).map(|e| e.sequence).collect();
        assert!(of_one.iter().enumerate().all(|(i, s)| *s == i as u64));
        let copies: u32 = events.iter().map(|e| e.copies).sum();
        assert!((400..=660).contains(&copies), "{copies} copies of 10000 at 1/20");
        let ids: BTreeSet<u128> = events.iter().map(|e| e.id).collect();
        assert_eq!(ids.len(), events.len());
    }

    #[test]
    fn every_further_copy_is_as_likely_as_the_first() {
        let generator = Generator::new(Settings { duplicate_every: 4, ..settings(11) });
        let copies: Vec<u32> = (0..100_000).map(|n| generator.copies(n)).collect();
        let at_least = |k| copies.iter().filter(|c| **c >= k).count() as f64;
        for k in 1..4 {
            let share = at_least(k) / at_least(k - 1);
            assert!((0.23..0.27).contains(&share), "{share} of the events with {} copies have another", k - 1);
        }
    }

    #[test]
    fn instances_drive_the_same_devices_and_each_counts_for_itself() {
        let events: Vec<Event> = Generator::new(Settings { instances: 3, ..settings(3) }).take(3000).collect();
        let of_one: Vec<u64> = events.iter().filter(|e| e.device == 4).map(|e| e.sequence).collect();
        assert_eq!(of_one.len(), 300);
        assert!((0..100).all(|s| of_one.iter().filter(|x| **x == s).count() == 3), "three counters from 0");
        let last = events[2999].due - events[0].due;
        assert!((2_900_000_000..3_100_000_000).contains(&last), "the rate is of all together: 3000 in {last} ns");
    }
}
