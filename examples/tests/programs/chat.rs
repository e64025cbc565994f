//! The program `chat`.

use std::io::Write as _;

use super::*;

/// What the program says to these lines, and how it ends.
fn talk(args: &[&str], input: &str) -> (Vec<Value>, String, Option<i32>) {
    let mut command = program("chat");
    let mut child = command
        .args(["-m", &model(), "--f32", "--max-tokens", "12", "--json"])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let answers = String::from_utf8(output.stdout).unwrap();
    (
        answers.lines().map(object).collect(),
        String::from_utf8(output.stderr).unwrap(),
        output.status.code(),
    )
}

fn count(answer: &Value, of: &str) -> u64 {
    answer[of].as_u64().unwrap()
}

#[test]
fn a_conversation_only_grows() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("saved.json").display().to_string();
    let questions = "What is the capital of France?\n\n  And of Italy? \n";
    let input = format!("{questions}/save {file}\n/reset\nWhat is the capital of France?\n/help\n");
    let (answers, said, code) = talk(&["--ctx", "256"], &input);
    assert_eq!((answers.len(), code), (3, Some(0)), "{said}");
    assert!(answers[0]["text"].as_str().unwrap().contains("Paris"));
    // What was read and said is in the cache: all but the last token chosen.
    let [first, second] = [&answers[0], &answers[1]];
    let held = count(first, "prompt_tokens") + count(first, "decoded");
    assert!(count(second, "reused") >= held - 1, "{second} after {held}");
    assert!(count(second, "prefilled") < 30, "{second}");
    // The same beginning, the same answer.
    assert_eq!(answers[2]["text"], answers[0]["text"]);
    assert_eq!(answers[2]["prompt_tokens"], answers[0]["prompt_tokens"]);
    assert!(
        said.contains("anew") && said.contains("/save FILE"),
        "{said}"
    );

    let saved: Value = object(&fs::read_to_string(&file).unwrap());
    let roles: Vec<_> = saved
        .as_array()
        .unwrap()
        .iter()
        .map(|m| &m["role"])
        .collect();
    assert_eq!(roles, ["user", "assistant", "user", "assistant"]);
    assert_eq!(saved[2]["content"], "And of Italy?");
    let (answers, said, _) = talk(&["--load", &file, "--ctx", "256"], "Thanks.\n");
    assert!(
        count(&answers[0], "prompt_tokens") > held,
        "{answers:?} {said}"
    );
}

#[test]
fn a_full_context_says_what_to_do() {
    let (answers, said, code) = talk(&["--ctx", "64"], "Hello.\nHello again.\nAnd again.\n");
    assert_eq!(code, Some(1), "{said}");
    assert!(!answers.is_empty() && answers.len() < 3, "{answers:?}");
    let error = said.lines().last().unwrap();
    for words in ["error: ", "context 64", "/reset", "--load FILE --ctx N"] {
        assert!(error.contains(words), "{words} not in {error}");
    }
}

#[test]
fn what_is_no_message_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("saved.json");
    let path = file.display().to_string();
    let load = |text: &str, words: &[&str]| {
        fs::write(&file, text).unwrap();
        refused("chat", &["-m", &model(), "--load", &path], words);
    };
    load("{}", &["saved.json", "/save"]);
    load(
        r#"[{"role": "user", "content": "x"}]"#,
        &["saved.json", "no answer"],
    );
    for command in [
        "/save\n",
        "/quit now\n",
        "/nothing x\n",
        "/save /no/such/folder/x\n",
    ] {
        let (answers, said, code) = talk(&[], command);
        assert_eq!((answers.len(), code), (0, Some(1)), "{said}");
        let error = said.lines().last().unwrap();
        assert!(
            error.contains(command.trim()) || error.contains("cannot write"),
            "{error}"
        );
    }
    let (answers, _, code) = talk(&[], "/quit\nHello.\n");
    assert_eq!((answers.len(), code), (0, Some(0)));
    // Two slashes are one of a message.
    let (answers, said, _) = talk(&["--ctx", "128"], "//etc is what?\n");
    assert_eq!(answers.len(), 1, "{said}");
}

/// On a terminal, which `script` makes: Ctrl-C is the character that it is for a person.
#[cfg(target_os = "linux")]
#[test]
fn ctrl_c_stops_the_answer_and_the_conversation_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let saved = dir.path().join("saved.json");
    let chat = program("chat").get_program().display().to_string();
    let command = format!("{chat} -m {} --f32 --max-tokens 2000 --ctx 2048", model());
    let mut child = Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("`script` of util-linux");
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut seen = String::new();
    let mut until = |wanted: &str| {
        let from = seen.len();
        while !seen[from..].contains(wanted) {
            let mut byte = [0];
            assert_eq!(
                output.read(&mut byte).unwrap(),
                1,
                "no {wanted:?} in {seen}"
            );
            seen.push(byte[0].into());
        }
    };
    until("> ");
    input
        .write_all(b"Write a very long story about looms.\n")
        .unwrap();
    until("looms.");
    until(" the ");
    input.write_all(b"\x03").unwrap();
    let start = std::time::Instant::now();
    until("stopped, what is done is kept");
    assert!(start.elapsed().as_secs() < 30, "{:?}", start.elapsed());
    until("> ");
    input
        .write_all(format!("/save {}\n", saved.display()).as_bytes())
        .unwrap();
    until("2 messages are in");
    until("> ");
    // A command that there is not ends nothing here.
    input.write_all(b"/nothing\n").unwrap();
    until("no command /nothing");
    until("> ");
    input.write_all(b"Stop. Say only hello.\n").unwrap();
    until(" said, ");
    until("> ");
    input.write_all(b"\x03").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let saved: Value = object(&fs::read_to_string(&saved).unwrap());
    let answer = saved[1]["content"].as_str().unwrap();
    assert!(answer.contains(" the ") && !answer.is_empty(), "{answer}");
}

#[cfg(unix)]
#[test]
fn an_interrupt_ends_a_script_and_what_was_said_stays() {
    let mut command = program("chat");
    let mut child = command
        .args([
            "-m",
            &model(),
            "--f32",
            "--max-tokens",
            "2000",
            "--ctx",
            "2048",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = b"Write a very long story about looms.\nAnd another.\n";
    child.stdin.take().unwrap().write_all(lines).unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    assert!(!out.fill_buf().unwrap().is_empty());
    let kill = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(kill.unwrap().success());
    let mut text = String::new();
    out.read_to_string(&mut text).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(text.ends_with('\n'), "{text}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.matches(" said, ").count(), 1, "{said}");
}
