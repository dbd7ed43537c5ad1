//! A table outside that is asked for the keys that rows bring: many in one request, each key by one request at a time,
//! whoever waits for it. What it answers is kept for a while, also that it has nothing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use hashbrown::{DefaultHashBuilder, HashMap};
use moka::sync::Cache;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::keys::{KeyRows, columns_of};
use super::{Fetched, LookupError, Met};
use crate::environment::Bell;
use crate::plan::{KeptByKey, LookupNode};

type Key = Arc<[u8]>;

/// What is kept of the table, and what it is asked for.
pub struct ByKey {
    kept: Cache<Key, Answered, DefaultHashBuilder>,
    how: KeptByKey,
    /// Of the keys, as the table is asked.
    key_schema: SchemaRef,
    asking: Mutex<Asking>,
    /// A key is wanted.
    wanted: Notify,
}

#[derive(Default)]
struct Asking {
    /// Keys that are in no request yet, in the order in which they were asked for.
    wanted: VecDeque<Key>,
    /// Who waits for a key, asked for or not, and under which number.
    waiting: HashMap<Key, Vec<(Arc<Pending>, usize)>>,
}

/// What the table said of a key, and until when that holds, on the environment's steady clock.
#[derive(Clone)]
struct Answered {
    found: Arc<Found>,
    until: Duration,
}

enum Found {
    /// With the columns behind the node's own steps. Maybe none.
    Rows(RecordBatch),
    Refused(Arc<str>),
}

/// A batch that waits for answers.
pub struct Pending {
    /// By row: the number of its key among the different ones of the batch, or [`NO_KEY`].
    number_of: Vec<u32>,
    /// By that number.
    found: Mutex<Vec<Option<Arc<Found>>>>,
    missing: AtomicUsize,
    bell: Arc<Bell>,
}

/// Of a row in whose key is a NULL.
const NO_KEY: u32 = u32::MAX;

impl ByKey {
    pub fn new(node: &LookupNode, how: KeptByKey) -> ByKey {
        let weigh =
            |key: &Key, answered: &Answered| (key.len() + answered.found.bytes()).try_into().unwrap_or(u32::MAX);
        let fields: Vec<_> = node.request.keys.iter().map(|at| node.request.columns[*at].field.clone()).collect();
        ByKey {
            kept: Cache::builder()
                .max_capacity(how.bytes as u64)
                .weigher(weigh)
                .build_with_hasher(DefaultHashBuilder::default()),
            how,
            key_schema: Arc::new(Schema::new(fields)),
            asking: Mutex::default(),
            wanted: Notify::new(),
        }
    }

    /// Entries that are kept, and their bytes; both roughly.
    pub fn size(&self) -> (u64, u64) {
        (self.kept.entry_count(), self.kept.weighted_size())
    }

    /// Looks for the keys of a batch, and asks for those that nobody knows. The bell rings when all are there.
    /// Says how many keys there are and how many were not known, too.
    pub fn ask(&self, keys: &KeyRows, bell: &Arc<Bell>, now: Duration) -> (Arc<Pending>, usize, usize) {
        let mut number_of = vec![NO_KEY; keys.len()];
        let mut numbers: HashMap<&[u8], u32> = HashMap::new();
        let (mut found, mut unknown) = (vec![], vec![]);
        for (row, number_of) in number_of.iter_mut().enumerate() {
            let Some(key) = keys.get(row) else { continue };
            *number_of = *numbers.entry(key).or_insert_with(|| {
                let answered = self.kept.get(key).filter(|answered| answered.until > now);
                if answered.is_none() {
                    unknown.push((Key::from(key), found.len()));
                }
                found.push(answered.map(|answered| answered.found));
                found.len() as u32 - 1
            });
        }
        let (of, asked) = (found.len(), unknown.len());
        let missing = AtomicUsize::new(asked);
        let pending = Arc::new(Pending { number_of, found: Mutex::new(found), missing, bell: bell.clone() });
        if asked > 0 {
            let mut asking = self.asking.lock();
            for (key, number) in unknown {
                let waiting = asking.waiting.entry(key.clone()).or_default();
                waiting.push((pending.clone(), number));
                if waiting.len() == 1 {
                    asking.wanted.push_back(key);
                }
            }
            drop(asking);
            self.wanted.notify_one();
        }
        (pending, of, asked)
    }

    /// The keys of the next request, as soon as there are some.
    pub async fn next(&self) -> Vec<Key> {
        loop {
            {
                let mut asking = self.asking.lock();
                let many = asking.wanted.len().min(self.how.keys);
                let keys: Vec<Key> = asking.wanted.drain(..many).collect();
                if !asking.wanted.is_empty() {
                    self.wanted.notify_one();
                }
                if !keys.is_empty() {
                    return keys;
                }
            }
            self.wanted.notified().await;
        }
    }

    /// Keys as the table is asked for them.
    pub fn request(&self, keys: &[Key]) -> Result<RecordBatch, ArrowError> {
        columns_of(keys.iter().map(|key| key.as_ref()), &self.key_schema)
    }

    /// Takes in what the table said of these keys.
    pub fn settle(
        &self,
        node: &LookupNode,
        keys: Vec<Key>,
        fetched: Fetched,
        now: Duration,
    ) -> Result<(), LookupError> {
        let found = found(node, &keys, fetched).map_err(|e| LookupError::failed(node.place(), e))?;
        for (key, found) in keys.iter().zip(&found) {
            let ttl = if found.is_nothing() { self.how.missing_ttl } else { self.how.ttl };
            if ttl > Duration::ZERO {
                self.kept.insert(key.clone(), Answered { found: found.clone(), until: now.saturating_add(ttl) });
            }
        }
        for (key, found) in keys.into_iter().zip(found) {
            let waiting = self.asking.lock().waiting.remove(&key).unwrap_or_default();
            for (pending, number) in waiting {
                pending.learn(number, found.clone());
            }
        }
        Ok(())
    }
}

impl Pending {
    pub fn is_ready(&self) -> bool {
        self.missing.load(Ordering::Acquire) == 0
    }

    fn learn(&self, number: usize, found: Arc<Found>) {
        self.found.lock()[number] = Some(found);
        if self.missing.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.bell.ring();
        }
    }

    /// What the rows of the batch meet, once it is ready.
    pub fn met(&self, node: &LookupNode) -> Result<Met, ArrowError> {
        let mut met = Met::nothing(&node.schema, self.number_of.len())?;
        let found = self.found.lock();
        let mut side = |found: &Option<Arc<Found>>| match found.as_deref() {
            Some(Found::Rows(rows)) if rows.num_rows() > 0 => Some(met.add_side(rows.clone())),
            _ => None,
        };
        let sides: Vec<Option<usize>> = found.iter().map(&mut side).collect();
        for (row, number) in self.number_of.iter().map(|number| *number as usize).enumerate() {
            match found.get(number).and_then(|found| found.as_deref()) {
                Some(Found::Rows(_)) => {
                    if let Some(side) = sides[number] {
                        met.meets(row, side, 0);
                    }
                }
                Some(Found::Refused(why)) => met.refuse(row, why.clone()),
                None => {}
            }
        }
        Ok(met)
    }
}

impl Found {
    fn bytes(&self) -> usize {
        match self {
            Found::Rows(rows) => rows.get_array_memory_size(),
            Found::Refused(why) => why.len(),
        }
    }

    fn is_nothing(&self) -> bool {
        matches!(self, Found::Rows(rows) if rows.num_rows() == 0)
    }
}

/// What was found for each of these keys.
fn found(node: &LookupNode, keys: &[Key], fetched: Fetched) -> Result<Vec<Arc<Found>>, ArrowError> {
    let number: HashMap<&[u8], usize> = keys.iter().enumerate().map(|(number, key)| (key.as_ref(), number)).collect();
    let mut refused: HashMap<usize, Arc<str>> =
        fetched.refused.into_iter().map(|(key, why)| (key, why.into())).collect();
    let mut batches = vec![];
    for batch in fetched.rows {
        let (done, failed) = node.transform.run(&batch);
        batches.extend(done);
        for failure in failed {
            let keys = KeyRows::of(&failure.row, &node.request.keys)?;
            if let Some(key) = keys.get(0).and_then(|key| number.get(key)) {
                refused.insert(*key, failure.error.into());
            }
        }
    }
    let mut places: Vec<Vec<(usize, usize)>> = vec![vec![]; keys.len()];
    for (at, batch) in batches.iter().enumerate() {
        let of_batch = KeyRows::of(batch, &node.keys)?;
        for row in 0..of_batch.len() {
            if let Some(key) = of_batch.get(row).and_then(|key| number.get(key)) {
                places[*key].push((at, row));
            }
        }
    }
    let batches: Vec<&RecordBatch> = batches.iter().collect();
    let nothing = RecordBatch::new_empty(node.schema.clone());
    let found = places.into_iter().enumerate().map(|(key, places)| {
        Ok(Arc::new(match refused.remove(&key) {
            Some(why) => Found::Refused(why),
            None if places.is_empty() => Found::Rows(nothing.clone()),
            // A copy of its own: a slice would keep the whole answer alive.
            None => Found::Rows(interleave_record_batch(&batches, &places)?),
        }))
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Int64Type};
    use async_trait::async_trait;
    use futures::FutureExt;

    use super::*;
    use crate::connector::Origin;
    use crate::lookup::{Loaded, Lookup, LookupRequest};
    use crate::plan::{Kept, Transform};
    use crate::source::SourceColumn;

    struct Nowhere;

    #[async_trait]
    impl Lookup for Nowhere {
        fn describe(&self) -> String {
            "nowhere".into()
        }
        async fn load(&self, _: &LookupRequest, _: Option<&str>, _: i64) -> Result<Loaded, LookupError> {
            Err(LookupError::failed("nowhere", "is never loaded"))
        }
    }

    const HOW: KeptByKey = KeptByKey {
        ttl: Duration::from_secs(60),
        missing_ttl: Duration::from_secs(10),
        bytes: 1 << 20,
        keys: 3,
        requests: 2,
    };

    fn node(how: KeptByKey) -> LookupNode {
        let fields = [("key", DataType::Int64), ("name", DataType::Utf8)];
        let fields = fields.map(|(name, of)| Arc::new(Field::new(name, of, true)));
        let columns = fields.iter().map(|field| SourceColumn { field: field.clone(), origin: Origin::Value }).collect();
        LookupNode {
            table: "known".into(),
            lookup: Arc::new(Nowhere),
            request: LookupRequest { columns, keys: vec![0], timeout: Duration::from_secs(1) },
            transform: Transform { steps: vec![] },
            schema: Arc::new(Schema::new(fields.to_vec())),
            keys: vec![0],
            kept: Kept::ByKey(how),
            give_up_after: None,
        }
    }

    /// The table, and what it is asked for.
    struct Story {
        node: LookupNode,
        table: ByKey,
        bell: Arc<Bell>,
        now: Duration,
    }

    impl Story {
        fn of(how: KeptByKey) -> Self {
            let node = node(how);
            Story { table: ByKey::new(&node, how), node, bell: Arc::default(), now: Duration::from_secs(1000) }
        }

        fn ask(&self, keys: &[Option<i64>]) -> Arc<Pending> {
            let keys: ArrayRef = Arc::new(Int64Array::from(keys.to_vec()));
            let keys = KeyRows::of(&RecordBatch::try_from_iter([("k", keys)]).unwrap(), &[0]).unwrap();
            self.table.ask(&keys, &self.bell, self.now).0
        }

        /// The keys of the next request, if there is one.
        fn requested(&self) -> Option<(Vec<Key>, Vec<i64>)> {
            let keys = self.table.next().now_or_never()?;
            let asked = self.table.request(&keys).unwrap();
            let mut numbers = asked.column(0).as_primitive::<Int64Type>().values().to_vec();
            numbers.sort_unstable();
            Some((keys, numbers))
        }

        fn answer(&self, keys: Vec<Key>, rows: &[(i64, &str)]) {
            let of_key: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|(key, _)| *key)));
            let names: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|(_, name)| *name)));
            let rows = RecordBatch::try_new(self.node.schema.clone(), vec![of_key, names]).unwrap();
            let fetched = Fetched { rows: vec![rows], refused: vec![] };
            self.table.settle(&self.node, keys, fetched, self.now).unwrap();
        }
    }

    #[test]
    fn a_key_is_in_one_request_whoever_waits_for_it() {
        let story = Story::of(HOW);
        let first = story.ask(&[Some(1), Some(2), Some(1), None]);
        let second = story.ask(&[Some(2), Some(3)]);
        let (keys, numbers) = story.requested().unwrap();
        assert_eq!(numbers, [1, 2, 3]);
        let third = story.ask(&[Some(3)]);
        assert!(story.requested().is_none(), "3 is on its way");
        assert!(!first.is_ready() && !second.is_ready() && !third.is_ready());
        story.answer(keys, &[(1, "one"), (3, "three"), (4, "nobody asked")]);
        assert!(first.is_ready() && second.is_ready() && third.is_ready());
        assert!(story.bell.take(), "the worker is told");
    }

    #[test]
    fn a_request_has_so_many_keys_and_no_more() {
        let story = Story::of(HOW);
        let pending = story.ask(&(0..7).map(Some).collect::<Vec<_>>());
        for (round, many) in [3, 3, 1].into_iter().enumerate() {
            let (keys, numbers) = story.requested().unwrap();
            assert_eq!((numbers.len(), pending.is_ready()), (many, false), "request {round}");
            story.answer(keys, &[]);
        }
        assert!(pending.is_ready() && story.requested().is_none());
    }

    #[test]
    fn an_answer_holds_for_its_time_and_that_there_is_none_for_another() {
        let mut story = Story::of(HOW);
        story.ask(&[Some(1), Some(2)]);
        let (keys, _) = story.requested().unwrap();
        story.answer(keys, &[(1, "one")]);
        let mut asked_after = |seconds: u64| {
            story.now = Duration::from_secs(1000 + seconds);
            story.ask(&[Some(1), Some(2)]);
            let asked = story.requested();
            asked.map(|(keys, numbers)| (story.table.forget(keys), numbers).1).unwrap_or_default()
        };
        assert_eq!(asked_after(9), [0; 0]);
        assert_eq!(asked_after(11), [2]);
        assert_eq!(asked_after(59), [2]);
        assert_eq!(asked_after(61), [1, 2]);
    }

    #[test]
    fn without_a_time_nothing_is_kept_and_whoever_waited_has_the_answer() {
        let story = Story::of(KeptByKey { ttl: Duration::ZERO, missing_ttl: Duration::ZERO, ..HOW });
        let pending = story.ask(&[Some(1)]);
        let (keys, _) = story.requested().unwrap();
        story.answer(keys, &[(1, "one")]);
        assert!(pending.is_ready());
        story.ask(&[Some(1)]);
        assert_eq!(story.requested().unwrap().1, [1]);
    }

    #[test]
    fn what_is_kept_stays_within_its_memory() {
        let bytes = 64 << 10;
        let story = Story::of(KeptByKey { bytes, keys: 1000, ..HOW });
        for round in 0..20 {
            let numbers: Vec<i64> = (round * 1000..(round + 1) * 1000).collect();
            story.ask(&numbers.iter().copied().map(Some).collect::<Vec<_>>());
            let (keys, _) = story.requested().unwrap();
            story.answer(keys, &numbers.iter().map(|n| (*n, "a name")).collect::<Vec<_>>());
        }
        story.table.kept.run_pending_tasks();
        let (answers, weight) = story.table.size();
        assert!(answers > 50 && weight <= bytes as u64, "{answers} answers of {weight} bytes");
    }

    impl ByKey {
        /// As if these keys had never been asked for.
        fn forget(&self, keys: Vec<Key>) {
            keys.iter().for_each(|key| drop(self.asking.lock().waiting.remove(key)));
        }
    }
}
