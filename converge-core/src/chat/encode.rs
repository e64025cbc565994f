//! From messages to tokens, with data kept apart from the template's control tokens.

use std::collections::HashSet;

use super::guard::{self, Specials};
use super::{ChatTemplate, Message, RenderOptions};
use crate::tokenizer::{Special, Tokenizer};
use crate::{Result, TokenId};

/// Renderings of a suspicious conversation before every word in it is guarded.
const ATTEMPTS: usize = 4;

impl ChatTemplate {
    /// The tokens of the prompt. Nothing that stands in data (contents, names, descriptions,
    /// arguments, schemas, ids, extra variables) can become a special token of the vocabulary:
    /// only the template's own text, the roles and `bos`/`eos` can.
    ///
    /// Where data reads like a special token it becomes the ordinary tokens of its characters;
    /// where it does not, the tokens are those of the [rendered](Self::render) text with special
    /// tokens parsed. The model's BOS token is put in front where the model wants one and the
    /// template did not write it.
    ///
    /// How: guards (see [`Tokenizer::encode_guarded`]) go into the data before the template runs.
    /// A template may take strings apart or put markup around them, so a second rendering with
    /// guards between all characters of the data shows which special tokens are really the
    /// template's; should the first have others, the second one counts.
    ///
    /// # Errors
    /// As [`render`](Self::render) and [`Tokenizer::encode_guarded`].
    pub fn encode(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        options: &RenderOptions<'_>,
    ) -> Result<Vec<TokenId>> {
        let mut data = Vec::new();
        super::context::variables(messages, options, &mut |text| {
            data.push(text.to_owned());
            String::new()
        })?;
        let guard = guard::choose(&data, &self.source)?;
        let specials = Specials::new(forgeable(tokenizer));
        let texts = Rendering {
            template: self,
            messages,
            options,
            guard,
        };

        let text = texts.render(&mut |text| specials.guard(text, guard))?;
        let found = special_tokens(tokenizer, &specials, &text);
        let (strict, allowed) = texts.strict(tokenizer, &specials, &data, &found)?;
        let text = if found == allowed { text } else { strict };

        let mut tokens = tokenizer.encode_guarded(&text, Some(guard))?;
        if let Some(bos) = tokenizer.bos().filter(|_| tokenizer.adds_bos())
            && tokens.first() != Some(&bos)
        {
            tokens.insert(0, bos);
        }
        Ok(tokens)
    }
}

struct Rendering<'a> {
    template: &'a ChatTemplate,
    messages: &'a [Message],
    options: &'a RenderOptions<'a>,
    guard: char,
}

impl Rendering<'_> {
    fn render(&self, map: &mut dyn FnMut(&str) -> String) -> Result<String> {
        let text = self
            .template
            .render_mapped(self.messages, self.options, map)?;
        // `tojson(ensure_ascii=True)` escapes the guard as well.
        let escape = guard::escape(self.guard);
        Ok(if text.contains(&escape) {
            text.replace(&escape, self.guard.encode_utf8(&mut [0; 4]))
        } else {
            text
        })
    }

    /// The text, and its special tokens, with all data guarded but plain words that have no
    /// part in the special tokens that occur.
    fn strict(
        &self,
        tokenizer: &Tokenizer,
        specials: &Specials,
        data: &[String],
        found: &[TokenId],
    ) -> Result<(String, Vec<TokenId>)> {
        let words: HashSet<&str> = data
            .iter()
            .map(String::as_str)
            .filter(|text| !text.is_empty() && guard::is_word(text))
            .collect();
        let mut occurring: HashSet<TokenId> = found.iter().copied().collect();
        let mut attempt = 0;
        loop {
            attempt += 1;
            let written = texts_of(tokenizer, &occurring);
            let bare: HashSet<&str> = words
                .iter()
                .filter(|word| attempt <= ATTEMPTS && !guard::is_part(word, &written))
                .copied()
                .collect();
            let text = self.render(&mut |text| {
                if bare.contains(text) {
                    text.to_owned()
                } else {
                    guard::guard_all(text, self.guard)
                }
            })?;
            let tokens = special_tokens(tokenizer, specials, &text);
            let known = occurring.len();
            occurring.extend(&tokens);
            if occurring.len() == known || attempt > ATTEMPTS {
                return Ok((text, tokens));
            }
        }
    }
}

/// Special tokens that data must not become: all but those that are mere text, which the
/// tokenizer takes whole in data too.
fn forgeable(tokenizer: &Tokenizer) -> impl Iterator<Item = (TokenId, &str)> {
    tokenizer.specials().filter(|&(id, text)| {
        tokenizer.is_control(id)
            || !matches!(tokenizer.encode(text, Special::Text).as_deref(), Ok([only]) if *only == id)
    })
}

/// How these special tokens are written, in lower case.
fn texts_of(tokenizer: &Tokenizer, ids: &HashSet<TokenId>) -> Vec<String> {
    tokenizer
        .specials()
        .filter(|(id, _)| ids.contains(id))
        .map(|(_, text)| text.to_ascii_lowercase())
        .collect()
}

/// The special tokens of a text that data might forge, in their order.
fn special_tokens(tokenizer: &Tokenizer, specials: &Specials, text: &str) -> Vec<TokenId> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((range, id)) = tokenizer.find_special(rest) {
        if specials.contains(id) {
            found.push(id);
        }
        rest = rest.get(range.end..).unwrap_or_default();
    }
    found
}
