//! The first thing that a newcomer sees.

use std::process::Command;

#[test]
fn the_demo_shows_every_event_once() {
    let folder = tempfile::tempdir().unwrap();
    let demo = Command::new(env!("CARGO_BIN_EXE_millrace"))
        .args(["demo", "--duration", "3s", "--rate", "500", "--duplicate-every", "10"])
        .current_dir(&folder)
        .output()
        .expect("the binary starts");
    let (report, said) = (String::from_utf8_lossy(&demo.stdout), String::from_utf8_lossy(&demo.stderr));
    assert!(demo.status.success(), "{report}{said}");
    assert!(report.contains("missing") && !report.contains("WRONG"), "{report}");
}
