//! Stories of a table whose replaced files are deleted.

use super::*;
use crate::compaction::compact;
use crate::options::DeltaOptions;
use crate::vacuum::vacuum;

/// Five files that were joined into one.
async fn compacted(configuration: Value) -> (Story, Process) {
    let story = Story::new().option("compaction", "false").made_before(configuration);
    let process = story.start("w1").await;
    for entry in 1..=5 {
        process.show(entry, &[&format!("e{entry}")]).await;
    }
    compact(&DeltaOptions::of_folder(&story.table()), &Names::of("w9")).await.unwrap();
    (story, process)
}

async fn deleted_after(story: &Story, days: i64) -> usize {
    let then = chrono::Utc::now() + chrono::TimeDelta::days(days);
    vacuum(&DeltaOptions::of_folder(&story.table()), then).await.unwrap()
}

#[tokio::test]
async fn replaced_files_go_when_the_retention_is_over_and_not_before() {
    let (story, _) = compacted(json!({})).await;
    assert_eq!(deleted_after(&story, 6).await, 0);
    assert_eq!(deleted_after(&story, 8).await, 5);
    assert_eq!(story.ids_of_any_reader().await, ["e1", "e2", "e3", "e4", "e5"]);
    deleted_after(&story, 8).await;
}

#[tokio::test]
async fn the_tables_own_retention_counts_if_it_is_longer_than_a_week() {
    let (story, _) = compacted(json!({"delta.deletedFileRetentionDuration": "interval 20 days"})).await;
    assert_eq!(deleted_after(&story, 19).await, 0);
    assert_eq!(deleted_after(&story, 21).await, 5);
    let (story, _) = compacted(json!({"delta.deletedFileRetentionDuration": "interval 1 hours"})).await;
    assert_eq!(deleted_after(&story, 2).await, 0);
}

#[tokio::test]
async fn protocol_13_a_file_that_is_about_to_be_shown_stays() {
    let (story, process) = compacted(json!({})).await;
    let token = process.prepare(&["late"]).await;
    assert_eq!(deleted_after(&story, 8).await, 5);
    story.start("w2").await.commit(&[of("w1", 9, token)]).await.unwrap();
    assert_eq!(story.ids_of_any_reader().await, ["e1", "e2", "e3", "e4", "e5", "late"]);
}

#[tokio::test]
async fn a_file_that_came_back_and_a_file_of_another_writer_stay() {
    let (story, _) = compacted(json!({})).await;
    let back = story.entry(1).into_iter().find(|a| a.get("add").is_some()).unwrap();
    let foreign = "part-00000-6c1d5d5e-7c0e-4a39-a0de-1a2b3c4d5e6f-c000.snappy.parquet";
    std::fs::write(story.table().join(foreign), "theirs").unwrap();
    story.log_entry(7, &[back, json!({"remove": {"path": foreign, "deletionTimestamp": 1, "dataChange": true}})]);
    assert_eq!(deleted_after(&story, 8).await, 4);
    assert!(story.table().join(foreign).exists());
    assert_eq!(story.ids_of_any_reader().await, ["e1", "e1", "e2", "e3", "e4", "e5"]);
}
