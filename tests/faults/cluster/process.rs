//! One node's process: started in its namespace, signalled by its id, waited for.
//!
//! - It ends with us, however we end: its stdin is our pipe, and the kernel kills it when its parent dies.

use super::Result;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::process::{Child, Command};

/// What a process is started with.
#[derive(Clone, Debug)]
pub struct Start {
    pub program: PathBuf,
    pub arguments: Vec<String>,
    pub environment: Vec<(String, String)>,
    /// The network namespace's file.
    pub namespace: Option<String>,
    pub log: PathBuf,
}

pub struct Process {
    child: Child,
    pid: Pid,
    paused: bool,
}

impl Process {
    pub fn start(start: &Start) -> Result<Process> {
        let failed = |error: std::io::Error| format!("cannot start {}: {error}", start.program.display());
        let log = OpenOptions::new().create(true).append(true).open(&start.log).map_err(failed)?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if let Some(namespace) = &start.namespace {
            command.arg("nsenter").arg(format!("--net={namespace}"));
        }
        command.arg(&start.program).args(&start.arguments);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("EVERMESH") && name != "EVERMESH_LOG") {
            command.env_remove(name);
        }
        command.envs(start.environment.iter().cloned());
        command.stdin(Stdio::piped()).stdout(log.try_clone().map_err(failed)?).stderr(log);
        // A Ctrl-C at the terminal reaches us alone.
        command.process_group(0).kill_on_drop(true);
        let child = command.spawn().map_err(failed)?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw).ok_or("a process without an id")?;
        Ok(Process { child, pid, paused: false })
    }

    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// The child is ours and not waited for, so its id is its own.
    fn signal(&self, signal: Signal) {
        let _ = kill_process(self.pid, signal);
    }

    pub fn pause(&mut self) {
        self.signal(Signal::STOP);
        self.paused = true;
    }

    pub fn resume(&mut self) {
        self.signal(Signal::CONT);
        self.paused = false;
    }

    /// kill -9 without waiting; `ended` waits.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    pub fn ask_to_stop(&self) {
        self.signal(Signal::TERM);
    }

    /// How it ended, if it has.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    pub async fn ended(&mut self, patience: Duration) -> Option<ExitStatus> {
        // `wait` would close the stdin that says that we live.
        let stdin = self.child.stdin.take();
        let how = tokio::time::timeout(patience, self.child.wait()).await.ok().and_then(std::result::Result::ok);
        self.child.stdin = stdin;
        how
    }
}

/// The lines of a node's log that no node may ever write.
pub fn panics(log: &Path) -> Vec<String> {
    let Ok(bytes) = std::fs::read(log) else { return Vec::new() };
    let text = String::from_utf8_lossy(&bytes);
    text.lines().filter(|line| line.contains("panicked at")).map(str::to_owned).collect()
}
