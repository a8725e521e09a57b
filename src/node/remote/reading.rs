//! What a node that holds no replica of a stream asks for its readers, and what it gets.

use super::{get_state, put_state, reader, writer};
use crate::core::codec::{Corrupt, Reader, Writer};
use crate::core::machine::State;
use crate::core::{Event, SubjectFilter, Text, Time};
use crate::node::types::{Delivery, Item};
use bytes::Bytes;
use std::sync::{Arc, OnceLock};

/// A reader's step for a node that holds no replica of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadChunk {
    pub group: u64,
    pub from: Start,
    pub filter: Option<SubjectFilter>,
    pub events: u64,
    pub wait_ms: u64,
    /// Whether to make sure with the leader first that nothing acknowledged is missing.
    pub barrier: bool,
}

/// Where a step begins; `Time` and the others are resolved to a seq by the first step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    Seq(u64),
    Earliest,
    Latest,
    New,
    Time(Time),
}

impl ReadChunk {
    pub fn encode(&self) -> Bytes {
        let mut w = writer(64);
        w.varint(self.group);
        match self.from {
            Start::Seq(seq) => {
                w.u8(0);
                w.varint(seq);
            }
            Start::Earliest => w.u8(1),
            Start::Latest => w.u8(2),
            Start::New => w.u8(3),
            Start::Time(time) => {
                w.u8(4);
                w.i64(time.0);
            }
        }
        w.option(self.filter.as_ref(), |w, filter| w.str(filter.as_str()));
        w.varint(self.events);
        w.varint(self.wait_ms);
        w.u8(self.barrier as u8);
        w.finish()
    }

    pub fn decode(bytes: Bytes) -> Result<ReadChunk, Corrupt> {
        let mut r = reader("a read", bytes)?;
        let group = r.varint()?;
        let from = match r.u8()? {
            0 => Start::Seq(r.varint()?),
            1 => Start::Earliest,
            2 => Start::Latest,
            3 => Start::New,
            4 => Start::Time(Time(r.i64()?)),
            _ => return Err(r.corrupt("a start is not known to this build")),
        };
        let filter = r.option(get_filter)?;
        let chunk = ReadChunk { group, from, filter, events: r.varint()?, wait_ms: r.varint()?, barrier: r.u8()? != 0 };
        r.end()?;
        Ok(chunk)
    }
}

pub(super) fn get_filter(r: &mut Reader) -> Result<SubjectFilter, Corrupt> {
    let text = r.text()?;
    SubjectFilter::new(&text).map_err(|_| r.corrupt("a subject filter is not valid"))
}

/// What a step brought: its items, where to go on, and the stream's state.
#[derive(Clone, Debug)]
pub struct Step {
    pub items: Vec<Item>,
    pub next: u64,
    pub state: State,
}

impl Step {
    pub fn encode(&self) -> Bytes {
        let bytes: usize = self.items.iter().map(|item| if let Item::Event(d) = item { d.event.bytes() as usize + 64 } else { 24 }).sum();
        let mut w = writer(bytes + 64);
        w.varint(self.next);
        put_state(&mut w, &self.state);
        w.varint(self.items.len() as u64);
        for item in &self.items {
            match item {
                Item::Gap { from, to } => {
                    w.u8(0);
                    w.varint(*from);
                    w.varint(*to);
                }
                Item::Event(delivery) => {
                    w.u8(1);
                    put_event(&mut w, &delivery.event);
                }
            }
        }
        w.finish()
    }

    pub fn decode(bytes: Bytes) -> Result<Step, Corrupt> {
        let mut r = reader("a read step", bytes)?;
        let next = r.varint()?;
        let state = get_state(&mut r)?;
        let count = r.count()?;
        let items = (0..count).map(|_| get_item(&mut r)).collect::<Result<Vec<_>, _>>()?;
        r.end()?;
        Ok(Step { items, next, state })
    }
}

fn get_item(r: &mut Reader) -> Result<Item, Corrupt> {
    match r.u8()? {
        0 => Ok(Item::Gap { from: r.varint()?, to: r.varint()? }),
        1 => Ok(Item::Event(Arc::new(Delivery { event: get_event(r)?, json: OnceLock::new() }))),
        _ => Err(r.corrupt("an item is not known to this build")),
    }
}

fn put_event(w: &mut Writer, event: &Event) {
    w.varint(event.seq);
    w.i64(event.time.0);
    w.option(event.subject.as_ref(), |w, text| w.str(text));
    w.option(event.id.as_ref(), |w, text| w.str(text));
    w.str(&event.content_type);
    w.varint(event.headers.len() as u64);
    for (name, value) in &event.headers {
        w.str(name);
        w.str(value);
    }
    w.bytes(&event.data);
}

fn get_event(r: &mut Reader) -> Result<Event, Corrupt> {
    let (seq, time) = (r.varint()?, Time(r.i64()?));
    let (subject, id, content_type) = (r.option(Reader::text)?, r.option(Reader::text)?, r.text()?);
    let headers = r.count()?;
    let headers = (0..headers).map(|_| Ok((r.text()?, r.text()?))).collect::<Result<Vec<(Text, Text)>, Corrupt>>()?;
    Ok(Event { seq, time, subject, id, content_type, headers, data: r.bytes()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::golden;

    #[test]
    fn what_readers_ask_and_get_is_the_golden() {
        let from = [Start::Seq(300), Start::Earliest, Start::Latest, Start::New, Start::Time(Time(5))];
        let filter = Some(SubjectFilter::new("a.*").unwrap());
        let asked = from.map(|from| ReadChunk { group: 7, from, filter: filter.clone(), events: 100, wait_ms: 2_000, barrier: true });
        let event = Event {
            seq: 9,
            time: Time(1_000),
            subject: Some(Text::from("a.b")),
            id: None,
            content_type: Text::from("text/plain"),
            headers: vec![(Text::from("k"), Text::from("v"))],
            data: Bytes::from_static(b"data"),
        };
        let items = vec![Item::Gap { from: 7, to: 8 }, Item::Event(Arc::new(Delivery { event, json: OnceLock::new() }))];
        let step = Step { items, next: 10, state: State { first_seq: 7, last_seq: 9, ..State::default() } };
        let names = ["chunk_seq", "chunk_earliest", "chunk_latest", "chunk_new", "chunk_time"];
        let mut lines: Vec<(&str, Bytes)> = names.into_iter().zip(asked.iter().map(ReadChunk::encode)).collect();
        lines.push(("step", step.encode()));
        golden::check("reading_v1.txt", &lines);
        for chunk in asked {
            let bytes = chunk.encode();
            assert_eq!(ReadChunk::decode(bytes.clone()), Ok(chunk));
            assert!((0..bytes.len()).all(|end| ReadChunk::decode(bytes.slice(..end)).is_err()));
        }
        let bytes = step.encode();
        assert_eq!(Step::decode(bytes.clone()).unwrap().encode(), bytes);
        assert!((0..bytes.len()).all(|end| Step::decode(bytes.slice(..end)).is_err()));
    }
}
