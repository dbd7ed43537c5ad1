//! The C library's heaps.

/// Bounds how many there are. Call it before the first thread starts.
///
/// Left alone, glibc gives each new thread a heap of its own, up to eight a core. Rows are allocated by one thread and freed by
/// another, so that each heap is mostly holes after a while and gives nothing back: at 5,000 events a second on two cores, a job
/// took 615 MB after six minutes and grew, where it takes 328 MB with one heap a core, and 420 MB after an hour. mimalloc took
/// 909 MB after five minutes.
pub fn bound() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // An operator's own choice counts.
        if std::env::var_os("MALLOC_ARENA_MAX").is_some() {
            return;
        }
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        // SAFETY: no other thread runs yet, and the parameter is one that glibc has; one that it refuses changes nothing.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, i32::try_from(cores.max(2)).unwrap_or(i32::MAX)) };
    }
}

/// Gives free memory back from now on, on a thread of its own.
///
/// Left alone, glibc keeps what is freed unless it lies at a heap's end. A job that wrote ten small files a second had 21 MB in use
/// after seven minutes and held 230; when what was free was given back, 121, of which a good part is the program itself.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let every_so_often = || {
            let mut left = 0;
            loop {
                std::thread::sleep(GIVEN_BACK_EVERY);
                if private_memory() >= left + WORTH_GIVING_BACK {
                    give_back_now();
                    left = private_memory();
                }
            }
        };
        // Without the thread the process only takes more memory.
        let _ = std::thread::Builder::new().name("heaps".into()).spawn(every_so_often);
    }
}

/// Gives back what is free at this moment.
pub fn give_back_now() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it may be called at any time and from any thread.
    unsafe {
        libc::malloc_trim(0)
    };
}

/// Bytes in memory that are this process's own: not the program's file. 0 where the system does not tell.
pub fn private_memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<usize>().ok()).map_or(0, |kib| kib << 10)
}

/// While it lasts, a thread that allocates from the same heap waits: milliseconds.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const GIVEN_BACK_EVERY: std::time::Duration = std::time::Duration::from_secs(30);
/// So much more than was left the last time.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const WORTH_GIVING_BACK: usize = 32 << 20;

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::private_memory;

    #[test]
    fn what_a_process_takes_is_seen() {
        let before = private_memory();
        let taken = std::hint::black_box(vec![1u8; 256 << 20]);
        assert!(private_memory() >= before + (200 << 20));
        drop(taken);
    }
}
