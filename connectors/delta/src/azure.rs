//! Tables in Azure storage: how `deltalake` opens the store of an `az://` or `abfss://` URL.
//!
//! Its own crate for that reads the environment by rules of its own, where the job log and files in the same account are
//! opened by others; and it brings a second TLS library, whose C code takes two minutes to build.

use std::sync::{Arc, Once};

use deltalake::logstore::{
    LogStore, LogStoreFactory, ObjectStoreFactory, ObjectStoreRef, StorageConfig, default_logstore, logstore_factories,
    object_store_factories,
};
use deltalake::{DeltaResult, DeltaTableError};
use object_store::path::Path;
use url::Url;

const SCHEMES: [&str; 5] = ["az", "adl", "azure", "abfs", "abfss"];

#[derive(Debug)]
struct Azure;

/// Makes the URLs of Azure storage known. May be called again.
pub fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let azure = Arc::new(Azure);
        for scheme in SCHEMES {
            let scheme = Url::parse(&format!("{scheme}://")).expect("a scheme is a URL");
            object_store_factories().insert(scheme.clone(), azure.clone());
            logstore_factories().insert(scheme, azure.clone());
        }
    });
}

impl ObjectStoreFactory for Azure {
    fn parse_url_opts(&self, url: &Url, config: &StorageConfig) -> DeltaResult<(ObjectStoreRef, Path)> {
        let options: Vec<_> = config.raw.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        storage::open(url, &options).map_err(DeltaTableError::generic)
    }
}

impl LogStoreFactory for Azure {
    fn with_options(
        &self,
        prefixed_store: ObjectStoreRef,
        root_store: ObjectStoreRef,
        location: &Url,
        options: &StorageConfig,
    ) -> DeltaResult<Arc<dyn LogStore>> {
        Ok(default_logstore(prefixed_store, root_store, location, options))
    }
}
