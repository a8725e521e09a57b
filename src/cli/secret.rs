//! The cluster's secret: where it comes from, where it stays, and how the next node gets it.
//!
//! - It is at least 16 bytes, and on disk only its owner may read it.
//! - A secret that a node once started with is found again in its data folder.

use super::failure::{Failure, Result, io};
use crate::node::Secret;
use crate::node::Start;
use std::{
    fs::OpenOptions,
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

const FILE_NAME: &str = "secret";
const VARIABLE: &str = "EVERMESH_SECRET";
const BYTES_MIN: usize = 16;
/// Nobody types a secret of more, and a wrong file named by mistake is told.
const BYTES_MAX: u64 = 4096;
const GENERATED_BYTES: usize = 32;

/// A secret, and what its owner should be told about it.
pub struct Found {
    secret: String,
    pub notes: Vec<String>,
}

impl Found {
    pub fn secret(&self) -> Secret {
        Secret::new(&self.secret)
    }
}

/// Finds the secret: the named file, then the environment, then the data folder; the founder of a cluster makes one.
pub fn find(data: &Path, file: Option<&Path>, start: &Start) -> Result<Found> {
    find_with(data, file, start, std::env::var(VARIABLE).ok())
}

fn find_with(data: &Path, file: Option<&Path>, start: &Start, variable: Option<String>) -> Result<Found> {
    let kept = data.join(FILE_NAME);
    let mut notes = Vec::new();
    let given = match (file, variable) {
        (Some(file), _) => Some(read(file, &mut notes)?),
        (None, Some(text)) => Some(check(text.trim(), VARIABLE)?),
        (None, None) => None,
    };
    let secret = match given {
        Some(secret) => {
            keep(&kept, &secret, file, &mut notes)?;
            secret
        }
        None if kept.is_file() => read(&kept, &mut notes)?,
        None => match start {
            Start::Bootstrap => make(&kept, &mut notes)?,
            Start::Join(_) | Start::Replace { .. } => return Err(no_secret_to_join(data)),
            Start::Resume => return Err(nothing_to_resume(data)),
        },
    };
    Ok(Found { secret, notes })
}

/// Makes a secret file where there is none, and gives its path; for `evermesh dev`, whose nodes share one.
pub fn ensure(folder: &Path) -> Result<PathBuf> {
    let file = folder.join(FILE_NAME);
    if !file.is_file() {
        write(&file, &generate()?)?;
    }
    Ok(file)
}

fn no_secret_to_join(data: &Path) -> Failure {
    Failure::usage("joining a cluster needs its secret").hint(format!(
        "copy the file `secret` from the data folder of a node that is in the cluster, and name it with --secret-file FILE\n\
         (or set {VARIABLE}, or put it at {})",
        data.join(FILE_NAME).display()
    ))
}

fn nothing_to_resume(data: &Path) -> Failure {
    Failure::usage(format!("{} holds no node yet", data.display()))
        .hint("found a cluster with --bootstrap, or join one with --join HOST:PORT --secret-file FILE")
}

fn read(file: &Path, notes: &mut Vec<String>) -> Result<String> {
    let what = format!("cannot read the secret from {}", file.display());
    let about = std::fs::metadata(file).map_err(io(&what))?;
    if about.len() > BYTES_MAX {
        return Err(Failure::usage(format!("{} has {} bytes: that is no secret of Evermesh", file.display(), about.len())));
    }
    if about.permissions().mode() & 0o077 != 0 {
        notes.push(format!("others on this machine can read {0}: chmod 600 {0}", file.display()));
    }
    let text = std::fs::read_to_string(file).map_err(io(&what))?;
    check(text.trim(), &file.display().to_string())
}

fn check(secret: &str, from: &str) -> Result<String> {
    match secret.len() >= BYTES_MIN {
        true => Ok(secret.to_owned()),
        false => Err(Failure::usage(format!("the secret in {from} has {} bytes, and at least {BYTES_MIN} are needed", secret.len()))
            .hint("make one with: openssl rand -hex 32")),
    }
}

/// Keeps a secret given from outside, so that a start without flags finds it; never overwrites another.
fn keep(kept: &Path, secret: &str, from: Option<&Path>, notes: &mut Vec<String>) -> Result {
    if !kept.is_file() {
        return write(kept, secret);
    }
    if from != Some(kept) && read(kept, notes)? != secret {
        notes.push(format!("the secret given differs from the one in {}, which is used when none is given", kept.display()));
    }
    Ok(())
}

fn make(kept: &Path, notes: &mut Vec<String>) -> Result<String> {
    let secret = generate()?;
    write(kept, &secret)?;
    notes.push(format!(
        "made the cluster's secret in {}; a node that joins needs a copy of this file: --join HOST:PORT --secret-file FILE",
        kept.display()
    ));
    Ok(secret)
}

fn generate() -> Result<String> {
    let mut bytes = [0; GENERATED_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| Failure::new(format!("the system gives no random bytes for a secret: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn write(file: &Path, secret: &str) -> Result {
    let what = format!("cannot write the secret to {}", file.display());
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).map_err(io(&what))?;
    }
    let mut to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).map_err(io(&what))?;
    writeln!(to, "{secret}").and_then(|()| to.sync_all()).map_err(io(&what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_founder_makes_one_and_finds_it_again() {
        let dir = tempfile::tempdir().unwrap();
        let made = find_with(dir.path(), None, &Start::Bootstrap, None).unwrap();
        assert_eq!(made.secret.len(), 2 * GENERATED_BYTES);
        assert!(made.notes[0].contains("--secret-file"));
        assert_eq!(std::fs::metadata(dir.path().join("secret")).unwrap().permissions().mode() & 0o777, 0o600);
        let again = find_with(dir.path(), None, &Start::Resume, None).unwrap();
        assert_eq!((again.secret, again.notes.len()), (made.secret, 0));
    }

    #[test]
    fn who_joins_is_told_where_to_get_it() {
        let dir = tempfile::tempdir().unwrap();
        let why = find_with(dir.path(), None, &Start::Join(vec![]), None).err().unwrap().to_string();
        assert!(why.contains("--secret-file") && why.contains("EVERMESH_SECRET"), "{why}");
        assert!(find_with(dir.path(), None, &Start::Resume, None).err().unwrap().to_string().contains("--bootstrap"));
    }

    #[test]
    fn one_that_was_given_is_kept_but_never_overwrites() {
        let dir = tempfile::tempdir().unwrap();
        let given = |secret: &str| find_with(dir.path(), None, &Start::Join(vec![]), Some(secret.into()));
        assert_eq!(given("0123456789abcdef\n").unwrap().secret, "0123456789abcdef");
        assert_eq!(find_with(dir.path(), None, &Start::Resume, None).unwrap().secret, "0123456789abcdef");
        let other = given("fedcba9876543210").unwrap();
        assert_eq!(other.secret, "fedcba9876543210");
        assert!(other.notes[0].contains("differs"));
        assert!(given("short").err().unwrap().to_string().contains("at least 16"));
    }
}
