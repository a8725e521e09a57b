//! One node as a child process: started, listened to, stopped.
//!
//! - The child's stdin is a pipe that only we hold: when we end, however we end, it reads EOF and stops.
//! - It is in a process group of its own, so that a Ctrl-C at the terminal reaches us alone and we stop it once.
//! - Its lines arrive bounded in length and number; a child that logs faster than we print waits.

use super::plan::Spec;
use crate::cli::failure::{Failure, Result};
use crate::core::limits;
use futures_util::StreamExt;
use rustix::process::{Pid, Signal, kill_process};
use std::{os::unix::process::ExitStatusExt, process::ExitStatus, process::Stdio, time::Duration};
use tokio::{
    io::AsyncRead,
    process::{Child, Command},
    sync::mpsc,
    task::JoinHandle,
};
use tokio_util::{
    codec::{FramedRead, LinesCodec},
    sync::CancellationToken,
};

/// How long a node may take to stop before it is killed.
const STOP_WAIT: Duration = Duration::from_secs(10);

/// What a child's tasks tell `dev`; `node` is its position.
pub enum News {
    Line { node: usize, text: String },
    Ready { node: usize, pid: u32, took: Duration },
    Ended { node: usize, how: Option<ExitStatus> },
}

/// Stops children: gently, or at once.
#[derive(Clone, Default)]
pub struct Stops {
    pub gently: CancellationToken,
    pub at_once: CancellationToken,
}

/// A child that runs; its task tells `News::Ended` as its last word.
pub struct Running {
    pub pid: u32,
    /// Stops this child alone; cancelled with those of all.
    pub stops: Stops,
}

/// Starts the node and the tasks that listen to it.
pub fn start(spec: &Spec, node: usize, news: &mpsc::Sender<News>, stops: &Stops) -> Result<Running> {
    let failed = |error| Failure::new(format!("cannot start {}: {error}", spec.name));
    let program = std::env::current_exe().map_err(failed)?;
    let mut command = Command::new(program);
    command.args(spec.arguments()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("EVERMESH_") && name != "EVERMESH_LOG") {
        // A setting meant for `serve` would be the same for all the nodes.
        command.env_remove(name);
    }
    let mut child = command.spawn().map_err(failed)?;
    let pid = child.id().expect("it was not waited for yet");
    let stdout = child.stdout.take().expect("it is piped");
    let stderr = child.stderr.take().expect("it is piped");
    let readers = [tokio::spawn(relay(stdout, node, news.clone())), tokio::spawn(relay(stderr, node, news.clone()))];
    let stops = Stops { gently: stops.gently.child_token(), at_once: stops.at_once.child_token() };
    tokio::spawn(attend(child, pid, node, readers, news.clone(), stops.clone()));
    Ok(Running { pid, stops })
}

/// Waits for the child's end, or brings it about; then lets its last lines out before its end is told.
async fn attend(mut child: Child, pid: u32, node: usize, readers: [JoinHandle<()>; 2], news: mpsc::Sender<News>, stops: Stops) {
    // `wait` closes a stdin that the child still holds, and this one says that we live.
    let _stdin = child.stdin.take();
    let how = tokio::select! {
        how = child.wait() => how,
        () = stops.gently.cancelled() => stop(&mut child, pid, &stops).await,
        () = stops.at_once.cancelled() => kill(&mut child).await,
    };
    for reader in readers {
        // A grandchild could hold the pipe open; there is none, but nothing here may wait forever.
        let _ = tokio::time::timeout(Duration::from_secs(1), reader).await;
    }
    let _ = news.send(News::Ended { node, how: how.ok() }).await;
}

async fn stop(child: &mut Child, pid: u32, stops: &Stops) -> std::io::Result<ExitStatus> {
    // The child is ours and not yet waited for, so its id cannot have gone to another process.
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::TERM);
    }
    tokio::select! {
        how = child.wait() => return how,
        () = tokio::time::sleep(STOP_WAIT) => {}
        () = stops.at_once.cancelled() => {}
    }
    kill(child).await
}

/// SIGKILL: the child gets to do nothing more.
async fn kill(child: &mut Child) -> std::io::Result<ExitStatus> {
    child.kill().await?;
    child.wait().await
}

async fn relay(from: impl AsyncRead + Unpin, node: usize, news: mpsc::Sender<News>) {
    let mut lines = FramedRead::new(from, LinesCodec::new_with_max_length(limits::LOG_LINE_BYTES_MAX));
    while let Some(line) = lines.next().await {
        let text = match line {
            Ok(text) => text,
            Err(tokio_util::codec::LinesCodecError::MaxLineLengthExceeded) => continue,
            Err(_) => return,
        };
        if news.send(News::Line { node, text }).await.is_err() {
            return;
        }
    }
}

/// An exit status in words.
pub fn describe(how: Option<ExitStatus>) -> String {
    match how.map(|how| (how.signal(), how.code())) {
        Some((Some(signal), _)) => format!("ended by signal {signal}"),
        Some((None, Some(0))) => "stopped".into(),
        Some((None, Some(code))) => format!("ended with exit code {code}"),
        _ => "ended".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_in_words() {
        assert_eq!(describe(Some(ExitStatus::from_raw(9))), "ended by signal 9");
        assert_eq!(describe(Some(ExitStatus::from_raw(2 << 8))), "ended with exit code 2");
        assert_eq!(describe(Some(ExitStatus::from_raw(0))), "stopped");
    }
}
