//! Weight files of the Hugging Face Hub, through its ordinary cache.
//!
//! `HF_ENDPOINT` (a mirror), `HF_HOME` (the cache's folder), `HF_TOKEN` (for private and gated repositories) and
//! `HF_HUB_OFFLINE` (use the cache only) have their usual meaning.

use hf_hub::{Cache, Repo, RepoType, api::sync::ApiBuilder};
use std::path::PathBuf;

/// The file that timm's repositories keep their weights in.
pub const FILE: &str = "model.safetensors";

/// Why a file could not be fetched from the Hub.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// `HF_HUB_OFFLINE` is set, and the file is not in the cache.
    #[error(
        "find `{FILE}` of `{repo}` in the Hub's cache at `{}` (HF_HUB_OFFLINE is set)\nhint: unset HF_HUB_OFFLINE to download it, or {by_hand}",
        cache.display()
    )]
    Offline {
        /// The repository.
        repo: String,
        /// The cache's folder.
        cache: PathBuf,
        /// How to fetch the file without this program.
        by_hand: String,
    },
    /// The download failed.
    #[error("download `{FILE}` of `{repo}` from {endpoint}\nhint: {by_hand}")]
    Download {
        /// The repository.
        repo: String,
        /// The Hub's address.
        endpoint: String,
        /// How to fetch the file without this program.
        by_hand: String,
        /// What went wrong.
        source: Box<hf_hub::api::sync::ApiError>,
    },
}

/// The settings of the Hub in the environment.
#[derive(Clone, Debug)]
struct Environment {
    endpoint: String,
    cache: PathBuf,
    offline: bool,
    token: Option<String>,
}

impl Environment {
    fn read() -> Self {
        let set = |name| std::env::var(name).ok().filter(|v| !v.is_empty());
        Self {
            endpoint: set("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned()),
            cache: Cache::from_env().path().clone(),
            // The values that huggingface_hub takes as true.
            offline: set("HF_HUB_OFFLINE")
                .is_some_and(|v| ["1", "on", "yes", "true"].contains(&v.to_lowercase().as_str())),
            token: set("HF_TOKEN"),
        }
    }
}

/// The path of `repo`'s weight file, downloaded unless it is in the cache.
///
/// # Errors
/// Without network, or if there is no such repository, revision or file; with a hint how to fetch it by hand.
pub fn fetch(repo: &str, revision: Option<&str>) -> Result<PathBuf, HubError> {
    fetch_with(&Environment::read(), repo, revision)
}

fn fetch_with(environment: &Environment, repo: &str, revision: Option<&str>) -> Result<PathBuf, HubError> {
    let revision = revision.unwrap_or("main");
    let place = Repo::with_revision(repo.to_owned(), RepoType::Model, revision.to_owned());
    let cache = Cache::new(environment.cache.clone());
    if let Some(path) = cache.repo(place.clone()).get(FILE) {
        return Ok(path);
    }
    let endpoint = environment.endpoint.trim_end_matches('/').to_owned();
    let by_hand = format!(
        "fetch {endpoint}/{repo}/resolve/{revision}/{FILE} on another machine and name the file as the study's weights"
    );
    if environment.offline {
        return Err(HubError::Offline { repo: repo.to_owned(), cache: environment.cache.clone(), by_hand });
    }
    let token = environment.token.clone().or_else(|| cache.token());
    ApiBuilder::from_cache(cache)
        .with_endpoint(endpoint.clone())
        .with_token(token)
        .with_progress(false)
        .with_retries(2)
        .build()
        .and_then(|api| api.repo(place).get(FILE))
        .map_err(|e| HubError::Download { repo: repo.to_owned(), endpoint, by_hand, source: Box::new(e) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(cache: &std::path::Path, endpoint: &str, offline: bool) -> Environment {
        Environment { endpoint: endpoint.into(), cache: cache.to_owned(), offline, token: None }
    }

    #[test]
    fn a_cached_file_is_found_without_network() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("models--timm--inception_v3.tv_in1k");
        std::fs::create_dir_all(root.join("refs")).unwrap();
        std::fs::create_dir_all(root.join("snapshots/abc")).unwrap();
        std::fs::write(root.join("refs/main"), "abc").unwrap();
        std::fs::write(root.join("snapshots/abc").join(FILE), "x").unwrap();
        let path =
            fetch_with(&environment(folder.path(), "http://127.0.0.1:9", true), "timm/inception_v3.tv_in1k", None);
        assert_eq!(path.unwrap(), root.join("snapshots/abc").join(FILE));
    }

    #[test]
    fn without_network_the_error_says_how_to_fetch_by_hand() {
        let folder = tempfile::tempdir().unwrap();
        for offline in [true, false] {
            // Port 9 of this machine: nobody listens, so the connection is refused at once.
            let environment = environment(folder.path(), "http://127.0.0.1:9/", offline);
            let error = fetch_with(&environment, "timm/inception_v3.tv_in1k", Some("v1")).unwrap_err();
            assert_eq!(matches!(error, HubError::Offline { .. }), offline);
            let text = error.to_string();
            let address = "http://127.0.0.1:9/timm/inception_v3.tv_in1k/resolve/v1/model.safetensors";
            assert!(text.contains(address) && text.contains("hint: "), "{text}");
        }
    }
}
