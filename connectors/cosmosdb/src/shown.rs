//! What a container shows: its documents, by the second in which they were last written.

use std::sync::Arc;

use arrow::datatypes::FieldRef;
use async_trait::async_trait;
use azure_data_cosmos::feed::FeedScope;
use engine::shown::{Shown, Take};
use formats::{Decoding, JsonOptions, Message, Timed};
use futures::TryStreamExt;

use crate::container::open;
use crate::options::CosmosTable;
use crate::stored::Stored;

pub struct CosmosShown {
    pub table: CosmosTable,
    pub columns: Vec<FieldRef>,
}

#[async_trait]
impl Shown for CosmosShown {
    async fn read(&self, take: &mut Take<'_>) -> Result<(), String> {
        let container = open(&self.table, true).await.map_err(|e| e.to_string())?;
        let container = container.ok_or_else(|| format!("{}: there is no such container", self.table.at.place()))?;
        let failed = |e: azure_data_cosmos::CosmosError| format!("{}: {e}", self.table.at.place());
        let all = container.client.query_items::<Stored>("SELECT * FROM c", FeedScope::full_container(), None).await;
        let mut all = std::pin::pin!(all.map_err(failed)?);
        // Numbers that the store cannot hold were written as text.
        let json = JsonOptions { lenient: true, ..JsonOptions::default() };
        let decoding = Decoding { json, ..Decoding::default() };
        let mut rows = Timed::new(self.columns.clone(), decoding, Arc::new(|| {}));
        let mut hand_over = |rows: &mut Timed| {
            rows.hand_over().try_for_each(|second| {
                let (time, rows) = second?;
                take(Some(time), rows)
            })
        };
        while let Some(document) = all.try_next().await.map_err(failed)? {
            let written = document.get("_ts").and_then(|time| time.as_i64()).unwrap_or_default();
            let message = serde_json::to_vec(&document).map_err(|e| e.to_string())?;
            rows.push(written * 1000, &Message { payload: &message, ..Message::default() })?;
            if rows.is_full() {
                hand_over(&mut rows)?;
            }
        }
        hand_over(&mut rows)
    }
}
