//! `evermesh openapi` and `evermesh asyncapi`: the API's documents, as a node serves them at `/openapi.json` and `/asyncapi.json`.

use super::{failure::Result, table::say};
use crate::api;

#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  evermesh openapi > openapi.json")]
pub struct Args {}

#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  evermesh asyncapi > asyncapi.json")]
pub struct AsyncArgs {}

pub fn run(_: Args) -> Result {
    say(api::openapi().trim_end());
    Ok(())
}

pub fn run_async(_: AsyncArgs) -> Result {
    say(api::asyncapi().trim_end());
    Ok(())
}
