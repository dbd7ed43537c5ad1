//! How messages are sent to brokers that do not say what their topic allows, once they refused some: they refuse a whole batch,
//! and not all say for the sake of which message.
//!
//! A message that is larger than a batch may be travels alone, and so does each where a batch may hold nothing. So batches
//! become smaller until what is refused was alone: that message can never be taken, and its neighbours can.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// Bytes of a batch at most, where nothing is said of it: librdkafka's own.
const LARGEST_BATCH: usize = 1_000_000;
/// By how much a refused batch was too large is not known: that many times smaller is the next try.
const SMALLER: usize = 4;

/// What is done for the sake of what was refused: nothing, at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Care {
    /// Bytes of a batch at most, once that was learnt.
    pub batch: Option<usize>,
}

impl Care {
    /// As it must be after a refusal. `said`: what the table says of a batch's size.
    pub fn after(self, refusal: &KafkaError, said: Option<usize>) -> Self {
        let batch = match is_too_large(refusal) {
            true => self.batch.or(said).unwrap_or(LARGEST_BATCH) / SMALLER,
            false => 1,
        };
        Care { batch: Some(batch.max(1)) }
    }

    /// Whether each row is a message of its own: which of several is too much, nobody says.
    pub fn apart(self) -> bool {
        self.batch.is_some()
    }

    /// Whether a message of that size was alone in its batch, and is one row.
    pub fn alone(self, bytes: usize) -> bool {
        // One without key and value is alone in a batch of one byte, too.
        self.batch.is_some_and(|batch| bytes.max(1) >= batch)
    }
}

/// Whether brokers refuse a message for what it is, and would each time; or for what another one of its batch is.
pub fn is_refusal(error: &KafkaError) -> bool {
    is_too_large(error) || is_invalid(error) || is_of_another(error)
}

/// Which care is of use beyond the message that was refused: its neighbours are as large.
pub fn is_too_large(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge)
}

/// Whether it is not taken for its timestamp.
pub fn is_untimely(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::InvalidTimestamp)
}

/// Whether a message is not taken for its timestamp, or for what else it is: brokers that say it of one say
/// [`is_of_another`] of its neighbours. Old ones say it of the whole batch.
pub fn is_invalid(error: &KafkaError) -> bool {
    is_untimely(error) || error.rdkafka_error_code() == Some(RDKafkaErrorCode::InvalidRecord)
}

/// Whether nothing is wrong with a message, but with one of its batch.
pub fn is_of_another(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::InvalidDifferentRecord)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_become_smaller_until_a_message_that_is_refused_was_alone() {
        let too_large = KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge);
        let mut care = Care::default();
        assert!(!care.alone(2_000_000), "it may have been the rows around it");
        let mut tries = 0;
        while !care.alone(30_000) {
            care = care.after(&too_large, None);
            tries += 1;
        }
        assert_eq!((tries, care.alone(10_000)), (3, false));
        assert_eq!(Care::default().after(&too_large, Some(8_000)).batch, Some(2_000));
        let early = KafkaError::MessageProduction(RDKafkaErrorCode::InvalidTimestamp);
        assert!(Care::default().after(&early, None).alone(0));
    }
}
