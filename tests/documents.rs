//! What the documents promise is so.

use std::process::Command;

fn read(path: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn the_job_in_the_readme_is_a_job() {
    let readme = read("README.md");
    let job = readme.split("```sql\n").nth(1).and_then(|rest| rest.split("```").next()).expect("the README has a job");
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("eventhub");
    std::fs::write(&secret, "Endpoint=sb://ns.servicebus.windows.net/;SharedAccessKeyName=r;SharedAccessKey=aGk=\n")
        .unwrap();
    let job = job.replace("/run/secrets/eventhub", &secret.display().to_string());
    std::fs::write(folder.path().join("job.sql"), job).unwrap();
    let check = Command::new(env!("CARGO_BIN_EXE_millrace")).args(["check", "job.sql"]).current_dir(&folder).output();
    let check = check.expect("the binary starts");
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
}

#[test]
fn every_link_between_the_documents_leads_somewhere() {
    let pages = [
        "README.md",
        "jobs/README.md",
        "docs/architecture.md",
        "docs/connectors.md",
        "docs/errors.md",
        "docs/operations.md",
    ];
    for page in pages {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
        let folder = folder.parent().expect("a page lies in a folder");
        let text = read(page);
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        for target in targets.filter(|t| !t.is_empty() && !t.contains("://")) {
            assert!(folder.join(target).exists(), "{page} links to {target}, which is not there");
        }
    }
}
