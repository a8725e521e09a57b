//! The network of the nodes: each in a namespace of its own, with one link for peers and one for clients, so that a node that
//! is cut off from its peers is still reached by its clients.
//!
//! Peers' links end in bridges. A link that is moved to another bridge is cut off from those left behind, silently: no reset, no
//! refusal, as a switch would do it.

use super::Result;
use std::process::Command;

pub const PEER_PORT: u16 = 4800;
pub const API_PORT: u16 = 4700;
/// Bridges that peers can be split over, the first being the whole network.
const BRIDGES: usize = 3;
const US: u8 = 250;

/// How the peers' network is cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The nodes' links in groups that do not see each other; nodes in none are in the first.
    Groups(Vec<Vec<usize>>),
    /// These do not see each other; all others see everybody.
    Between(usize, usize),
}

pub fn peer_address(node: usize) -> String {
    format!("10.101.0.{}", node + 1)
}

pub fn api_address(node: usize) -> String {
    format!("10.102.0.{}", node + 1)
}

/// This process' address in the peers' network, for proxies.
pub fn our_peer_address() -> String {
    format!("10.101.0.{US}")
}

pub fn namespace(node: usize) -> String {
    format!("/run/netns/n{}", node + 1)
}

/// Bridges and our own ends. Everything is made inside this process' own namespace.
pub fn prepare() -> Result<()> {
    // Hides the machine's own named namespaces, and ours from it.
    run("mount -t tmpfs none /run")?;
    run("ip link set lo up")?;
    for bridge in 0..BRIDGES {
        run(&format!("ip link add peers{bridge} type bridge forward_delay 0"))?;
        run(&format!("ip link set peers{bridge} up"))?;
    }
    run("ip link add clients type bridge forward_delay 0")?;
    run("ip link set clients up")?;
    run(&format!("ip addr add 10.101.0.{US}/24 dev peers0"))?;
    run(&format!("ip addr add 10.102.0.{US}/24 dev clients"))
}

/// The namespace and links of one node.
pub fn add(node: usize) -> Result<()> {
    let n = node + 1;
    run(&format!("ip netns add n{n}"))?;
    for (kind, bridge, address) in [("p", "peers0", peer_address(node)), ("c", "clients", api_address(node))] {
        run(&format!("ip link add {kind}{n} type veth peer name {kind} netns n{n}"))?;
        run(&format!("ip link set {kind}{n} master {bridge} up"))?;
        run(&format!("ip -n n{n} addr add {address}/24 dev {kind}"))?;
        run(&format!("ip -n n{n} link set {kind} up"))?;
    }
    run(&format!("ip -n n{n} link set lo up"))
}

pub fn cut(nodes: usize, cut: &Cut) -> Result<()> {
    match cut {
        Cut::Groups(groups) => {
            for node in 0..nodes {
                let group = groups.iter().position(|group| group.contains(&node)).unwrap_or(0);
                run(&format!("ip link set p{} master peers{}", node + 1, group.min(BRIDGES - 1)))?;
            }
            Ok(())
        }
        Cut::Between(a, b) => [a, b].into_iter().try_for_each(|node| run(&format!("bridge link set dev p{} isolated on", node + 1))),
    }
}

pub fn heal(nodes: usize) -> Result<()> {
    for node in 0..nodes {
        run(&format!("bridge link set dev p{} isolated off", node + 1))?;
        run(&format!("ip link set p{} master peers0", node + 1))?;
    }
    Ok(())
}

/// Runs a command line without quotes in it.
pub fn run(line: &str) -> Result<()> {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().ok_or("an empty command")?).args(words).output().map_err(|error| format!("{line}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{line}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}
