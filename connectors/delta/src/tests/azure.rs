//! Tables in Azure storage, as Azurite, Microsoft's emulator, has it.

use std::io::{BufRead, BufReader};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::OnceLock;

use super::readers::{script, tool};
use super::uploads::{large_rows, paths};
use super::*;
use crate::checkpoint::checkpoint;
use crate::compaction::compact;

/// An emulator that ends with this process: its input closes.
struct Azurite {
    port: u16,
    _input: ChildStdin,
}

impl Azurite {
    /// One for all stories, with the container `test`.
    #[expect(clippy::zombie_processes, reason = "it ends with its input, which is this process's end")]
    fn shared() -> &'static Self {
        static SHARED: OnceLock<Azurite> = OnceLock::new();
        SHARED.get_or_init(|| {
            let mut node = Command::new(tool("MILLRACE_NODE", "node"));
            node.arg(script("azurite.js")).arg(tool("MILLRACE_AZURITE", "azurite/node_modules/azurite")).arg("test");
            let mut child = node.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            let mut line = String::new();
            BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
            Azurite { port: line.trim().parse().expect("its port"), _input: child.stdin.take().unwrap() }
        })
    }

    /// A story whose table lies in the container.
    fn story(&self, path: &str) -> Story {
        const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
        Story::new()
            .option("path", path)
            .option("compaction", "false")
            .option("storage.azure_storage_account_name", "devstoreaccount1")
            .option("storage.azure_storage_account_key", KEY)
            .option("storage.azure_storage_endpoint", &format!("http://127.0.0.1:{}/devstoreaccount1", self.port))
            .option("storage.azure_allow_http", "true")
    }
}

/// The ids of a table's rows, by its log and its files.
async fn ids(story: &Story) -> Vec<String> {
    let options = story.of_upkeep();
    let reader = TableReader::at(&options.path, &options.storage).unwrap();
    let rows = reader.live_rows(Some(&["id"])).await.unwrap();
    let mut ids: Vec<String> =
        rows.iter().flat_map(|b| b.column(0).as_string::<i32>().iter().flatten().map(String::from)).collect();
    ids.sort();
    ids
}

#[tokio::test]
async fn a_table_in_blob_storage_is_made_shown_kept_up_and_taken_over() {
    for path in ["az://test/made/by/name", "abfss://test@devstoreaccount1.dfs.core.windows.net/made/by/url"] {
        let story = Azurite::shared().story(path);
        story.sink().open(&story.context("w0"), true).await.unwrap();
        let first = story.start("w1").await;
        let tokens: Vec<Token> = {
            let mut tokens = vec![];
            for id in ["a", "b", "c", "d", "e"] {
                tokens.push(first.prepare(&[id]).await);
            }
            tokens
        };
        for (entry, token) in (1..).zip(&tokens) {
            first.insist(&[of("w1", entry, token.clone())]).await;
            first.insist(&[of("w1", entry, token.clone())]).await;
        }
        assert_eq!(ids(&story).await, ["a", "b", "c", "d", "e"], "{path}");

        let options = story.of_upkeep();
        compact(&options, &Names::of("w9")).await.unwrap();
        checkpoint(&options, 6).await.unwrap();
        let second = story.start("w2").await;
        second.insist(&[of("w1", 5, tokens[4].clone())]).await;
        let late = second.prepare(&["late"]).await;
        second.insist(&[of("w2", 7, late)]).await;
        assert_eq!(ids(&story).await, ["a", "b", "c", "d", "e", "late"], "{path}");
        let reader = TableReader::at(&options.path, &options.storage).unwrap();
        assert_eq!(reader.live_files().await.unwrap().len(), 2, "{path}");
    }
}

#[tokio::test]
async fn a_large_file_in_blob_storage_is_made_of_its_parts_and_not_there_before() {
    let story = Azurite::shared().story("abfss://test@devstoreaccount1.dfs.core.windows.net/large/files");
    let story = story.option("parquet.compression", "none");
    let process = story.start("w1").await;
    let mut writer = process.sink.writer(&process.context).unwrap();
    for from in [0, 20] {
        writer.write(&large_rows(from, 20)).unwrap();
    }
    let token = writer.prepare().await.unwrap().unwrap();
    assert_eq!(paths(&token).len(), 1);
    process.insist(&[of("w1", 1, token)]).await;
    let found: Vec<usize> = ids(&story).await.iter().map(|id| id[..6].parse().unwrap()).collect();
    assert_eq!(found, (0..40).collect::<Vec<_>>());

    let mut writer = process.sink.writer(&process.context).unwrap();
    writer.write(&large_rows(40, 20)).unwrap();
    while !writer.ready() || writer.buffered() > 13 << 20 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    drop(writer);
    let store = crate::store::table_at(&story.options["path"], &story.of_upkeep().storage).unwrap();
    let listed: Vec<_> = store.log_store().object_store(None).list(None).try_collect().await.unwrap();
    let files = listed.iter().filter(|file| !file.location.as_ref().starts_with("_delta_log"));
    assert_eq!(files.count(), 1, "a part that is there is no file");
}

#[tokio::test]
async fn a_large_file_whose_parts_blob_storage_forgot_ends_the_job() {
    let parts = crate::parts::Parts::of(&Azurite::shared().story("az://test/forgotten").of_upkeep()).unwrap().unwrap();
    let place = parts.locate("part-1.parquet");
    let id = parts.store.create_multipart(&place).await.unwrap();
    let part = parts.store.put_part(&place, &id, 0, "rows".into()).await.unwrap();
    parts.store.complete_multipart(&place, &id, vec![part.clone()]).await.unwrap();
    // What was made of the parts takes them with it.
    let error = parts.store.complete_multipart(&place, &id, vec![part]).await.unwrap_err();
    let judged = crate::cause::writing("part-1.parquet", &error);
    assert!(matches!(judged, SinkError::Failed { .. }), "{error}");
    assert!(judged.to_string().ends_with("(InvalidBlockList)"), "{judged}");
}

#[tokio::test]
async fn writers_that_race_for_each_number_in_blob_storage_lose_and_repeat_nothing() {
    let story = Arc::new(Azurite::shared().story("az://test/raced"));
    let mut racing = vec![];
    for writer in ["w1", "w2", "w3"] {
        let process = story.start(writer).await;
        racing.push(async move {
            for entry in 1..=10 {
                let token = process.prepare(&[&format!("{writer}-{entry:02}")]).await;
                process.insist(&[of(writer, entry, token)]).await;
            }
        });
    }
    futures::future::join_all(racing).await;
    let all: Vec<String> =
        ["w1", "w2", "w3"].iter().flat_map(|w| (1..=10).map(move |e| format!("{w}-{e:02}"))).collect();
    assert_eq!(ids(&story).await, all);
    let reader = TableReader::at(&story.options["path"], &story.of_upkeep().storage).unwrap();
    assert_eq!(reader.commits().await.unwrap().len(), 30);
}

#[tokio::test]
async fn a_wrong_key_and_a_missing_container_are_refused_and_not_tried_for_ever() {
    let wrong = Azurite::shared().story("az://test/wrong").option("storage.azure_storage_account_key", "d3Jvbmc=");
    let said = wrong.refusal().await;
    assert!(said.contains("az://test/wrong") && !said.contains("d3Jvbmc="), "{said}");
    let missing = Azurite::shared().story("az://nowhere/table");
    assert!(missing.refusal().await.contains("az://nowhere/table"));
}
