//! A session that speculates.

use converge_core::{
    Result, TokenId,
    chat::ChatTemplate,
    constrain::TokenEnv,
    generate::{Cancel, Event, Generate, Generation, Request, Session},
    tokenizer::Tokenizer,
};

use crate::{Drafter, Drafts, Stats};

/// A [`Session`] whose passes check guesses: the same tokens, sooner.
pub struct Speculative {
    session: Session,
    drafts: Drafts,
}

impl Speculative {
    /// A session with these sources of guesses; of equal promise the first one goes.
    pub fn new(session: Session, drafters: Vec<Box<dyn Drafter>>) -> Self {
        Self {
            session,
            drafts: Drafts::new(drafters),
        }
    }

    /// Drafts of up to `length` tokens at every pass: see [`Drafts::with_length`].
    #[must_use]
    pub fn with_length(mut self, length: usize) -> Self {
        self.drafts = self.drafts.with_length(length);
        self
    }

    /// The session, which generates without guesses.
    pub fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// The session alone.
    pub fn into_session(self) -> Session {
        self.session
    }

    /// What happened since [`take_stats`](Self::take_stats).
    pub fn stats(&self) -> &Stats {
        self.drafts.stats()
    }

    /// What happened since this was last called.
    pub fn take_stats(&mut self) -> Stats {
        self.drafts.take_stats()
    }
}

impl Generate for Speculative {
    fn tokenizer(&self) -> &Tokenizer {
        self.session.tokenizer()
    }

    fn chat(&self) -> &ChatTemplate {
        self.session.chat()
    }

    fn context(&self) -> usize {
        self.session.context()
    }

    fn exact(&self) -> bool {
        self.session.exact()
    }

    fn token_env(&self) -> Result<TokenEnv> {
        self.session.token_env()
    }

    fn generate(
        &mut self,
        request: &Request,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<Generation> {
        let generation = self
            .session
            .generate_drafted(request, &mut self.drafts, on_event)?;
        let text = [request.prompt.as_slice(), &generation.tokens].concat();
        self.drafts.finish(&text, request.prompt.len());
        Ok(generation)
    }

    fn score(
        &mut self,
        prompt: &[TokenId],
        continuations: &[Vec<TokenId>],
        cancel: &Cancel,
    ) -> Result<Vec<f32>> {
        self.session.score(prompt, continuations, cancel)
    }
}
