//! How many files and connections the process may have open.

/// Raises the bound to what the system's administrator allows. Shells hand on a lower one, usually 1,024, for programs that
/// use `select`; a Delta table whose log was not checkpointed for as many versions needs more to be opened.
pub fn raise() {
    let mut bound = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is the one that both expect, and outlives the calls. Refused, the process has what it had.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut bound) == 0 && bound.rlim_cur != bound.rlim_max {
            bound.rlim_cur = bound.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &bound);
        }
    }
}
