//! What the documents promise is so: links lead somewhere, jobs are jobs, and the option tables are made from the
//! connectors' own lists. `UPDATE_EXPECT=1 cargo test documentation` writes the tables anew.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use engine::connector::{OptionKind, OptionSpec};
use parking_lot::Mutex;
use sql::{Environment, SourceFile, compile};

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn registry() -> Vec<Arc<dyn engine::connector::Connector>> {
    connectors::registry(Arc::new(Mutex::new(std::io::sink())))
}

fn kind(spec: &OptionSpec) -> String {
    match &spec.kind {
        OptionKind::Text => "text".into(),
        OptionKind::Secret => "text *(secret)*".into(),
        OptionKind::Integer => "whole number".into(),
        OptionKind::Boolean => "`true` or `false`".into(),
        OptionKind::Duration => "duration".into(),
        OptionKind::Bytes => "size".into(),
        OptionKind::OneOf(words) => {
            let spellings = |w: &&[&str]| w.iter().map(|s| format!("`{s}`")).collect::<Vec<_>>().join(" = ");
            words.iter().map(spellings).collect::<Vec<_>>().join(", ")
        }
    }
}

fn table(specs: &[OptionSpec]) -> String {
    if specs.is_empty() {
        return "No options of its own.\n".into();
    }
    let mut out = "| option | also written | value | |\n|---|---|---|---|\n".to_string();
    for spec in specs {
        let name = if spec.required { format!("**`{}`**", spec.name) } else { format!("`{}`", spec.name) };
        let aliases: Vec<_> = spec.aliases.iter().map(|a| format!("`{a}`")).collect();
        let purpose = spec.purpose.words().map(|words| format!("*{words}.* ")).unwrap_or_default();
        let help = format!("{purpose}{}", spec.help).replace('|', "\\|").replace('<', "&lt;");
        out.push_str(&format!("| {name} | {} | {} | {help} |\n", aliases.join(", "), kind(spec)));
    }
    out
}

#[test]
fn the_option_tables_are_the_connectors_own() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/sql.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let connectors = registry();
    let mut lists: Vec<(&str, Vec<OptionSpec>)> = connectors.iter().map(|c| (c.name(), c.options())).collect();
    lists.push(("table", sql::table_options()));
    let mut made = text.clone();
    for (name, specs) in &lists {
        let begin = format!("<!-- options: {name} -->\n");
        let from = made.find(&begin).unwrap_or_else(|| panic!("docs/sql.md has no options of {name}")) + begin.len();
        let to = from + made[from..].find("<!-- end -->").expect("an option table has an end");
        made.replace_range(from..to, &table(specs));
    }
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, &made).unwrap();
    } else {
        assert!(made == text, "docs/sql.md is behind; UPDATE_EXPECT=1 cargo test documentation");
    }
}

/// A way to write, as a table says it, and what its columns need.
const WAYS: &[(&str, &str)] = &[
    ("connector = 'delta', path = './t'", ""),
    ("connector = 'kafka', sink.delivery = 'transactions'", ""),
    ("connector = 'eventhubs', sink.delivery = 'read-back'", ""),
    ("connector = 'kafka', sink.delivery = 'at-least-once'", ""),
    ("connector = 'sqlserver', write = 'append'", ""),
    ("connector = 'sqlserver', write = 'insert'", ", PRIMARY KEY (id)"),
    ("connector = 'sqlserver', write = 'upsert'", ", PRIMARY KEY (id)"),
    ("connector = 'sqlserver', write = 'upsert', version_field = 'n'", ", PRIMARY KEY (id)"),
    ("connector = 'sqlserver', write = 'delete'", ", PRIMARY KEY (id)"),
    ("connector = 'sqlserver', write = 'procedure'", ""),
    ("connector = 'cosmosdb', write = 'append'", ""),
    ("connector = 'cosmosdb', write = 'insert'", ""),
    ("connector = 'cosmosdb', write = 'upsert'", ""),
    ("connector = 'cosmosdb', write = 'replace-if-newer', version_field = 'n'", ""),
    ("connector = 'cosmosdb', write = 'delete'", ""),
    ("connector = 'filesystem', path = './t', format = 'parquet'", ""),
    ("connector = 'single_file', path = './t'", ""),
    ("connector = 'stdout'", ""),
    ("connector = 'blackhole'", ""),
];

/// What a way needs to be complete, and says nothing of what it promises.
fn completed(way: &str) -> String {
    let further = match way {
        way if way.contains("'kafka'") => ", bootstrap_servers = 'b:1', topic = 't', format = 'json'",
        way if way.contains("'eventhubs'") => ", connection_string = '${EVENTHUB}', format = 'json'",
        way if way.contains("'procedure'") => {
            ", server = 's', database = 'd', user = 'u', password = 'p', procedure = 'dbo.p'"
        }
        way if way.contains("'sqlserver'") => {
            ", server = 's', database = 'd', user = 'u', password = 'p', \"table\" = 'dbo.t'"
        }
        way if way.contains("'cosmosdb'") => ", account = 'a', database = 'd', container = 'c'",
        _ => "",
    };
    format!("{way}{further}")
}

#[test]
fn the_table_of_promises_is_the_connectors_own() {
    let source = "CREATE TABLE events (id TEXT NOT NULL, n BIGINT NOT NULL)
                  WITH (connector = 'kafka', bootstrap_servers = 'b:1', topic = 'events', format = 'json');\n";
    let table = |(number, (way, key)): (usize, &(&str, &str))| {
        // Documents that are appended get ids of their own.
        let id = if *way == "connector = 'cosmosdb', write = 'append'" { "code" } else { "id" };
        format!(
            "CREATE TABLE t{number} ({id} TEXT NOT NULL, n BIGINT NOT NULL{key}) WITH ({});
             INSERT INTO t{number} SELECT id, n FROM events;\n",
            completed(way)
        )
    };
    let text = source.to_string() + &WAYS.iter().enumerate().map(table).collect::<String>();
    let connectors = registry();
    let environment = Environment {
        connectors: &connectors,
        variables: &|name| (name == "EVENTHUB").then(|| EVENT_HUB.into()),
        default_dead_letter: Arc::new(connectors::Blackhole),
        instead_of_sinks: None,
    };
    let job = compile(&[SourceFile { name: "promises.sql".into(), text }], &environment)
        .unwrap_or_else(|problems| panic!("{}", problems[0]));
    let mut made = "| a table says | and this is promised |\n|---|---|\n".to_string();
    for (number, (way, _)) in WAYS.iter().enumerate() {
        let sink = job.plan.sinks.iter().find(|sink| sink.table == format!("t{number}")).expect("each is written");
        made.push_str(&format!("| `{way}` | {} |\n", sink.sink.guarantee()));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/connectors.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let begin = "<!-- promises -->\n";
    let from = text.find(begin).expect("docs/connectors.md has the promises") + begin.len();
    let to = from + text[from..].find("<!-- end -->").expect("they have an end");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, format!("{}{made}{}", &text[..from], &text[to..])).unwrap();
    } else {
        assert!(text[from..to] == made, "docs/connectors.md is behind; UPDATE_EXPECT=1 cargo test documentation");
    }
}

/// What the portal shows of an event hub.
const EVENT_HUB: &str =
    "Endpoint=sb://ns.servicebus.windows.net/;SharedAccessKeyName=r;SharedAccessKey=aGk=;EntityPath=hub";

#[test]
fn the_job_files_of_the_documentation_compile() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = read("docs/sql.md");
    let blocks = text.split("```sql\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default());
    let mut jobs: Vec<(String, String)> =
        blocks.filter(|b| b.contains("INSERT INTO")).map(|b| ("docs/sql.md".to_string(), b.to_string())).collect();
    assert!(jobs.len() >= 3, "{} jobs were found", jobs.len());
    for entry in std::fs::read_dir(folder.join("jobs")).unwrap() {
        let file = entry.unwrap().path().join("job.sql");
        if let Ok(text) = std::fs::read_to_string(&file) {
            jobs.push((file.display().to_string(), text));
        }
    }
    let connectors = registry();
    for (name, text) in jobs {
        let environment = Environment {
            connectors: &connectors,
            variables: &|name| match name {
                "COSMOSDB_ACCOUNT" => Some("account".into()),
                "AZURESQL_SERVER" => Some("server".into()),
                name => name.ends_with("EVENTHUB").then(|| EVENT_HUB.into()),
            },
            default_dead_letter: Arc::new(connectors::Blackhole),
            instead_of_sinks: None,
        };
        match compile(&[SourceFile { name, text }], &environment) {
            Ok(job) => assert!(job.warnings.is_empty(), "{}", job.warnings[0]),
            Err(problems) => panic!("{}", problems[0]),
        }
    }
}

#[test]
fn the_job_in_the_readme_is_a_job() {
    let readme = read("README.md");
    let job = readme.split("```sql\n").nth(1).and_then(|rest| rest.split("```").next()).expect("the README has a job");
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("eventhub");
    std::fs::write(&secret, EVENT_HUB).unwrap();
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
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
        let folder = folder.parent().expect("a page lies in a folder");
        let text = read(page);
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        for target in targets.filter(|t| !t.is_empty() && !t.contains("://")) {
            assert!(folder.join(target).exists(), "{page} links to {target}, which is not there");
        }
    }
}
