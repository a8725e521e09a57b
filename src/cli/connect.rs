//! What every client command takes: the servers, the patience, the form of the output.

use super::failure::Result;
use crate::client::{Client, Options};
use crate::wire::Span;
use serde::Serialize;
use std::time::Duration;

#[derive(clap::Args, Clone, Debug)]
pub struct Connect {
    /// A node that may be used; several are tried in turn
    #[arg(
        short,
        long = "server",
        env = "EVERMESH_SERVER",
        value_name = "URL",
        value_delimiter = ',',
        global = true,
        default_value = "http://127.0.0.1:4701",
        help_heading = "Connection"
    )]
    servers: Vec<String>,
    /// How long one request may take with all its attempts
    #[arg(long, value_name = "SPAN", value_parser = span, global = true, default_value = "30s", help_heading = "Connection")]
    timeout: Duration,
    /// Print JSON, for programs
    #[arg(long, global = true)]
    pub json: bool,
}

impl Connect {
    pub fn options(&self) -> Options {
        let usual = Options::default();
        Options { timeout: self.timeout, attempt_timeout: usual.attempt_timeout.min(self.timeout), ..usual }
    }

    pub fn client(&self) -> Result<Client> {
        self.client_with(self.options())
    }

    pub fn client_with(&self, options: Options) -> Result<Client> {
        Ok(Client::new(&self.servers, options)?)
    }

    pub fn servers(&self) -> &[String] {
        &self.servers
    }

    /// Prints a result in the form that was asked for.
    pub fn print<T: Serialize>(&self, result: &T, human: impl FnOnce(&T) -> String) {
        match self.json {
            true => super::table::say(&serde_json::to_string(result).expect("the wire's shapes have a JSON form")),
            false => super::table::say(&human(result)),
        }
    }
}

/// A span of time as the API writes it, for clap.
pub fn span(text: &str) -> std::result::Result<Duration, String> {
    let span = Span::parse(text).ok_or_else(|| format!("{text:?} is no span of time such as 500ms, 30s, 2m or 1h30m"))?;
    Ok(Duration::from_millis(span.0))
}
