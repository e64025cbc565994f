//! The machine, and processes on it.

use std::{
    fs,
    io::Read,
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

/// How often a process is looked at.
const LOOK: Duration = Duration::from_millis(2);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on Ctrl-C ends the measurement under way and keeps what is finished; the second time
/// it ends the program.
pub(crate) fn on_interrupt() -> Result<()> {
    ctrlc::set_handler(|| {
        if INTERRUPTED.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
    })
    .context("cannot watch for Ctrl-C")
}

pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

pub(crate) fn cores() -> usize {
    thread::available_parallelism().map_or(1, Into::into)
}

/// The processor's name and what of its instructions matters here.
pub(crate) fn cpu() -> String {
    static CPU: OnceLock<String> = OnceLock::new();
    CPU.get_or_init(|| {
        let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let name = field("model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
        let family = match (field("cpu family"), field("model\t")) {
            (Some(family), Some(model)) => format!(", family {family} model {model}"),
            _ => String::new(),
        };
        let level = converge_quant::Level::detect().map_or("unknown", |level| level.name());
        format!("{name}{family}, {} cores, {level}", cores())
    })
    .clone()
}

/// What a process left behind.
pub(crate) struct Ended {
    pub(crate) stdout: String,
    /// Seconds from its start to its first byte on stdout; to its end where there was none.
    pub(crate) first: f64,
    /// Seconds from its start to its end.
    pub(crate) all: f64,
    /// Most bytes of memory that it held at a time; 0 where the system does not tell.
    pub(crate) peak: u64,
}

/// Runs a process to its end; kills it when Ctrl-C comes.
pub(crate) fn run(mut command: Command) -> Result<Ended> {
    let program = command.get_program().to_string_lossy().into_owned();
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let start = Instant::now();
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (waited, stdout, stderr) = thread::scope(|scope| {
        let stdout = scope.spawn(move || collect(stdout, start));
        let stderr = scope.spawn(move || collect(stderr, start));
        let waited = wait(&mut child);
        (waited, stdout.join(), stderr.join())
    });
    let all = start.elapsed().as_secs_f64();
    let (Ok((stdout, first)), Ok((stderr, _))) = (stdout, stderr) else {
        bail!("the output of {program} could not be read");
    };
    let (success, peak) = waited?;
    if !success {
        let last = stderr.lines().rev().find(|line| !line.trim().is_empty());
        bail!("{program} failed: {}", last.unwrap_or("no message"));
    }
    Ok(Ended {
        stdout,
        first: first.unwrap_or(all),
        all,
        peak,
    })
}

/// Everything that comes, and when the first of it came.
fn collect(from: Option<impl Read>, start: Instant) -> (String, Option<f64>) {
    let (mut all, mut first) = (Vec::new(), None);
    let mut buffer = [0; 4096];
    if let Some(mut from) = from {
        while let Ok(len @ 1..) = from.read(&mut buffer) {
            first.get_or_insert_with(|| start.elapsed().as_secs_f64());
            all.extend_from_slice(&buffer[..len]);
        }
    }
    (String::from_utf8_lossy(&all).into_owned(), first)
}

/// Waits for the end: whether it was a good one, and the peak of memory until then.
fn wait(child: &mut Child) -> Result<(bool, u64)> {
    let mut peak = 0;
    loop {
        peak = peak.max(peak_of(&child.id().to_string()));
        if let Some(status) = child.try_wait()? {
            return Ok((status.success(), peak));
        }
        if interrupted() {
            // It may have ended by itself: Ctrl-C reaches all processes of a terminal.
            let _ = child.kill();
            child.wait()?;
            return Ok((false, peak));
        }
        thread::sleep(LOOK);
    }
}

/// The peak of a process' memory so far (`VmHWM`), as Linux tells it; 0 elsewhere.
fn peak_of(process: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix("kB"));
    kilobytes
        .and_then(|text| text.trim().parse::<u64>().ok())
        .unwrap_or(0)
        * 1024
}
