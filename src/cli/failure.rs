//! How a command fails: what went wrong, what to do next, and the exit code that a script can tell apart.

use crate::client;
use std::{fmt, process::ExitCode};

/// The service said no, or something else went wrong.
const FAILED: u8 = 1;
/// The command line, a setting or a file given with it is wrong. The same code as clap's.
const USAGE: u8 = 2;
/// No server could be reached, or none answered in time.
const UNREACHABLE: u8 = 3;
/// As shells say it of a process that ended by Ctrl-C.
const INTERRUPTED: u8 = 130;

/// The exit codes as `--help` tells them.
pub const EXIT_CODES: &str = "Exit codes: 0 done, 1 refused or failed, 2 wrong usage or settings, 3 no server reached, 130 interrupted";

/// Why a command ends with another code than 0.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    message: String,
    hint: Option<String>,
}

pub type Result<T = ()> = std::result::Result<T, Failure>;

impl Failure {
    pub fn new(message: impl Into<String>) -> Failure {
        Failure { code: FAILED, message: message.into(), hint: None }
    }

    pub fn usage(message: impl Into<String>) -> Failure {
        Failure { code: USAGE, message: message.into(), hint: None }
    }

    pub fn interrupted() -> Failure {
        Failure { code: INTERRUPTED, message: "interrupted".into(), hint: None }
    }

    /// The same failure with a sentence on what to do next.
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// The same failure with an exit code of its own.
    pub fn code(mut self, code: u8) -> Failure {
        self.code = code;
        self
    }

    #[cfg(test)]
    pub fn exit_code(&self) -> u8 {
        self.code
    }

    /// Tells the person at the terminal and gives the process its code.
    pub fn report(&self) -> ExitCode {
        eprintln!("{self}");
        ExitCode::from(self.code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  {}", hint.replace('\n', "\n  ")),
            None => Ok(()),
        }
    }
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Failure {
        let code = match &error {
            client::Error::BadServer(_) | client::Error::Invalid(_) => USAGE,
            client::Error::Unreachable(_) => UNREACHABLE,
            _ => FAILED,
        };
        let hint = hint_for(&error).map(str::to_owned);
        Failure { code, message: error.to_string(), hint }
    }
}

/// What a person can do about a client's error.
fn hint_for(error: &client::Error) -> Option<&'static str> {
    match error {
        client::Error::BadServer(_) => Some("a server is http://HOST:PORT"),
        client::Error::Lost { .. } => Some("repeat it with the same --id: what was accepted already is not stored again"),
        client::Error::Unreachable(_) => {
            Some("is a node running there? start some with `evermesh dev`, or name others with --server http://HOST:PORT")
        }
        client::Error::Problem { problem, .. } => match problem.code.as_str() {
            "stream-not-found" => Some("`evermesh stream ls` lists the streams, `evermesh stream create NAME` makes one"),
            "node-not-found" => Some("`evermesh cluster status` lists the nodes"),
            "outcome-unknown" => Some("repeat it with the same --id: what was accepted already is not stored again"),
            _ => None,
        },
        _ => None,
    }
}

/// An IO error with what was being done, as a failure.
pub fn io(doing: impl fmt::Display) -> impl FnOnce(std::io::Error) -> Failure {
    move |error| Failure::new(format!("{doing}: {error}"))
}
