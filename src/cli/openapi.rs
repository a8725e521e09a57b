//! `evermesh openapi`: the API's document, as a node serves it at `/openapi.json`.

use super::{failure::Result, table::say};

#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  evermesh openapi > openapi.json")]
pub struct Args {}

pub fn run(_: Args) -> Result {
    say(crate::api::document().trim_end());
    Ok(())
}
