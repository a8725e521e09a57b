//! Puts this process into a network and mount namespace of its own, where the machine allows it, by running it once more under
//! `unshare`. Whatever the harness makes in there (bridges, nodes' networks, mounts) is gone with its last process, however it
//! ends; nothing of the machine is touched.

use std::os::unix::process::CommandExt;
use std::process::Command;

const MARK: &str = "EVERMESH_FAULTS_INSIDE";

/// What the nodes' network is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Namespaces: partitions, small disks.
    Namespaces,
    /// This machine's loopback: processes only.
    Loopback,
}

/// Returns where we are; in a place of our own if that can be had.
pub fn enter() -> Place {
    match std::env::var(MARK).as_deref() {
        Ok("namespaces") => return Place::Namespaces,
        Ok(_) => return Place::Loopback,
        Err(_) => {}
    }
    let ways: [&[&str]; 2] = [&["--net", "--mount"], &["--user", "--map-root-user", "--net", "--mount"]];
    for flags in ways {
        // A bridge is the part that some kernels do not have.
        let probe = "ip link add br9 type bridge && mount -t tmpfs none /run && ip netns add n9";
        let works = Command::new("unshare").args(flags).args(["sh", "-c", probe]).output();
        if works.is_ok_and(|output| output.status.success())
            && let Ok(program) = std::env::current_exe()
        {
            let error = Command::new("unshare").args(flags).arg(program).args(std::env::args_os().skip(1)).env(MARK, "namespaces").exec();
            eprintln!("unshare failed: {error}");
        }
    }
    eprintln!(
        "no network namespaces here (they need root, or user namespaces, and iproute2): plain loopback, and no cut, delay, oneway, full"
    );
    Place::Loopback
}
