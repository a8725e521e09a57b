//! The primitives of Evermesh's own encodings: little-endian fixed integers, LEB128 varints, length-prefixed bytes.
//!
//! Everything that is persisted or sent to a peer is built from these, starts with a version byte, and has a golden.

use super::text::Text;
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Bytes that do not decode: damage, or a version that this build does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot decode {what}: {why}")]
pub struct Corrupt {
    pub what: &'static str,
    pub why: &'static str,
}

/// Appends encoded values to a buffer.
#[derive(Default)]
pub struct Writer(BytesMut);

impl Writer {
    pub fn with_capacity(bytes: usize) -> Writer {
        Writer(BytesMut::with_capacity(bytes))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn u8(&mut self, value: u8) {
        self.0.put_u8(value);
    }

    pub fn u32(&mut self, value: u32) {
        self.0.put_u32_le(value);
    }

    pub fn u64(&mut self, value: u64) {
        self.0.put_u64_le(value);
    }

    pub fn u128(&mut self, value: u128) {
        self.0.put_u128_le(value);
    }

    pub fn i64(&mut self, value: i64) {
        self.0.put_i64_le(value);
    }

    /// LEB128, one to ten bytes.
    pub fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.put_u8(value as u8);
    }

    /// A varint length and the bytes.
    pub fn bytes(&mut self, value: &[u8]) {
        self.varint(value.len() as u64);
        self.0.put_slice(value);
    }

    pub fn str(&mut self, value: &str) {
        self.bytes(value.as_bytes());
    }

    /// The bytes as they are, without a length.
    pub fn raw(&mut self, value: &[u8]) {
        self.0.put_slice(value);
    }

    /// A presence byte, and what `put` writes when there is a value.
    pub fn option<T>(&mut self, value: Option<T>, put: impl FnOnce(&mut Writer, T)) {
        self.u8(value.is_some() as u8);
        if let Some(value) = value {
            put(self, value);
        }
    }

    pub fn finish(self) -> Bytes {
        self.0.freeze()
    }
}

/// Takes encoded values off the front of shared bytes; slices are not copied.
pub struct Reader {
    what: &'static str,
    bytes: Bytes,
}

impl Reader {
    /// `what` names the thing that is decoded, for the error.
    pub fn new(what: &'static str, bytes: Bytes) -> Reader {
        Reader { what, bytes }
    }

    pub fn corrupt(&self, why: &'static str) -> Corrupt {
        Corrupt { what: self.what, why }
    }

    pub fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn need(&self, bytes: usize) -> Result<(), Corrupt> {
        match self.bytes.len() >= bytes {
            true => Ok(()),
            false => Err(self.corrupt("it ends too early")),
        }
    }

    pub fn u8(&mut self) -> Result<u8, Corrupt> {
        self.need(1)?;
        Ok(self.bytes.get_u8())
    }

    pub fn u32(&mut self) -> Result<u32, Corrupt> {
        self.need(4)?;
        Ok(self.bytes.get_u32_le())
    }

    pub fn u64(&mut self) -> Result<u64, Corrupt> {
        self.need(8)?;
        Ok(self.bytes.get_u64_le())
    }

    pub fn u128(&mut self) -> Result<u128, Corrupt> {
        self.need(16)?;
        Ok(self.bytes.get_u128_le())
    }

    pub fn i64(&mut self) -> Result<i64, Corrupt> {
        self.need(8)?;
        Ok(self.bytes.get_i64_le())
    }

    pub fn varint(&mut self) -> Result<u64, Corrupt> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.corrupt("a varint is too long"))
    }

    /// A varint that counts things of at least one byte each, so that no allocation outgrows the input.
    pub fn count(&mut self) -> Result<usize, Corrupt> {
        let count = self.varint()?;
        match count <= self.bytes.len() as u64 {
            true => Ok(count as usize),
            false => Err(self.corrupt("a count is larger than what is left")),
        }
    }

    pub fn bytes(&mut self) -> Result<Bytes, Corrupt> {
        let len = self.count()?;
        Ok(self.bytes.split_to(len))
    }

    pub fn text(&mut self) -> Result<Text, Corrupt> {
        let bytes = self.bytes()?;
        Text::from_bytes(bytes).map_err(|_| self.corrupt("a text is not UTF-8"))
    }

    pub fn raw(&mut self, len: usize) -> Result<Bytes, Corrupt> {
        self.need(len)?;
        Ok(self.bytes.split_to(len))
    }

    pub fn option<T>(&mut self, get: impl FnOnce(&mut Reader) -> Result<T, Corrupt>) -> Result<Option<T>, Corrupt> {
        match self.u8()? {
            0 => Ok(None),
            1 => get(self).map(Some),
            _ => Err(self.corrupt("a presence byte is neither 0 nor 1")),
        }
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> Bytes {
        self.bytes.split_to(self.bytes.len())
    }

    /// Checks that nothing is left.
    pub fn end(self) -> Result<(), Corrupt> {
        match self.bytes.is_empty() {
            true => Ok(()),
            false => Err(self.corrupt("there are bytes after its end")),
        }
    }
}
