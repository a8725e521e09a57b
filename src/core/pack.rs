//! Commands packed for the log: compressed once by the proposer, where that pays, and sent and stored as that.
//!
//! Version 2 of a command: the version, the length of the packed version 1 as a varint, and that as an LZ4 block. Events of one kind, like
//! the readings of machines, come to a half or less; a value of the store takes the next power of two of bytes, so the disk gains twice.

use super::codec::{Corrupt, Reader, Writer};
use super::limits;
use bytes::Bytes;

pub(super) const VERSION: u8 = 2;

/// The first version of the peer protocol whose nodes can unpack.
pub const PEER_PROTOCOL: u16 = 3;

/// Smaller commands stay as they are: they share the store's pages (4 KiB) as it is.
const PACKED_FROM: usize = 4 * 1024;
/// Packed is what becomes so many eighths of what it was, at most.
const WORTH_EIGHTHS: usize = 7;

/// Whether it may be worth it.
pub fn is_candidate(command: &Bytes) -> bool {
    command.len() >= PACKED_FROM
}

/// The command packed, if that is worth it.
pub fn pack(command: Bytes) -> Bytes {
    if !is_candidate(&command) {
        return command;
    }
    let block = lz4_flex::block::compress(&command);
    if block.len() * 8 > command.len() * WORTH_EIGHTHS {
        return command;
    }
    let mut out = Writer::with_capacity(block.len() + 8);
    out.u8(VERSION);
    out.varint(command.len() as u64);
    out.raw(&block);
    out.finish()
}

/// What was packed; `reader` is behind the version.
pub(super) fn unpack(mut reader: Reader) -> Result<Bytes, Corrupt> {
    let length = reader.varint()? as usize;
    // An entry has one batch at least, which may be as large as an entry.
    if length > 2 * limits::ENTRY_BYTES_MAX {
        return Err(reader.corrupt("it would be larger than any command"));
    }
    let block = reader.rest();
    match lz4_flex::block::decompress(&block, length) {
        Ok(command) if command.len() == length => Ok(command.into()),
        _ => Err(reader.corrupt("it does not unpack")),
    }
}
