//! The jobs that are measured: what they read of an event, and what they write of it.

/// The job of the README: `complexData` stays the text that came.
const README: &str = include_str!("../../jobs/eventhubs-databricks-delta/job.sql");
/// What its file says about copies, and something harmless in its place: for a run without deduplication.
const DEDUPLICATE: &str = "'deduplicate.key'      = 'eventId',\n  'deduplicate.within'   = '10 minutes'";
const NOTHING: &str = "'watermark.max-ahead' = '1 hour'";
/// A topic is read to the end that it has at the start.
const TO_THE_END: &str = "'scan.bounded.mode' = 'latest-offset', ";
/// Takes each record and looks at nothing but its offset.
pub const CONSUME: &str = "CREATE TABLE events (place BIGINT METADATA FROM 'offset') WITH (connector = 'kafka',
  bootstrap_servers = '${KAFKA}', topic = '${TOPIC}', format = 'raw_bytes', 'scan.bounded.mode' = 'latest-offset');
CREATE TABLE nothing WITH (connector = 'blackhole');
INSERT INTO nothing SELECT place FROM events;";
/// Sends on what it reads, in transactions. The filter looks at each row and keeps all.
pub const RELAY: &str = "CREATE TABLE events (eventId STRING NOT NULL, value DOUBLE, type STRING, deviceId STRING,
  deviceSequenceNumber BIGINT) WITH (connector = 'kafka', bootstrap_servers = '${KAFKA}', topic = '${TOPIC}',
  format = 'json', 'json.unknown' = 'ignore', 'scan.bounded.mode' = 'latest-offset');
CREATE TABLE relayed WITH (connector = 'kafka', bootstrap_servers = '${KAFKA}', topic = '${OUTPUT}', format = 'json');
INSERT INTO relayed SELECT eventId, value, type, deviceId, deviceSequenceNumber FROM events
WHERE type = 'TEMP' OR type = 'CO2';";
const SERVING: &str =
    "CREATE TABLE serving WITH (connector = 'delta', path = '${TABLE}', 'compaction' = '${COMPACTION}');";
/// Numbers in `complexData`.
const NUMBERS: usize = 23;

#[derive(Clone, Copy)]
pub enum Reads {
    /// All 29 columns, each number one of its own.
    Everything,
    /// The six columns beside `complexData`.
    SixColumns,
    Readme,
}

impl Reads {
    pub fn title(self) -> &'static str {
        match self {
            Reads::Everything => "all 29 columns",
            Reads::SixColumns => "6 columns, complexData not read",
            Reads::Readme => "the README's job, complexData as text",
        }
    }

    /// The job's file.
    pub fn job(self, deduplicated: bool) -> Result<String, String> {
        let text = match self {
            Reads::Readme => README.to_string(),
            _ => self.written(),
        };
        if !text.contains(DEDUPLICATE) {
            return Err("the job file no longer says of copies what the benchmark leaves out".into());
        }
        let copies = if deduplicated { DEDUPLICATE } else { NOTHING };
        Ok(text.replace(DEDUPLICATE, &format!("{TO_THE_END}{copies}")))
    }

    fn written(self) -> String {
        let (column, selected) = match self {
            Reads::Everything => (
                format!("complexData STRUCT<{}>,", listed(NUMBERS, |n| format!("moreData{n} DOUBLE"))),
                format!(", {}", listed(NUMBERS, |n| format!("complexData.moreData{n} AS moreData{n}"))),
            ),
            _ => Default::default(),
        };
        format!(
            "CREATE TABLE events (eventId STRING NOT NULL, {column} value DOUBLE, type STRING, deviceId STRING,
  deviceSequenceNumber BIGINT, createdAt TIMESTAMP, WATERMARK FOR createdAt AS createdAt - INTERVAL '5' SECOND)
WITH (connector = 'kafka', bootstrap_servers = '${{KAFKA}}', topic = '${{TOPIC}}', format = 'json',
  {DEDUPLICATE});
{SERVING}
INSERT INTO serving SELECT eventId, value, type, deviceId, deviceSequenceNumber, createdAt{selected} FROM events;"
        )
    }
}

/// A job that reads an id and so many numbers.
pub fn of_numbers(numbers: usize) -> String {
    let columns = listed(numbers, |n| format!("n{n} DOUBLE"));
    format!(
        "CREATE TABLE events (eventId STRING NOT NULL, {columns}) WITH (connector = 'kafka', bootstrap_servers = 'memory',
  topic = 'numbers', format = 'json', {DEDUPLICATE});
{SERVING}
INSERT INTO serving SELECT * FROM events;"
    )
}

fn listed(count: usize, write: impl Fn(usize) -> String) -> String {
    (1..=count).map(write).collect::<Vec<_>>().join(", ")
}
