//! Log lines: for people by default, as JSON for machines, filtered by `EVERMESH_LOG`.

use super::settings::LogFormat;
use std::io::IsTerminal;
use tracing_subscriber::{EnvFilter, fmt};

const VARIABLE: &str = "EVERMESH_LOG";
/// openraft tells every lost vote as an error; what matters of it, `cluster` tells itself.
const SERVE_DEFAULT: &str = "info,openraft=off";
const COMMAND_DEFAULT: &str = "warn";

/// Events worth a person's attention (leader changes, joins, a node down) carry this target; `evermesh dev` shows them.
pub const ATTENTION: &str = "evermesh::events";

/// Starts logging to stdout for a node. A second call changes nothing.
pub fn for_node(format: LogFormat) {
    // Complaining about a closed stdout on a closed stderr would be a panic: `evermesh dev` may have been killed.
    let lines = fmt().with_env_filter(filter(SERVE_DEFAULT)).with_ansi(colours(&std::io::stdout())).log_internal_errors(false);
    // An error means that a subscriber is set already, which tests do; that one then serves.
    let _ = match format {
        LogFormat::Human => lines.with_target(false).compact().try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
}

/// Starts logging to stderr for a client command: silent unless asked.
pub fn for_command() {
    let lines = fmt().with_env_filter(filter(COMMAND_DEFAULT)).with_ansi(colours(&std::io::stderr()));
    let _ = lines.with_target(false).with_writer(std::io::stderr).compact().try_init();
}

/// Whether escape codes are welcome there.
pub fn colours(to: &impl IsTerminal) -> bool {
    to.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn filter(default: &str) -> EnvFilter {
    EnvFilter::builder().parse_lossy(std::env::var(VARIABLE).unwrap_or_else(|_| default.into()))
}
