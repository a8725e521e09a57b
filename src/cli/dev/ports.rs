//! Whether the ports are free, asked before anything starts.

use super::plan::Spec;
use crate::cli::failure::{Failure, Result};
use std::net::{Ipv4Addr, TcpListener};

/// Fails with every port that somebody else listens on.
pub fn check(specs: &[Spec], base_port: u16) -> Result {
    let ports = specs.iter().map(|spec| spec.port).chain(specs.iter().map(|spec| spec.peer_port));
    let taken: Vec<_> =
        ports.filter(|&port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err()).map(|port| port.to_string()).collect();
    if taken.is_empty() {
        return Ok(());
    }
    let other = if base_port < 60_000 { base_port + 1000 } else { 4701 };
    Err(Failure::new(format!("already in use: port{} {}", if taken.len() == 1 { "" } else { "s" }, taken.join(", ")))
        .hint(format!("is another `evermesh dev` running? end it, or use other ports: evermesh dev --base-port {other}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_named() {
        let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = held.local_addr().unwrap().port();
        let spec = Spec { name: "n1".into(), folder: "x".into(), port, peer_port: 0, founds: true, others: vec![] };
        let why = check(&[spec], port).unwrap_err().to_string();
        assert!(why.contains(&format!("port {port}")) && why.contains("--base-port"), "{why}");
    }
}
