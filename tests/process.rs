//! Child processes that never outlive the tests, however these end.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::LazyLock;
use std::sync::mpsc::{Sender, channel};

type Request = (Command, Sender<io::Result<Child>>);

/// The kernel's promise is bound to the thread that starts a child, not to the process: so one thread, which never ends,
/// starts them all. A test's own thread ends with its test.
static STARTER: LazyLock<Sender<Request>> = LazyLock::new(|| {
    let (requests, received) = channel::<Request>();
    std::thread::spawn(move || {
        for (mut command, answer) in received {
            let _ = answer.send(command.spawn());
        }
    });
    requests
});

/// Starts a process that the kernel kills when the test process ends.
pub fn start(mut command: Command) -> Child {
    // SAFETY: between fork and exec only one system call is made, and it touches no memory.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
    let program = command.get_program().to_owned();
    let (answer, started) = channel();
    STARTER.send((command, answer)).expect("the starting thread never ends");
    let child = started.recv().expect("the starting thread answers");
    child.unwrap_or_else(|error| panic!("{} does not start: {error}", program.display()))
}

/// What a process is told.
#[derive(Debug, Clone, Copy)]
pub enum Signal {
    Terminate,
    Stop,
    Continue,
}

pub fn signal(child: &Child, signal: Signal) {
    let number = match signal {
        Signal::Terminate => libc::SIGTERM,
        Signal::Stop => libc::SIGSTOP,
        Signal::Continue => libc::SIGCONT,
    };
    // SAFETY: no memory is touched. A child that has ended and was not waited for still has its id: nobody else is hit.
    unsafe {
        libc::kill(child.id() as libc::pid_t, number);
    }
}
