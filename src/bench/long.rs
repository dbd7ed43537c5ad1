//! What only a long run shows: the memory of a full window, and what checkpoints and compaction cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use super::cost::Cost;
use super::jobs::Reads;
use super::place::Place;
use super::row::Row;
use crate::heaps::{give_back_now, private_memory};

/// The ways take turns so often: what the machine does meanwhile meets all of them.
const TURNS: usize = 2;
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub fn title(rounds: usize) -> String {
    format!("{}, {rounds} times over", Reads::Everything.title())
}

/// The whole job over many rounds, as long as the window holds all their ids.
pub async fn rows(place: Place<'_>) -> Result<Vec<Row>, String> {
    let seldom = Place { checkpoint_interval: Duration::from_secs(10), ..place };
    let job = Reads::Everything.job(true)?;
    let ways = [
        ("a checkpoint in 10 seconds", seldom),
        ("a checkpoint a second", place),
        ("a checkpoint a second, and compaction", Place { compaction: true, ..place }),
    ];
    let mut costs = [Cost::NOTHING; 3];
    let mut memory = [0; 3];
    for _ in 0..TURNS {
        for ((_, way), (cost, memory)) in ways.iter().zip(costs.iter_mut().zip(&mut memory)) {
            let watched = Watched::begin();
            *cost = *cost + way.fill_table(&job, way.distinct()).await?;
            *memory = watched.end().max(*memory);
        }
    }
    let rows = ways.iter().zip(costs).zip(memory).map(|(((what, _), cost), memory)| {
        let events = place.messages() * TURNS;
        let of_reference = place.reference.of(cost) * (place.rounds * TURNS) as f64;
        Row {
            job: title(place.rounds),
            of_reference: Some(of_reference),
            of_first: Some(cost.of(costs[0])),
            memory_bytes: Some(memory),
            ..cost.row(what, events)
        }
    });
    Ok(rows.collect())
}

/// Looks at the memory that the process takes more than at the beginning: the events in memory are not the job's.
struct Watched {
    most: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    looking: JoinHandle<()>,
}

impl Watched {
    fn begin() -> Watched {
        let (most, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (seen, ended) = (most.clone(), over.clone());
        give_back_now();
        let before = private_memory();
        let looking = std::thread::spawn(move || {
            while !ended.load(Relaxed) {
                seen.fetch_max(private_memory().saturating_sub(before) as u64, Relaxed);
                std::thread::sleep(LOOK_EVERY);
            }
        });
        Watched { most, over, looking }
    }

    fn end(self) -> u64 {
        self.over.store(true, Relaxed);
        let _ = self.looking.join();
        self.most.load(Relaxed)
    }
}
