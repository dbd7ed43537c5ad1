//! What the sinks have to show in the end, whatever befell the processes.

use std::collections::{BTreeMap, BTreeSet};

use engine::plan::{LatePolicy, Scope};

use crate::lookup::is_known;
use crate::outside::is_poison;
use crate::plan::{TABLES, fails, is_refused, passes};
use crate::topic::{Event, Partition};
use crate::world::World;

/// Says what is wrong with what the sinks show: rows that are lost, and rows that are there too often.
pub fn judge(world: &World) -> Result<(), String> {
    if let Some(objection) = world.outside.objections.lock().first() {
        return Err(objection.clone());
    }
    let events = occurrences(world);
    let [first, second, dead] = TABLES.map(|table| world.outside.shown(table));
    let mut explained = Shown::default();
    let mut wrong = vec![];
    for (id, of_id) in &events {
        let count = |shown: &BTreeMap<String, usize>, row: String| shown.get(&row).copied().unwrap_or(0);
        // How often the deduplication let the event through, as the table says that has to have it.
        let poison = format!("sink {id}");
        let passed = if is_poison(*id) { count(&dead, poison.clone()) } else { count(&first, id.to_string()) };
        let too_old = count(&dead, format!("late {id}"));
        if !of_id.allows(passed, too_old, world.shape.late) {
            wrong.push(format!("event {id} was let through {passed} times and {too_old} times too old: {of_id:?}"));
        }
        let bad = of_id.bad as usize;
        explained.add(2, format!("not-json {id}"), bad);
        explained.add(2, format!("late {id}"), too_old);
        explained.add(if is_poison(*id) { 2 } else { 0 }, if is_poison(*id) { poison } else { id.to_string() }, passed);
        if is_refused(*id, world.shape.kept) {
            explained.add(2, format!("lookup {id}"), passed);
        } else if is_known(*id) && passes(*id) {
            let (table, row) = match () {
                () if fails(*id) => (2, format!("expression {id}")),
                () if is_refused(*id, world.shape.again) => (2, format!("lookup {id}")),
                () => (1, id.to_string()),
            };
            explained.add(table, row, passed);
        }
    }
    for ((table, shown), expected) in TABLES.iter().zip([first, second, dead]).zip(explained.0) {
        let rows: BTreeSet<&String> = shown.keys().chain(expected.keys()).collect();
        let differs = rows.into_iter().filter(|row| shown.get(*row) != expected.get(*row));
        let told = differs.map(|row| format!("{row}: {:?} for {:?}", shown.get(row), expected.get(row)));
        let told: Vec<_> = told.collect();
        if !told.is_empty() {
            wrong.push(format!("table {table}: {}", told.join(", ")));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
}

/// Rows by table, and how often they have to be there.
#[derive(Default)]
struct Shown([BTreeMap<String, usize>; 3]);

impl Shown {
    fn add(&mut self, table: usize, row: String, times: usize) {
        if times > 0 {
            *self.0[table].entry(row).or_default() += times;
        }
    }
}

/// How an event occurs in the topic.
#[derive(Debug, Default)]
struct Occurrences {
    bad: bool,
    /// Within a window of one another.
    in_time: usize,
    /// Older than a window when they are read, or not: it depends on how far the clocks of others are.
    perhaps_late: usize,
    /// Older than a window, however they are read.
    surely_late: usize,
}

impl Occurrences {
    /// Whether the rows may have been let through so often, and so many sent to the dead letter as too old.
    fn allows(&self, passed: usize, too_old: usize, policy: LatePolicy) -> bool {
        let first = (!self.bad && self.in_time > 0) as usize;
        let (sure, most) = (self.surely_late, self.surely_late + self.perhaps_late);
        (sure..=most).any(|late| {
            // Of those that are not too old, the first passes.
            let first = first.max((!self.bad && late < most) as usize);
            match policy {
                LatePolicy::Keep => (passed, too_old) == (first + late, 0),
                LatePolicy::Drop => (passed, too_old) == (first, 0),
                LatePolicy::DeadLetter => (passed, too_old) == (first, late),
            }
        })
    }
}

fn occurrences(world: &World) -> BTreeMap<u64, Occurrences> {
    let mut all: BTreeMap<u64, Occurrences> = BTreeMap::new();
    for partition in world.topics().flat_map(|topic| &topic.partitions) {
        for (index, event) in partition.events.iter().enumerate() {
            let of_id = all.entry(event.id).or_default();
            of_id.bad |= event.bad;
            match event {
                Event { late: false, .. } => of_id.in_time += 1,
                _ if is_surely_late(world, partition, index) => of_id.surely_late += 1,
                _ => of_id.perhaps_late += 1,
            }
        }
    }
    all
}

/// A window of the partition's own has moved on with what an earlier read brought, and no read brings more than its limit.
fn is_surely_late(world: &World, partition: &Partition, index: usize) -> bool {
    let earlier = &partition.events[..(index + 1).saturating_sub(world.settings.limits.read.records)];
    let clock = earlier.iter().map(|e| e.time).max().unwrap_or(i64::MIN);
    let within = world.shape.within.as_nanos() as i64;
    world.shape.scope == Scope::Partition && partition.events[index].time < clock.saturating_sub(within)
}
