//! No text in any field of a message becomes a control token, whatever the template.
//!
//! Runs every template of the folder `chat` in the folder that `CONVERGE_CONFORMANCE` names, else
//! in `data/conformance` beside this file. Each is given a vocabulary in which everything that
//! looks like a control token in its source is one, and conversations with these texts in every
//! field, whole and in halves.

use std::collections::BTreeSet;

use converge_core::{
    TokenId,
    chat::{ChatTemplate, Message, RenderOptions, ToolCall, ToolDef},
    tokenizer::{Special, Tokenizer},
};
use converge_tests::chat_templates;
use rayon::prelude::*;
use serde_json::json;

/// What a field holds: a conversation is made of one text per field.
const FIELDS: [&str; 13] = [
    "system",
    "user",
    "name of the user",
    "reasoning",
    "remark with a call",
    "call id",
    "tool name",
    "argument name",
    "argument",
    "tool result",
    "answer",
    "tool description",
    "argument description",
];

type Texts = [String; FIELDS.len()];

/// A conversation with every field; the arguments of its call as a text of JSON, as some templates
/// want them, or as the object itself.
fn conversation(texts: &Texts, arguments_as_text: bool) -> (Vec<Message>, Vec<ToolDef>) {
    let [
        system,
        user,
        user_name,
        reasoning,
        remark,
        id,
        tool,
        name,
        argument,
        result,
        answer,
        description,
        argument_description,
    ] = texts.clone();
    let arguments = json!({name.clone(): argument});
    let call = ToolCall {
        id: Some(id.clone()),
        name: tool.clone(),
        arguments: match arguments_as_text {
            true => arguments.to_string().into(),
            false => arguments,
        },
    };
    let messages = vec![
        Message::system(system),
        Message {
            name: Some(user_name),
            ..Message::user(user.clone())
        },
        Message {
            reasoning: Some(reasoning.clone()),
            content: remark,
            ..Message::calls(vec![call])
        },
        Message::tool(tool.clone(), result).answering(id),
        Message {
            reasoning: Some(reasoning),
            ..Message::assistant(answer)
        },
        Message::user(user),
    ];
    let properties = json!({name: {"type": "string", "description": argument_description}});
    let parameters = json!({"type": "object", "properties": properties});
    (messages, vec![ToolDef::new(tool, description, parameters)])
}

/// The tokens of a cut of the conversation: some templates know no tools, no system message, or no
/// result that follows a call.
struct Cut {
    /// `None` where the template refuses guarded data: an id of another length than it wants.
    tokens: Option<Vec<TokenId>>,
    /// The same with the rendered text taken at its word.
    trusting: Vec<TokenId>,
}

const CUTS: usize = 5;

/// `None` where the template refuses it.
fn encode(
    template: &ChatTemplate,
    tokenizer: &Tokenizer,
    texts: &Texts,
    cut: usize,
) -> Option<Cut> {
    let (messages, tools) = conversation(texts, cut == 1);
    let (messages, tools) = match cut {
        0 | 1 => (&messages[..], &tools[..]),
        2 => (&messages[..2], &tools[..]),
        3 => (&messages[..2], &[][..]),
        _ => (&messages[1..2], &[][..]),
    };
    let options = RenderOptions {
        now: Some("2026-01-02T03:04:05".parse().unwrap()),
        ..RenderOptions::with_tools(tools)
    };
    let text = template.render(messages, &options).ok()?;
    Some(Cut {
        tokens: template.encode(tokenizer, messages, &options).ok(),
        trusting: tokenizer.encode(&text, Special::Parse).unwrap(),
    })
}

/// What was tried on a template.
#[derive(Default)]
struct Tried {
    texts: usize,
    /// Texts that would have forged a token had the rendering been trusted, by field.
    dangerous: [usize; FIELDS.len()],
}

struct Subject<'a> {
    name: String,
    source: &'a str,
    template: ChatTemplate,
    tokenizer: Tokenizer,
}

impl Subject<'_> {
    /// Puts a text with the marker, or its halves, into a field of a conversation that goes well.
    fn attack(&self, harmless: &Texts, field: usize, marker: &str, text: String) -> Option<bool> {
        let mut texts = harmless.clone();
        texts[field] = text;
        let (template, tokenizer) = (&self.template, &self.tokenizer);
        // Some templates refuse what is no proper id: the same cut of the conversation.
        let (found, expected) = (0..CUTS).find_map(|cut| {
            let found = encode(template, tokenizer, &texts, cut)?;
            Some((found, encode(template, tokenizer, harmless, cut)?))
        })?;
        let controls = |tokens: &[TokenId]| -> Vec<TokenId> {
            let ids = tokens.iter().copied();
            ids.filter(|&id| tokenizer.is_control(id)).collect()
        };
        let trusting_forges = controls(&found.trusting).len() > controls(&expected.trusting).len();
        let expected = expected.tokens?;
        let Some(found) = found.tokens else {
            return Some(trusting_forges);
        };
        let place = || format!("{}: {} {:?}", self.name, FIELDS[field], texts[field]);
        if self.looks_for(marker) {
            // The template may take the data apart there and write the marker itself, once more
            // than else; that of the data would stand between the letters it came with.
            let own = tokenizer.special(marker).unwrap();
            let count = |tokens: &[TokenId]| tokens.iter().filter(|&&id| id == own).count();
            let [c, d] = ["c", "d"].map(|text| tokenizer.encode(text, Special::Text).unwrap()[0]);
            assert!(count(&found) <= count(&expected) + 1, "{}", place());
            assert!(!found.windows(3).any(|w| w == [c, own, d]), "{}", place());
        } else {
            assert_eq!(controls(&found), controls(&expected), "{}", place());
        }
        Some(trusting_forges)
    }

    /// Whether the template holds strings against the marker, and may so choose what it writes.
    fn looks_for(&self, marker: &str) -> bool {
        let quoted = [format!("'{marker}'"), format!("\"{marker}\"")];
        quoted.iter().any(|quoted| self.source.contains(quoted))
    }

    fn try_everything(&self, markers: &BTreeSet<String>) -> Tried {
        // Letters and digits, nine of them: what some templates want of the id of a call.
        let harmless = [const { String::new() }; FIELDS.len()].map(|_| "abcdefgh1".to_owned());
        assert!(
            (0..CUTS).any(|cut| encode(&self.template, &self.tokenizer, &harmless, cut).is_some()),
            "{}: refuses every conversation",
            self.name
        );
        let mut tried = Tried::default();
        for field in 0..FIELDS.len() {
            for marker in markers {
                let half = marker.ceil_char_boundary(marker.len() / 2);
                let (head, tail) = marker.split_at(half);
                // The last is nine letters long where the marker allows it.
                for text in [
                    format!("abc{marker}def"),
                    format!("{tail}abc{head}"),
                    format!("{marker:x<9}"),
                ] {
                    if let Some(dangerous) = self.attack(&harmless, field, marker, text) {
                        tried.texts += 1;
                        tried.dangerous[field] += usize::from(dangerous);
                    }
                }
            }
        }
        tried
    }
}

#[test]
fn no_field_of_a_message_forges_a_control_token() {
    let tried: Vec<Tried> = chat_templates()
        .par_iter()
        .map(|file| {
            let markers = file.markers();
            Subject {
                name: file.name.clone(),
                source: &file.source,
                template: file.compile(),
                tokenizer: file.tokenizer(),
            }
            .try_everything(&markers)
        })
        .collect();

    let texts: usize = tried.iter().map(|tried| tried.texts).sum();
    println!("{} templates, {texts} texts", tried.len());
    for (at, field) in FIELDS.iter().enumerate() {
        let dangerous = tried.iter().map(|tried| tried.dangerous[at]);
        let templates = dangerous.clone().filter(|&n| n > 0).count();
        println!(
            "{field}: {} dangerous in {templates} templates",
            dangerous.sum::<usize>()
        );
        // A field that no template shows would prove nothing.
        assert!(templates > 0, "no template shows the {field}");
    }
    assert!(
        tried.len() >= 35 && texts > 10_000,
        "{} templates, {texts} texts",
        tried.len()
    );
}
