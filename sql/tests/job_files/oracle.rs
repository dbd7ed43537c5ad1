//! On bounded input, a streamed result equals DataFusion's batch result of the same query on the same rows.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit, TimestampNanosecondType};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};
use engine::connector::json_field;

use crate::memory::{Written, run, run_with};

/// What the rows are, for the job.
const EVENTS: &str = "
CREATE TABLE events (
  eventId STRING NOT NULL, deviceId STRING, value DOUBLE, n INT, big BIGINT, ts BIGINT, flag BOOLEAN, tags ARRAY<STRING>,
  body JSON, inner STRUCT<a BIGINT, b STRING>, createdAt TIMESTAMP, enqueuedAt TIMESTAMP METADATA FROM 'timestamp'
) WITH (connector = 'rows');
CREATE TABLE kept WITH (connector = 'kept');
";

/// Rows with nulls, negatives, empty lists, a copy of an event, and JSON of several shapes.
fn events() -> RecordBatch {
    let line = |i: i64| {
        let event = i - (i % 7 == 6) as i64;
        let or_null = |every: i64, text: String| if event % every == 0 { "null".to_string() } else { text };
        format!(
            r#"{{"eventId":"e{event}","deviceId":{},"value":{},"n":{},"big":{},"ts":{},"flag":{},"tags":{},"body":{},"inner":{},"createdAt":"2026-01-01T00:00:{:02}.5Z","enqueuedAt":"2026-01-01T00:01:{:02}Z"}}"#,
            or_null(5, format!("\"d{}\"", event % 3)),
            or_null(4, format!("{}", (event - 10) as f64 / 4.0)),
            or_null(6, format!("{}", event - 12)),
            event * 1_000_000_007,
            1_767_225_600_000 + event * 1000,
            or_null(3, format!("{}", event % 2 == 0)),
            match event % 4 {
                0 => "null".to_string(),
                1 => "[]".to_string(),
                2 => format!("[\"x{event}\",null]"),
                _ => format!("[\"x{event}\",\"y\",\"z\"]"),
            },
            match event % 3 {
                0 => "null".to_string(),
                1 => format!(r#""{{\"a\":{{\"b\":{event}}},\"s\":\"t{event}\",\"l\":[1,{event}]}}""#),
                _ => r#""{\"a\":null,\"s\":5}""#.to_string(),
            },
            or_null(5, format!(r#"{{"a":{event},"b":"b{}"}}"#, event % 2)),
            event % 60,
            i % 60,
        )
    };
    let text: String = (1..40).map(|i| line(i) + "\n").collect();
    let mut reader = arrow::json::ReaderBuilder::new(Arc::new(schema())).build(text.as_bytes()).unwrap();
    reader.next().unwrap().unwrap()
}

fn schema() -> Schema {
    let instant = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
    let inner = vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Utf8, true)];
    Schema::new(vec![
        Field::new("eventId", DataType::Utf8, false),
        Field::new("deviceId", DataType::Utf8, true),
        Field::new("value", DataType::Float64, true),
        Field::new("n", DataType::Int32, true),
        Field::new("big", DataType::Int64, true),
        Field::new("ts", DataType::Int64, true),
        Field::new("flag", DataType::Boolean, true),
        Field::new("tags", DataType::List(Arc::new(Field::new("item", DataType::Utf8, true))), true),
        json_field("body", true),
        Field::new("inner", DataType::Struct(inner.into()), true),
        Field::new("createdAt", instant.clone(), true),
        Field::new("enqueuedAt", instant, true),
    ])
}

const QUERIES: &[&str] = &[
    "SELECT eventId, deviceId, value FROM events",
    "SELECT * FROM events",
    "SELECT eventId FROM events WHERE value > 0",
    "SELECT eventId FROM events WHERE value > 0 OR n IS NULL",
    "SELECT eventId FROM events WHERE NOT (deviceId = 'd1') AND flag",
    "SELECT eventId FROM events WHERE deviceId IN ('d0', 'd2') AND n BETWEEN -5 AND 5",
    "SELECT eventId FROM events WHERE deviceId NOT IN ('d0')",
    "SELECT eventId FROM events WHERE eventId LIKE 'e1%' OR eventId ILIKE 'E2_'",
    "SELECT eventId FROM events WHERE flag IS DISTINCT FROM true",
    "SELECT n + 1 AS a, n * 2 - big AS b, value / 2 AS c, n / 2 AS d, n % 5 AS e, -value AS f FROM events",
    "SELECT CASE WHEN value > 2 THEN 'high' WHEN value < 0 THEN 'low' ELSE 'mid' END AS level FROM events",
    "SELECT CASE deviceId WHEN 'd0' THEN 1 WHEN 'd1' THEN 2 END AS d FROM events",
    "SELECT COALESCE(value, n, 0) AS a, NULLIF(n, 0) AS b, COALESCE(deviceId, 'none') AS c FROM events",
    "SELECT CAST(n AS STRING) AS a, CAST(value AS INT) AS b, TRY_CAST(eventId AS INT) AS c, CAST(n AS DOUBLE) AS d FROM events",
    "SELECT CAST(createdAt AS DATE) AS day, CAST(createdAt AS STRING) AS text FROM events",
    "SELECT upper(eventId) AS a, length(deviceId) AS b, substr(eventId, 2) AS c, deviceId || '/' || eventId AS d FROM events",
    "SELECT replace(eventId, 'e', 'x') AS a, split_part(eventId, 'e', 2) AS b, lpad(eventId, 5, '0') AS c, reverse(eventId) AS d FROM events",
    "SELECT concat(deviceId, '-', n) AS a, concat_ws(',', deviceId, eventId) AS b, starts_with(eventId, 'e1') AS c FROM events",
    "SELECT regexp_like(eventId, '^e[12]') AS a, regexp_replace(eventId, '[0-9]+', 'N') AS b FROM events",
    "SELECT md5(eventId) AS a, encode(sha256(eventId), 'hex') AS b FROM events",
    "SELECT date_trunc('minute', createdAt) AS a, date_part('second', createdAt) AS b, createdAt + INTERVAL '1' HOUR AS c FROM events",
    "SELECT enqueuedAt - createdAt AS delay, createdAt > TIMESTAMP '2026-01-01T00:00:10Z' AS late FROM events",
    "SELECT to_timestamp_millis(ts) AS a, to_timestamp_seconds(ts / 1000) AS b, date_bin(INTERVAL '5' SECOND, createdAt) AS c FROM events",
    "SELECT inner.a AS a, inner['b'] AS b, inner.a + 1 AS c FROM events WHERE inner.b = 'b1' OR inner IS NULL",
    "SELECT tags[1] AS a, cardinality(tags) AS b, array_to_string(tags, '+') AS c, array_has(tags, 'y') AS d FROM events",
    "SELECT array_length(tags) AS a, tags[2:3] AS b, make_array(n, 1) AS c, named_struct('x', n, 'y', tags) AS d FROM events",
    "SELECT eventId, UNNEST(tags) AS tag FROM events",
    "SELECT eventId, UNNEST(tags) AS tag, UNNEST(make_array(n, 1)) AS m, UNNEST(tags) AS again FROM events",
    "SELECT UNNEST(tags[2:3]) AS a, UNNEST(tags) AS b FROM events WHERE n > 0",
    "SELECT tag, n FROM (SELECT UNNEST(tags) AS tag, n FROM events WHERE n > -3) WHERE tag <> 'y'",
    "SELECT eventId FROM events WHERE n > 0 UNION ALL SELECT deviceId FROM events WHERE n < 0",
    "SELECT 'a' AS kind, n FROM events UNION ALL SELECT 'b', n + 1 FROM events UNION ALL SELECT 'c', NULL FROM events",
    "SELECT body->>'s' AS a, body->'a'->>'b' AS b, (body->'a'->'b')::int AS c, body->'l'->>1 AS d FROM events",
    "SELECT eventId FROM events WHERE (body->>'s') = 't1' OR json_contains(body, 'l')",
    "SELECT json_length(body) AS a, json_contains(body, 'a') AS b, json_get_str(body, 's') AS c FROM events",
    "WITH positive AS (SELECT eventId, n FROM events WHERE n > 0) SELECT p.eventId, p.n * p.n AS square FROM positive p WHERE p.n < 10",
    "SELECT a.x + 1 AS y FROM (SELECT n * 2 AS x, flag FROM events) AS a WHERE a.flag",
    "SELECT n + big AS a, n + big + 1 AS b, (n + big) * 2 AS c FROM events WHERE n + big > 0",
    "SELECT NULL AS nothing, 1 AS one, 'x' AS text, true AS yes FROM events WHERE n = 3",
    "SELECT abs(value) AS a, round(value, 1) AS b, floor(value) AS c, power(n, 2) AS d, greatest(n, 3) AS e FROM events",
    // The standard's deduplication. Copies are equal but for the time at which the log took them.
    "SELECT eventId, n, rn FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY eventId ORDER BY enqueuedAt) AS rn FROM events) WHERE rn = 1",
    "SELECT eventId, deviceId FROM (SELECT eventId, deviceId, ROW_NUMBER() OVER (PARTITION BY eventId, deviceId ORDER BY enqueuedAt) AS rn FROM events WHERE n > 0) WHERE rn <= 1 AND deviceId IS NOT NULL",
    "SELECT eventId FROM events QUALIFY ROW_NUMBER() OVER (PARTITION BY eventId ORDER BY enqueuedAt) = 1",
];

/// Queries that DataFusion plans and cannot run, and the same in words that it can.
const OTHERWISE: &[(&str, &str)] = &[
    (
        "SELECT eventId, tag FROM events CROSS JOIN UNNEST(tags) AS t (tag)",
        "SELECT eventId, UNNEST(tags) AS tag FROM events",
    ),
    ("SELECT * FROM events CROSS JOIN UNNEST(tags) AS t (tag)", "SELECT *, UNNEST(tags) AS tag FROM events"),
    (
        "SELECT e.eventId, t.tag || e.eventId AS both FROM events e, UNNEST(e.tags) AS t (tag) WHERE t.tag <> 'y' AND e.n > -3",
        "SELECT eventId, tag || eventId FROM (SELECT eventId, UNNEST(tags) AS tag, n FROM events) WHERE tag <> 'y' AND n > -3",
    ),
    (
        "SELECT EVENTID, t.TAG FROM (SELECT eventId, array_append(tags, 'w') AS more FROM events WHERE n > 0) AS e JOIN UNNEST(e.more) AS t (tag) ON true",
        "SELECT eventId, UNNEST(array_append(tags, 'w')) AS tag FROM events WHERE n > 0",
    ),
    (
        "SELECT eventId, a, b FROM events CROSS JOIN UNNEST(tags, make_array(n, 1)) AS t (a, b)",
        "SELECT eventId, UNNEST(tags) AS a, UNNEST(make_array(n, 1)) AS b FROM events",
    ),
    (
        "SELECT eventId, tag, m FROM events CROSS JOIN UNNEST(tags) AS t (tag) CROSS JOIN UNNEST(make_array(n, 1)) AS u (m)",
        "SELECT eventId, tag, UNNEST(ns) AS m FROM (SELECT eventId, UNNEST(tags) AS tag, make_array(n, 1) AS ns FROM events)",
    ),
    (
        "SELECT eventId, letter FROM events CROSS JOIN UNNEST(tags) AS t (tag) CROSS JOIN UNNEST(string_to_array(t.tag, '1')) AS u (letter)",
        "SELECT eventId, UNNEST(string_to_array(tag, '1')) AS letter FROM (SELECT eventId, UNNEST(tags) AS tag FROM events)",
    ),
    (
        "SELECT eventId, tag FROM events LEFT JOIN UNNEST(tags) AS t (tag) ON true",
        "SELECT eventId, UNNEST(tags) AS tag FROM events UNION ALL SELECT eventId, NULL FROM events WHERE tags IS NULL OR cardinality(tags) = 0",
    ),
    (
        "SELECT n, one FROM events CROSS JOIN UNNEST(make_array(1, 2)) AS t (one) WHERE n > one",
        "SELECT n, one FROM (SELECT n, UNNEST(make_array(1, 2)) AS one FROM events) WHERE n > one",
    ),
];

/// Joins with a table that is looked up in, and the same as DataFusion takes it, where that differs.
const LOOKUPS: &[(&str, Option<&str>)] = &[
    ("SELECT e.eventId, d.name FROM events AS e JOIN devices AS d ON e.deviceId = d.deviceId", None),
    ("SELECT e.eventId, d.name FROM events e LEFT JOIN devices d ON e.deviceId = d.deviceId", None),
    ("SELECT * FROM events e LEFT JOIN devices d ON e.deviceId = d.deviceId", None),
    ("SELECT eventId, name FROM devices d JOIN events e ON e.deviceId = d.deviceId WHERE value > 0", None),
    ("SELECT e.eventId, d.name FROM devices d RIGHT JOIN events e ON d.deviceId = e.deviceId", None),
    ("SELECT e.eventId, d.name FROM events e, devices d WHERE e.deviceId = d.deviceId AND d.name <> 'one'", None),
    (
        "SELECT e.eventId, d.name FROM events e LEFT JOIN devices d ON e.deviceId = d.deviceId WHERE d.name IS NULL",
        None,
    ),
    (
        "SELECT e.eventId, d.name FROM events e LEFT JOIN devices d ON e.deviceId = d.deviceId AND d.name LIKE 't%'",
        None,
    ),
    (
        "SELECT e.eventId, d.name, d.low FROM events e LEFT JOIN devices d ON e.deviceId = d.deviceId AND e.n > d.low",
        None,
    ),
    (
        "SELECT e.eventId, d.name FROM events e JOIN devices d ON e.deviceId = d.deviceId AND e.flag WHERE e.n + d.low > 0",
        None,
    ),
    ("SELECT e.eventId, d.name FROM events e JOIN devices d ON upper(e.deviceId) = d.deviceId OR false", None),
    ("SELECT e.eventId, d.name FROM events e JOIN devices d ON e.n = d.low", None),
    ("SELECT e.eventId, d.name FROM events e LEFT JOIN devices d ON e.big = d.low", None),
    ("SELECT e.eventId, d.name FROM events e JOIN devices d ON e.n + 1 = d.low AND e.deviceId = d.deviceId", None),
    ("SELECT e.eventId FROM events e JOIN devices d ON e.deviceId = d.deviceId AND e.deviceId = d.name", None),
    ("SELECT eventId, name, low + 1 AS more FROM events JOIN devices USING (deviceId)", None),
    (
        "SELECT e.eventId, a.name AS a, b.low AS b FROM events e LEFT JOIN devices a ON e.deviceId = a.deviceId LEFT JOIN devices b ON e.n = b.low",
        None,
    ),
    (
        "SELECT e.eventId, d.name FROM events e JOIN (SELECT deviceId, upper(name) AS name FROM devices WHERE low < 3) AS d ON e.deviceId = d.deviceId",
        None,
    ),
    (
        "WITH positive AS (SELECT eventId, deviceId FROM events WHERE n > 0) SELECT p.eventId, d.name FROM positive p LEFT JOIN devices d USING (deviceId)",
        None,
    ),
    (
        "SELECT u.id, d.name FROM (SELECT eventId AS id, deviceId FROM events WHERE n > 3 UNION ALL SELECT upper(eventId) AS id, deviceId FROM events WHERE n < 0) AS u LEFT JOIN devices d ON u.deviceId = d.deviceId",
        None,
    ),
    (
        "SELECT e.eventId, d.name FROM events AS e LEFT JOIN Devices FOR SYSTEM_TIME AS OF now() AS d ON e.deviceId = d.DEVICEID",
        Some("SELECT e.eventId, d.name FROM events AS e LEFT JOIN devices AS d ON e.deviceId = d.deviceId"),
    ),
    (
        "SELECT tag, d.name FROM events e CROSS JOIN UNNEST(e.tags) AS t (tag) JOIN devices d ON e.deviceId = d.deviceId",
        Some("SELECT UNNEST(tags) AS tag, d.name FROM events e JOIN devices d ON e.deviceId = d.deviceId"),
    ),
    (
        "SELECT e.eventId, d.name FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY eventId ORDER BY enqueuedAt) AS rn FROM events) AS e JOIN devices d ON e.deviceId = d.deviceId WHERE e.rn = 1",
        None,
    ),
];

/// Over two lookup tables, and over names that both sides have.
const SEVERAL: &[&str] = &[
    "SELECT e.eventId, a.name, b.low FROM events e JOIN devices a ON e.deviceId = lower(a.deviceId) JOIN devices b ON e.n = b.low + 1",
    "SELECT v.eventId, v.deviceId, v.name FROM (SELECT e.eventId, e.deviceId, d.name FROM events e JOIN devices d ON e.deviceId = d.deviceId) AS v WHERE v.name <> 'one'",
    "WITH known AS (SELECT deviceId, name FROM devices WHERE low > 0) SELECT e.eventId, k.name FROM events e LEFT JOIN known k ON e.deviceId = k.deviceId",
    "SELECT e.eventId, k.b FROM events e JOIN (SELECT deviceId AS a, deviceId AS b FROM devices) AS k ON e.deviceId = k.a AND e.deviceId = k.b",
];

/// Joins that only a table that is kept whole can do.
const WHOLE: &[&str] = &[
    "SELECT e.eventId, d.name FROM events e JOIN devices d ON lower(concat('D', 1)) = d.deviceId",
    "SELECT e.eventId, d.name FROM events e CROSS JOIN devices d",
    "SELECT e.eventId, d.name FROM events e JOIN devices d ON e.n > d.low",
    "SELECT e.eventId, d.name FROM events e LEFT JOIN devices d ON e.n BETWEEN d.low AND d.low + 2",
    "SELECT e.eventId, d.name FROM events e JOIN devices d ON e.deviceId = lower(d.deviceId)",
    "SELECT e.eventId, d.name FROM events e LEFT JOIN (SELECT name, low * 2 AS twice FROM devices) AS d ON e.n = d.twice",
];

/// Two rows of one device, one of none, and one that no event has.
fn devices() -> RecordBatch {
    let text = r#"{"deviceId":"d1","name":"one","low":-3}
{"deviceId":"d2","name":"two","low":2}
{"deviceId":"d1","name":"three","low":2}
{"deviceId":null,"name":"nobody","low":5}
{"deviceId":"D2","name":null,"low":null}
"#;
    let fields = [("deviceId", DataType::Utf8), ("name", DataType::Utf8), ("low", DataType::Int16)];
    let schema = Schema::new(fields.map(|(name, of)| Field::new(name, of, true)).to_vec());
    let mut reader = arrow::json::ReaderBuilder::new(Arc::new(schema)).build(text.as_bytes()).unwrap();
    reader.next().unwrap().unwrap()
}

fn devices_table(cache: &str) -> String {
    format!(
        "CREATE TABLE devices (deviceId STRING, name STRING, low SMALLINT)
         WITH (connector = 'known', 'lookup' = 'true', 'lookup.cache' = '{cache}');"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lookup_equals_the_batch_join_whether_the_table_is_asked_by_key_or_kept_whole() {
    let (rows, known) = (events(), devices());
    let context = datafusion(&rows);
    let table = MemTable::try_new(known.schema(), vec![vec![known.clone()]]).unwrap();
    context.register_table("devices", Arc::new(table)).unwrap();
    let by_key = LOOKUPS.iter().flat_map(|(query, as_batch)| {
        ["by-key", "none", "whole"].map(|cache| (*query, as_batch.unwrap_or(query), cache))
    });
    let whole = WHOLE.iter().chain(SEVERAL).map(|query| (*query, *query, "whole"));
    let mut different = vec![];
    for (query, as_batch, cache) in by_key.chain(whole) {
        let expected = context.sql(as_batch).await.unwrap_or_else(|e| panic!("{query}: {e}")).collect().await.unwrap();
        let (table, within) = (devices_table(cache), "SET deduplicate.within = '10 minutes';");
        let written = run_with(&format!("{within}{EVENTS}{table}INSERT INTO kept {query};"), &rows, Some(&known)).await;
        assert!(of("dead-letter", &written).is_empty(), "{query}: {:?}", sorted(&of("dead-letter", &written)));
        let (expected, found) = (sorted(&expected), sorted(&of("kept", &written)));
        if expected != found {
            different.push(format!(
                "{query} ({cache})\nbatch:\n{}\nstream:\n{}",
                expected.join("\n"),
                found.join("\n")
            ));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_of_a_lookup_that_fails_takes_its_row_to_the_dead_letter_alone() {
    let query = "INSERT INTO kept SELECT e.eventId FROM events e JOIN devices d ON e.deviceId = d.deviceId AND 10 / (e.n - d.low) < 5;";
    let job = format!("{EVENTS}{}{query}", devices_table("whole"));
    let written = run_with(&job, &events(), Some(&devices())).await;
    let dead = sorted(&of("dead-letter", &written));
    assert!(!dead.is_empty() && dead.iter().all(|row| row.contains("Divide by zero")), "{dead:?}");
    assert!(!of("kept", &written).is_empty());
}

/// DataFusion as it comes, but for the settings that make names and times mean what they mean here.
fn datafusion(rows: &RecordBatch) -> SessionContext {
    let mut config = SessionConfig::new().set_bool("datafusion.sql_parser.enable_ident_normalization", false);
    config.options_mut().sql_parser.map_string_types_to_utf8view = false;
    config.options_mut().execution.time_zone = Some("UTC".into());
    let mut context = SessionContext::new_with_config(config);
    datafusion_functions_json::register_all(&mut context).unwrap();
    let table = MemTable::try_new(rows.schema(), vec![vec![rows.clone()]]).unwrap();
    context.register_table("events", Arc::new(table)).unwrap();
    context
}

/// Rows as text, in an order of their own.
fn sorted(batches: &[RecordBatch]) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let mut rows = vec![];
    for batch in batches {
        let columns: Vec<_> = batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options).unwrap()).collect();
        let row = |row| columns.iter().map(|c| c.value(row).to_string()).collect::<Vec<_>>().join(" | ");
        rows.extend((0..batch.num_rows()).map(row));
    }
    rows.sort();
    rows
}

fn of(table: &str, written: &Written) -> Vec<RecordBatch> {
    written.iter().filter(|(t, _)| t == table).map(|(_, batch)| batch.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_result_equals_the_batch_result() {
    let rows = events();
    let context = datafusion(&rows);
    let mut different = vec![];
    for (query, otherwise) in QUERIES.iter().map(|query| (query, query)).chain(OTHERWISE.iter().map(|(a, b)| (a, b))) {
        let expected = context.sql(otherwise).await.unwrap_or_else(|e| panic!("{query}: {e}")).collect().await.unwrap();
        let written =
            run(&format!("SET deduplicate.within = '10 minutes';{EVENTS}INSERT INTO kept {query};"), &rows).await;
        assert!(of("dead-letter", &written).is_empty(), "{query}: {:?}", sorted(&of("dead-letter", &written)));
        let (expected, found) = (sorted(&expected), sorted(&of("kept", &written)));
        assert!(!expected.is_empty(), "{query} must say something");
        if expected != found {
            different.push(format!("{query}\nbatch:\n{}\nstream:\n{}", expected.join("\n"), found.join("\n")));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn now_is_one_instant_in_a_batch_wherever_it_is_written() {
    let query = "INSERT INTO kept SELECT now() AS a, current_timestamp AS b, CURRENT_DATE AS d, n FROM events
                 WHERE now() > createdAt OR now() < createdAt;";
    let written = of("kept", &run(&format!("{EVENTS}{query}"), &events()).await);
    assert_eq!(written.iter().map(RecordBatch::num_rows).sum::<usize>(), 39);
    for batch in &written {
        let (a, b) = (batch.column(0), batch.column(1));
        let (a, b) = (a.as_primitive::<TimestampNanosecondType>(), b.as_primitive::<TimestampNanosecondType>());
        assert!(a.values().iter().chain(b.values()).all(|t| *t == a.value(0)), "{a:?} {b:?}");
        let day = batch.column(2).as_primitive::<arrow::datatypes::Date32Type>();
        assert_eq!(day.value(0) as i64, a.value(0) / 86_400_000_000_000);
    }
    assert!(written.len() > 1, "there were several batches");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_an_expression_cannot_take_goes_to_the_dead_letter_alone() {
    let job = format!("{EVENTS}INSERT INTO kept SELECT eventId, 100 / (n - 2) AS x FROM events WHERE n IS NOT NULL;");
    let written = run(&job, &events()).await;
    let dead = of("dead-letter", &written);
    let errors: Vec<String> = dead
        .iter()
        .flat_map(|b| {
            b.column_by_name("error").unwrap().as_string::<i32>().iter().flatten().map(String::from).collect::<Vec<_>>()
        })
        .collect();
    assert!(!errors.is_empty() && errors.iter().all(|e| e.contains("Divide by zero")), "{errors:?}");
    let kept: usize = of("kept", &written).iter().map(RecordBatch::num_rows).sum();
    let all = events().column_by_name("n").unwrap().clone();
    assert_eq!(kept + errors.len(), 39 - arrow::array::Array::null_count(&all));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generated_event_time_moves_the_watermark_and_may_not_run_ahead_of_the_log() {
    let table = |max_ahead: &str| {
        let columns = "n INT, eventTime AS to_timestamp_millis(ts + CASE WHEN eventId = 'e7' THEN 86400000 ELSE 0 END)";
        let with = format!(
            "(connector = 'rows', 'watermark.max-ahead' = '{max_ahead}', 'deduplicate.key' = 'eventId',
              'deduplicate.within' = '2 days', 'deduplicate.time' = 'event')"
        );
        let watermark = "'timestamp', WATERMARK FOR eventTime AS eventTime - INTERVAL '5' SECOND";
        EVENTS.replace("n INT", columns).replace("'timestamp'", watermark).replace("(connector = 'rows')", &with)
    };
    let query = "INSERT INTO kept SELECT eventId, eventTime FROM events;";
    let written = run(&format!("{}{query}", table("1 hour")), &events()).await;
    let dead = of("dead-letter", &written);
    let codes: Vec<&str> =
        dead.iter().flat_map(|b| b.column_by_name("code").unwrap().as_string::<i32>().iter().flatten()).collect();
    assert_eq!(codes, ["future-event-time"]);
    let distinct = 39 - 5;
    assert_eq!(of("kept", &written).iter().map(RecordBatch::num_rows).sum::<usize>(), distinct - 1);
    let written = run(&format!("{}{query}", table("2 days")), &events()).await;
    assert!(of("dead-letter", &written).is_empty());
    assert_eq!(of("kept", &written).iter().map(RecordBatch::num_rows).sum::<usize>(), distinct);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_arrow_yields_json_that_a_json_column_takes() {
    let table = "CREATE TABLE json (a JSON, s JSON, t STRING) WITH (connector = 'kept');";
    let query = "INSERT INTO json SELECT body->'a', body->'s', body->>'s' FROM events WHERE body->>'s' = 't1';";
    let written = of("json", &run(&format!("{EVENTS}{table}{query}"), &events()).await);
    assert_eq!(sorted(&written), [r#"{"b":1} | "t1" | t1"#]);
    assert!(engine::connector::is_json(written[0].schema().field(0)));
}
