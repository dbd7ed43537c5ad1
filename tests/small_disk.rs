//! A disk of a few megabytes that fills up: a tmpfs that an ordinary user mounts in a namespace of its own.
//!
//! Only the kernel can say no to a write in the middle of it, so this needs one that lets users make namespaces, or root.
//! Where it does not (some containers), the tests that need it fail and say what to allow, rather than pass unseen.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::process;

pub struct SmallDisk {
    /// Where it is mounted, for whoever is in the namespace.
    folder: TempDir,
    /// Keeps the namespace alive.
    holder: Child,
}

impl SmallDisk {
    pub fn of_megabytes(size: u32) -> SmallDisk {
        let folder = tempfile::Builder::new().prefix("millrace-disk-").tempdir().expect("a temporary folder");
        let mut mount = Command::new("unshare");
        mount.args(["--user", "--map-root-user", "--mount", "sh", "-c"]);
        // It lives as long as its input is open: the kernel's promise to end it with the tests is void in a namespace.
        mount.arg(format!("mount -t tmpfs -o size={size}m none \"$1\" && echo mounted && exec cat >/dev/null"));
        mount.arg("sh").arg(folder.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = process::start(mount);
        let mut said = String::new();
        BufReader::new(holder.stdout.take().expect("a pipe")).read_line(&mut said).expect("a line");
        assert_eq!(
            said, "mounted\n",
            "no small disk can be mounted; allow user namespaces (sysctl kernel.unprivileged_userns_clone=1 or \
             kernel.apparmor_restrict_unprivileged_userns=0; in a container also the system calls unshare and mount)"
        );
        SmallDisk { folder, holder }
    }

    /// A path there, as processes that run there see it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What starts a program there: put before the program's own words. It ends with the tests.
    pub fn enter(&self) -> Vec<String> {
        let holder = self.holder.id().to_string();
        let nsenter = ["nsenter", "--target", &holder, "--user", "--mount", "--preserve-credentials"];
        nsenter.into_iter().chain(["setpriv", "--pdeathsig", "KILL"]).map(String::from).collect()
    }

    /// Takes all that is left, to the last byte.
    pub fn fill(&self) {
        let filling = OpenOptions::new().create(true).append(true).open(self.seen_from_outside("filling"));
        let mut file = filling.expect("a file can be made there");
        for piece in [vec![0u8; 64 * 1024], vec![0u8]] {
            let full = loop {
                if let Err(error) = file.write_all(&piece) {
                    break error;
                }
            };
            assert_eq!(full.kind(), ErrorKind::StorageFull, "{full}");
        }
    }

    /// Gives back this much of what [`SmallDisk::fill`] took.
    pub fn make_room(&self, bytes: u64) {
        let filling =
            OpenOptions::new().write(true).open(self.seen_from_outside("filling")).expect("the filling is there");
        let size = filling.metadata().expect("a size").len();
        filling.set_len(size.saturating_sub(bytes)).expect("a file can be cut");
    }

    /// Copies a folder out of the namespace.
    pub fn copy_out(&self, name: &str, to: &Path) {
        let copied = Command::new("cp").arg("-r").arg(self.seen_from_outside(name)).arg(to).status();
        assert!(copied.expect("cp starts").success(), "{name} cannot be copied");
    }

    /// A path there, as everybody else sees it.
    fn seen_from_outside(&self, name: &str) -> PathBuf {
        let inside = self.path(name);
        let inside = inside.strip_prefix("/").expect("an absolute path");
        Path::new("/proc").join(self.holder.id().to_string()).join("root").join(inside)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
