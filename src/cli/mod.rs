//! How Evermesh is typed: one file a command, and what several of them share.
//!
//! `serve` runs a node and `dev` several; all the others are clients and touch the cluster only through `client`. Each command
//! is an `Args` struct with its help and a `run`. This room alone names clap, and it alone prints and exits.
//!
//! - stdout carries results, stderr what is said about them; `--json` makes results one JSON value (or one a line).

mod bench;
mod cluster;
mod connect;
mod dev;
mod drill;
mod failure;
mod logging;
mod openapi;
mod publish;
mod secret;
mod serve;
mod settings;
mod signals;
mod stream;
mod subscribe;
mod table;
mod verify;

use self::failure::{EXIT_CODES, Failure, Result};
use crate::node::World;
use clap::{Parser, Subcommand};
use std::{future::Future, process::ExitCode, time::Duration};

const EXAMPLES: &str = "\
Examples:
  evermesh dev                                    three nodes on this machine, to try it out
  evermesh pub orders '{\"order\":1001}'            publish an event
  evermesh sub orders --from earliest             follow a stream, on whichever node is there
  evermesh stream create orders --max-age 7d      a stream that forgets after a week
  evermesh cluster status                         the nodes, and who leads what
  evermesh verify                                 whether all replicas are the same

Environment: EVERMESH_SERVER names the nodes for client commands, EVERMESH_LOG filters log lines (debug, evermesh=trace, …).";

/// Durable events over HTTP and WebSockets, on every node of a full mesh
#[derive(Parser, Debug)]
#[command(name = "evermesh", version, max_term_width = 110, after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
#[command(disable_help_subcommand = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run several nodes on this machine, to try things out
    Dev(dev::Args),
    /// Run one node
    Serve(Box<serve::Args>),
    /// Create, list, inspect, purge and remove streams
    Stream(stream::Args),
    /// Publish events: an argument, a file, or lines from stdin
    Pub(publish::Args),
    /// Follow a stream's events
    Sub(subscribe::Args),
    /// Look after the nodes of the cluster
    Cluster(cluster::Args),
    /// Fail over on purpose, on a live cluster with a stream of its own, and measure it
    Drill(drill::Args),
    /// Compare the replicas of the streams
    Verify(verify::Args),
    /// Measure publishing, subscribing, and this machine's disk
    Bench(bench::Args),
    /// Print the OpenAPI document: requests and answers over HTTP
    Openapi(openapi::Args),
    /// Print the AsyncAPI document: WebSockets and server-sent events
    Asyncapi(openapi::AsyncArgs),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    main_in(World::default())
}

/// The same, a node that it starts standing on something else than the machine: how faults are put below a node.
pub fn main_in(world: World) -> ExitCode {
    let cli = Cli::parse();
    match run(cli.command, world) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(command: Command, world: World) -> Result {
    match command {
        Command::Dev(args) => on_runtime(dev::run(args)),
        Command::Serve(args) => on_runtime(serve::run(*args, world)),
        Command::Stream(args) => as_client(stream::run(args)),
        Command::Pub(args) => as_client(publish::run(args)),
        Command::Sub(args) => as_client(subscribe::run(args)),
        Command::Cluster(args) => as_client(cluster::run(args)),
        Command::Drill(args) => as_client(drill::run(args)),
        Command::Verify(args) => as_client(verify::run(args)),
        Command::Bench(args) => as_client(bench::run(args)),
        Command::Openapi(args) => openapi::run(args),
        Command::Asyncapi(args) => openapi::run_async(args),
    }
}

/// Runs a client command; Ctrl-C ends it where it is, with the code that shells know.
fn as_client(command: impl Future<Output = Result>) -> Result {
    logging::for_command();
    on_runtime(command)
}

fn on_runtime(command: impl Future<Output = Result>) -> Result {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.enable_all().thread_name("http").build();
    let runtime = runtime.map_err(|error| Failure::new(format!("cannot start threads: {error}")))?;
    let outcome = runtime.block_on(command);
    // A thread that reads the terminal cannot be interrupted, and the process ends anyway.
    runtime.shutdown_timeout(Duration::from_millis(100));
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent_and_every_argument_has_a_help() {
        let command = Cli::command();
        command.clone().debug_assert();
        check_help(&command);
    }

    fn check_help(command: &clap::Command) {
        for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
            assert!(arg.get_help().is_some(), "{} {} has no help", command.get_name(), arg.get_id());
        }
        for sub in command.get_subcommands() {
            assert!(sub.get_about().is_some(), "{} has no help", sub.get_name());
            check_help(sub);
        }
    }

    #[test]
    fn the_commands_of_the_contract_are_understood() {
        for line in [
            "dev",
            "dev --nodes 5 --base-port 5701 --data x",
            "dev --ephemeral",
            "dev kill n2",
            "dev stop n2 --data x",
            "dev start n2",
            "dev status",
            "drill",
            "drill --kill leader --kill n2 --yes --rounds 3 --rate 100 --publishers 4 --pause 1s --data x --json",
            "serve --data x --name n1 --listen 127.0.0.1:4700 --peer-listen 127.0.0.1:4800 --advertise http://a:1 --peer-advertise a:2 --bootstrap",
            "serve --data x --join a:1 --replace n3 --name n3",
            "serve --data x --join a:1,b:2 --config f --secret-file s --disk-reserve 1GiB",
            "stream ls --json",
            "stream ls ord --server http://a:1",
            "stream create orders --replicas 3 --max-age 7d --max-bytes none --discard new",
            "stream info orders",
            "stream rm orders --yes",
            "stream purge orders --before-seq 5",
            "stream purge orders --keep 5",
            "stream purge orders --subject a.>",
            "stream move-leader orders n2",
            "stream move-leader orders",
            "pub orders hello --subject a.b --id x --header k=v --content-type text/plain",
            "pub orders - --batch 100",
            "pub orders --file f --skip 5 --id-prefix run1",
            "sub orders --from earliest --subject a.> --limit 5 --json",
            "sub orders --from 5 --server http://a:1,http://b:2 --server http://c:3",
            "cluster status",
            "cluster drain n2 --wait",
            "cluster remove n2 --yes --wait",
            "bench pub --rate 1000 --connections 4 --batch 10 --size 256 --seconds 5 --stream s --in-flight 8 --websocket",
            "bench sub --connections 4 --seconds 5",
            "bench disk --dir x",
            "verify",
            "verify orders payments --read --json",
            "openapi",
            "asyncapi",
        ] {
            let parsed = Cli::try_parse_from(std::iter::once("evermesh").chain(line.split(' ')));
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        }
        for bad in [
            "",
            "dev --nodes 0",
            "dev --data x --ephemeral",
            "dev --nodes 3 kill n2",
            "drill --rounds 0",
            "serve --replace n3",
            "serve --bootstrap --join a:1",
            "stream purge orders",
            "pub",
            "pub orders x --file f",
        ] {
            assert!(Cli::try_parse_from(std::iter::once("evermesh").chain(bad.split_whitespace())).is_err(), "{bad}");
        }
    }
}
