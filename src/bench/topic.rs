//! The buffer's events in a topic of a real broker, for as long as the benchmark runs.

use std::time::Duration;

use kafka::{Producer, create_topic, delete_topic};
use uuid::Uuid;

use super::buffer::Buffer;

/// How long the broker may take for the last messages.
const LAST_DELIVERY: Duration = Duration::from_secs(120);

/// A topic of our own; whoever made it takes it away again.
pub struct Topic {
    pub servers: String,
    pub name: String,
}

impl Topic {
    /// Makes a topic with the buffer's partitions.
    pub async fn make(servers: &str, partitions: usize) -> Result<Topic, String> {
        let topic = Topic { servers: servers.to_string(), name: format!("millrace-bench-{}", Uuid::new_v4()) };
        let partitions = i32::try_from(partitions).map_err(|e| e.to_string())?;
        let made = create_topic(&topic.properties(), &topic.name, partitions, &[]).await;
        made.map_err(|e| format!("{servers}: no topic can be made: {e}"))?;
        Ok(topic)
    }

    /// Sends all that is in the buffer, as it lies there.
    pub fn fill(&self, buffer: &Buffer) -> Result<(), String> {
        let failed = |e: &dyn std::fmt::Display| format!("{}, topic {}: {e}", self.servers, self.name);
        let mut properties = self.properties();
        properties.extend([("linger.ms", "20"), ("batch.size", "1000000")].map(|(n, v)| (n.into(), v.into())));
        let producer = Producer::new(&self.name, &properties).map_err(|e| failed(&e))?;
        for partition in 0..buffer.partitions() {
            let number = i32::try_from(partition).map_err(|e| failed(&e))?;
            for payload in buffer.payloads(partition) {
                producer.send(Some(number), None, payload).map_err(|e| failed(&e))?;
            }
        }
        producer.flush(LAST_DELIVERY).map_err(|e| failed(&e))?;
        match producer.failed() {
            0 => Ok(()),
            n => Err(failed(&format!("{n} messages were refused"))),
        }
    }

    pub async fn delete(&self) {
        if let Err(error) = delete_topic(&self.properties(), &self.name).await {
            eprintln!("the topic {} is left behind on {}: {error}", self.name, self.servers);
        }
    }

    fn properties(&self) -> Vec<(String, String)> {
        vec![("bootstrap.servers".to_string(), self.servers.clone())]
    }
}
