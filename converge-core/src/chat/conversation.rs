//! A conversation in tokens: it only grows, and where the context ends it is made smaller by a plan.

use std::ops::Range;

use super::{ChatTemplate, Message, RenderOptions, Role};
use crate::{CoreError, Result, TokenId, tokenizer::Tokenizer};

/// What was said, as messages and as the tokens that the model has seen and chosen.
///
/// ```text
///   turn 0   opening and messages ─► tokens up to the answer │ tokens of the answer, as chosen
///   turn 1   close of that answer, messages ─► tokens …      │ tokens of the answer
/// ```
///
/// A turn adds tokens and changes none before it, so whatever holds the keys and values of the
/// conversation so far goes on from there. Templates do not keep to that by themselves
/// ([`check`](Self::check) tells where one would not have).
///
/// ```no_run
/// use converge_core::{
///     LoadOptions,
///     chat::{Conversation, Message, RenderOptions},
///     generate::{Generate as _, Request},
///     load,
/// };
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut session = load("model.gguf".as_ref(), &LoadOptions::default())?;
/// let options = RenderOptions::default();
/// let mut talk = Conversation::new(vec![Message::system("Answer in one sentence.")]);
/// for question in ["What is a loom?", "And a shuttle?"] {
///     let ask = vec![Message::user(question)];
///     let asked = talk.ask(session.chat(), session.tokenizer(), ask, &options)?;
///     let answer = session.generate(&Request::new(asked.prompt().to_vec()), &mut |_| ())?;
///     talk.answered(asked, Message::assistant(answer.text), &answer.tokens);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Conversation {
    opening: Vec<Message>,
    turns: Vec<Turn>,
}

/// Messages and the answer to them.
#[derive(Clone, Debug)]
pub struct Turn {
    messages: Vec<Message>,
    answer: Message,
    /// From the end of the answer before to the beginning of this one; from the beginning of the
    /// conversation where it is `whole`.
    asked: Vec<TokenId>,
    answered: Vec<TokenId>,
    /// Whether all was rendered for this turn: the tokens of the turns before are then out of use,
    /// until what follows them is compacted.
    whole: bool,
    /// How many tokens the conversation got by it.
    added: usize,
    pinned: bool,
}

impl Turn {
    /// What the model was told.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// What it said.
    pub fn answer(&self) -> &Message {
        &self.answer
    }

    /// Whether it stays when the conversation is [compacted](Conversation::compact).
    pub fn pinned(&self) -> bool {
        self.pinned
    }

    /// How many tokens the conversation got by both.
    pub fn len(&self) -> usize {
        self.added
    }

    /// Whether it has no tokens.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A prompt that waits for its answer.
#[derive(Clone, Debug)]
pub struct Asked {
    messages: Vec<Message>,
    prompt: Vec<TokenId>,
    /// Tokens of it that the conversation has already.
    held: usize,
}

impl Asked {
    /// The conversation with the new messages, up to where the answer begins.
    pub fn prompt(&self) -> &[TokenId] {
        &self.prompt
    }

    /// How many of its tokens are those of the conversation so far. It is 0 where the template
    /// leaves no other way than to render the whole conversation again.
    pub fn held(&self) -> usize {
        self.held
    }
}

/// Where a template would write a conversation otherwise than the model has seen it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The turn in whose tokens they part.
    pub turn: usize,
    /// How many tokens both begin with: what a session would have left of the conversation, if it
    /// were rendered again. Text that is cut otherwise counts as another, so this may lie before
    /// `common`.
    pub tokens: usize,
    /// What both begin with, in bytes.
    pub common: usize,
    /// What the conversation has from there on.
    pub held: String,
    /// What the template writes from there on.
    pub rendered: String,
}

/// What [`compact`](Conversation::compact) did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// Tokens at the beginning that are as they were.
    pub kept: usize,
    /// Tokens before.
    pub before: usize,
    /// Tokens now.
    pub after: usize,
}

impl Conversation {
    /// A conversation that begins with these messages: instructions, or what was said elsewhere.
    pub fn new(opening: Vec<Message>) -> Self {
        Self {
            opening,
            turns: Vec::new(),
        }
    }

    /// The messages that it began with.
    pub fn opening(&self) -> &[Message] {
        &self.opening
    }

    /// The turns since.
    pub fn turns(&self) -> &[Turn] {
        &self.turns
    }

    /// All messages and answers, in order.
    pub fn messages(&self) -> impl Iterator<Item = &Message> {
        let turns = self.turns.iter();
        let turns = turns.flat_map(|turn| turn.messages.iter().chain([&turn.answer]));
        self.opening.iter().chain(turns)
    }

    /// The turns whose tokens make up the conversation: from the last that has all before it.
    fn live(&self) -> &[Turn] {
        let from = self.turns.iter().rposition(|turn| turn.whole);
        self.turns.get(from.unwrap_or(0)..).unwrap_or_default()
    }

    /// All tokens, up to the end of the last answer.
    pub fn tokens(&self) -> Vec<TokenId> {
        let turns = self.live().iter();
        let parts = turns.flat_map(|turn| [&turn.asked[..], &turn.answered]);
        parts.collect::<Vec<_>>().concat()
    }

    /// How many tokens it has.
    pub fn len(&self) -> usize {
        let turns = self.live().iter();
        turns
            .map(|turn| turn.asked.len() + turn.answered.len())
            .sum()
    }

    /// Whether nothing was answered yet.
    pub fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// Keeps a turn from being dropped by [`compact`](Self::compact), or no longer; `false` where
    /// there is no such turn.
    pub fn pin(&mut self, turn: usize, pinned: bool) -> bool {
        let turn = self.turns.get_mut(turn);
        turn.map(|turn| turn.pinned = pinned).is_some()
    }

    /// The prompt for the next answer. Nothing is said before it is [`answered`](Self::answered).
    ///
    /// # Errors
    /// As [`ChatTemplate::encode`].
    pub fn ask(
        &self,
        chat: &ChatTemplate,
        tokenizer: &Tokenizer,
        messages: Vec<Message>,
        options: &RenderOptions<'_>,
    ) -> Result<Asked> {
        if !self.turns.is_empty()
            && let Some(next) = chat.encode_next(tokenizer, &messages, options)?
        {
            let mut prompt = self.tokens();
            let held = prompt.len();
            prompt.extend(next);
            return Ok(Asked {
                messages,
                prompt,
                held,
            });
        }
        let all: Vec<Message> = self.messages().chain(&messages).cloned().collect();
        Ok(Asked {
            prompt: chat.encode(tokenizer, &all, options)?,
            held: 0,
            messages,
        })
    }

    /// Takes up an answer: its message, and its tokens as the model chose them.
    pub fn answered(&mut self, asked: Asked, answer: Message, tokens: &[TokenId]) {
        let (held, before) = (self.tokens(), self.len());
        // Where the conversation has changed since it was asked, the prompt is still what the model
        // has seen.
        let grows = !held.is_empty() && asked.held == before && asked.prompt.starts_with(&held);
        let from = if grows { before } else { 0 };
        self.turns.push(Turn {
            messages: asked.messages,
            answer,
            asked: asked.prompt.get(from..).unwrap_or_default().to_vec(),
            answered: tokens.to_vec(),
            whole: !grows,
            added: asked.prompt.len().saturating_sub(before) + tokens.len(),
            pinned: false,
        });
    }

    /// Where the template would now write what was said otherwise than the model has seen it: it may
    /// take thoughts out of earlier answers, or trim them. `None` where it would not. The
    /// conversation goes on with what it has.
    ///
    /// # Errors
    /// As [`ChatTemplate::encode`].
    pub fn check(
        &self,
        chat: &ChatTemplate,
        tokenizer: &Tokenizer,
        options: &RenderOptions<'_>,
    ) -> Result<Option<Difference>> {
        let options = RenderOptions {
            add_generation_prompt: false,
            ..options.clone()
        };
        let all: Vec<Message> = self.messages().cloned().collect();
        if all.is_empty() {
            return Ok(None);
        }
        let (rendered, held) = (chat.encode(tokenizer, &all, &options)?, self.tokens());
        let tokens = crate::cache::common(&rendered, &held);
        let text = |tokens: &[TokenId]| tokenizer.decode(tokens, false);
        let (rendered, held) = (text(&rendered), text(&held));
        // After the last answer there may be more, such as what closes it.
        if rendered.starts_with(&held) {
            return Ok(None);
        }
        let pairs = rendered.char_indices().zip(held.chars());
        let common = pairs.take_while(|((_, a), b)| a == b);
        let common = common.last().map_or(0, |((at, c), _)| at + c.len_utf8());
        let from = |text: &str| text.get(common..).unwrap_or_default().to_owned();
        let mut seen = Vec::new();
        let ends_after = |turn: &Turn| {
            seen.extend_from_slice(&turn.asked);
            seen.extend_from_slice(&turn.answered);
            text(&seen).len() > common
        };
        let live = self.live();
        let turn = live.iter().position(ends_after);
        let turn = turn.unwrap_or(live.len().saturating_sub(1));
        Ok(Some(Difference {
            turn: self.turns.len() - live.len() + turn,
            tokens,
            common,
            held: from(&held),
            rendered: from(&rendered),
        }))
    }

    /// The turns to [`compact`](Self::compact), the fewest and oldest, so that `more` tokens (the next
    /// messages and room for an answer) fit into `context` beside a summary of up to `summary` tokens.
    /// `None` where they fit already. Turns that give the results of calls go with the calls.
    ///
    /// Where a template has to render the whole conversation again, what is left is an estimate.
    ///
    /// # Errors
    /// [`ContextOverflow`](CoreError::ContextOverflow) where what is pinned does not leave so much
    /// room: `prompt` is what would be left with the summary, `reserve` is `more`.
    pub fn plan(
        &self,
        context: usize,
        more: usize,
        summary: usize,
    ) -> Result<Option<Range<usize>>> {
        let fits = |tokens: usize| tokens.saturating_add(more) <= context;
        let mut left = self.len();
        if fits(left) {
            return Ok(None);
        }
        let start = self.turns.iter().position(|turn| !turn.pinned);
        let start = start.unwrap_or(self.turns.len());
        left = left.saturating_add(summary);
        let results = |turn: &Turn| turn.messages.first().is_some_and(|m| m.role == Role::Tool);
        for (i, turn) in self.turns.iter().enumerate().skip(start) {
            if !turn.pinned {
                // The first turn's tokens have the opening, which stays.
                left = left.saturating_sub(if i == 0 {
                    turn.answered.len()
                } else {
                    turn.added
                });
            }
            if fits(left) && !self.turns.get(i + 1).is_some_and(results) {
                return Ok(Some(start..i + 1));
            }
        }
        Err(CoreError::ContextOverflow {
            prompt: left,
            reserve: more,
            context,
        })
    }

    /// Puts a summary in the place of turns: messages that ask for it, and the answer. Those of the
    /// turns that are pinned stay, after the summary. What comes before `turns` keeps its tokens, so
    /// the next prompt goes on from there.
    ///
    /// # Errors
    /// As [`ChatTemplate::encode`]; the conversation is then what it was.
    pub fn compact(
        &mut self,
        chat: &ChatTemplate,
        tokenizer: &Tokenizer,
        turns: Range<usize>,
        (messages, summary): (Vec<Message>, Message),
        options: &RenderOptions<'_>,
    ) -> Result<Compacted> {
        let old = self.tokens();
        let end = turns.end.min(self.turns.len());
        let start = turns.start.min(end);
        let mut new = Self {
            opening: self.opening.clone(),
            turns: self.turns.get(..start).unwrap_or_default().to_vec(),
        };
        let asked = new.ask(chat, tokenizer, messages, options)?;
        let tokens = tokenizer.encode_continuation(&summary.content)?;
        new.answered(asked, summary, &tokens);
        let stays = |(i, turn): &(usize, &Turn)| *i >= end || turn.pinned;
        let rest = self.turns.iter().enumerate().skip(start).filter(stays);
        for (_, turn) in rest {
            // A turn's own tokens begin with the end of the answer before: they fit after any.
            if turn.whole {
                let asked = new.ask(chat, tokenizer, turn.messages.clone(), options)?;
                new.answered(asked, turn.answer.clone(), &turn.answered);
                if let Some(last) = new.turns.last_mut() {
                    last.pinned = turn.pinned;
                }
            } else {
                new.turns.push(turn.clone());
            }
        }
        let tokens = new.tokens();
        let kept = crate::cache::common(&old, &tokens);
        *self = new;
        Ok(Compacted {
            kept,
            before: old.len(),
            after: tokens.len(),
        })
    }
}

#[cfg(test)]
#[path = "conversation_tests.rs"]
mod tests;
