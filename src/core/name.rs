//! Names of streams and nodes, and subjects of events: checked once where they come in, trusted afterwards.

use super::{limits, text::Text};
use std::{fmt, sync::Arc};

/// Why a name, a subject, a filter or another small input was not taken; the text is meant for the person who sent it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

/// A stream's name: 1–128 of `A-Z a-z 0-9 - _ .`, not starting with `.`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamName(Arc<str>);

/// A node's name: the same alphabet as a stream's.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(Arc<str>);

impl StreamName {
    pub fn new(name: &str) -> Result<StreamName, Invalid> {
        check_name("stream", name).map(StreamName)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl NodeName {
    pub fn new(name: &str) -> Result<NodeName, Invalid> {
        check_name("node", name).map(NodeName)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check_name(what: &str, name: &str) -> Result<Arc<str>, Invalid> {
    if name.is_empty() || name.len() > limits::NAME_BYTES_MAX {
        return Err(Invalid(format!("a {what} name has 1 to {} characters, this one has {}", limits::NAME_BYTES_MAX, name.len())));
    }
    if name.starts_with('.') {
        return Err(Invalid(format!("a {what} name does not start with a dot")));
    }
    match name.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))) {
        Some(bad) => Err(Invalid(format!("a {what} name is made of A-Z a-z 0-9 - _ . and not of {bad:?}"))),
        None => Ok(name.into()),
    }
}

/// Checks an event's subject: dot-separated, non-empty tokens without white space, control characters, `*` or `>`.
pub fn check_subject(subject: &str) -> Result<(), Invalid> {
    check_tokens("subject", subject)?;
    match subject.contains(['*', '>']) {
        true => Err(Invalid("a subject has no * or >: those belong in a subject filter".into())),
        false => Ok(()),
    }
}

/// What subjects and subject filters have in common: length, number of tokens, no empty token, no space or control.
pub(super) fn check_tokens(what: &str, text: &str) -> Result<(), Invalid> {
    if text.is_empty() || text.len() > limits::SUBJECT_BYTES_MAX {
        return Err(Invalid(format!("a {what} has 1 to {} bytes, this one has {}", limits::SUBJECT_BYTES_MAX, text.len())));
    }
    if let Some(bad) = text.chars().find(|c| c.is_whitespace() || c.is_control()) {
        return Err(Invalid(format!("a {what} has no white space or control character, this one has {bad:?}")));
    }
    if text.split('.').any(str::is_empty) {
        return Err(Invalid(format!("a {what} is made of non-empty tokens with dots between them")));
    }
    if text.split('.').count() > limits::SUBJECT_TOKENS_MAX {
        return Err(Invalid(format!("a {what} has at most {} tokens", limits::SUBJECT_TOKENS_MAX)));
    }
    Ok(())
}

/// Checks a publisher's event id: 1–256 bytes without control characters.
pub fn check_event_id(id: &str) -> Result<(), Invalid> {
    if id.is_empty() || id.len() > limits::EVENT_ID_BYTES_MAX {
        return Err(Invalid(format!("an event id has 1 to {} bytes, this one has {}", limits::EVENT_ID_BYTES_MAX, id.len())));
    }
    match id.chars().find(|c| c.is_control()) {
        Some(bad) => Err(Invalid(format!("an event id has no control character, this one has {bad:?}"))),
        None => Ok(()),
    }
}

/// Checks the user headers of an event: their number, and names and values that HTTP could carry.
pub fn check_headers(headers: &[(Text, Text)]) -> Result<(), Invalid> {
    if headers.len() > limits::HEADERS_MAX {
        return Err(Invalid(format!("an event has at most {} headers, this one has {}", limits::HEADERS_MAX, headers.len())));
    }
    for (name, value) in headers {
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.is_empty() || name.len() > limits::HEADER_NAME_BYTES_MAX || !name.bytes().all(token) {
            return Err(Invalid(format!("{:?} is not a header name of 1 to {} token characters", name, limits::HEADER_NAME_BYTES_MAX)));
        }
        if value.len() > limits::HEADER_VALUE_BYTES_MAX || value.chars().any(char::is_control) {
            return Err(Invalid(format!(
                "the value of header {name} has control characters or over {} bytes",
                limits::HEADER_VALUE_BYTES_MAX
            )));
        }
    }
    Ok(())
}

macro_rules! as_text {
    ($($name:ty),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    )*};
}
as_text!(StreamName, NodeName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_take_the_alphabet_and_nothing_else() {
        for good in ["a", "orders", "A-z_0.9", &"x".repeat(128)] {
            assert!(StreamName::new(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", ".x", "a/b", "a b", "é", "a\n", "a\u{0}", &"x".repeat(129)] {
            assert!(StreamName::new(bad).is_err(), "{bad:?}");
            assert!(NodeName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn subjects_are_tokens_with_dots_between() {
        for good in ["a", "orders.eu.created", "é.ü", "a-b_c.1"] {
            assert!(check_subject(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "a.", ".a", "a..b", "a b", "a.*", "a.>", "a\t", &"x".repeat(257), &["a"; 33].join(".")] {
            assert!(check_subject(bad).is_err(), "{bad:?}");
        }
    }
}
