//! Object stores by their URL: where job logs, tables and files lie when it is not on this machine's disk. And what sinks
//! keep there until they may show it.
//!
//! One place, so that a URL that opens as a job log opens as a table, with the same credentials.

pub mod progress;
pub mod provenance;
pub mod staged_rows;
pub mod staging;

use std::str::FromStr;
use std::sync::Arc;

use object_store::azure::AzureConfigKey::{self, *};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreScheme};
use url::Url;

/// Each says by itself who asks. One that is given with the URL is not mixed with one of the environment: a pod's workload
/// identity would win over a table's own SAS token.
const CREDENTIALS: [AzureConfigKey; 9] =
    [AccessKey, SasKey, Token, ClientSecret, FederatedTokenFile, MsiEndpoint, ObjectId, MsiResourceId, UseAzureCli];

/// Opens the store of a URL (`az://`, `abfss://`, `https://` of an account, `file://`), and the path in it. No I/O.
///
/// What `options` do not say is taken from `AZURE_…` variables. The names of both are those of `object_store`
/// (`account_name`, `sas_token`, `client_id`, …), with or without `azure_storage_`.
pub fn open(url: &Url, options: &[(String, String)]) -> Result<(Arc<dyn ObjectStore>, Path), String> {
    let (store, path) =
        object_store::parse_url_opts(url, settings(std::env::vars(), options)?).map_err(|e| e.to_string())?;
    Ok((Arc::from(store), path))
}

/// A store to which an object is brought part by part, where one part may be tried again while others stay.
pub type Parts = Arc<dyn MultipartStore>;

/// Opens what `open` opens in the same way, for objects in parts. `None` if the store has none that may be tried again.
pub fn open_parts(url: &Url, options: &[(String, String)]) -> Result<Option<(Parts, Path)>, String> {
    let (scheme, path) = ObjectStoreScheme::parse(url).map_err(|e| e.to_string())?;
    if scheme != ObjectStoreScheme::MicrosoftAzure {
        return Ok(None);
    }
    let settings = settings(std::env::vars(), options)?;
    let named = settings.into_iter().filter_map(|(name, value)| Some((key(&name)?, value)));
    let builder = named.fold(MicrosoftAzureBuilder::new().with_url(url.as_str()), |builder, (key, value)| {
        builder.with_config(key, value)
    });
    Ok(Some((Arc::new(builder.build().map_err(|e| e.to_string())?), path)))
}

/// Variables come first and lose to options.
fn settings(
    variables: impl Iterator<Item = (String, String)>,
    options: &[(String, String)],
) -> Result<Vec<(String, String)>, String> {
    let given = options.iter().map(|(name, _)| key(name).ok_or_else(|| format!("'{name}' is no option of a store")));
    let given = given.collect::<Result<Vec<_>, _>>()?;
    let decided = given.iter().any(|key| CREDENTIALS.contains(key));
    let superseded = |key| given.contains(&key) || (decided && CREDENTIALS.contains(&key));
    let variables =
        variables.filter(|(name, _)| name.starts_with("AZURE_") && key(name).is_some_and(|key| !superseded(key)));
    Ok(variables.map(|(name, value)| (name.to_ascii_lowercase(), value)).chain(options.iter().cloned()).collect())
}

fn key(name: &str) -> Option<AzureConfigKey> {
    AzureConfigKey::from_str(&name.to_ascii_lowercase()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        let pairs = text.split_whitespace().map(|pair| pair.split_once('=').unwrap());
        pairs.map(|(name, value)| (name.into(), value.into())).collect()
    }

    fn of(variables: &str, options: &str) -> Result<Vec<(String, String)>, String> {
        settings(pairs(variables).into_iter(), &pairs(options))
    }

    /// As a pod of AKS has it.
    const POD: &str = "AZURE_CLIENT_ID=pod AZURE_TENANT_ID=t AZURE_FEDERATED_TOKEN_FILE=/token PATH=/bin";

    #[test]
    fn without_options_the_environment_says_who_asks() {
        let pod = "azure_client_id=pod azure_tenant_id=t azure_federated_token_file=/token";
        assert_eq!(of(POD, ""), Ok(pairs(pod)));
    }

    #[test]
    fn an_option_wins_over_the_variable_of_the_same_name_however_that_is_spelled() {
        let variables = "AZURE_STORAGE_ACCOUNT_NAME=a AZURE_STORAGE_ENDPOINT=http://here";
        let settings = "azure_storage_endpoint=http://here account_name=b";
        assert_eq!(of(variables, "account_name=b"), Ok(pairs(settings)));
    }

    #[test]
    fn a_credential_of_the_options_is_not_mixed_with_those_of_the_environment() {
        let settings = "azure_client_id=pod azure_tenant_id=t sas_token=?sv=1";
        assert_eq!(of(POD, "sas_token=?sv=1"), Ok(pairs(settings)));
        let own_identity = "azure_tenant_id=t azure_federated_token_file=/token client_id=job";
        assert_eq!(of(POD, "client_id=job"), Ok(pairs(own_identity)), "another identity, by the pod's token");
    }

    #[test]
    fn an_option_that_no_store_has_is_refused() {
        assert_eq!(of("", "acount_name=a"), Err("'acount_name' is no option of a store".into()));
        assert!(of("AZURE_DEFAULTS_GROUP=g", "").unwrap().is_empty(), "other programs have variables too");
    }

    #[test]
    fn a_url_leads_to_its_store_and_the_path_in_it() {
        let opened = |url: &str| open(&Url::parse(url).unwrap(), &pairs("account_name=a account_key=a2V5"));
        let (store, path) = opened("abfss://tables@a.dfs.core.windows.net/streaming/serving").unwrap();
        assert!(store.to_string().contains("tables"), "{store}");
        assert_eq!(path.as_ref(), "streaming/serving");
        assert!(opened("gopher://a/b").is_err());
    }

    #[test]
    fn a_store_of_parts_is_opened_as_the_store_of_whole_objects() {
        let opened = |url: &str| open_parts(&Url::parse(url).unwrap(), &pairs("account_name=a account_key=a2V5"));
        let (_, path) = opened("abfss://tables@a.dfs.core.windows.net/streaming/serving").unwrap().unwrap();
        assert_eq!(path.as_ref(), "streaming/serving");
        assert!(opened("file:///tmp/serving").unwrap().is_none());
        assert!(open_parts(&Url::parse("az://tables/a").unwrap(), &pairs("acount_name=a")).is_err());
    }
}
