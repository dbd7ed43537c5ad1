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

/// The whole job over many rounds, as long as the window holds all their ids.
pub async fn rows(place: Place<'_>) -> Result<Vec<Row>, String> {
    let seldom = Place { checkpoint_interval: Duration::from_secs(10), ..place };
    let job = Reads::Everything.job(true)?;
    let mut ways = [
        ("a checkpoint in 10 seconds", seldom, Cost::NOTHING, 0),
        ("a checkpoint a second", place, Cost::NOTHING, 0),
        ("a checkpoint a second, and compaction", Place { compaction: true, ..place }, Cost::NOTHING, 0),
    ];
    for _ in 0..TURNS {
        for (_, way, cost, memory) in &mut ways {
            let watched = Watched::begin();
            *cost = *cost + way.fill_table(&job, way.distinct()).await?;
            *memory = watched.end().max(*memory);
        }
    }
    let title = format!("{}, {} times over", Reads::Everything.title(), place.rounds);
    let (first, all) = (ways[0].2, Place { rounds: place.rounds * TURNS, ..place });
    let row = |(what, _, cost, memory): (&str, _, Cost, u64)| Row {
        of_first: Some(cost.of(first)),
        memory_bytes: Some(memory),
        ..all.row(title.clone(), what, cost)
    };
    Ok(ways.map(row).into())
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
