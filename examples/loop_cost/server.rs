//! llama.cpp's server, on this machine alone.

use std::{
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use converge_core::{TokenId, generate::Cancel};
use converge_examples::cli::Interrupted;
use serde_json::{Value, json};

use crate::replay::Answer;

/// How long it may take to load.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct Server {
    child: Child,
    address: String,
}

impl Server {
    /// Starts it with a slot of `context` positions for each conversation, and waits until it is ready.
    pub(crate) fn start(
        program: &Path,
        model: &Path,
        slots: usize,
        context: usize,
        repack: bool,
        cancel: &Cancel,
    ) -> anyhow::Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let context = (context.next_multiple_of(256) + 256) * slots;
        let threads = thread::available_parallelism()?.to_string();
        let mut command = Command::new(program);
        command
            .arg("--model")
            .arg(model)
            .args(["--host", "127.0.0.1", "--port", &port.to_string()])
            .args(["--parallel", &slots.to_string()])
            .args(["--ctx-size", &context.to_string()])
            .args(["--threads", &threads, "--threads-batch", &threads])
            .arg(if repack { "--repack" } else { "--no-repack" })
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let mut server = Self {
            child,
            address: format!("http://127.0.0.1:{port}"),
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
                bail!("{} ended at once: {status}", program.display());
            }
            ensure!(
                start.elapsed() < PATIENCE,
                "{} does not answer",
                program.display()
            );
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Has it answer.
    pub(crate) fn ask(
        &self,
        prompt: &[TokenId],
        answer: usize,
        branch: usize,
    ) -> anyhow::Result<Answer> {
        let body = json!({
            "prompt": prompt,
            "n_predict": answer,
            "id_slot": branch,
            "cache_prompt": true,
            "ignore_eos": true,
            "temperature": 0.0,
            "return_tokens": true,
        });
        let mut response = ureq::post(format!("{}/completion", self.address))
            .content_type("application/json")
            .send(body.to_string())
            .context("the server refused a prompt")?;
        let text = response.body_mut().read_to_string()?;
        let reply: Value = serde_json::from_str(&text)?;
        let tokens = reply.get("tokens").cloned().unwrap_or_default();
        let prefilled = reply.pointer("/timings/prompt_n").and_then(Value::as_u64);
        Ok(Answer {
            tokens: serde_json::from_value(tokens).context("the server's tokens")?,
            prefilled: prefilled.context("the server's timings")? as usize,
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
