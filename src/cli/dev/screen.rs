//! What `evermesh dev` prints: one tidy line a node, what to type next, and then only what deserves attention.

use super::{
    child::describe,
    lines::{Shown, Told, Weight, parse},
    plan::Spec,
};
use crate::cli::{failure::Failure, logging::colours};
use std::{path::Path, process::ExitStatus, time::Duration};
use tokio::time::Instant;

/// Lines held back while the nodes start, at most.
const HELD_MAX: usize = 256;

pub struct Screen {
    coloured: bool,
    told: Told,
    /// While the nodes find each other they warn of what is over in a moment: shown only should the start go wrong. And while
    /// they stop they miss each other: not shown at all. `None` in between.
    held: Option<Vec<String>>,
    /// How this program was called, for lines that a person can type.
    program: String,
    /// ` --data DIR` for those lines, where the folder is not the usual one.
    data: String,
}

impl Screen {
    pub fn new(data: &Path) -> Screen {
        let program = std::env::args().next().unwrap_or_else(|| "evermesh".into());
        let data = if data == Path::new(super::DATA) { String::new() } else { format!(" --data {}", data.display()) };
        Screen { coloured: colours(&std::io::stdout()), told: Told::default(), held: Some(Vec::new()), program, data }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.coloured { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }

    fn dim(&self, text: &str) -> String {
        self.paint("2", text)
    }

    pub fn heading(&self, nodes: usize, data: &Path, ephemeral: bool) {
        let kept = if ephemeral { " (removed at the end)" } else { "" };
        let plural = if nodes == 1 { "" } else { "s" };
        println!("{} {} · {nodes} node{plural} · data in {}{kept}\n", self.bold("evermesh"), env!("CARGO_PKG_VERSION"), data.display());
    }

    pub fn ready(&self, spec: &Spec, pid: u32, took: Duration) {
        let about = self.dim(&format!("peers on {} · pid {pid} · {:.1} s", spec.peer_port, took.as_secs_f64()));
        println!("  {}  {}  {}  {about}", self.bold(&spec.name), self.paint("32", "ready"), spec.url());
    }

    /// What to type next. The start went well, so what was held back is of no interest.
    pub fn guide(&mut self, specs: &[Spec], victim: (&Spec, u32), controlled: bool) {
        self.held = None;
        let at = |node: usize| specs[node % specs.len()].url();
        let (program, first) = (&self.program, at(0));
        println!("\nIn another terminal, publish through one node and read from another:\n");
        println!("  curl -i {first}/v1/streams/orders/events -H 'Content-Type: application/json' -d '{{\"order\":1001}}'");
        println!("  curl {}/v1/streams/orders/events", at(1));
        println!("  curl -N -H 'Accept: text/event-stream' {}/v1/streams/orders/events", at(2));
        println!("  {program} sub orders --server {}", at(1));
        println!("  {program} cluster status --server {first}");
        println!("\n  console  {first}/        API  {first}/docs");
        if specs.len() > 1 {
            println!("\nEnd a node, and see that nothing is lost:  kill -9 {}  {}", victim.1, self.dim(&format!("# {}", victim.0.name)));
            if controlled {
                println!("Or let it be measured, under load:  {program} drill --kill leader --server {first}{}", self.data);
            }
        }
        println!("{}\n", self.dim("Ctrl-C stops all."));
    }

    /// A node's log line, if it deserves attention.
    pub fn line(&mut self, node: &str, line: &str) {
        let Some(shown) = parse(line) else { return };
        if shown.weight != Weight::Raw && !self.told.is_new(&shown.text, Instant::now()) {
            return;
        }
        let text = self.tidy(node, &shown);
        match &mut self.held {
            Some(held) if matches!(shown.weight, Weight::Event | Weight::Warning) => {
                if held.len() < HELD_MAX {
                    held.push(text);
                }
            }
            _ => println!("{text}"),
        }
    }

    /// Shows what was held back: the start is not going well.
    pub fn release(&mut self) {
        self.held.take().into_iter().flatten().for_each(|line| println!("{line}"));
    }

    fn tidy(&self, node: &str, shown: &Shown) -> String {
        let text = match shown.weight {
            Weight::Event => shown.text.clone(),
            Weight::Warning => format!("{} {}", self.paint("33", "warning:"), shown.text),
            Weight::Error => format!("{} {}", self.paint("31", "error:"), shown.text),
            Weight::Raw => self.dim(&shown.text),
        };
        format!("{:8}  {node}  {text}", shown.time)
    }

    /// A node's end: news where nobody asked for it.
    pub fn ended(&self, spec: &Spec, how: Option<ExitStatus>, asked: bool, controlled: bool) {
        let again = match controlled {
            true => format!("{} dev start {}{}", self.program, spec.name, self.data),
            false => spec.restart(&self.program),
        };
        match asked {
            true => self.note(&spec.name, &format!("{}, as asked; start it again with:  {again}", describe(how))),
            false => println!("{}; start it again with:  {again}", self.paint("31", &format!("{} {}", spec.name, describe(how)))),
        }
    }

    /// Something that was asked for.
    pub fn note(&self, node: &str, what: &str) {
        println!("  {}  {}", self.bold(node), self.dim(what));
    }

    pub fn without_control(&self, why: &Failure) {
        println!("{} {why}\n", self.paint("33", "`dev kill`, `stop`, `start` and `drill --kill` will not work:"));
    }

    pub fn late(&self, spec: &Spec, wait: Duration) {
        println!("  {}  {}", self.bold(&spec.name), self.paint("33", &format!("not ready after {} s; still waiting", wait.as_secs())));
    }

    /// From now on nodes that miss each other are no news.
    pub fn stopping(&mut self, nodes: usize) {
        self.held = Some(Vec::new());
        println!("\nstopping {nodes} node{} …  {}", if nodes == 1 { "" } else { "s" }, self.dim("(Ctrl-C again: at once)"));
    }

    pub fn stopped(&self, data: &Path, ephemeral: bool) {
        match ephemeral {
            true => println!("stopped; the data is removed"),
            false => println!("stopped; `{} dev` goes on with what is in {}", self.program, data.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_time_and_node_first() {
        let screen = Screen { coloured: false, told: Told::default(), held: None, program: "evermesh".into(), data: String::new() };
        let shown = Shown { weight: Weight::Warning, time: "10:15:30".into(), text: "disk is slow".into() };
        assert_eq!(screen.tidy("n2", &shown), "10:15:30  n2  warning: disk is slow");
        let raw = Shown { weight: Weight::Raw, time: String::new(), text: "panicked".into() };
        assert_eq!(screen.tidy("n2", &raw), "          n2  panicked");
    }
}
