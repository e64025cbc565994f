use proptest::prelude::*;

use super::*;
use crate::generate::toy::tokenizer;

/// As Qwen's: roles between control tokens, and no thoughts in earlier answers.
const TEMPLATE: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n\
    {{ m.content.split('</think>')[-1] if m.role == 'assistant' else m.content }}<|im_end|>\n\
    {% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// Writes earlier answers in capitals, so nothing shows where one ends.
const SHOUTING: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n\
    {{ m.content | upper if m.role == 'assistant' else m.content }}<|im_end|>\n\
    {% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// Refuses results without a call.
const STRICT: &str = "{% for m in messages %}{% if m.role == 'tool' and \
    'call' not in messages[loop.index0 - 1].content %}{{ raise_exception('no call') }}{% endif %}\
    <|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n\
    {% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::from_source(source, "", "<|im_end|>").unwrap()
}

fn chat() -> ChatTemplate {
    template(TEMPLATE)
}

fn say_by(chat: &ChatTemplate, talk: &mut Conversation, message: Message, answer: &str) -> usize {
    let (tokenizer, options) = (tokenizer(), RenderOptions::default());
    let before = talk.tokens();
    let asked = talk.ask(chat, &tokenizer, vec![message], &options);
    let asked = asked.unwrap();
    let held = asked.held();
    assert!(held == 0 || held == before.len() && asked.prompt().starts_with(&before));
    let tokens = tokenizer.encode_continuation(answer).unwrap();
    let whole = [asked.prompt(), &tokens].concat();
    talk.answered(asked, Message::assistant(answer), &tokens);
    assert_eq!((talk.tokens(), talk.len()), (whole.clone(), whole.len()));
    held
}

fn say(talk: &mut Conversation, question: &str, answer: &str) {
    let before = talk.len();
    let held = say_by(&chat(), talk, Message::user(question), answer);
    assert_eq!(held, before);
    assert_eq!(
        talk.turns().iter().map(Turn::len).sum::<usize>(),
        talk.len()
    );
}

fn try_compact(
    chat: &ChatTemplate,
    talk: &mut Conversation,
    turns: Range<usize>,
    summary: &str,
) -> Option<Compacted> {
    let summary = (vec![Message::user("So far?")], Message::assistant(summary));
    let options = RenderOptions::default();
    let done = talk.compact(chat, &tokenizer(), turns, summary, &options);
    done.ok()
}

fn compact(talk: &mut Conversation, turns: Range<usize>, summary: &str) -> Compacted {
    try_compact(&chat(), talk, turns, summary).unwrap()
}

fn text(talk: &Conversation) -> String {
    tokenizer().decode(&talk.tokens(), false)
}

fn check(talk: &Conversation) -> Option<Difference> {
    talk.check(&chat(), &tokenizer(), &RenderOptions::default())
        .unwrap()
}

#[test]
fn a_template_that_rewrites_history_is_told() {
    let mut talk = Conversation::new(vec![Message::system("Be brief.")]);
    assert_eq!(check(&talk).map(|d| d.turn), None);
    say(&mut talk, "One?", "It is one.");
    say(&mut talk, "Two?", "Hm.</think>It is two.");
    say(&mut talk, "Three?", "It is three.");
    let difference = check(&talk).unwrap();
    assert_eq!(difference.turn, 1);
    assert!(
        difference
            .held
            .starts_with("Hm.</think>It is two.<|im_end|>")
    );
    assert!(difference.rendered.starts_with("It is two.<|im_end|>"));
    let common = text(&talk)[..difference.common].to_owned();
    assert!(common.ends_with("Two?<|im_end|>\n<|im_start|>assistant\n"));
    let tokens = talk.tokens()[..difference.tokens].to_vec();
    assert_eq!(tokenizer().decode(&tokens, false), common);
    // What was told is what the model has seen, and it stays.
    say(&mut talk, "Four?", "It is four.");
    assert!(text(&talk).contains("Hm.</think>"));
}

#[test]
fn a_summary_takes_the_place_of_turns() {
    let mut talk = Conversation::new(vec![Message::system("Be brief.")]);
    for n in ["One", "Two", "Three", "Four"] {
        say(&mut talk, &format!("{n}?"), &format!("It is {n}."));
    }
    assert!(talk.pin(2, true) && !talk.pin(4, true));
    let begin = talk.turns()[0].len();
    let done = compact(&mut talk, 1..3, "Two was said.");
    assert!(done.kept >= begin && done.after == talk.len());
    let line = |role: &str, text: &str| format!("<|im_start|>{role}\n{text}<|im_end|>\n");
    let expected = [
        line("system", "Be brief."),
        line("user", "One?"),
        line("assistant", "It is One."),
        line("user", "So far?"),
        line("assistant", "Two was said."),
        line("user", "Three?"),
        line("assistant", "It is Three."),
        line("user", "Four?"),
        line("assistant", "It is Four."),
    ];
    assert!(
        expected.concat().starts_with(&text(&talk)),
        "{}",
        text(&talk)
    );
    assert_eq!((talk.messages().count(), check(&talk)), (9, None));
    // All of it, the opening stays.
    compact(&mut talk, 0..9, "Numbers.");
    assert!(
        text(&talk).starts_with(&line("system", "Be brief.")),
        "{}",
        text(&talk)
    );
    assert_eq!((talk.turns().len(), check(&talk)), (2, None));
}

#[test]
fn what_was_rendered_again_is_compacted_without_loss() {
    let chat = template(STRICT);
    let mut talk = Conversation::new(vec![Message::system("Be brief.")]);
    assert_eq!(say_by(&chat, &mut talk, Message::user("One?"), "call"), 0);
    // The template takes a result after its call alone: all is rendered again.
    let result = Message::tool("count", "1");
    assert_eq!(say_by(&chat, &mut talk, result, "It is one."), 0);
    let before = talk.len();
    assert_eq!(
        say_by(&chat, &mut talk, Message::user("Two?"), "It is two."),
        before
    );
    let mut after = talk.clone();
    try_compact(&chat, &mut after, 2..3, "Two was said.").unwrap();
    let line = |role: &str, text: &str| format!("<|im_start|>{role}\n{text}<|im_end|>\n");
    let begin = line("system", "Be brief.") + &line("user", "One?") + &line("assistant", "call");
    let first = begin.clone() + &line("tool", "1") + &line("assistant", "It is one.");
    let summary = |text| line("user", "So far?") + &line("assistant", text);
    let expected = first + &summary("Two was said.");
    assert!(expected.starts_with(&text(&after)), "{}", text(&after));
    // The turn with the result goes: what comes before it has its tokens still.
    let done = try_compact(&chat, &mut talk, 1..2, "One was said.").unwrap();
    let expected = begin
        + &summary("One was said.")
        + &line("user", "Two?")
        + &line("assistant", "It is two.");
    assert!(expected.starts_with(&text(&talk)), "{}", text(&talk));
    assert!(done.kept > 0 && done.after == talk.len());
}

#[test]
fn a_template_that_always_renders_again_is_planned_for() {
    let chat = template(SHOUTING);
    let mut talk = Conversation::new(vec![Message::system("Be brief.")]);
    for n in ["one", "two", "three", "four"] {
        let answer = format!("It is {n}. {}", "Many words. ".repeat(9));
        assert_eq!(say_by(&chat, &mut talk, Message::user(n), &answer), 0);
    }
    assert!(talk.pin(1, true) && talk.turns()[1].pinned());
    let context = talk.len() - 50;
    let turns = talk.plan(context, 0, 40).unwrap().unwrap();
    assert_eq!(turns, 0..1);
    try_compact(&chat, &mut talk, turns, "One was said.").unwrap();
    let text = text(&talk);
    let place = |what: &str| {
        text.find(what)
            .unwrap_or_else(|| panic!("no {what} in {text}"))
    };
    let order = [
        "Be brief.",
        "ONE WAS SAID.",
        "IT IS TWO.",
        "IT IS THREE.",
        "It is four.",
    ];
    assert!(order.map(place).is_sorted() && talk.len() <= context);
    assert!(!text.contains("IT IS ONE."));
}

#[test]
fn results_are_not_parted_from_their_calls() {
    let chat = template(TEMPLATE);
    let mut talk = Conversation::default();
    say(&mut talk, "One?", "call");
    say_by(&chat, &mut talk, Message::tool("count", "1"), "call");
    say_by(&chat, &mut talk, Message::tool("count", "2"), "It is two.");
    say(&mut talk, "Three?", "It is three.");
    assert_eq!(talk.plan(talk.len(), 1, 0).unwrap(), Some(0..3));
}

#[test]
fn an_answer_to_what_was_asked_before_a_change_is_what_the_model_saw() {
    let (chat, tokenizer, options) = (chat(), tokenizer(), RenderOptions::default());
    let mut talk = Conversation::default();
    say(&mut talk, "One?", "It is one.");
    let next = vec![Message::user("Two?")];
    let asked = talk.ask(&chat, &tokenizer, next, &options).unwrap();
    compact(&mut talk, 0..1, "One.");
    let tokens = tokenizer.encode_continuation("It is two.").unwrap();
    let seen = [asked.prompt(), &tokens].concat();
    talk.answered(asked, Message::assistant("It is two."), &tokens);
    assert_eq!(talk.tokens(), seen);
}

#[test]
fn what_is_pinned_leaves_no_room() {
    let mut talk = Conversation::default();
    for n in 0..4 {
        say(&mut talk, &format!("{n}?"), &"many words ".repeat(20));
        talk.pin(n, true);
    }
    assert_eq!(talk.plan(talk.len() + 10, 10, 5).unwrap(), None);
    let refused = talk.plan(talk.len() + 9, 10, 5);
    let Err(CoreError::ContextOverflow {
        prompt, reserve, ..
    }) = refused
    else {
        panic!("{refused:?}");
    };
    assert_eq!((prompt, reserve), (talk.len() + 5, 10));
    talk.pin(1, false);
    assert_eq!(talk.plan(talk.len() + 9, 10, 5).unwrap(), Some(1..2));
}

#[derive(Clone, Debug)]
enum Step {
    Say(String, String),
    Call(String),
    Pin(usize, bool),
    Compact(usize, usize, String),
    Plan(usize, usize, String),
}

fn step() -> impl Strategy<Value = Step> {
    let text = || "[ab:{}\"<|>xé]{0,24}";
    prop_oneof![
        4 => (text(), text()).prop_map(|(q, a)| Step::Say(q, a)),
        2 => text().prop_map(Step::Call),
        1 => (0..6usize, any::<bool>()).prop_map(|(i, on)| Step::Pin(i, on)),
        1 => (0..6usize, 0..6usize, text()).prop_map(|(a, b, s)| Step::Compact(a, b, s)),
        1 => (0..300usize, 0..40usize, text()).prop_map(|(c, m, s)| Step::Plan(c, m, s)),
    ]
}

proptest! {
    #[test]
    fn whatever_is_done_the_beginning_and_what_is_pinned_stay(
        steps in prop::collection::vec(step(), 1..14),
        source in prop::sample::select(&[TEMPLATE, SHOUTING, STRICT][..]),
    ) {
        let (chat, grows) = (template(source), source != SHOUTING);
        let mut talk = Conversation::new(vec![Message::system("ab")]);
        for step in steps {
            let (old, pinned): (_, Vec<_>) = (
                talk.tokens(),
                talk.turns.iter().filter(|t| t.pinned).map(|t| t.answer.clone()).collect(),
            );
            match step {
                Step::Say(question, answer) => {
                    let held = say_by(&chat, &mut talk, Message::user(question), &answer);
                    prop_assert_eq!(held, if grows { old.len() } else { 0 });
                }
                Step::Call(result) => {
                    say_by(&chat, &mut talk, Message::user(""), "call");
                    say_by(&chat, &mut talk, Message::tool("count", &result), &result);
                }
                Step::Pin(turn, on) => {
                    talk.pin(turn, on);
                    continue;
                }
                Step::Compact(a, b, summary) => {
                    let kept: usize = talk.turns.iter().take(a.min(b)).map(Turn::len).sum();
                    let Some(done) = try_compact(&chat, &mut talk, a..b, &summary) else {
                        // A result without its call, to a template that refuses it.
                        prop_assert!(source == STRICT && talk.tokens() == old);
                        continue;
                    };
                    let new = talk.tokens();
                    prop_assert!(!grows || done.kept >= kept.min(new.len()));
                    prop_assert_eq!(&old[..done.kept], &new[..done.kept]);
                    prop_assert_eq!((done.before, done.after), (old.len(), new.len()));
                }
                Step::Plan(context, more, summary) => {
                    let ask = tokenizer().encode_continuation("<|im_end|>So far?").unwrap();
                    let most = summary.len() + ask.len() + 60;
                    match talk.plan(context, more, most) {
                        Ok(Some(turns)) => {
                            let done = try_compact(&chat, &mut talk, turns, &summary);
                            prop_assert!(done.is_some() || !pinned.is_empty());
                            prop_assert!(!grows || done.is_none() || talk.len() + more <= context);
                        }
                        Ok(None) => prop_assert!(talk.len() + more <= context),
                        Err(_) => prop_assert!(talk.len() + more > context),
                    }
                }
            }
            // All that was said is in the tokens, in order.
            let (text, mut at) = (text(&talk).to_uppercase(), 0);
            for message in talk.messages().skip(usize::from(talk.is_empty())) {
                let content = message.content.to_uppercase();
                let found = text.get(at..).and_then(|rest| rest.find(&content));
                prop_assert!(found.is_some(), "{content} is not in {text} after {at}");
                at += found.unwrap_or(0) + content.len();
            }
            let mut answers = talk.turns.iter().map(|turn| &turn.answer);
            // In order.
            prop_assert!(
                pinned.iter().all(|pinned| answers.any(|answer| answer == pinned)),
                "{:?}",
                (pinned, talk.turns)
            );
        }
    }
}
