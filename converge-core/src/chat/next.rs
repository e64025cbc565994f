//! What follows an answer: a conversation that only ever grows.

use super::{ChatTemplate, Message, RenderOptions};
use crate::tokenizer::Tokenizer;
use crate::{Result, TokenId};

/// Words to stand for an answer, of which a conversation hardly holds all.
const STAND_INS: [&str; 4] = ["Quillwort", "Zyzzyva", "Jackdaw", "Vexillum"];

impl ChatTemplate {
    /// The tokens that follow an answer: what closes it, then `messages`, then (as `options` say)
    /// the opening of the next answer. Data is kept from becoming control tokens as in
    /// [`encode`](Self::encode).
    ///
    /// Prompt, answer and these tokens are the next prompt. That costs nothing but the new tokens,
    /// where rendering the whole conversation again may change what was said before: templates take
    /// thoughts out of earlier answers, and text is not always cut into the tokens that a model
    /// chose for it.
    ///
    /// `None` where the template shows no place at which an answer ends, or refuses a conversation
    /// that begins with a user's message, its answer and `messages`; then the conversation has to be
    /// encoded as a whole.
    ///
    /// # Errors
    /// As [`encode`](Self::encode), but for the template's own refusal.
    pub fn encode_next(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        options: &RenderOptions<'_>,
    ) -> Result<Option<Vec<TokenId>>> {
        for answer in STAND_INS {
            let before = [Message::user("."), Message::assistant(answer)];
            let all: Vec<Message> = before.into_iter().chain(messages.iter().cloned()).collect();
            let tokens = match self.encode(tokenizer, &all, options) {
                Err(crate::CoreError::Chat(super::ChatError::TemplateError { .. })) => {
                    return Ok(None);
                }
                other => other?,
            };
            if let Some(end) = end_of(tokenizer, &tokens, answer) {
                return Ok(Some(tokens.get(end..).unwrap_or_default().to_vec()));
            }
        }
        Ok(None)
    }
}

/// How many tokens reach to the end of `answer`, where it occurs once and a token ends with it.
fn end_of(tokenizer: &Tokenizer, tokens: &[TokenId], answer: &str) -> Option<usize> {
    let mut text: Vec<u8> = Vec::new();
    let mut found = None;
    for (at, &token) in tokens.iter().enumerate() {
        let before = text.len().saturating_sub(answer.len() - 1);
        text.extend_from_slice(tokenizer.token_bytes(token));
        let fresh = text.get(before..).unwrap_or_default();
        let occurs = fresh.windows(answer.len()).any(|w| w == answer.as_bytes());
        match (occurs, text.ends_with(answer.as_bytes()), found) {
            (false, ..) => {}
            (true, true, None) => found = Some(at + 1),
            _ => return None,
        }
    }
    found
}
