//! Small plain files beside the databases: a version, a checksum, a length and bytes, written whole under another name and renamed.
//!
//! Always true: a reader finds what was written last, or what was there before, or nothing that passes the checksum.

use super::file::UNFINISHED;
use super::{Error, Files};
use bytes::Bytes;
use redb::StorageBackend;

const MAGIC: [u8; 4] = *b"evm1";
const HEADER_BYTES: usize = 12;
/// No plain file is larger; a length beyond it is damage.
const BYTES_MAX: usize = 1 << 20;

/// Writes a file anew. It, and its name, are durable on return.
pub(super) fn write(files: &dyn Files, name: &str, bytes: &[u8]) -> Result<(), Error> {
    let unfinished = format!("{name}{UNFINISHED}");
    let file = files.create(&unfinished)?;
    let mut out = Vec::with_capacity(HEADER_BYTES + bytes.len());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&crc32fast::hash(bytes).to_le_bytes());
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
    let written = file.set_len(out.len() as u64).and_then(|()| file.write(0, &out)).and_then(|()| file.sync_data());
    written.and_then(|()| file.close()).map_err(Error::io("writing a small file"))?;
    files.rename(&unfinished, name)?;
    files.sync_dir()
}

/// What the file holds; `None` if it is damaged.
pub(super) fn read(files: &dyn Files, name: &str) -> Result<Option<Bytes>, Error> {
    match files.open(name) {
        Ok(file) => Ok(decode(&*file)),
        Err(Error::Broken { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn decode(file: &dyn StorageBackend) -> Option<Bytes> {
    let len = usize::try_from(file.len().ok()?).ok().filter(|len| (HEADER_BYTES..=BYTES_MAX).contains(len))?;
    let mut bytes = vec![0; len];
    file.read(0, &mut bytes).ok()?;
    let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let whole = bytes[..4] == MAGIC && word(8) as usize == len - HEADER_BYTES && word(4) == crc32fast::hash(&bytes[HEADER_BYTES..]);
    whole.then(|| Bytes::from(bytes).slice(HEADER_BYTES..))
}

#[cfg(test)]
mod tests {
    use super::super::crash::Disk;
    use super::*;

    #[test]
    fn a_file_comes_back_or_is_found_damaged() {
        let disk = Disk::default();
        for content in [&b""[..], b"one", b"another one"] {
            write(&disk, "identity", content).unwrap();
            assert_eq!(read(&disk, "identity").unwrap().as_deref(), Some(content));
        }
        let len = disk.open("identity").unwrap().len().unwrap() as usize;
        for bit in 0..len * 8 {
            let disk = disk.kill();
            disk.damage("identity", |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
            assert_eq!(read(&disk, "identity").unwrap(), None, "bit {bit}");
        }
    }
}
