//! Certificates for brokers that ask for them, made by openssl.

use std::path::Path;
use std::process::Command;

use tds_double::Tls;
use tempfile::TempDir;

/// A certificate authority, the certificates that it gave a broker and a client, and another authority.
pub struct Certificates(TempDir);

impl Certificates {
    pub fn new() -> Certificates {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let script = r#"set -e
            authority() { openssl req -x509 -newkey rsa:2048 -nodes -days 30 -keyout $1.key -out $1.crt -subj /CN=$1 \
              -addext basicConstraints=critical,CA:TRUE; }
            leaf() { openssl req -newkey rsa:2048 -nodes -keyout $1.key -out $1.csr -subj /CN=$2
              printf "$3" > $1.ext
              openssl x509 -req -in $1.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -out $1.crt -extfile $1.ext; }
            authority ca; authority other
            leaf broker localhost 'subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth'
            leaf elsewhere db.example 'subjectAltName=DNS:db.example\nextendedKeyUsage=serverAuth'
            leaf client alice 'extendedKeyUsage=clientAuth'
            cat broker.key broker.crt ca.crt > broker.pem"#;
        let output = Command::new("sh").args(["-c", script]).current_dir(folder.path()).output();
        let output = output.expect("a shell starts");
        assert!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
        Certificates(folder)
    }

    /// The path of a file here: `ca.crt`, `other.crt`, `elsewhere.crt`, `client.crt`, `client.key`, `broker.pem`.
    pub fn file(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    pub fn content(&self, name: &str) -> Vec<u8> {
        std::fs::read(Path::new(&self.file(name))).expect("a file that openssl wrote")
    }

    /// For a server that has the certificate `broker` or `elsewhere`.
    pub fn of_server(&self, name: &str) -> Tls {
        let text = |file: String| String::from_utf8(self.content(&file)).expect("text");
        Tls { certificate_pem: text(format!("{name}.crt")), key_pem: text(format!("{name}.key")) }
    }
}
