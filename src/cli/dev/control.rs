//! The control socket of `evermesh dev`: `dev.sock` in its data folder. One line in, one line out, for `evermesh dev kill`, for
//! `evermesh drill --kill`, and for scripts (`echo kill n2 | nc -U evermesh-data/dev.sock`).
//!
//! ```text
//! kill n2     SIGKILL; answered when its process has ended
//! stop n2     SIGTERM, as Ctrl-C would; answered likewise
//! start n2    answered when its process runs, before it is ready
//! status      ok n1 ready 4242, n2 starting 4243, n3 ended
//! ```
//!
//! An answer begins with `ok` or `error`.
//!
//! - Only the user who runs `dev` gets in: by the file's mode, and by what the kernel says of who connects.
//! - Connections, their lines and the requests that wait are bounded; nothing here waits for a slow client but its own task.

use crate::cli::failure::{Failure, Result};
use std::{
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::{Semaphore, mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};

const FILE_NAME: &str = "dev.sock";
/// Longest line, either way.
const LINE_BYTES_MAX: u64 = 4 * 1024;
const CONNECTIONS_MAX: usize = 8;
/// Requests that wait for `dev`.
pub const WAITING_MAX: usize = 8;
/// How long a client may take to say its line.
const SAY_WAIT: Duration = Duration::from_secs(5);
/// How long an answer may take: longer than a node takes to stop.
const ANSWER_WAIT: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    Kill(String),
    Stop(String),
    Start(String),
    Status,
}

impl Ask {
    pub fn parse(line: &str) -> Option<Ask> {
        let mut words = line.split_whitespace();
        let (verb, node) = (words.next()?, words.next().map(str::to_owned));
        let ask = match (verb, node) {
            ("kill", Some(node)) => Ask::Kill(node),
            ("stop", Some(node)) => Ask::Stop(node),
            ("start", Some(node)) => Ask::Start(node),
            ("status", None) => Ask::Status,
            _ => return None,
        };
        words.next().is_none().then_some(ask)
    }
}

/// What somebody wants of `dev`; the answer is a line without its `ok` or `error`.
pub struct Request {
    pub ask: Ask,
    pub answer: oneshot::Sender<std::result::Result<String, String>>,
}

/// The socket, until it is dropped.
pub struct Control {
    path: PathBuf,
    task: JoinHandle<()>,
}

impl Drop for Control {
    fn drop(&mut self) {
        self.task.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Fails where another `dev` uses the folder.
pub async fn check_free(folder: &Path) -> Result {
    match UnixStream::connect(folder.join(FILE_NAME)).await {
        Err(_) => Ok(()),
        Ok(_) => Err(Failure::new(format!("another `evermesh dev` runs with {}", folder.display()))
            .hint("end it, or use another folder with --data DIR or --ephemeral")),
    }
}

/// Listens in the folder. What a process that is gone left behind is taken over.
pub fn listen(folder: &Path, requests: mpsc::Sender<Request>) -> Result<Control> {
    let path = folder.join(FILE_NAME);
    let _ = std::fs::remove_file(&path);
    let bound = UnixListener::bind(&path).and_then(|listener| {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    });
    let listener = bound.map_err(|error| Failure::new(format!("cannot listen on {}: {error}", path.display())))?;
    Ok(Control { path, task: tokio::spawn(serve(listener, requests)) })
}

async fn serve(listener: UnixListener, requests: mpsc::Sender<Request>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = room.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let own = rustix::process::getuid().as_raw();
        if stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0) {
            let requests = requests.clone();
            tokio::spawn(async move {
                let _ = attend(stream, requests).await;
                drop(place);
            });
        }
    }
}

async fn attend(mut stream: UnixStream, requests: mpsc::Sender<Request>) -> io::Result<()> {
    let line = timeout(SAY_WAIT, read_line(&mut stream)).await??;
    let answer = match Ask::parse(&line) {
        None => Err("say one of: kill NODE, stop NODE, start NODE, status".into()),
        Some(ask) => {
            let (answer, answered) = oneshot::channel();
            let taken = requests.try_send(Request { ask, answer }).is_ok();
            let said = if taken { answered.await.ok() } else { None };
            said.unwrap_or_else(|| Err("`evermesh dev` is stopping or busy".into()))
        }
    };
    let line = match answer {
        Ok(text) => format!("ok {text}\n"),
        Err(why) => format!("error {why}\n"),
    };
    stream.write_all(line.as_bytes()).await
}

async fn read_line(stream: &mut UnixStream) -> io::Result<String> {
    let mut line = String::new();
    BufReader::new(stream.take(LINE_BYTES_MAX)).read_line(&mut line).await?;
    Ok(line)
}

/// The other side: asks the `dev` that runs with this folder, and gives what it answers.
pub async fn ask(folder: &Path, line: &str) -> Result<String> {
    let path = folder.join(FILE_NAME);
    let mut stream = UnixStream::connect(&path).await.map_err(|error| {
        Failure::new(format!("no `evermesh dev` listens on {}: {error}", path.display()))
            .hint("--data names the folder that it was started with; --ephemeral prints its own")
    })?;
    let asked = async {
        stream.write_all(format!("{line}\n").as_bytes()).await?;
        read_line(&mut stream).await
    };
    let answer = match timeout(ANSWER_WAIT, asked).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(Failure::new(format!("`evermesh dev` did not answer: {error}"))),
        Err(_) => return Err(Failure::new(format!("`evermesh dev` did not answer within {} s", ANSWER_WAIT.as_secs()))),
    };
    match answer.trim_end().split_once(' ') {
        Some(("ok", text)) => Ok(text.to_owned()),
        Some(("error", why)) => Err(Failure::new(why)),
        _ => Err(Failure::new("`evermesh dev` ended before it answered")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_one_line() {
        for (line, ask) in [
            ("kill n2\n", Some(Ask::Kill("n2".into()))),
            ("  stop   n1 ", Some(Ask::Stop("n1".into()))),
            ("start n3", Some(Ask::Start("n3".into()))),
            ("status", Some(Ask::Status)),
            ("status n1", None),
            ("kill", None),
            ("kill n1 n2", None),
            ("", None),
            ("GET / HTTP/1.1", None),
        ] {
            assert_eq!(Ask::parse(line), ask, "{line:?}");
        }
    }

    #[tokio::test]
    async fn a_line_in_is_a_line_out_and_nobody_else_gets_in() {
        let folder = tempfile::tempdir().unwrap();
        let (requests, mut asked) = mpsc::channel(WAITING_MAX);
        std::fs::write(folder.path().join(FILE_NAME), "left behind").unwrap();
        check_free(folder.path()).await.unwrap();
        let control = listen(folder.path(), requests).unwrap();
        assert_eq!(std::fs::metadata(folder.path().join(FILE_NAME)).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(check_free(folder.path()).await.err().unwrap().to_string().contains("another `evermesh dev`"));
        let dev = tokio::spawn(async move {
            while let Some(request) = asked.recv().await {
                let answer = match &request.ask {
                    Ask::Kill(node) if node == "n9" => Err("there is no n9".into()),
                    ask => Ok(format!("{ask:?}")),
                };
                let _ = request.answer.send(answer);
            }
        });
        assert_eq!(ask(folder.path(), "kill n2").await.unwrap(), "Kill(\"n2\")");
        assert!(ask(folder.path(), "kill n9").await.unwrap_err().to_string().contains("there is no n9"));
        assert!(ask(folder.path(), "dance").await.unwrap_err().to_string().contains("say one of"));
        drop(control);
        assert!(ask(folder.path(), "status").await.unwrap_err().to_string().contains("no `evermesh dev`"));
        assert!(!folder.path().join(FILE_NAME).exists());
        dev.abort();
    }
}
