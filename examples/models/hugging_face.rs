//! Files straight from Hugging Face, or from the mirror that `HF_ENDPOINT` names.

use std::{env, sync::Arc, thread, time::Duration};

use anyhow::{Context as _, anyhow, bail, ensure};
use converge_core::generate::Cancel;
use ureq::{
    Agent, Body, Proxy,
    http::{Response, StatusCode, header},
    tls::TlsConfig,
};

use super::join::{Joined, Stopped};
use crate::cli::Interrupted;

/// Where files are asked for unless `HF_ENDPOINT` says otherwise.
const ENDPOINT: &str = "https://huggingface.co";

/// How long a connection may take: where there is none, another source is tried soon.
const CONNECT: Duration = Duration::from_secs(5);

/// How long an answer, and the next bytes of it, may take.
const ANSWER: Duration = Duration::from_secs(20);

/// Attempts in a row that bring no byte before it is given up.
const ATTEMPTS: u32 = 3;

/// The pause before the next attempt, times those that brought nothing.
const PAUSE: Duration = Duration::from_secs(1);

/// A commit of a repository. Its files are at `{endpoint}/{repo}/resolve/{revision}/{path}`.
#[derive(Clone, Debug)]
pub struct Remote {
    /// `owner/name`.
    pub repo: String,
    /// The commit.
    pub revision: String,
}

/// A client for files of repositories. It sends no token and keeps nothing.
pub struct HuggingFace {
    agent: Agent,
    endpoint: String,
    cancel: Cancel,
}

impl HuggingFace {
    /// The client for `HF_ENDPOINT`, else for huggingface.co, through the proxy that the usual
    /// variables name. `None` where `HF_HUB_OFFLINE` asks for no connection, or where this CPU lacks
    /// the instructions that the TLS implementation needs.
    pub fn from_env(cancel: Cancel) -> Option<Self> {
        let set = |name| {
            env::var(name)
                .ok()
                .filter(|value: &String| !value.is_empty())
        };
        if set("HF_HUB_OFFLINE").is_some_and(|value| value != "0") {
            return None;
        }
        let endpoint = set("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        let tls = tls();
        if tls.is_none() && !endpoint.starts_with("http://") {
            return None;
        }
        Some(Self::new(&endpoint, Proxy::try_from_env(), tls, cancel))
    }

    /// A client for an endpoint reached without a proxy and without TLS.
    #[cfg(test)]
    pub(super) fn plain(endpoint: &str, cancel: Cancel) -> Self {
        Self::new(endpoint, None, None, cancel)
    }

    fn new(endpoint: &str, proxy: Option<Proxy>, tls: Option<TlsConfig>, cancel: Cancel) -> Self {
        let mut config = Agent::config_builder()
            .proxy(proxy)
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(ANSWER))
            .timeout_per_read(Some(ANSWER));
        if let Some(tls) = tls {
            config = config.tls_config(tls);
        }
        Self {
            agent: config.build().into(),
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            cancel,
        }
    }

    /// Appends what `joined` still lacks of a file, going on after a lost connection. `progress`
    /// gets the bytes of the file so far.
    ///
    /// # Errors
    /// What kept the rest from arriving; what has arrived stays. [`Interrupted`] after Ctrl-C.
    pub(super) fn get(
        &self,
        remote: &Remote,
        path: &str,
        joined: &mut Joined,
        progress: &mut dyn FnMut(u64),
    ) -> anyhow::Result<()> {
        let Remote { repo, revision } = remote;
        let url = format!("{}/{repo}/resolve/{revision}/{path}", self.endpoint);
        let (mut failed, mut connected) = (0, false);
        while joined.written() < joined.size() {
            let before = joined.written();
            let lost = self.connection(&url, joined, progress)?;
            let written = joined.written();
            if written == joined.size() {
                break;
            }
            connected |= written > before;
            failed = if written > before { 0 } else { failed + 1 };
            // Where not even the first connection brings anything, there is none to lose.
            if failed == ATTEMPTS || !connected {
                return Err(lost.unwrap_or_else(|| anyhow!("{url} ended after {written} bytes")));
            }
            thread::sleep(PAUSE * failed);
        }
        Ok(())
    }

    /// One request for the rest of a file; returns why it broke off, where it did.
    fn connection(
        &self,
        url: &str,
        joined: &mut Joined,
        progress: &mut dyn FnMut(u64),
    ) -> anyhow::Result<Option<anyhow::Error>> {
        self.going()?;
        let from = joined.written();
        let range = format!("bytes={from}-");
        // Compressed on the way, the offsets would be of something else.
        let request = self
            .agent
            .get(url)
            .header(header::ACCEPT_ENCODING, "identity");
        let response = match from {
            0 => request.call(),
            _ => request.header(header::RANGE, range).call(),
        };
        let mut response = match response {
            Ok(response) => response,
            Err(error) => {
                let error = anyhow::Error::new(error).context(format!("cannot reach {url}"));
                return Ok(Some(error));
            }
        };
        let skip = match response.status() {
            StatusCode::OK => from,
            StatusCode::PARTIAL_CONTENT => {
                let start = start_of(&response).with_context(|| {
                    format!("{url} sent a part without saying which (Content-Range)")
                })?;
                ensure!(start <= from, "{url} sent another part than was asked for");
                from - start
            }
            status if status.is_server_error() => {
                return Ok(Some(anyhow!("{url} answered {status}")));
            }
            status => bail!("{url} answered {status}"),
        };
        let mut reader = response.body_mut().as_reader();
        let outcome = joined.append_from(&mut reader, skip, &mut |done| {
            progress(done);
            !self.cancel.is_cancelled()
        });
        match outcome {
            Ok(()) => Ok(None),
            Err(Stopped::Reading(error)) => {
                self.going()?;
                let error = anyhow::Error::new(error).context(format!("{url} broke off"));
                Ok(Some(error))
            }
            Err(Stopped::Otherwise(error)) => Err(error),
        }
    }

    fn going(&self) -> Result<(), Interrupted> {
        match self.cancel.is_cancelled() {
            true => Err(Interrupted),
            false => Ok(()),
        }
    }
}

/// The first byte's offset in the `Content-Range` of an answer.
fn start_of(response: &Response<Body>) -> Option<u64> {
    let range = response
        .headers()
        .get(header::CONTENT_RANGE)?
        .to_str()
        .ok()?;
    let (start, _) = range.strip_prefix("bytes ")?.split_once('-')?;
    start.parse().ok()
}

/// TLS without a line of C: rustls with Graviola.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn tls() -> Option<TlsConfig> {
    let provider = || Arc::new(rustls_graviola::default_provider());
    graviola::util::is_cpu_supported().then(|| {
        TlsConfig::builder()
            .unversioned_rustls_crypto_provider(provider())
            .build()
    })
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn tls() -> Option<TlsConfig> {
    None
}
