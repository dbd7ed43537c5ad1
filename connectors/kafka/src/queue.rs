//! One partition's queue, read in batches. A record is lent where the fetched response lies: nothing of it is copied.
//!
//! rdkafka's own face makes an event of each message, with a lock, two allocations and a look at the clock.

use std::ffi::{CStr, CString, c_void};
use std::marker::PhantomData;
use std::ptr;
use std::sync::Arc;

use engine::source::Wake;
use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};

use crate::owned::Owned;

/// Messages that are taken at once. They are held until they are read: what librdkafka may prefetch bounds them too.
const BATCH: usize = 256;

/// A partition's own queue, apart from the one that the client's events come by. Field order: what is lent by the
/// client goes before the client.
pub struct Queue<C: ConsumerContext + 'static> {
    queue: Owned<sys::rd_kafka_queue_t>,
    /// Taken and not yet read, the next one last.
    taken: Vec<Owned<sys::rd_kafka_message_t>>,
    /// Where a batch is taken to.
    room: Vec<*mut sys::rd_kafka_message_t>,
    /// Known to librdkafka by its address.
    _wake: Box<Wake>,
    _client: Arc<BaseConsumer<C>>,
}

// SAFETY: librdkafka's queues and messages may be used by any thread, one at a time; `Wake` and the client are `Send`.
unsafe impl<C: ConsumerContext + 'static> Send for Queue<C> {}

/// What came next.
pub enum Came<'q> {
    Record(Record<'q>),
    /// The broker says that there is nothing more for now: the next message will have this offset, or a higher one. Marks
    /// of transactions, which nobody reads, may lie before it.
    End(i64),
    /// The client could not go on at the partition. Most of these heal by themselves.
    Failure {
        code: RDKafkaErrorCode,
        reason: String,
    },
}

/// One message, while the queue that lent it is not asked for another.
pub struct Record<'q> {
    message: Owned<sys::rd_kafka_message_t>,
    queue: PhantomData<&'q ()>,
}

/// A message that nobody reads now.
pub struct Held(Owned<sys::rd_kafka_message_t>);

impl<C: ConsumerContext + 'static> Queue<C> {
    /// Splits the partition off from the client's queue. `wake` is rung when something comes and the queue was empty.
    /// `None` for a name that no topic can have.
    pub fn split_off(client: Arc<BaseConsumer<C>>, topic: &str, partition: i32, wake: Wake) -> Option<Self> {
        let topic = CString::new(topic).ok()?;
        let wake = Box::new(wake);
        // SAFETY: the client is kept as long as the queue; the name is copied; a null queue is not used; the wake's box does
        // not move, and lives until the callback was taken back.
        let queue = unsafe {
            let queue = sys::rd_kafka_queue_get_partition(client.client().native_ptr(), topic.as_ptr(), partition);
            if queue.is_null() {
                return None;
            }
            sys::rd_kafka_queue_forward(queue, ptr::null_mut());
            sys::rd_kafka_queue_cb_event_enable(queue, Some(ring), ptr::from_ref(&*wake).cast_mut().cast());
            Owned(queue, sys::rd_kafka_queue_destroy)
        };
        let (taken, room) = (Vec::with_capacity(BATCH), vec![ptr::null_mut(); BATCH]);
        Some(Queue { queue, taken, room, _wake: wake, _client: client })
    }

    /// Takes what came next. Never waits.
    pub fn next(&mut self) -> Option<Came<'_>> {
        if self.taken.is_empty() {
            self.take();
        }
        let message = self.taken.pop()?;
        if let Some(following) = self.taken.last() {
            // SAFETY: librdkafka made it and gave it to us alone; its payload is lent with it, as to a record.
            let payload = unsafe { bytes((*following.0).payload, (*following.0).len) };
            payload.into_iter().for_each(formats::fetch_ahead);
        }
        // SAFETY: librdkafka made it and gave it to us alone.
        let code = unsafe { (*message.0).err };
        Some(match code {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Came::Record(Record { message, queue: PhantomData }),
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__PARTITION_EOF => {
                // SAFETY: as above.
                Came::End(unsafe { (*message.0).offset })
            }
            code => Came::Failure { code: code.into(), reason: reason_of(&message) },
        })
    }

    /// Gives back what was taken last: it comes next again.
    pub fn put_back(&mut self, held: Held) {
        self.taken.push(held.0);
    }

    fn take(&mut self) {
        // SAFETY: there is room for as many as are asked for; as many as are returned were written, each ours to free.
        let came =
            unsafe { sys::rd_kafka_consume_batch_queue(self.queue.0, 0, self.room.as_mut_ptr(), self.room.len()) };
        let came = usize::try_from(came).unwrap_or(0);
        let messages = self.room[..came].iter().rev();
        self.taken.extend(messages.map(|message| Owned(*message, sys::rd_kafka_message_destroy)));
    }
}

impl<C: ConsumerContext + 'static> Drop for Queue<C> {
    fn drop(&mut self) {
        // SAFETY: the queue is still there. It is locked for this and for each ring: none comes afterwards.
        unsafe { sys::rd_kafka_queue_cb_event_enable(self.queue.0, None, ptr::null_mut()) }
    }
}

unsafe extern "C" fn ring(_: *mut sys::rd_kafka_t, wake: *mut c_void) {
    // SAFETY: the address that `split_off` gave, whose box outlives the callback.
    unsafe { (*wake.cast::<Wake>()).ring() }
}

fn reason_of(message: &Owned<sys::rd_kafka_message_t>) -> String {
    // SAFETY: a message with an error; the text is the message's or constant, and is copied.
    unsafe { CStr::from_ptr(sys::rd_kafka_message_errstr(message.0)).to_string_lossy().into_owned() }
}

impl Record<'_> {
    pub fn hold(self) -> Held {
        Held(self.message)
    }

    /// `None` is a message without a payload, which is not an empty one.
    #[inline]
    pub fn payload(&self) -> Option<&[u8]> {
        let message = self.native();
        // SAFETY: these two say where the payload lies; it lives as long as the message.
        unsafe { bytes(message.payload, message.len) }
    }

    pub fn key(&self) -> Option<&[u8]> {
        let message = self.native();
        // SAFETY: as above.
        unsafe { bytes(message.key, message.key_len) }
    }

    #[inline]
    pub fn offset(&self) -> i64 {
        self.native().offset
    }

    pub fn partition(&self) -> i32 {
        self.native().partition
    }

    /// When it was made or appended, as the topic is set up, in milliseconds since 1970.
    #[inline]
    pub fn millis(&self) -> Option<i64> {
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message lives; the kind is written before it returns.
        let millis = unsafe { sys::rd_kafka_message_timestamp(self.message.0, &mut kind) };
        (kind != sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE && millis != -1).then_some(millis)
    }

    /// Names and values, in the order in which they were written. A name may come more than once.
    pub fn headers(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        let none = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
        let mut list = ptr::null_mut();
        // SAFETY: the message lives; the list is its own, and is written where there is one.
        let found = unsafe { sys::rd_kafka_message_headers(self.message.0, &mut list) } == none;
        (0..).take_while(move |_| found).map_while(move |place| {
            let (mut name, mut value, mut length) = (ptr::null(), ptr::null(), 0);
            // SAFETY: the list, its names (text with a zero at its end) and its values live as long as the message, which is
            // borrowed; where there is no such place, nothing is written and nothing is read.
            unsafe {
                let code = sys::rd_kafka_header_get_all(list, place, &mut name, &mut value, &mut length);
                (code == none).then(|| (CStr::from_ptr(name).to_str().unwrap_or_default(), bytes(value, length)))
            }
        })
    }

    #[inline]
    fn native(&self) -> &sys::rd_kafka_message_t {
        // SAFETY: librdkafka made it, and nobody else has it.
        unsafe { &*self.message.0 }
    }
}

/// # Safety
/// `start` is null, or the start of `length` bytes that live as long as the result is used.
unsafe fn bytes<'a>(start: *const c_void, length: usize) -> Option<&'a [u8]> {
    // SAFETY: by the caller's promise.
    (!start.is_null()).then(|| unsafe { std::slice::from_raw_parts(start.cast::<u8>(), length) })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    use rdkafka::TopicPartitionList;
    use rdkafka::config::ClientConfig;
    use rdkafka::message::{Header, OwnedHeaders};
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
    use rdkafka::topic_partition_list::Offset;

    use super::*;

    const LONG_ENOUGH: Duration = Duration::from_secs(60);

    /// A topic with one partition, and a client that reads it.
    struct Broker {
        producer: BaseProducer,
        client: Arc<BaseConsumer>,
        /// Goes last: a client that cannot say goodbye waits for long.
        _cluster: MockCluster<'static, rdkafka::producer::DefaultProducerContext>,
    }

    impl Broker {
        fn start() -> Broker {
            let cluster = MockCluster::new(1).unwrap();
            cluster.create_topic("events", 1, 1).unwrap();
            let mut config = ClientConfig::new();
            config.set("bootstrap.servers", cluster.bootstrap_servers()).set("group.id", "tests");
            let producer = config.create().unwrap();
            let client = config.set("enable.partition.eof", "true").create().unwrap();
            Broker { producer, client: Arc::new(client), _cluster: cluster }
        }

        fn send(&self, record: BaseRecord<'_, [u8], [u8]>) {
            self.producer.send(record.partition(0)).map_err(|(e, _)| e).unwrap();
        }

        fn flush(&self) {
            self.producer.flush(LONG_ENOUGH).unwrap();
        }

        fn queue(&self, wake: Wake) -> Queue<rdkafka::consumer::DefaultConsumerContext> {
            let queue = Queue::split_off(self.client.clone(), "events", 0, wake).unwrap();
            let mut list = TopicPartitionList::new();
            list.add_partition_offset("events", 0, Offset::Offset(0)).unwrap();
            self.client.incremental_assign(&list).unwrap();
            queue
        }
    }

    fn to_events<'a>() -> BaseRecord<'a, [u8], [u8]> {
        BaseRecord::to("events")
    }

    /// What came, as text: payloads, `End at` an offset.
    fn read(queue: &mut Queue<rdkafka::consumer::DefaultConsumerContext>, how_many: usize) -> Vec<String> {
        let (begun, mut came) = (Instant::now(), vec![]);
        while came.len() < how_many {
            assert!(begun.elapsed() < LONG_ENOUGH, "only {came:?} came");
            match queue.next() {
                None => std::thread::sleep(Duration::from_millis(5)),
                Some(Came::Record(r)) => {
                    came.push(String::from_utf8_lossy(r.payload().unwrap_or(b"null")).into_owned())
                }
                Some(Came::End(offset)) => came.push(format!("End at {offset}")),
                Some(Came::Failure { reason, .. }) => came.push(reason),
            }
        }
        came
    }

    #[test]
    fn a_record_has_all_that_was_sent_with_it() {
        let broker = Broker::start();
        let headers = OwnedHeaders::new()
            .insert(Header { key: "unit", value: Some("°C") })
            .insert(Header { key: "empty", value: Some("") })
            .insert(Header::<&str> { key: "none", value: None });
        broker.send(to_events().payload(b"first").key(b"device-1").timestamp(1234).headers(headers));
        broker.send(to_events().payload(b""));
        broker.send(to_events().key(b"gone"));
        broker.flush();
        let mut queue = broker.queue(Wake::new(|| {}));
        let (begun, mut records) = (Instant::now(), vec![]);
        while records.len() < 3 && begun.elapsed() < LONG_ENOUGH {
            if let Some(Came::Record(r)) = queue.next() {
                let headers: Vec<_> = r.headers().map(|(n, v)| (n.to_string(), v.map(<[u8]>::to_vec))).collect();
                let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
                records.push((r.offset(), r.partition(), owned(r.payload()), owned(r.key()), headers, r.millis()));
            }
        }
        let [first, second, third] = &records[..] else { panic!("{records:?}") };
        let text = |text: &str| Some(text.as_bytes().to_vec());
        let headers =
            [("unit", text("°C")), ("empty", text("")), ("none", None)].map(|(n, v)| (n.to_string(), v)).to_vec();
        assert_eq!(*first, (0, 0, text("first"), text("device-1"), headers, Some(1234)));
        assert_eq!((second.0, &second.2, &second.3), (1, &text(""), &None), "empty is not null");
        assert_eq!((third.0, &third.2, &third.3), (2, &None, &text("gone")), "and null is not empty");
        assert!(second.4.is_empty() && second.5 > Some(1_600_000_000_000), "{second:?}");
    }

    #[test]
    fn more_than_a_batch_is_read_in_order_and_on_behind_the_end_that_was_told() {
        let broker = Broker::start();
        let sent: Vec<_> = (0..2 * BATCH + 7).map(|n| n.to_string()).collect();
        sent.iter().for_each(|text| broker.send(to_events().payload(text.as_bytes())));
        broker.flush();
        let mut queue = broker.queue(Wake::new(|| {}));
        assert_eq!(read(&mut queue, sent.len()), sent);
        assert_eq!(read(&mut queue, 1), [format!("End at {}", sent.len())]);
        broker.send(to_events().payload(b"later"));
        broker.flush();
        assert_eq!(read(&mut queue, 2), ["later".to_string(), format!("End at {}", sent.len() + 1)]);
        assert!(queue.next().is_none(), "the end is told once");
    }

    #[test]
    fn it_rings_when_something_comes_and_no_more_once_it_is_dropped() {
        let broker = Broker::start();
        let rings = Arc::new(AtomicUsize::new(0));
        let counted = rings.clone();
        let mut queue = broker.queue(Wake::new(move || {
            counted.fetch_add(1, Ordering::SeqCst);
        }));
        assert_eq!(read(&mut queue, 1), ["End at 0"]);
        let before = rings.load(Ordering::SeqCst);
        assert!(before > 0, "of the end, too");
        (0..10).for_each(|_| broker.send(to_events().payload(b"held")));
        broker.flush();
        assert_eq!(read(&mut queue, 1), ["held"], "the others are taken, and are given back unread");
        let rung = rings.load(Ordering::SeqCst);
        assert!(rung > before, "it was empty, and then it was not");
        drop(queue);
        assert_eq!(Arc::strong_count(&rings), 1, "whoever is rung is let go");
        broker.send(to_events().payload(b"nobody reads this"));
        broker.flush();
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(rings.load(Ordering::SeqCst), rung);
    }
}
