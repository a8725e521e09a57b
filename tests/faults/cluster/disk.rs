//! What can be done to a node's files from outside: a small disk that is full, and bytes that are not what was written.

use super::{Result, network::run};
use crate::nemesis::fault::Harm;
use crate::random::Random;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A whole segment fits, and the next one.
const SMALL_DISK: &str = "size=420m";
const FILLER: &str = "filler";
/// Left free by a filler, in bytes: sometimes nothing at all.
const LEFT: [u64; 3] = [0, 256 << 10, 6 << 20];

/// Puts a small disk where the folder is; gone with our mount namespace.
pub fn mount_small(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|error| error.to_string())?;
    run(&format!("mount -t tmpfs -o {SMALL_DISK} none {}", folder.display()))
}

/// Fills the disk of this folder up, nearly or wholly.
pub fn fill(folder: &Path, random: &mut Random) -> Result<u64> {
    let left = *random.choose(&LEFT);
    let mut filler = File::create(folder.join(FILLER)).map_err(|error| error.to_string())?;
    let block = vec![7u8; 1 << 16];
    let mut size = 0u64;
    // Until the disk says that it is full.
    while let Ok(written) = filler.write(&block) {
        size += written as u64;
        if written == 0 {
            break;
        }
    }
    filler.set_len(size.saturating_sub(left)).map_err(|error| error.to_string())?;
    Ok(left)
}

pub fn empty(folder: &Path) -> Result<()> {
    match std::fs::remove_file(folder.join(FILLER)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.to_string()),
        _ => Ok(()),
    }
}

/// The files that hold what a node knows; not its settings, its secret, its lock.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_file()).collect();
    files.retain(|path| !matches!(path.file_name().and_then(|name| name.to_str()), Some("evermesh.toml" | "secret" | "lock" | FILLER)));
    files.sort();
    files
}

/// A copy of a node's files, to go back to.
pub fn copy(folder: &Path, to: &Path) -> Result<()> {
    let failed = |error: std::io::Error| format!("copying {}: {error}", folder.display());
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir_all(to).map_err(failed)?;
    for file in files(folder) {
        std::fs::copy(&file, to.join(file.file_name().unwrap_or_default())).map_err(failed)?;
    }
    Ok(())
}

/// The files are what they were when the copy was made: as if a disk had been restored from a backup.
pub fn roll_back(folder: &Path, from: &Path) -> Result<()> {
    for file in files(folder) {
        std::fs::remove_file(file).map_err(|error| error.to_string())?;
    }
    for file in files(from) {
        std::fs::copy(&file, folder.join(file.file_name().unwrap_or_default())).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Harms one file in place; says what was done.
pub fn harm(folder: &Path, how: Harm, random: &mut Random) -> Result<String> {
    let files = files(folder);
    if files.is_empty() {
        return Err(format!("{} has no files", folder.display()));
    }
    let path = random.choose(&files).clone();
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut file = OpenOptions::new().read(true).write(true).open(&path).map_err(failed)?;
    let len = file.seek(SeekFrom::End(0)).map_err(failed)?;
    if len == 0 {
        return Err(format!("{name} is empty"));
    }
    if how == Harm::Truncate {
        let to = random.below(len);
        file.set_len(to).map_err(failed)?;
        return Ok(format!("{name} cut from {len} to {to} bytes"));
    }
    // Where there are bytes at all: most of a young file is holes, and a flip there proves little.
    let flips = random.between(1, 64);
    let mut done = 0;
    for _ in 0..20 * flips {
        let at = random.below(len);
        let mut byte = [0];
        file.seek(SeekFrom::Start(at)).and_then(|_| file.read_exact(&mut byte)).map_err(failed)?;
        if byte[0] == 0 && !random.chance(2) {
            continue;
        }
        byte[0] ^= 1 << random.below(8);
        file.write_at(&byte, at).map_err(failed)?;
        done += 1;
        if done == flips {
            break;
        }
    }
    Ok(format!("{done} bits of {name} ({len} bytes) flipped"))
}
