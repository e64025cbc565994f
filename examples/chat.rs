//! Talks with a model, the words as they come.
//!
//! ```text
//! cargo run --release --example chat
//! cargo run --release --example chat -- -m smollm2-135m --system "Answer in one sentence."
//! printf 'Name a loom.\nAnd another.\n' | cargo run --release --example chat -- --json
//! ```
//!
//! Every line is a message; lines that begin with `/` are commands (see `/help`). Answers go to
//! stdout, everything else to stderr. Ctrl-C stops an answer and keeps what is done of it. The
//! conversation only grows: each message costs its own tokens, however long the conversation is. Where
//! the context ends, the model sums up the oldest turns and goes on.

use std::{
    fs,
    io::{self, BufRead as _, IsTerminal as _, Write as _, stdin, stdout},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use clap::Parser;
use converge_core::{
    CoreError,
    chat::{Asked, Conversation, Message, RenderOptions, Role},
    generate::{Event, Generate as _, Generation, Request, Session, StopReason},
    sample::Sampling,
};
use converge_examples::{
    cli::{self, Interrupted, SamplingArgs, Watch},
    engine::{self, EngineArgs},
    models,
};
use serde_json::json;

/// Talk with a model. Each line is a message; /help lists the commands.
#[derive(Parser)]
#[command(name = "chat")]
struct Args {
    /// Name of a known model (see `fetch --list`) or path of a GGUF file
    #[arg(short, long, default_value = models::DEFAULT)]
    model: String,
    #[command(flatten)]
    engine: EngineArgs,
    /// Instructions for the whole conversation
    #[arg(long, conflicts_with = "load")]
    system: Option<String>,
    /// Go on with a conversation that /save wrote
    #[arg(long, value_name = "FILE")]
    load: Option<PathBuf>,
    /// The most tokens of an answer
    #[arg(long, value_name = "N", default_value_t = 1024)]
    max_tokens: usize,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// One JSON object a line for each answer, instead of its text as it comes
    #[arg(long)]
    json: bool,
}

/// The most tokens of a summary.
const SUMMARY: usize = 256;

const SUMMARIZE: &str = "Sum up what was said so far, with all names, numbers and decisions, in a few \
                         sentences.";

const HELP: &str = "\
/reset       begin anew
/save FILE   write the conversation to a file, for --load
/help        this list
/quit        end, as Ctrl-D does
//text       a message that begins with a slash
Ctrl-C stops an answer and keeps what is done of it; at the prompt it ends the program.";

fn main() -> ExitCode {
    let args = Args::parse();
    cli::run_on(args.engine.threads, || run(&args))
}

fn run(args: &Args) -> anyhow::Result<()> {
    // What may be wrong with the arguments shows before a model is loaded.
    let sampling = args.sampling.sampling()?;
    let beginning = match &args.load {
        Some(path) => load(path)?,
        None => args
            .system
            .as_deref()
            .map(Message::system)
            .into_iter()
            .collect(),
    };
    let gguf = engine::open(&args.model)?;
    let mut chat = Chat {
        session: args.engine.session(&gguf)?,
        conversation: Conversation::new(beginning.clone()),
        max_tokens: args.max_tokens,
        sampling,
        json: args.json,
    };
    if let Some(fallback) = chat.session.chat().fallback() {
        eprintln!("[{}]", engine::stated(fallback));
    }
    let somebody = stdin().is_terminal();
    if somebody {
        eprintln!("[{}; /help lists the commands]", args.model);
    }
    let mut number = 0;
    while let Some(line) = next_line(somebody)? {
        number += 1;
        let line =
            line.with_context(|| format!("line {number} of the input is no text in UTF-8"))?;
        let done = match Input::of(&line) {
            Input::Nothing => Ok(()),
            Input::Message(text) => chat.answer(text),
            Input::Reset => {
                // What was loaded goes too; instructions stay.
                let system = beginning
                    .iter()
                    .filter(|message| message.role == Role::System);
                chat.conversation = Conversation::new(system.cloned().collect());
                eprintln!("[the conversation begins anew]");
                Ok(())
            }
            Input::Save(path) => save(&chat.conversation, Path::new(path)),
            Input::Help => {
                eprintln!("{HELP}");
                Ok(())
            }
            Input::Quit => return Ok(()),
            Input::Unknown(command) => Err(anyhow::anyhow!(
                "there is no command {command}: /help lists those there are, // begins a message \
                 with a slash"
            )),
        };
        match done {
            // Somebody can say something else now; a script would go on with the wrong thing.
            Err(error) if somebody && !is_closed(&error) => {
                eprintln!("[{}]", cli::one_line(&error));
            }
            done => done?,
        }
    }
    Ok(())
}

/// A line of the input, without its end; `None` where there are no more.
fn next_line(somebody: bool) -> io::Result<Option<Result<String, std::string::FromUtf8Error>>> {
    if somebody {
        eprint!("> ");
    }
    let mut line = Vec::new();
    if stdin().lock().read_until(b'\n', &mut line)? == 0 {
        if somebody {
            eprintln!();
        }
        return Ok(None);
    }
    Ok(Some(String::from_utf8(line)))
}

/// Whether nobody reads the answers any more.
fn is_closed(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref::<io::Error>();
    cause.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// What a line asks for.
enum Input<'a> {
    Nothing,
    Message(&'a str),
    Reset,
    Save(&'a str),
    Help,
    Quit,
    Unknown(&'a str),
}

impl<'a> Input<'a> {
    fn of(line: &'a str) -> Self {
        let line = line.trim();
        let Some(command) = line.strip_prefix('/') else {
            return match line {
                "" => Self::Nothing,
                text => Self::Message(text),
            };
        };
        let (name, rest) = command.split_once(' ').unwrap_or((command, ""));
        match (name, rest.trim()) {
            _ if command.starts_with('/') => Self::Message(command),
            ("reset", "") => Self::Reset,
            ("save", path) if !path.is_empty() => Self::Save(path),
            ("help", "") => Self::Help,
            ("quit", "") => Self::Quit,
            _ => Self::Unknown(line),
        }
    }
}

fn save(talk: &Conversation, path: &Path) -> anyhow::Result<()> {
    let messages: Vec<&Message> = talk.messages().collect();
    let text = serde_json::to_string_pretty(&messages)?;
    fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    eprintln!("[{} messages are in {}]", messages.len(), path.display());
    Ok(())
}

fn load(path: &Path) -> anyhow::Result<Vec<Message>> {
    let name = path.display();
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
    let messages: Vec<Message> = serde_json::from_str(&text)
        .with_context(|| format!("{name} is no conversation as /save writes it"))?;
    if messages
        .last()
        .is_some_and(|message| message.role == Role::User)
    {
        bail!("{name} ends with a message that has no answer: take that one out");
    }
    Ok(messages)
}

struct Chat {
    session: Session,
    conversation: Conversation,
    max_tokens: usize,
    sampling: Sampling,
    json: bool,
}

impl Chat {
    /// The prompt for the next answer.
    fn ask(&self, message: Message) -> anyhow::Result<Asked> {
        let (chat, tokenizer) = (self.session.chat(), self.session.tokenizer());
        let options = RenderOptions::default();
        let asked = self
            .conversation
            .ask(chat, tokenizer, vec![message], &options);
        Ok(asked?)
    }

    /// Puts a summary by the model in the place of the oldest turns, as many as it takes for `more`
    /// tokens to fit. Nothing is done where that is not enough.
    fn make_room(&mut self, more: usize) -> anyhow::Result<()> {
        // Not at every message again.
        let context = self.session.context();
        let plan = |goal| self.conversation.plan(goal, more, SUMMARY);
        let Ok(Some(turns)) = plan(context * 3 / 4).or_else(|_| plan(context)) else {
            return Ok(());
        };
        let asked = self.ask(Message::user(SUMMARIZE))?;
        let mut request = Request::new(asked.prompt().to_vec());
        request.max_tokens = SUMMARY;
        let watch = Watch::fresh();
        request.cancel = watch.clone();
        let summary = self.session.generate(&request, &mut |_| ());
        let summary = match summary {
            Ok(summary) if summary.stop == StopReason::Cancelled => return Err(Interrupted.into()),
            // Too late for a summary: the message itself tells what to do.
            Err(CoreError::ContextOverflow { .. }) => return Ok(()),
            other => other.map_err(engine::advise)?,
        };
        drop(watch);
        let number = turns.len();
        let compacted = self.conversation.compact(
            self.session.chat(),
            self.session.tokenizer(),
            turns,
            (
                vec![Message::user("What was said before?")],
                Message::assistant(summary.text),
            ),
            &RenderOptions::default(),
        )?;
        eprintln!(
            "[the context is nearly full: a summary is in the place of the oldest {number} turns, \
             {} tokens instead of {}]",
            compacted.after, compacted.before
        );
        Ok(())
    }

    /// Answers a message, and takes both into the conversation.
    fn answer(&mut self, text: &str) -> anyhow::Result<()> {
        let context = self.session.context();
        let mut asked = self.ask(Message::user(text))?;
        let new = asked.prompt().len().saturating_sub(self.conversation.len());
        let more = new + self.max_tokens.min(context / 4);
        if self.conversation.len() + more + SUMMARY + SUMMARIZE.len() > context {
            self.make_room(more)?;
            asked = self.ask(Message::user(text))?;
        }
        let mut request = Request::new(asked.prompt().to_vec());
        request.max_tokens = self.max_tokens;
        request.sampling = self.sampling.clone();
        let watch = Watch::fresh();
        request.cancel = watch.clone();

        let mut out = stdout().lock();
        let mut written = Ok(());
        let generation = self
            .session
            .generate(&request, &mut |event| {
                if let Event::Text(text) = event
                    && !self.json
                    && written.is_ok()
                {
                    written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
                    if written.is_err() {
                        request.cancel.cancel();
                    }
                }
            })
            .map_err(|error| full(error, self.session.context()))?;
        drop(watch);
        written?;
        if self.json {
            writeln!(out, "{}", figures(&request, &generation))?;
        } else {
            writeln!(out)?;
        }
        eprintln!("{}", summary(&request, &generation, self.session.context()));

        let stopped = generation.stop == StopReason::Cancelled;
        if generation.tokens.is_empty() && stopped {
            eprintln!("[the message is left out of the conversation: its answer had not begun]");
        } else {
            let answer = Message::assistant(generation.text);
            self.conversation
                .answered(asked, answer, &generation.tokens);
        }
        match stopped && !stdin().is_terminal() {
            true => Err(Interrupted.into()),
            false => Ok(()),
        }
    }
}

/// Says what to do about a conversation that the context does not hold.
fn full(error: CoreError, context: usize) -> anyhow::Error {
    let CoreError::ContextOverflow { prompt, .. } = error else {
        return engine::advise(error);
    };
    anyhow::anyhow!(
        "the conversation would have {prompt} tokens with this message, and the context {context}: \
         /reset begins anew; or /save FILE, and start again with --load FILE --ctx N for more"
    )
}

fn figures(request: &Request, generation: &Generation) -> serde_json::Value {
    let usage = &generation.usage;
    json!({
        "text": generation.text,
        "stop": engine::stop_name(&generation.stop),
        "prompt_tokens": request.prompt.len(),
        "reused": usage.reused,
        "prefilled": usage.prefilled,
        "decoded": usage.decoded,
        "prefill_seconds": usage.prefill_seconds,
        "decode_seconds": usage.decode_seconds,
    })
}

fn summary(request: &Request, generation: &Generation, context: usize) -> String {
    let usage = &generation.usage;
    let ending = match &generation.stop {
        StopReason::EndOfText => "",
        StopReason::Cancelled => "; stopped, what is done is kept",
        StopReason::MaxTokens => "; cut off: --max-tokens allows for no more",
        StopReason::Context => "; cut off: the context is full, /reset or --ctx make room",
        _ => "; ended early",
    };
    format!(
        "[{} new tokens read, {} said, {:.1} tok/s; {} of {context}{ending}]",
        usage.prefilled,
        usage.decoded,
        usage.decoded as f64 / usage.decode_seconds.max(1e-9),
        request.prompt.len() + usage.decoded,
    )
}
