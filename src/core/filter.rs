//! Subject filters, as in NATS: `*` stands for one token, `>` at the end for one or more.

use super::name::{Invalid, check_tokens};

/// A checked subject filter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubjectFilter(String);

impl SubjectFilter {
    pub fn new(filter: &str) -> Result<SubjectFilter, Invalid> {
        check_tokens("subject filter", filter)?;
        let tokens = filter.split('.').count();
        for (at, token) in filter.split('.').enumerate() {
            if token == ">" && at + 1 != tokens {
                return Err(Invalid("in a subject filter > stands only at the end".into()));
            }
            if token.len() > 1 && token.contains(['*', '>']) {
                return Err(Invalid("in a subject filter * and > stand alone between dots".into()));
            }
        }
        Ok(SubjectFilter(filter.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the filter takes this subject. An event without a subject is taken by `>` alone.
    pub fn matches(&self, subject: Option<&str>) -> bool {
        let Some(subject) = subject else { return self.0 == ">" };
        let mut tokens = subject.split('.');
        for want in self.0.split('.') {
            match (want, tokens.next()) {
                (_, None) => return false,
                (">", Some(_)) => return true,
                ("*", Some(_)) => {}
                (want, Some(token)) if want == token => {}
                _ => return false,
            }
        }
        tokens.next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matching_follows_nats() {
        for (filter, subject, expected) in [
            ("a.b", "a.b", true),
            ("a.b", "a.b.c", false),
            ("a.*", "a.b", true),
            ("a.*", "a", false),
            ("a.*", "a.b.c", false),
            ("*.b", "a.b", true),
            ("a.>", "a.b.c", true),
            ("a.>", "a", false),
            (">", "a.b", true),
            ("*", "a", true),
            ("*", "a.b", false),
        ] {
            assert_eq!(SubjectFilter::new(filter).unwrap().matches(Some(subject)), expected, "{filter} {subject}");
        }
        assert!(SubjectFilter::new(">").unwrap().matches(None));
        assert!(!SubjectFilter::new("*").unwrap().matches(None));
    }

    #[test]
    fn bad_filters_are_refused() {
        for bad in ["", "a.>.b", "a*", "a.b>", ".", "a..b", "a b"] {
            assert!(SubjectFilter::new(bad).is_err(), "{bad:?}");
        }
    }
}
