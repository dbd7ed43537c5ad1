//! OpenSSL, which librdkafka speaks TLS with.

/// Call this first in `main`, before anything else of OpenSSL runs. OpenSSL would otherwise free what it shares between
/// threads when the process exits, and librdkafka's threads, which may be in the middle of a handshake with a broker that
/// nobody waits for any more, would crash: a job that ended well would end with a signal.
pub fn keep_tls_at_exit() {
    // Its first caller decides for the process, and this one asks for `OPENSSL_INIT_NO_ATEXIT`.
    openssl_sys::init();
}
