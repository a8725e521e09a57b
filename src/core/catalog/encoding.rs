//! The bytes of the catalog and of its commands.
//!
//! Version 1: the version (for a command also a tag), and the fields in order: numbers as varints, cluster and tokens fixed,
//! texts with their length before them, lists with their number before them.

use super::{Catalog, Command, NodeRecord, NodeState, StreamRecord};
use crate::core::{
    Discard, NodeName, Settings, StreamName, Time,
    codec::{Corrupt, Reader, Writer},
};
use bytes::Bytes;

const VERSION: u8 = 1;

const FOUND: u8 = 1;
const ADD_NODE: u8 = 2;
const UPDATE_NODE: u8 = 3;
const SET_NODE_STATE: u8 = 4;
const CREATE_STREAM: u8 = 5;
const CHANGE_STREAM: u8 = 6;
const DELETE_STREAM: u8 = 7;
const SET_PLACEMENT: u8 = 8;
const REPLACE_NODE: u8 = 9;
const BEGUN: u8 = 10;

/// Flags of settings.
const MAX_AGE: u8 = 1;
const MAX_BYTES: u8 = 2;
const MAX_EVENTS: u8 = 4;
const DISCARD_NEW: u8 = 8;

impl Command {
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::with_capacity(128);
        out.u8(VERSION);
        match self {
            Command::Found { cluster } => {
                out.u8(FOUND);
                out.u128(*cluster);
            }
            Command::AddNode { token, name, url, peer, version } => {
                out.u8(ADD_NODE);
                out.u128(*token);
                texts(&mut out, &[name.as_str(), url, peer, version]);
            }
            Command::UpdateNode { id, url, peer, version } => {
                out.u8(UPDATE_NODE);
                out.varint(*id);
                texts(&mut out, &[url, peer, version]);
            }
            Command::ReplaceNode { old, token, name, url, peer, version } => {
                out.u8(REPLACE_NODE);
                out.varint(*old);
                out.u128(*token);
                texts(&mut out, &[name.as_str(), url, peer, version]);
            }
            Command::SetNodeState { id, state } => {
                out.u8(SET_NODE_STATE);
                out.varint(*id);
                encode_state(&mut out, *state);
            }
            Command::CreateStream { name, settings, placement, time } => {
                out.u8(CREATE_STREAM);
                out.str(name.as_str());
                encode_settings(&mut out, settings);
                encode_ids(&mut out, placement);
                out.i64(time.0);
            }
            Command::ChangeStream { name, settings } => {
                out.u8(CHANGE_STREAM);
                out.str(name.as_str());
                encode_settings(&mut out, settings);
            }
            Command::DeleteStream { name } => {
                out.u8(DELETE_STREAM);
                out.str(name.as_str());
            }
            Command::Begun { group } => {
                out.u8(BEGUN);
                out.varint(*group);
            }
            Command::SetPlacement { group, from, to } => {
                out.u8(SET_PLACEMENT);
                out.varint(*group);
                encode_ids(&mut out, from);
                encode_ids(&mut out, to);
            }
        }
        out.finish()
    }

    pub fn decode(bytes: Bytes) -> Result<Command, Corrupt> {
        let mut reader = start("a command of the catalog", bytes)?;
        let command = decode_command(&mut reader)?;
        reader.end()?;
        Ok(command)
    }
}

fn decode_command(reader: &mut Reader) -> Result<Command, Corrupt> {
    Ok(match reader.u8()? {
        FOUND => Command::Found { cluster: reader.u128()? },
        ADD_NODE => Command::AddNode {
            token: reader.u128()?,
            name: decode_node_name(reader)?,
            url: decode_string(reader)?,
            peer: decode_string(reader)?,
            version: decode_string(reader)?,
        },
        UPDATE_NODE => Command::UpdateNode {
            id: reader.varint()?,
            url: decode_string(reader)?,
            peer: decode_string(reader)?,
            version: decode_string(reader)?,
        },
        REPLACE_NODE => Command::ReplaceNode {
            old: reader.varint()?,
            token: reader.u128()?,
            name: decode_node_name(reader)?,
            url: decode_string(reader)?,
            peer: decode_string(reader)?,
            version: decode_string(reader)?,
        },
        SET_NODE_STATE => Command::SetNodeState { id: reader.varint()?, state: decode_state(reader)? },
        CREATE_STREAM => Command::CreateStream {
            name: decode_stream_name(reader)?,
            settings: decode_settings(reader)?,
            placement: decode_ids(reader)?,
            time: Time(reader.i64()?),
        },
        CHANGE_STREAM => Command::ChangeStream { name: decode_stream_name(reader)?, settings: decode_settings(reader)? },
        DELETE_STREAM => Command::DeleteStream { name: decode_stream_name(reader)? },
        BEGUN => Command::Begun { group: reader.varint()? },
        SET_PLACEMENT => Command::SetPlacement { group: reader.varint()?, from: decode_ids(reader)?, to: decode_ids(reader)? },
        _ => return Err(reader.corrupt("its tag is not known")),
    })
}

impl Catalog {
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::with_capacity(64 + 128 * (self.nodes.len() + self.streams.len()));
        out.u8(VERSION);
        out.u128(self.cluster);
        out.varint(self.next_group);
        out.varint(self.next_node);
        out.varint(self.nodes.len() as u64);
        for node in self.nodes.values() {
            encode_node(&mut out, node);
        }
        out.varint(self.streams.len() as u64);
        for stream in self.streams.values() {
            encode_stream(&mut out, stream);
        }
        out.finish()
    }

    pub fn decode(bytes: Bytes) -> Result<Catalog, Corrupt> {
        let mut reader = start("the catalog", bytes)?;
        let (cluster, next_group, next_node) = (reader.u128()?, reader.varint()?, reader.varint()?);
        let mut catalog = Catalog { cluster, next_group, next_node, ..Catalog::new() };
        for _ in 0..reader.count()? {
            let node = decode_node(&mut reader)?;
            catalog.nodes.insert(node.id, node);
        }
        for _ in 0..reader.count()? {
            let stream = decode_stream(&mut reader)?;
            catalog.streams.insert(stream.name.clone(), stream);
        }
        reader.end()?;
        Ok(catalog)
    }
}

fn start(what: &'static str, bytes: Bytes) -> Result<Reader, Corrupt> {
    let mut reader = Reader::new(what, bytes);
    match reader.u8()? {
        VERSION => Ok(reader),
        _ => Err(reader.corrupt("its version is not known")),
    }
}

fn encode_node(out: &mut Writer, node: &NodeRecord) {
    out.varint(node.id);
    texts(out, &[node.name.as_str(), &node.url, &node.peer, &node.version]);
    encode_state(out, node.state);
    out.u128(node.token);
}

fn decode_node(reader: &mut Reader) -> Result<NodeRecord, Corrupt> {
    Ok(NodeRecord {
        id: reader.varint()?,
        name: decode_node_name(reader)?,
        url: decode_string(reader)?,
        peer: decode_string(reader)?,
        version: decode_string(reader)?,
        state: decode_state(reader)?,
        token: reader.u128()?,
    })
}

fn encode_stream(out: &mut Writer, stream: &StreamRecord) {
    out.str(stream.name.as_str());
    out.varint(stream.group);
    encode_settings(out, &stream.settings);
    encode_ids(out, &stream.initial);
    encode_ids(out, &stream.placement);
    out.i64(stream.created.0);
}

fn decode_stream(reader: &mut Reader) -> Result<StreamRecord, Corrupt> {
    Ok(StreamRecord {
        name: decode_stream_name(reader)?,
        group: reader.varint()?,
        settings: decode_settings(reader)?,
        initial: decode_ids(reader)?,
        placement: decode_ids(reader)?,
        created: Time(reader.i64()?),
    })
}

fn encode_settings(out: &mut Writer, settings: &Settings) {
    let bounds = [(settings.max_age_ms, MAX_AGE), (settings.max_bytes, MAX_BYTES), (settings.max_events, MAX_EVENTS)];
    let discard = if settings.discard == Discard::New { DISCARD_NEW } else { 0 };
    out.u8(bounds.iter().filter(|(bound, _)| bound.is_some()).fold(discard, |flags, (_, flag)| flags | flag));
    out.u8(settings.replicas);
    for bound in bounds.into_iter().filter_map(|(bound, _)| bound) {
        out.varint(bound);
    }
    out.varint(settings.dedup_window_ms);
    out.varint(settings.max_event_bytes);
    out.str(&settings.description);
}

fn decode_settings(reader: &mut Reader) -> Result<Settings, Corrupt> {
    let flags = reader.u8()?;
    if flags & !(MAX_AGE | MAX_BYTES | MAX_EVENTS | DISCARD_NEW) != 0 {
        return Err(reader.corrupt("a flag is not known"));
    }
    let bound = |reader: &mut Reader, flag: u8| if flags & flag != 0 { reader.varint().map(Some) } else { Ok(None) };
    Ok(Settings {
        replicas: reader.u8()?,
        max_age_ms: bound(reader, MAX_AGE)?,
        max_bytes: bound(reader, MAX_BYTES)?,
        max_events: bound(reader, MAX_EVENTS)?,
        discard: if flags & DISCARD_NEW != 0 { Discard::New } else { Discard::Old },
        dedup_window_ms: reader.varint()?,
        max_event_bytes: reader.varint()?,
        description: decode_string(reader)?,
    })
}

fn encode_state(out: &mut Writer, state: NodeState) {
    out.u8(match state {
        NodeState::Active => 0,
        NodeState::Draining => 1,
        NodeState::Removed => 2,
    });
}

fn decode_state(reader: &mut Reader) -> Result<NodeState, Corrupt> {
    match reader.u8()? {
        0 => Ok(NodeState::Active),
        1 => Ok(NodeState::Draining),
        2 => Ok(NodeState::Removed),
        _ => Err(reader.corrupt("a node's state is not known")),
    }
}

fn texts(out: &mut Writer, texts: &[&str]) {
    texts.iter().for_each(|text| out.str(text));
}

fn encode_ids(out: &mut Writer, ids: &[u64]) {
    out.varint(ids.len() as u64);
    ids.iter().for_each(|id| out.varint(*id));
}

fn decode_ids(reader: &mut Reader) -> Result<Vec<u64>, Corrupt> {
    (0..reader.count()?).map(|_| reader.varint()).collect()
}

fn decode_string(reader: &mut Reader) -> Result<String, Corrupt> {
    Ok(reader.text()?.as_str().into())
}

fn decode_node_name(reader: &mut Reader) -> Result<NodeName, Corrupt> {
    let text = reader.text()?;
    NodeName::new(&text).map_err(|_| reader.corrupt("a node's name is not valid"))
}

fn decode_stream_name(reader: &mut Reader) -> Result<StreamName, Corrupt> {
    let text = reader.text()?;
    StreamName::new(&text).map_err(|_| reader.corrupt("a stream's name is not valid"))
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{add_node, cluster, create, stream_name},
        *,
    };
    use crate::core::golden;
    use proptest::prelude::*;

    fn full_settings() -> Settings {
        Settings {
            max_age_ms: Some(3_600_000),
            max_bytes: Some(1 << 30),
            max_events: Some(1_000),
            discard: Discard::New,
            description: "all orders".into(),
            ..Settings::with_replicas(3)
        }
    }

    fn commands() -> [(&'static str, Command); 10] {
        let name = || stream_name("orders");
        [
            ("found", Command::Found { cluster: 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10 }),
            ("add_node", add_node(7, "n1")),
            ("update_node", Command::UpdateNode { id: 300, url: "http://a:1".into(), peer: "a:2".into(), version: "0.1.0".into() }),
            ("set_node_state", Command::SetNodeState { id: 2, state: NodeState::Removed }),
            ("create_stream", create("orders", 3, &[3, 1, 2])),
            ("change_stream", Command::ChangeStream { name: name(), settings: full_settings() }),
            ("delete_stream", Command::DeleteStream { name: name() }),
            ("set_placement", Command::SetPlacement { group: 9, from: vec![1, 2, 3], to: vec![4, 2, 3] }),
            (
                "replace_node",
                Command::ReplaceNode {
                    old: 300,
                    token: 7,
                    name: NodeName::new("n4").unwrap(),
                    url: "http://a:1".into(),
                    peer: "a:2".into(),
                    version: "0.1.0".into(),
                },
            ),
            ("begun", Command::Begun { group: 9 }),
        ]
    }

    fn full() -> Catalog {
        let mut catalog = cluster(4);
        for command in [
            create("a", 1, &[2]),
            create("b", 3, &[3, 1, 2]),
            Command::ChangeStream { name: stream_name("b"), settings: full_settings() },
            Command::SetPlacement { group: 2, from: vec![3, 1, 2], to: vec![4, 1, 2] },
            Command::SetNodeState { id: 3, state: NodeState::Draining },
        ] {
            catalog.apply(&command);
        }
        catalog
    }

    #[test]
    fn commands_and_catalog_are_the_goldens() {
        golden::check("catalog_command_v1.txt", &commands().map(|(name, command)| (name, command.encode())));
        golden::check("catalog_v1.txt", &[("empty", Catalog::new().encode()), ("full", full().encode())]);
        for (name, command) in commands() {
            let bytes = command.encode();
            assert_eq!(Command::decode(bytes.clone()), Ok(command), "{name}");
            assert!((0..bytes.len()).all(|end| Command::decode(bytes.slice(..end)).is_err()), "{name} cut");
            assert!(Command::decode(Bytes::from([&bytes[..], &[0]].concat())).is_err(), "{name} with bytes after its end");
        }
        for catalog in [Catalog::new(), full()] {
            let bytes = catalog.encode();
            assert_eq!(Catalog::decode(bytes.clone()), Ok(catalog));
            assert!((0..bytes.len()).all(|end| Catalog::decode(bytes.slice(..end)).is_err()));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_are_refused(tag in 0u8..12, bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let bytes = Bytes::from([&[VERSION, tag], &bytes[..]].concat());
            let _ = Command::decode(bytes.clone());
            let _ = Catalog::decode(bytes);
        }

        #[test]
        fn a_damaged_catalog_decodes_or_is_refused(at in 0usize..200, byte in any::<u8>()) {
            let mut bytes = full().encode().to_vec();
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = Catalog::decode(bytes.into());
        }
    }
}
