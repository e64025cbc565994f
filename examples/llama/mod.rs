//! llama.cpp's server, on this machine alone.

use std::{
    ffi::OsString,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use converge_core::{TokenId, generate::Cancel};
use serde_json::{Value, json};

use crate::cli::Interrupted;

/// How long it may take to load.
const PATIENCE: Duration = Duration::from_secs(120);

/// How a server is started.
pub struct Options<'a> {
    /// `llama-server`.
    pub program: &'a Path,
    /// GGUF file.
    pub model: &'a Path,
    /// Conversations that it keeps.
    pub slots: usize,
    /// Positions of each.
    pub context: usize,
    /// Whether it packs the weights anew.
    pub repack: bool,
    /// More arguments.
    pub more: Vec<OsString>,
}

/// A server that runs as long as this lives.
pub struct Server {
    child: Child,
    address: String,
    cancel: Cancel,
}

/// What is asked of a server.
pub struct Ask<'a> {
    /// The prompt.
    pub prompt: &'a [TokenId],
    /// Tokens to answer.
    pub answer: usize,
    /// The conversation.
    pub slot: usize,
    /// What the answer is held to; without it, an end of text does not count.
    pub schema: Option<&'a Value>,
}

/// What a server answered.
pub struct Reply {
    /// The answer.
    pub tokens: Vec<TokenId>,
    /// Tokens of the prompt that were computed.
    pub prefilled: usize,
    /// Tokens per second, those of the prompt left out.
    pub speed: f64,
    /// Tokens guessed.
    pub drafted: usize,
    /// Of these, right ones.
    pub accepted: usize,
}

/// Refuses a path where no program is.
///
/// # Errors
/// What is to be done.
pub fn check(program: &Path) -> anyhow::Result<()> {
    ensure!(
        program.is_file(),
        "{} is not there: build llama.cpp (target `llama-server`) and name its program, or the folder of \
         its programs where that is asked for",
        program.display()
    );
    Ok(())
}

/// The kinds of speculative decoding that a server says it has, in `--help`.
///
/// # Errors
/// A program that cannot be started, or that has no such option.
pub fn kinds(program: &Path) -> anyhow::Result<Vec<String>> {
    let shown = program.display();
    let out = Command::new(program).arg("--help").output();
    let out = out.with_context(|| format!("cannot start {shown}: build llama.cpp's server"))?;
    let said = String::from_utf8_lossy(&out.stderr);
    let said = said.lines().last().unwrap_or_default();
    ensure!(
        out.status.success(),
        "{shown} --help: {}: {said}",
        out.status
    );
    let help = String::from_utf8_lossy(&out.stdout);
    let line = help.lines().find_map(|line| {
        let rest = line.trim_start().strip_prefix("--spec-type")?;
        rest.split_whitespace().next()
    });
    let line = line.with_context(|| format!("{shown} has no --spec-type: build a newer one"))?;
    Ok(line.split(',').map(str::to_owned).collect())
}

impl Server {
    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// A program that cannot be started, that ends, or that does not come to answer;
    /// [`Interrupted`] by the flag, which later ends every question, too.
    pub fn start(options: &Options<'_>, cancel: &Cancel) -> anyhow::Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let context = (options.context.next_multiple_of(256) + 256) * options.slots;
        let threads = thread::available_parallelism()?.to_string();
        let shown = options.program.display();
        let mut command = Command::new(options.program);
        command
            .arg("--model")
            .arg(options.model)
            .args(["--host", "127.0.0.1", "--port", &port.to_string()])
            .args(["--parallel", &options.slots.to_string()])
            .args(["--ctx-size", &context.to_string()])
            .args(["--threads", &threads, "--threads-batch", &threads])
            .arg(match options.repack {
                true => "--repack",
                false => "--no-repack",
            })
            .args(&options.more)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {shown}"))?;
        let mut server = Self {
            child,
            address: format!("http://127.0.0.1:{port}"),
            cancel: cancel.clone(),
        };
        let start = Instant::now();
        loop {
            ensure!(!cancel.is_cancelled(), Interrupted);
            if ureq::get(format!("{}/health", server.address))
                .call()
                .is_ok()
            {
                return Ok(server);
            }
            if let Some(status) = server.child.try_wait()? {
                bail!("{shown} ended at once: {status}");
            }
            ensure!(start.elapsed() < PATIENCE, "{shown} does not answer");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Has it answer, by the most likely tokens. What the slot holds of the prompt is used.
    ///
    /// # Errors
    /// A server that refuses or is gone; [`Interrupted`], at once.
    pub fn ask(&self, ask: &Ask<'_>) -> anyhow::Result<Reply> {
        let mut body = json!({
            "prompt": ask.prompt,
            "n_predict": ask.answer,
            "id_slot": ask.slot,
            "cache_prompt": true,
            "ignore_eos": ask.schema.is_none(),
            "temperature": 0.0,
            "return_tokens": true,
        });
        if let Some(schema) = ask.schema {
            body["json_schema"] = schema.clone();
        }
        let reply: Value = serde_json::from_str(&self.post("completion", body.to_string())?)?;
        let figure = |path: &str| reply.pointer(path).and_then(Value::as_f64);
        let count = |path: &str| figure(path).map(|n| n as usize);
        let tokens = reply.get("tokens").cloned().unwrap_or_default();
        Ok(Reply {
            tokens: serde_json::from_value(tokens).context("the server's tokens")?,
            prefilled: count("/timings/prompt_n").context("the server's timings")?,
            speed: figure("/timings/predicted_per_second").context("the server's timings")?,
            drafted: count("/timings/draft_n").unwrap_or(0),
            accepted: count("/timings/draft_n_accepted").unwrap_or(0),
        })
    }

    /// The answer to a request, waited for in a thread of its own: an interrupt does not wait.
    fn post(&self, path: &str, body: String) -> anyhow::Result<String> {
        let (send, receive) = mpsc::channel();
        let address = format!("{}/{path}", self.address);
        thread::spawn(move || {
            let request = ureq::post(address).content_type("application/json");
            let response = request.send(body);
            // Nobody may be waiting any more.
            let _ = send.send(response.and_then(|mut r| r.body_mut().read_to_string()));
        });
        loop {
            match receive.recv_timeout(Duration::from_millis(20)) {
                Ok(answer) => {
                    // The terminal interrupts the server, too.
                    ensure!(!self.cancel.is_cancelled(), Interrupted);
                    return answer.context("the server refused a prompt");
                }
                Err(RecvTimeoutError::Timeout) => {
                    ensure!(!self.cancel.is_cancelled(), Interrupted);
                }
                Err(RecvTimeoutError::Disconnected) => bail!("the server's answer is lost"),
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
