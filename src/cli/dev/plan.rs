//! What `evermesh dev` is going to start, decided before anything is: names, ports, folders, and each node's command line.

use super::Args;
use crate::cli::failure::{Failure, Result, io};
use crate::cli::settings::{FILE_NAME, Settings};
use std::path::{Path, PathBuf};

/// Nodes where nothing says otherwise.
const NODES: usize = 3;
/// Peer ports lie this far above the API's.
const PEER_OFFSET: u16 = 100;

/// One node to be: everything that follows from its number.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    pub name: String,
    pub folder: PathBuf,
    pub port: u16,
    pub peer_port: u16,
    /// Whether it founds the cluster; the others join.
    pub founds: bool,
    /// Peer addresses of all the others.
    pub others: Vec<String>,
}

impl Spec {
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The arguments that start it under `dev`.
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments: Vec<String> = ["serve", "--log-format", "json", "--stop-at-stdin-end", "--data"].map(String::from).to_vec();
        arguments.push(self.folder.display().to_string());
        match self.founds {
            true => arguments.push("--bootstrap".into()),
            false => arguments.extend(["--join".into(), self.others.join(",")]),
        }
        arguments
    }

    /// What a person types to start it again.
    pub fn restart(&self, program: &str) -> String {
        format!("{program} serve --data {}", self.folder.display())
    }

    /// The settings that let it start again with `--data` alone.
    pub fn settings(&self, secret: &Path) -> Settings {
        Settings {
            name: Some(self.name.clone()),
            listen: Some(format!("127.0.0.1:{}", self.port)),
            peer_listen: Some(format!("127.0.0.1:{}", self.peer_port)),
            secret_file: Some(secret.to_owned()),
            auto_create_streams: Some(true),
            ..Settings::default()
        }
    }
}

/// The nodes to start in `data`, where an earlier run may have left some.
pub fn specs(args: &Args, data: &Path) -> Result<Vec<Spec>> {
    let existing = existing(data)?;
    let most = existing.iter().copied().max().unwrap_or(0);
    let nodes = args.nodes.map_or(most.max(NODES), usize::from);
    if nodes < most {
        return Err(Failure::usage(format!("{} holds {most} nodes, and --nodes {nodes} would leave some out", data.display()))
            .hint(format!("start them all with --nodes {most}, or begin anew elsewhere with --data DIR or --ephemeral")));
    }
    let port = |base: u16, at: usize| {
        u16::try_from(usize::from(base) + at).map_err(|_| Failure::usage("--base-port is too high for so many nodes"))
    };
    let mut specs = Vec::new();
    for at in 0..nodes {
        specs.push(Spec {
            name: format!("n{}", at + 1),
            folder: data.join(format!("n{}", at + 1)),
            port: port(args.base_port, at)?,
            peer_port: port(args.base_port, at + usize::from(PEER_OFFSET))?,
            // Were n1's folder deleted under a living cluster, a second cluster would be the wrong answer.
            founds: at == 0 && existing.iter().all(|&other| other == 1),
            others: Vec::new(),
        });
    }
    let peers: Vec<_> = specs.iter().map(|spec| format!("127.0.0.1:{}", spec.peer_port)).collect();
    for (at, spec) in specs.iter_mut().enumerate() {
        spec.others = peers.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, peer)| peer.clone()).collect();
    }
    Ok(specs)
}

/// The numbers of the nodes whose folders hold more than settings.
fn existing(data: &Path) -> Result<Vec<usize>> {
    let mut numbers = Vec::new();
    if !data.exists() {
        return Ok(numbers);
    }
    let reading = format!("cannot read {}", data.display());
    for entry in std::fs::read_dir(data).map_err(io(&reading))? {
        let entry = entry.map_err(io(&reading))?;
        let number = entry.file_name().to_str().and_then(|name| name.strip_prefix('n')).and_then(|number| number.parse().ok());
        if let Some(number) = number.filter(|&number| number > 0 && holds_data(&entry.path())) {
            numbers.push(number);
        }
    }
    Ok(numbers)
}

fn holds_data(folder: &Path) -> bool {
    let Ok(mut entries) = std::fs::read_dir(folder) else { return false };
    entries.any(|entry| entry.is_ok_and(|entry| entry.file_name() != FILE_NAME && entry.file_name() != "secret"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(nodes: Option<u8>) -> Args {
        Args { verb: None, nodes, base_port: 4701, data: "x".into(), ephemeral: false }
    }

    #[test]
    fn three_fresh_nodes_are_one_founder_and_two_joiners() {
        let dir = tempfile::tempdir().unwrap();
        let specs = specs(&args(None), dir.path()).unwrap();
        assert_eq!(specs.iter().map(|spec| (spec.port, spec.peer_port)).collect::<Vec<_>>(), [(4701, 4801), (4702, 4802), (4703, 4803)]);
        assert_eq!(specs.iter().map(|spec| spec.founds).collect::<Vec<_>>(), [true, false, false]);
        let line = specs[1].arguments().join(" ");
        assert!(line.ends_with("/n2 --join 127.0.0.1:4801,127.0.0.1:4803"), "{line}");
        assert!(specs[1].restart("evermesh").starts_with("evermesh serve --data /"));
    }

    #[test]
    fn what_is_there_already_decides_the_number() {
        let dir = tempfile::tempdir().unwrap();
        for at in 1..=5 {
            std::fs::create_dir_all(dir.path().join(format!("n{at}"))).unwrap();
            std::fs::write(dir.path().join(format!("n{at}/data")), "").unwrap();
        }
        assert_eq!(specs(&args(None), dir.path()).unwrap().len(), 5);
        assert_eq!(specs(&args(Some(7)), dir.path()).unwrap().len(), 7);
        assert!(specs(&args(Some(3)), dir.path()).unwrap_err().to_string().contains("--nodes 5"));
    }

    #[test]
    fn a_deleted_founder_joins_what_it_founded() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("n2")).unwrap();
        std::fs::write(dir.path().join("n2/data"), "").unwrap();
        assert!(!specs(&args(None), dir.path()).unwrap()[0].founds);
    }
}
