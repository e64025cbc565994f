//! An autonomous agent as a library: plan, execute, observe, refine over private files, with a
//! model that runs on this machine.
//!
//! ```text
//!                         ┌───────────────────────────────────────────┐
//!  question ────────────► │ run::Run   the state machine, without I/O │
//!                         └──────┬─────────────────────────────▲──────┘
//!                      Step::Generate, Step::Call         records, outputs
//!                         ┌──────▼─────────────────────────────┴──────┐
//!                         │ driver::Agent   budgets, ledger, events   │
//!                         └──────┬─────────────────────────────┬──────┘
//!              phase::* prompts, │ schemas                     │ tool::Toolbox
//!                         ┌──────▼──────────────┐   ┌──────────▼──────────┐
//!                         │ converge_core's     │   │ list, read, search, │
//!                         │ Generate            │   │ table, date, …      │
//!                         └─────────────────────┘   └─────────────────────┘
//! ```
//!
//! A small model is carried by code rather than by prompt: the [`phase`] schemas offer only files
//! that exist, lines that stand in the document, columns and values that a table has, and numbers
//! that were observed or computed; [`ground`] refuses an answer with a number, date or name that
//! nothing stands behind, and the run goes back with the reason.
//!
//! ```no_run
//! use converge_agent::{Agent, tool::{Folder, Toolbox}};
//! use converge_core::{LoadOptions, load};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut session = load("model.gguf".as_ref(), &LoadOptions::default())?;
//! let tools = Toolbox::read_only(&Folder::open("contracts")?)?;
//! let mut agent = Agent::new(&mut session, &tools);
//! let report = agent.ask("When does the lease end?", &mut |event| println!("{event:?}"))?;
//! println!("{}", report.outcome.answer);
//! for citation in &report.outcome.citations {
//!     println!("  {}: {}", citation.source, citation.quote);
//! }
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

pub mod driver;
pub mod error;
pub mod event;
pub mod evidence;
pub mod ground;
pub mod ledger;
pub mod phase;
pub mod policy;
pub mod run;
pub mod segment;
pub mod tool;

pub use driver::{Agent, Report};
pub use error::{AgentError, Result};
pub use event::Event;
pub use run::{Run, Settings};
