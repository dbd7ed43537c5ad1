//! Apache Kafka from Maven Central, once for all tests of this clone.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use super::Broker;

const VERSION: &str = "4.4.0";

/// What a broker runs from.
pub struct Installation {
    /// The class path's folder.
    pub jars: PathBuf,
    /// Loaded classes, so that a broker starts in half the time; missing if this JVM could not make it.
    pub archive: Option<PathBuf>,
}

/// Resolved at first use. A lock file makes other test processes wait for the first.
pub static INSTALLATION: LazyLock<Installation> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-tools/kafka").join(VERSION);
    fs::create_dir_all(&folder).expect("the folder of the test tools can be made");
    let lock = File::create(folder.join("lock")).expect("a lock file can be made");
    lock.lock().expect("the lock file can be locked");
    let jars = folder.join("lib");
    once(&folder.join("jars.done"), || resolve(&folder, &jars));
    let archive = folder.join("classes.jsa");
    once(&folder.join("archive.done"), || Broker::write_archive(&jars, &archive));
    Installation { archive: archive.exists().then_some(archive), jars }
});

/// `done` is written last, so that work that was interrupted is done again.
fn once(done: &Path, work: impl FnOnce()) {
    if !done.exists() {
        work();
        fs::write(done, "").expect("the test tools' folder can be written");
    }
}

/// Kafka and one binding for its logs: without it even the reason why a broker does not start is lost.
fn resolve(folder: &Path, jars: &Path) {
    let project = format!(
        r#"<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>millrace</groupId><artifactId>kafka-for-tests</artifactId><version>1</version>
<dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{VERSION}</version></dependency>
<dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
</dependencies></project>
"#
    );
    fs::write(folder.join("pom.xml"), project).expect("the test tools' folder can be written");
    let mut maven = Command::new("mvn");
    maven
        .args(["-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime"])
        .arg(format!("-DoutputDirectory={}", jars.display()))
        .current_dir(folder);
    let output = maven.output().unwrap_or_else(|e| panic!("mvn does not start ({e}); ./test installs what tests need"));
    assert!(
        output.status.success(),
        "Kafka {VERSION} could not be had from Maven Central:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
