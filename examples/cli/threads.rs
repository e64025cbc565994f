use std::{
    env, io,
    num::NonZeroUsize,
    process::{Command, ExitCode},
    thread,
};

/// Where candle and rayon read how many threads to start.
const VARIABLE: &str = "RAYON_NUM_THREADS";

/// Threads that may always be asked for.
const MOST: usize = 64;

/// [`run`](super::run) with so many threads; with the machine's cores where `threads` is `None`.
///
/// The thread pools take their size from the environment, once; so a process that has another one
/// starts itself again.
pub fn run_on(
    threads: Option<NonZeroUsize>,
    main: impl FnOnce() -> anyhow::Result<()>,
) -> ExitCode {
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let most = MOST.max(4 * cores);
    if let Some(threads) = threads.filter(|threads| threads.get() > most) {
        eprintln!(
            "error: --threads {threads}: so many would wait for each other on {cores} cores; give at \
             most {most}, mostly as many as cores"
        );
        return ExitCode::FAILURE;
    }
    let threads = threads.map(|n| n.to_string());
    let Some(threads) = threads.filter(|n| env::var(VARIABLE).as_ref() != Ok(n)) else {
        return super::run(main);
    };
    let restarted = env::current_exe().and_then(|program| {
        let mut command = Command::new(program);
        command
            .args(env::args_os().skip(1))
            .env(VARIABLE, threads)
            .env_remove("CANDLE_NUM_THREADS");
        again(command)
    });
    restarted.unwrap_or_else(|error| {
        eprintln!("error: cannot start again with another number of threads: {error}");
        ExitCode::FAILURE
    })
}

#[cfg(unix)]
fn again(mut command: Command) -> io::Result<ExitCode> {
    Err(std::os::unix::process::CommandExt::exec(&mut command))
}

#[cfg(not(unix))]
fn again(mut command: Command) -> io::Result<ExitCode> {
    let code = command.status()?.code();
    Ok(ExitCode::from(
        code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1),
    ))
}
