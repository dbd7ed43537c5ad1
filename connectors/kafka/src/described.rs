//! What librdkafka knows and its Rust face does not show: a topic's id, what one may do with it, and whether anything told
//! waits to be handled.

use std::ffi::{CStr, CString, c_int};
use std::ptr;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};

use crate::owned::Owned;

/// The id that the brokers gave the topic when it was made, as librdkafka writes it. A topic that is made again under
/// the same name has another one. `None` where brokers give no ids.
pub fn topic_id<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    topic: &str,
    within: Duration,
) -> Result<Option<String>, KafkaError> {
    // SAFETY: the description lives while this runs, and its id with it.
    described(client, topic, within, false, |topic| unsafe { text_of(sys::rd_kafka_TopicDescription_topic_id(topic)) })
}

/// Whether the client may write the topic. `None` where brokers do not say what one may do.
pub fn may_write<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    topic: &str,
    within: Duration,
) -> Result<Option<bool>, KafkaError> {
    const WRITE: u32 = sys::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_WRITE as u32;
    described(client, topic, within, true, |topic| {
        let mut count = 0;
        // SAFETY: the description lives while this runs, and its operations with it: as many as are said, each a C enum. As
        // plain numbers, since there may be some that this version does not know.
        let allowed = unsafe {
            let allowed = sys::rd_kafka_TopicDescription_authorized_operations(topic, &mut count);
            if allowed.is_null() || count == 0 {
                return None;
            }
            std::slice::from_raw_parts(allowed.cast::<u32>(), count)
        };
        Some(allowed.contains(&WRITE))
    })
}

/// What `take` takes from what brokers say of a topic. `rights`: whether they are asked for what the client may do with it.
///
/// Every broker knows it. Left alone, librdkafka would wait for the controller, which may be away, and which the
/// embedded broker does not have.
fn described<C: ConsumerContext, T>(
    client: &BaseConsumer<C>,
    topic: &str,
    within: Duration,
    rights: bool,
    take: impl FnOnce(*const sys::rd_kafka_TopicDescription_t) -> Option<T>,
) -> Result<Option<T>, KafkaError> {
    let failed = |code: RDKafkaRespErr| KafkaError::MetadataFetch(code.into());
    let name = CString::new(topic)?;
    let milliseconds = c_int::try_from(within.as_millis()).unwrap_or(c_int::MAX);
    let metadata = client.fetch_metadata(Some(topic), within)?;
    let broker = metadata.brokers().first().ok_or(KafkaError::MetadataFetch(RDKafkaErrorCode::BrokerNotAvailable))?;
    // SAFETY: the client outlives this call; everything made here is freed here, the answer after it was read; the names are
    // copied by the collection; a null answer, result or description is checked before it is looked at.
    unsafe {
        let client = client.client().native_ptr();
        let queue = Owned(sys::rd_kafka_queue_new(client), sys::rd_kafka_queue_destroy);
        let kind = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
        let options = Owned(sys::rd_kafka_AdminOptions_new(client, kind), sys::rd_kafka_AdminOptions_destroy);
        sys::rd_kafka_AdminOptions_set_request_timeout(options.0, milliseconds, ptr::null_mut(), 0);
        sys::rd_kafka_AdminOptions_set_broker(options.0, broker.id(), ptr::null_mut(), 0);
        if rights {
            let error = sys::rd_kafka_AdminOptions_set_include_authorized_operations(options.0, 1);
            drop(Owned(error, sys::rd_kafka_error_destroy));
        }
        let mut names = [name.as_ptr()];
        let topics = Owned(
            sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len()),
            sys::rd_kafka_TopicCollection_destroy,
        );
        sys::rd_kafka_DescribeTopics(client, topics.0, options.0, queue.0);
        // The request has its own limit; a second more, so that its answer is heard.
        let answer = sys::rd_kafka_queue_poll(queue.0, milliseconds.saturating_add(1000));
        if answer.is_null() {
            return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::OperationTimedOut));
        }
        let answer = Owned(answer, sys::rd_kafka_event_destroy);
        match sys::rd_kafka_event_error(answer.0) {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => {}
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE => return Ok(None),
            code => return Err(failed(code)),
        }
        let result = sys::rd_kafka_event_DescribeTopics_result(answer.0);
        if result.is_null() {
            return Ok(None);
        }
        let mut count = 0;
        let descriptions = sys::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        if descriptions.is_null() || count == 0 {
            return Ok(None);
        }
        let description = *descriptions;
        let error = sys::rd_kafka_TopicDescription_error(description);
        if !error.is_null() {
            return match sys::rd_kafka_error_code(error) {
                RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(None),
                code => Err(failed(code)),
            };
        }
        Ok(take(description))
    }
}

/// # Safety
/// `id` is null or points to an id that lives while this runs.
unsafe fn text_of(id: *const sys::rd_kafka_Uuid_t) -> Option<String> {
    if id.is_null() {
        return None;
    }
    // SAFETY: by the caller's promise; the text belongs to the id and is copied.
    unsafe {
        let bits = (sys::rd_kafka_Uuid_most_significant_bits(id), sys::rd_kafka_Uuid_least_significant_bits(id));
        let text = sys::rd_kafka_Uuid_base64str(id);
        (bits != (0, 0) && !text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
    }
}

/// How many things the client has told that nobody has taken yet: log lines, errors, statistics.
pub fn untaken<C: ConsumerContext>(client: &BaseConsumer<C>) -> usize {
    // SAFETY: the client outlives this call; the reference to its queue is given back.
    unsafe {
        let queue = sys::rd_kafka_queue_get_consumer(client.client().native_ptr());
        if queue.is_null() {
            return 0;
        }
        let queue = Owned(queue, sys::rd_kafka_queue_destroy);
        sys::rd_kafka_queue_length(queue.0)
    }
}
