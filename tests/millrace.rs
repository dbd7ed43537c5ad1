//! The real binary, with a job of its own in a temporary folder.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::process::{self, Signal};
use crate::small_disk::SmallDisk;
use crate::wait::wait_for;

/// A loaded machine may take this long for what takes a second.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The exit code of a process whose job another one took over: it tells a supervisor not to start it again.
pub const FENCED: i32 = 3;

/// A job file, where its state lies, and what it is started with. Several processes may run it.
pub struct Job {
    folder: TempDir,
    file: PathBuf,
    /// The job log's URL, where it does not lie in the job's folder.
    remote: Option<String>,
    variables: Vec<(String, String)>,
    arguments: Vec<String>,
    /// What the binary is started with, where that is not the binary itself.
    starter: Vec<String>,
}

impl Job {
    /// `sql` is the text of the job file.
    pub fn new(sql: &str) -> Job {
        let folder = tempfile::Builder::new().prefix("millrace-job-").tempdir().expect("a temporary folder");
        let file = folder.path().join("test.sql");
        fs::write(&file, sql).expect("the job's folder can be written");
        Job { folder, file, remote: None, variables: vec![], arguments: vec![], starter: vec![] }
    }

    /// The main job, from a topic into the local Delta table of [`Job::table`].
    pub fn events_to_delta(bootstrap_servers: &str, topic: &str) -> Job {
        Job::events_to_delta_with(bootstrap_servers, topic, &[])
    }

    /// The same, with parts of its text replaced. Each must be there.
    pub fn events_to_delta_with(bootstrap_servers: &str, topic: &str, changes: &[(&str, &str)]) -> Job {
        let job = Job::of_solution("eventhubs-databricks-delta", changes);
        let table = job.table().display().to_string();
        job.variable("KAFKA", bootstrap_servers).variable("TOPIC", topic).variable("TABLE", &table)
    }

    /// The job of a solution, with parts of its text replaced. Each must be there.
    pub fn of_solution(solution: &str, changes: &[(&str, &str)]) -> Job {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("jobs").join(solution).join("job.sql");
        let mut sql = fs::read_to_string(path).expect("the job file is there");
        for (from, to) in changes {
            assert!(sql.contains(from), "the job file no longer says {from:?}");
            sql = sql.replace(from, to);
        }
        Job::new(&sql)
    }

    /// The job log lies at a URL.
    pub fn state_at(mut self, url: &str) -> Job {
        self.remote = Some(url.into());
        self
    }

    /// The job log and the table lie on a small disk, as `state` and `table`.
    pub fn on_disk(mut self, disk: &SmallDisk) -> Job {
        self.starter = disk.enter();
        let path = |name| disk.path(name).display().to_string();
        self.state_at(&path("state")).variable("TABLE", &path("table"))
    }

    /// A later value counts.
    pub fn variable(mut self, name: &str, value: &str) -> Job {
        self.variables.push((name.into(), value.into()));
        self
    }

    pub fn argument(mut self, argument: &str) -> Job {
        self.arguments.push(argument.into());
        self
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where `${TABLE}` of the main job lies.
    pub fn table(&self) -> PathBuf {
        self.folder().join("table")
    }

    /// The job log's folder; where that is remote, what is kept beside it here.
    pub fn state(&self) -> PathBuf {
        let state = self.folder().join("state");
        if self.remote.is_some() { state.join("test") } else { state }
    }

    /// Runs the job until it dies at a visit of a step, the first or the second: until then it is given more to do.
    pub fn dies_at(&self, step: &str, visit: u64, mut give_more: impl FnMut()) {
        let mut run = self.start_with(&[("MILLRACE_CRASH", &format!("{step}:{visit}"))], &[]);
        // Until there is a second commit.
        for _ in 0..60 {
            if visit == 1 || run.wait_at_most(Duration::from_secs(1)).is_some() {
                break;
            }
            give_more();
        }
        let status = run.wait();
        assert_eq!(status.code(), None, "{step}:{visit} {status}\n{}", run.said());
    }

    /// At each step the second commit dies, which has rows before it, and then the first of the process that recovers.
    pub fn dies_at_each(&self, steps: &[&str], mut give_more: impl FnMut() -> u64) {
        for step in steps {
            for visit in [2, 1] {
                give_more();
                self.dies_at(step, visit, || _ = give_more());
            }
        }
    }

    /// The job is killed twice on its way, and the third run comes to the end.
    pub fn completes_though_it_is_killed(&self) {
        for _ in 0..2 {
            let mut run = self.start();
            run.wait_until_read(2000);
            run.kill();
        }
        let mut last = self.start();
        assert_eq!(last.wait().code(), Some(0), "{}", last.said());
        assert!(last.said().contains("done: everything is read and shown"), "{}", last.said());
    }

    /// Another command of the binary, about the job.
    pub fn command(&self, name: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
        command.arg(name).arg(&self.file).current_dir(self.folder());
        command.envs(self.variables.iter().map(|(n, v)| (n, v)));
        command
    }

    /// Starts a process that runs the job.
    pub fn start(&self) -> Running {
        self.start_with(&[], &[])
    }

    /// The same, with further variables and arguments for this process only.
    pub fn start_with(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Running {
        // Another build, such as a release, may be tried instead of the one beside the tests.
        let binary = std::env::var_os("MILLRACE_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_millrace").into());
        let mut words = self.starter.iter().map(OsString::from).chain([binary]);
        let mut command = Command::new(words.next().expect("at least the binary"));
        command.args(words);
        let state = self.remote.as_ref().map_or_else(|| self.state(), PathBuf::from);
        command.arg("run").arg(&self.file).arg("--state").arg(state).args(&self.arguments).args(arguments);
        command.envs(self.variables.iter().map(|(n, v)| (n, v))).envs(variables.iter().copied());
        command.current_dir(self.folder()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        Running::of(process::start(command))
    }
}

/// A process that runs a job. It is killed with this value.
pub struct Running {
    child: Child,
    said: Arc<Mutex<String>>,
    listener: Option<std::thread::JoinHandle<()>>,
}

impl Running {
    fn of(mut child: Child) -> Running {
        let said = Arc::new(Mutex::new(String::new()));
        let (stderr, heard) = (child.stderr.take().expect("stderr is piped"), said.clone());
        let listen = move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut heard = heard.lock().expect("nobody panics with it");
                heard.push_str(&line);
                heard.push('\n');
            }
        };
        Running { child, said, listener: Some(std::thread::spawn(listen)) }
    }

    /// All that the process has written to stderr.
    pub fn said(&self) -> String {
        self.said.lock().expect("nobody panics with it").clone()
    }

    /// Waits until stderr has this text.
    pub fn wait_until_it_says(&mut self, text: &str) {
        let begun = std::time::Instant::now();
        while !self.said().contains(text) {
            if let Ok(Some(status)) = self.child.try_wait() {
                self.listen_to_the_end();
                let said = self.said();
                assert!(said.contains(text), "ended with {status} and never said {text:?}, but:\n{said}");
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{PATIENCE:?} without {text:?}; it said:\n{}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// `/status`, once the process listens.
    pub fn status(&self) -> Option<Value> {
        serde_json::from_str(&self.get("/status")?).ok()
    }

    /// The sum of a metric over its labels, once it is on the page.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let page = self.get("/metrics")?;
        let of_name = |line: &str| {
            let (named, value) = line.rsplit_once(' ')?;
            let found = named.split('{').next()?.strip_prefix("millrace_")? == name;
            if found { value.parse::<f64>().ok() } else { None }
        };
        page.lines().filter_map(of_name).reduce(|a, b| a + b)
    }

    /// The body of an answer.
    pub fn get(&self, path: &str) -> Option<String> {
        let said = self.said();
        let (_, after) = said.split_once("status at http://")?;
        let mut connection = TcpStream::connect(after.split_once("/status")?.0).ok()?;
        connection.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        write!(connection, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).ok()?;
        answer.split_once("\r\n\r\n").map(|(_, body)| body.to_string())
    }

    /// Waits until `/status` satisfies the condition.
    pub fn wait_until(&mut self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        self.wait_while_it_runs(what, |run| run.status().filter(|status| holds(status)))
    }

    /// Asks until there is an answer. If there is none in time, or the process ends before, what it said is told.
    fn wait_while_it_runs<T>(&mut self, what: &str, ask: impl Fn(&Self) -> Option<T>) -> T {
        let begun = std::time::Instant::now();
        loop {
            if let Some(answer) = ask(self) {
                return answer;
            }
            if let Ok(Some(code)) = self.child.try_wait() {
                self.listen_to_the_end();
                panic!("ended with {code} before: {what}\n{}", self.said());
            }
            let late = begun.elapsed() >= PATIENCE;
            assert!(!late, "{PATIENCE:?} without: {what}\n{:#?}\n{}", self.status(), self.said());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until all splits are read to the end that the broker states.
    pub fn wait_until_idle(&mut self, splits: usize) {
        self.wait_until("everything is read", |status| {
            let known = status["splits"].as_object().map_or(vec![], |s| s.values().collect());
            known.len() == splits && known.iter().all(|s| s["lag"] == 0 && s["idle"] == true)
        });
    }

    /// Waits until the process has read so many records.
    pub fn wait_until_read(&mut self, records: u64) {
        self.wait_until(&format!("{records} records read"), |status| records_read(status) >= records);
    }

    /// Lets the process read all that there is, and stops it.
    pub fn read_all_and_stop(&mut self, splits: usize) {
        self.wait_until_idle(splits);
        self.stop();
    }

    /// Waits until all that is published is shown too.
    pub fn wait_until_shown(&mut self) {
        let all_shown = |run: &Self| (run.metric("sink_uncommitted_entries")? == 0.0).then_some(());
        self.wait_while_it_runs("all that is published is shown", all_shown);
    }

    /// SIGTERM, after which a job shows what it has read and ends well.
    pub fn stop(&mut self) {
        self.terminate();
        assert_eq!(self.wait().code(), Some(0), "{}", self.said());
    }

    pub fn terminate(&self) {
        process::signal(&self.child, Signal::Terminate);
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGSTOP: for everybody else it is as if the process were dead, until it wakes.
    pub fn freeze(&self) {
        process::signal(&self.child, Signal::Stop);
    }

    /// Waits until the process has frozen itself.
    pub fn wait_until_frozen(&mut self) {
        let stat = format!("/proc/{}/stat", self.child.id());
        let frozen = || {
            let text = fs::read_to_string(&stat).ok()?;
            text.rsplit_once(") ")?.1.starts_with('T').then_some(())
        };
        wait_for("the process to freeze", PATIENCE, frozen);
    }

    pub fn thaw(&self) {
        process::signal(&self.child, Signal::Continue);
    }

    /// Waits for the process' end; then all that it said is known.
    pub fn wait(&mut self) -> ExitStatus {
        let status = wait_for("the process' end", PATIENCE, || self.child.try_wait().ok().flatten());
        self.listen_to_the_end();
        status
    }

    /// The end, if it comes within this time.
    pub fn wait_at_most(&mut self, within: Duration) -> Option<ExitStatus> {
        let begun = std::time::Instant::now();
        while begun.elapsed() < within {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }

    fn listen_to_the_end(&mut self) {
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Records that the process has read, over all splits.
pub fn records_read(status: &Value) -> u64 {
    let splits = status["splits"].as_object();
    splits.map_or(0, |splits| splits.values().filter_map(|split| split["records"].as_u64()).sum())
}
