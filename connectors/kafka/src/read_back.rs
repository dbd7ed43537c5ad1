//! Which rows of an entry have arrived in the topic: asked after a crash, where no transaction says it.
//!
//! Rows that were staged have fixed names, and each message says in a header which row it is. The token of the rows
//! says how far the topic reached before the first of them was sent, so what was written since is all that has to be
//! read. What cannot be known any more is said, and nothing is sent on a guess.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::metadata::{Metadata, MetadataPartition};
use rdkafka::topic_partition_list::Offset;
use storage::provenance::Provenance;

use crate::client::{Client, Reports, consumer};
use crate::endpoint::{ANSWER, Connection, Endpoint, answered, may_heal};
use crate::messages::IDENTITY;
use crate::trouble::Trouble;

/// What the client may hold ahead of us.
const PREFETCH: u64 = 32 << 20;
/// How long other producers' open transactions are waited for in one try.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// How long a partition must stand at its end before the end that was seen is taken for all there is.
const END_IS_SURE: Duration = Duration::from_secs(5);

/// Where each partition ends.
pub type Ends = BTreeMap<i32, i64>;

/// Where the topic's partitions end now.
pub fn ends(asking: &Connection, topic: &str) -> Result<Ends, KafkaError> {
    asking.insist(|client, within| {
        let mut asked = TopicPartitionList::new();
        for partition in partitions(client, topic, within)? {
            asked.add_partition_offset(topic, partition, Offset::End)?;
        }
        let answer = answered(client.offsets_for_times(asked, within)?)?;
        let offset = |offset| if let Offset::Offset(offset) = offset { offset } else { 0 };
        Ok(answer.elements().iter().map(|e| (e.partition(), offset(e.offset()))).collect())
    })
}

/// A topic that is there. That brokers do not show it now says nothing of its partitions.
pub fn partitions_of<'a>(metadata: &'a Metadata, topic: &str) -> Result<&'a [MetadataPartition], KafkaError> {
    let found = metadata.topics().iter().find(|t| t.name() == topic);
    match found.map(|t| (t.error(), t.partitions())) {
        Some((None, partitions)) if !partitions.is_empty() => Ok(partitions),
        Some((Some(error), _)) => Err(KafkaError::MetadataFetch(error.into())),
        _ => Err(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition)),
    }
}

fn partitions(client: &Client, topic: &str, within: Duration) -> Result<Vec<i32>, KafkaError> {
    let metadata = client.fetch_metadata(Some(topic), within)?;
    Ok(partitions_of(&metadata, topic)?.iter().map(|p| p.id()).collect())
}

/// The rows that have arrived, by token and place. `from`: where the partitions ended before any was sent. With
/// `committed`, those of transactions that were aborted have not arrived, and those that are open are waited for.
pub fn arrived(
    endpoint: &Endpoint,
    reports: &Reports,
    asking: &Connection,
    from: &Ends,
    of: &Provenance,
    committed: bool,
) -> Result<HashSet<(usize, u64)>, Trouble> {
    let (list, mut goals) = to_read(asking, &endpoint.topic, from)?;
    let mut config = consumer(endpoint, None, PREFETCH, goals.len());
    config.set("isolation.level", if committed { "read_committed" } else { "read_uncommitted" });
    // Of leaders alone: a copy may be behind.
    config.set("client.rack", "");
    if committed {
        let settling = Connection::new(endpoint, reports.clone(), &config)?;
        wait_until_settled(settling.served.client(), &endpoint.topic, &goals)?;
    }
    // Served by nobody but the loop below: whoever else polls takes messages away.
    let client: Client = config.create_with_context(reports.clone())?;
    client.assign(&list)?;
    let mut arrived = HashSet::new();
    read_to(&client, &mut goals, |message| {
        let own = message.headers().and_then(|headers| headers.iter().find(|h| h.key == IDENTITY));
        if let Some((token, row, count)) = own.and_then(|header| of.parse(header.value?)) {
            arrived.extend((row..row + count).map(|row| (token, row)));
        }
        Ok(())
    })?;
    Ok(arrived)
}

/// Reads each partition that the client is assigned up to its goal, the offset behind the last message that is wanted.
pub fn read_to(
    client: &Client,
    goals: &mut HashMap<i32, i64>,
    mut take: impl FnMut(&BorrowedMessage<'_>) -> Result<(), Trouble>,
) -> Result<(), Trouble> {
    let (mut ended, mut last) = (HashMap::new(), Instant::now());
    while !goals.is_empty() {
        match client.poll(LOOK_AGAIN) {
            Some(Ok(message)) => {
                ended.remove(&message.partition());
                let Some(goal) = goals.get(&message.partition()).copied() else { continue };
                if message.offset() < goal {
                    take(&message)?;
                }
                // Taking it may have been what took so long.
                last = Instant::now();
                if message.offset() + 1 >= goal {
                    goals.remove(&message.partition());
                }
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                ended.insert(partition, Instant::now());
            }
            Some(Err(error)) if is_about_a_group(&error) => {}
            // A broker that is away for a moment; the client goes on by itself.
            Some(Err(error)) if may_heal(&error) && last.elapsed() <= ANSWER => {}
            Some(Err(error)) => return Err(error.into()),
            None if last.elapsed() > ANSWER => {
                return Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut).into());
            }
            None => {}
        }
        // What ends a partition may be no message: a transaction's own marks. Or its leader is new and does not know yet how
        // far it may be read.
        goals.retain(|partition, _| ended.get(partition).is_none_or(|since: &Instant| since.elapsed() < END_IS_SURE));
    }
    Ok(())
}

/// librdkafka gives each consumer a group and asks who coordinates it, though this one reads what it was assigned: that it
/// has no right to the group matters to nobody.
pub fn is_about_a_group(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::GroupAuthorizationFailed)
}

/// What to read, and up to where.
fn to_read(asking: &Connection, topic: &str, from: &Ends) -> Result<(TopicPartitionList, HashMap<i32, i64>), Trouble> {
    let there = asking.insist(|client, within| partitions(client, topic, within))?;
    if let Some(gone) = from.keys().find(|partition| !there.contains(partition)) {
        return Err(unknown(*gone, "it is gone", "Was the topic made again with fewer partitions?"));
    }
    let (mut list, mut goals) = (TopicPartitionList::new(), HashMap::new());
    for partition in there {
        let (low, high) = asking.insist(|client, within| client.fetch_watermarks(topic, partition, within))?;
        let start = from_where(partition, from.get(&partition).copied(), low, high)?;
        if start < high {
            list.add_partition_offset(topic, partition, Offset::Offset(start))?;
            goals.insert(partition, high);
        }
    }
    Ok((list, goals))
}

/// Where to begin in a partition. One that was not known when the rows were staged is read from its first record.
fn from_where(partition: i32, recorded: Option<i64>, low: i64, high: i64) -> Result<i64, Trouble> {
    let start = recorded.unwrap_or(0);
    if start < low {
        let what = format!("retention has deleted everything before offset {low}, and it must be read from {start} on");
        return Err(unknown(partition, &what, "Lengthen the topic's retention"));
    }
    if start > high {
        let what = format!("it ends at offset {high}, and it ended at {start} before the rows were sent");
        return Err(unknown(partition, &what, "Was the topic made again, or cut?"));
    }
    Ok(start)
}

fn unknown(partition: i32, what: &str, hint: &str) -> Trouble {
    Trouble::Unknown(format!(
        "nobody can tell any more which rows of the last entry arrived in partition {partition}: {what}. {hint} Look \
         yourself what is missing, then begin anew under another --name: nothing is sent on a guess"
    ))
}

/// A reader at read_committed sees nothing behind a transaction that is open, be it somebody else's.
pub fn wait_until_settled(client: &Client, topic: &str, goals: &HashMap<i32, i64>) -> Result<(), Trouble> {
    let begun = Instant::now();
    for (partition, goal) in goals {
        loop {
            let (_, offset) = client.fetch_watermarks(topic, *partition, ANSWER)?;
            if offset >= *goal {
                break;
            }
            if begun.elapsed() > SETTLED_WITHIN {
                return Err(Trouble::Hidden { partition: *partition, offset });
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_known_any_more_is_said_and_not_guessed() {
        assert_eq!(from_where(0, Some(5), 0, 9).unwrap(), 5);
        assert_eq!(from_where(0, Some(9), 0, 9).unwrap(), 9);
        assert_eq!(from_where(0, None, 0, 9).unwrap(), 0, "a partition that came later is read from its start");
        let said = |recorded, low, high| from_where(3, recorded, low, high).unwrap_err().to_string();
        assert!(said(Some(5), 6, 9).contains("partition 3: retention has deleted everything before offset 6"));
        assert!(said(None, 1, 9).contains("retention has deleted"));
        assert!(said(Some(10), 0, 9).contains("made again, or cut"));
    }
}
