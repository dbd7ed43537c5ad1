//! What work costs, on the clock and in CPU time.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::row::Row;

#[derive(Clone, Copy)]
pub struct Cost {
    pub elapsed: Duration,
    /// Of the whole process.
    pub cpu: Duration,
}

impl Cost {
    pub const NOTHING: Cost = Cost { elapsed: Duration::ZERO, cpu: Duration::ZERO };

    pub fn begin() -> Begun {
        Begun { at: Instant::now(), cpu: cpu_time() }
    }

    pub fn row(&self, what: &str, events: usize) -> Row {
        let (seconds, cpu_seconds) = (self.elapsed.as_secs_f64(), self.cpu.as_secs_f64());
        Row {
            what: what.to_string(),
            events,
            seconds,
            cpu_seconds,
            events_per_second: events as f64 / seconds,
            events_per_cpu_second: events as f64 / cpu_seconds,
            ..Row::default()
        }
    }

    /// CPU seconds as a multiple of another's.
    pub fn of(&self, other: Cost) -> f64 {
        self.cpu.as_secs_f64() / other.cpu.as_secs_f64()
    }
}

impl std::ops::Add for Cost {
    type Output = Cost;

    fn add(self, other: Cost) -> Cost {
        Cost { elapsed: self.elapsed + other.elapsed, cpu: self.cpu + other.cpu }
    }
}

pub struct Begun {
    at: Instant,
    cpu: Duration,
}

impl Begun {
    pub fn end(self) -> Cost {
        Cost { elapsed: self.at.elapsed(), cpu: cpu_time() - self.cpu }
    }
}

/// Of the whole process, all threads, in user and kernel mode.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Does the work on as many threads as the job has workers.
pub async fn on_threads<T, F>(work: Vec<T>, threads: usize, step: F) -> Result<Cost, String>
where
    T: Send + 'static,
    F: Fn(T) -> Result<(), String> + Send + Sync + 'static,
{
    let measured = move || {
        let begun = Cost::begin();
        let work = Mutex::new(work);
        let one = || {
            while let Some(item) = work.lock().ok().and_then(|mut work| work.pop()) {
                step(item)?;
            }
            Ok::<(), String>(())
        };
        std::thread::scope(|scope| {
            let running: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
            running.into_iter().try_for_each(|t| t.join().map_err(|_| "a thread panicked".to_string())?)
        })?;
        Ok(begun.end())
    };
    tokio::task::spawn_blocking(measured).await.map_err(|e| e.to_string())?
}
