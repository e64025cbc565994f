//! The template engine set up as Transformers sets up Jinja2.

use std::error::Error as _;
use std::fmt;
use std::io::Write;

use jiff::civil::DateTime;
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, Value};

use super::context::dict;
use super::measure::{Bounds, scalar};
use super::{ChatError, ChatLimits, json, methods, source};

const NAME: &str = "chat_template";

/// Stack of the thread that compiles and renders: the engine recurses over expressions.
const STACK: usize = 64 << 20;

/// Deepest recursion of macros, loops and includes, in the engine's own units.
const RECURSION: usize = 400;

/// A compiled template.
#[derive(Clone, Debug)]
pub(super) struct Engine {
    environment: Environment<'static>,
    limits: ChatLimits,
}

impl Engine {
    /// Compiles `template`.
    pub(super) fn compile(template: &str, limits: ChatLimits) -> Result<Self, ChatError> {
        let source = source::prepare(template, &limits)?;
        let mut environment = Environment::new();
        environment.set_debug(false);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_recursion_limit(RECURSION);
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()
            .map_err(|e| failure(&e, 0))?;
        environment.set_syntax(syntax);
        environment.set_unknown_method_callback(methods::call);
        environment.add_filter("tojson", json::tojson);
        // To the engine `None` is iterable, to Python it is not.
        environment.add_test("iterable", |value: &Value| {
            !value.is_none() && (value.is_undefined() || value.try_iter().is_ok())
        });
        environment.add_function("raise_exception", raise);
        environment.add_filter(source::SCALAR, scalar);
        bound(&mut environment, Bounds::new(0));
        // Jinja2 has none of these.
        environment.remove_global("debug");
        environment.remove_filter("zip");
        environment.remove_filter("chain");
        environment.remove_filter("pprint");
        on_large_stack(move || {
            environment
                .add_template_owned(NAME, source)
                .map_err(|e| failure(&e, 0))?;
            Ok(Self {
                environment,
                limits,
            })
        })
    }

    /// Renders with these variables; `data` is how many bytes of data they hold.
    pub(super) fn render(
        &self,
        variables: Vec<(String, Value)>,
        data: usize,
        now: DateTime,
    ) -> Result<String, ChatError> {
        let fuel = self
            .limits
            .fuel
            .saturating_add((data as u64).saturating_mul(self.limits.fuel_per_byte));
        let limit = self.limits.output_bytes;
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(fuel));
        bound(&mut environment, Bounds::new(data));
        environment.add_function("strftime_now", move |format: &str| strftime(now, format));
        on_large_stack(move || {
            let mut out = Limited {
                bytes: Vec::new(),
                limit,
                full: false,
            };
            let rendered = environment
                .get_template(NAME)
                .and_then(|t| t.render_captured_to(dict(variables), &mut out));
            match rendered {
                _ if out.full => Err(ChatError::OutputTooLarge { limit }),
                Ok(_) => Ok(String::from_utf8_lossy(&out.bytes).into_owned()),
                Err(e) => Err(failure(&e, fuel)),
            }
        })
    }
}

/// Sets the filters that [`source::prepare`] puts into the template.
fn bound(environment: &mut Environment<'static>, bounds: Bounds) {
    environment.add_filter(source::BOUNDED, move |state: &State, value: &Value| {
        bounds.bounded(state, value)
    });
    environment.add_filter(source::KEPT, move |state: &State, value: &Value| {
        bounds.kept(state, value)
    });
}

/// Runs `work` on a thread of its own: the stack of the caller's may be small.
fn on_large_stack<T: Send>(
    work: impl FnOnce() -> Result<T, ChatError> + Send,
) -> Result<T, ChatError> {
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("chat-template".into())
            .stack_size(STACK)
            .spawn_scoped(scope, work)
            .map_err(|source| ChatError::Thread { source })?
            .join()
            .unwrap_or(Err(ChatError::Engine))
    })
}

/// The template's own refusal, told apart from failures by its type.
#[derive(Debug)]
struct Raised(String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

fn raise(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(Raised(message)))
}

fn strftime(now: DateTime, format: &str) -> Result<String, Error> {
    jiff::fmt::strtime::format(format, now).map_err(|e| {
        Error::new(ErrorKind::InvalidOperation, "strftime_now: bad format").with_source(e)
    })
}

fn failure(error: &Error, fuel: u64) -> ChatError {
    let line = error.line().unwrap_or(0);
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(e) = cause {
        if let Some(Raised(message)) = e.downcast_ref() {
            let message = message.clone();
            return ChatError::TemplateError { message, line };
        }
        if let Some(e) = e.downcast_ref::<Error>()
            && e.kind() == ErrorKind::OutOfFuel
        {
            return ChatError::OutOfFuel { fuel, line };
        }
        cause = e.source();
    }
    let detail = error.detail().unwrap_or_default();
    match error.kind() {
        ErrorKind::SyntaxError => ChatError::TemplateSyntax {
            message: detail.to_owned(),
            line,
        },
        kind => {
            let mut message = kind.to_string();
            if !detail.is_empty() {
                message = format!("{message}: {detail}");
            }
            if let Some(source) = error.source() {
                message = format!("{message}: {source}");
            }
            ChatError::Render {
                kind,
                message,
                line,
            }
        }
    }
}

/// Takes at most `limit` bytes.
struct Limited {
    bytes: Vec<u8>,
    limit: usize,
    full: bool,
}

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if bytes.len() > self.limit - self.bytes.len() {
            self.full = true;
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
