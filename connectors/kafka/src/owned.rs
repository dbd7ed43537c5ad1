//! Something of librdkafka's that is ours to free.

/// The thing, and how it is freed. A null one is not.
pub struct Owned<T>(pub *mut T, pub unsafe extern "C" fn(*mut T));

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: made by librdkafka for us alone, and freed once.
            unsafe { self.1(self.0) }
        }
    }
}
