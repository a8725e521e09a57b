//! The settings of `evermesh serve`: one list that is the flags, the environment and the TOML file at once.
//!
//! - Precedence: flag, then environment (`EVERMESH_*`), then file, then default.
//! - The file is `--config FILE`, or `evermesh.toml` in the data folder, where `serve` leaves what it was started with.
//! - Paths in a file are relative to the file's folder.

use super::failure::{Failure, Result, io};
use super::stream::whole_size;
use crate::core::{NodeName, limits};
use crate::node::Start;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The file that remembers a node's settings, in its data folder.
pub const FILE_NAME: &str = "evermesh.toml";
const LISTEN: &str = "127.0.0.1:4700";
const PEER_LISTEN: &str = "127.0.0.1:4800";

/// Every setting, each optional: what one source says.
#[derive(Args, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Folder of this node's data; made when missing. No other node may use it
    #[arg(long, env = "EVERMESH_DATA", value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,

    /// Name of this node in the cluster [default: n1 for a founder, a random one for others]
    #[arg(long, env = "EVERMESH_NAME", value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,

    /// Where clients reach this node [default: 127.0.0.1:4700]
    #[arg(long, env = "EVERMESH_LISTEN", value_name = "HOST:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,

    /// Where the other nodes reach this node [default: 127.0.0.1:4800]
    #[arg(long, env = "EVERMESH_PEER_LISTEN", value_name = "HOST:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_listen: Option<String>,

    /// The URL that clients are told to use [default: from --listen]
    #[arg(long, env = "EVERMESH_ADVERTISE", value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,

    /// The address that the other nodes are told to use [default: from --peer-listen]
    #[arg(long, env = "EVERMESH_PEER_ADVERTISE", value_name = "HOST:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_advertise: Option<String>,

    /// Found a new cluster with this node, where the data folder is empty
    #[arg(long, env = "EVERMESH_BOOTSTRAP", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", conflicts_with = "join")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bootstrap: Option<bool>,

    /// Join the cluster of these nodes (their --peer-listen), where the data folder is empty
    #[arg(long, env = "EVERMESH_JOIN", value_name = "HOST:PORT", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub join: Option<Vec<String>>,

    /// With --join: take the place of this node, which is gone for good; its replicas are made anew here
    #[arg(long, env = "EVERMESH_REPLACE", value_name = "NODE", requires = "join")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replace: Option<String>,

    /// File with the cluster's secret [default: EVERMESH_SECRET, then DATA/secret]
    #[arg(long, env = "EVERMESH_SECRET_FILE", value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<PathBuf>,

    /// Allow --listen on an address that other machines reach, although the API asks nobody who they are
    #[arg(long, env = "EVERMESH_INSECURE", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub insecure: Option<bool>,

    /// Create a stream with defaults at the first publish to it
    #[arg(long, env = "EVERMESH_AUTO_CREATE_STREAMS", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_create_streams: Option<bool>,

    /// Free space that is left on the data folder's disk: with less, this node takes nothing new [default: 5 % of it, 32MiB to 512MiB]
    #[arg(long, env = "EVERMESH_DISK_RESERVE", value_name = "BYTES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_reserve: Option<String>,

    /// Seconds until a stream sleeps to which nothing happens; it wakes by itself, in some milliseconds. 0: never [default: 30]
    #[arg(long, env = "EVERMESH_SLEEP_AFTER", value_name = "SECONDS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sleep_after: Option<u32>,

    /// Speak no newer version of the peer protocol than this: to try a rolling upgrade [default: the newest]
    #[arg(long, env = "EVERMESH_PEER_PROTOCOL_MAX", value_name = "N", hide = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_protocol_max: Option<u16>,

    /// How log lines look [default: human]
    #[arg(long, env = "EVERMESH_LOG_FORMAT", value_name = "FORMAT", value_enum)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_format: Option<LogFormat>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people
    #[default]
    Human,
    /// One JSON object a line
    Json,
}

/// Settings with every source considered and every default in place.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    pub data: PathBuf,
    pub name: Option<NodeName>,
    pub listen: String,
    pub peer_listen: String,
    pub advertise: Option<String>,
    pub peer_advertise: Option<String>,
    pub start: Start,
    pub secret_file: Option<PathBuf>,
    pub insecure: bool,
    pub auto_create_streams: bool,
    /// In bytes.
    pub disk_reserve: Option<u64>,
    /// `None`: streams never sleep.
    pub sleep_after: Option<Duration>,
    pub peer_protocol_max: Option<u16>,
    pub log_format: LogFormat,
}

impl Settings {
    /// What these settings say, and where they say nothing, what the others do.
    ///
    /// `bootstrap`, and `join` with `replace`, are one choice: whoever makes it here is not completed from there.
    fn or(self, other: Settings) -> Settings {
        let chosen = self.bootstrap.is_some() || self.join.is_some();
        Settings {
            data: self.data.or(other.data),
            name: self.name.or(other.name),
            listen: self.listen.or(other.listen),
            peer_listen: self.peer_listen.or(other.peer_listen),
            advertise: self.advertise.or(other.advertise),
            peer_advertise: self.peer_advertise.or(other.peer_advertise),
            bootstrap: if chosen { self.bootstrap } else { other.bootstrap },
            join: if chosen { self.join } else { other.join },
            replace: if chosen { self.replace } else { other.replace },
            secret_file: self.secret_file.or(other.secret_file),
            insecure: self.insecure.or(other.insecure),
            auto_create_streams: self.auto_create_streams.or(other.auto_create_streams),
            disk_reserve: self.disk_reserve.or(other.disk_reserve),
            sleep_after: self.sleep_after.or(other.sleep_after),
            peer_protocol_max: self.peer_protocol_max.or(other.peer_protocol_max),
            log_format: self.log_format.or(other.log_format),
        }
    }

    /// Reads a TOML file; an unknown key is an error that names it.
    pub fn read(file: &Path) -> Result<Settings> {
        let text = std::fs::read_to_string(file).map_err(io(format_args!("cannot read settings from {}", file.display())))?;
        let settings = Settings::parse(&text).map_err(|why| Failure::usage(format!("{}: {why}", file.display())))?;
        Ok(settings.relative_to(file.parent().unwrap_or(Path::new(""))))
    }

    fn parse(text: &str) -> std::result::Result<Settings, String> {
        toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())
    }

    fn relative_to(mut self, folder: &Path) -> Settings {
        for path in [&mut self.data, &mut self.secret_file].into_iter().flatten() {
            *path = folder.join(&*path);
        }
        self
    }

    /// The settings as a file, for a person to read and change.
    pub fn to_toml(&self, heading: &str) -> String {
        let heading: String = heading.lines().map(|line| format!("# {line}\n")).collect();
        format!("{heading}{}", toml::to_string(self).expect("plain values have a TOML form"))
    }

    /// Flags and environment (`self`), completed by the file and the defaults.
    pub fn resolve(self, config: Option<&Path>) -> Result<Resolved> {
        let remembered = self.data.as_ref().map(|data| data.join(FILE_NAME)).filter(|file| file.is_file());
        let file = match (config, remembered) {
            (Some(file), _) => Settings::read(file)?,
            (None, Some(file)) => Settings { data: None, ..Settings::read(&file)? },
            (None, None) => Settings::default(),
        };
        self.or(file).with_defaults()
    }

    fn with_defaults(self) -> Result<Resolved> {
        let data = self.data.ok_or_else(|| {
            Failure::usage("no data folder is named")
                .hint("say where this node keeps its events: --data DIR (or EVERMESH_DATA, or `data` in the file)")
        })?;
        let name = self.name.map(|name| NodeName::new(&name)).transpose().map_err(|why| Failure::usage(format!("--name: {why}")))?;
        let disk_reserve = self.disk_reserve.as_deref().map(whole_size);
        let start = match (self.bootstrap.unwrap_or(false), self.join.unwrap_or_default()) {
            (true, join) if !join.is_empty() => {
                return Err(
                    Failure::usage("bootstrap and join exclude each other").hint("the first node founds the cluster, all others join it")
                );
            }
            (true, _) => Start::Bootstrap,
            (false, join) if join.is_empty() => Start::Resume,
            (false, seeds) => match self.replace.map(|node| NodeName::new(&node)).transpose() {
                Ok(None) => Start::Join(seeds),
                Ok(Some(node)) => Start::Replace { seeds, node },
                Err(why) => return Err(Failure::usage(format!("--replace: {why}"))),
            },
        };
        Ok(Resolved {
            data,
            name,
            listen: self.listen.unwrap_or_else(|| LISTEN.into()),
            peer_listen: self.peer_listen.unwrap_or_else(|| PEER_LISTEN.into()),
            advertise: self.advertise,
            peer_advertise: self.peer_advertise,
            start,
            secret_file: self.secret_file,
            insecure: self.insecure.unwrap_or(false),
            auto_create_streams: self.auto_create_streams.unwrap_or(false),
            disk_reserve: disk_reserve.transpose().map_err(|why| Failure::usage(format!("--disk-reserve: {why}")))?,
            sleep_after: match self.sleep_after.map(u64::from) {
                Some(0) => None,
                Some(seconds) => Some(Duration::from_secs(seconds)),
                None => Some(Duration::from_millis(limits::SLEEP_AFTER_MS)),
            },
            peer_protocol_max: self.peer_protocol_max,
            log_format: self.log_format.unwrap_or_default(),
        })
    }
}

/// Variables that look like settings and are none: a typing error, most likely.
///
/// They are reported and not refused: Kubernetes makes `EVERMESH_PORT` and its like for a service named evermesh.
pub fn unknown_variables(names: impl Iterator<Item = String>) -> Vec<String> {
    let command = <Settings as Args>::augment_args(clap::Command::new("settings"));
    let known: Vec<_> = command.get_arguments().filter_map(|arg| arg.get_env()).map(|name| name.to_string_lossy().into_owned()).collect();
    let other = ["EVERMESH_SECRET", "EVERMESH_LOG", "EVERMESH_SERVER", "EVERMESH_CONFIG"];
    names.filter(|name| name.starts_with("EVERMESH_") && !other.contains(&name.as_str()) && !known.contains(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        settings: Settings,
    }

    fn flags(line: &[&str]) -> Settings {
        Line::try_parse_from([&["serve"], line].concat()).unwrap().settings
    }

    #[test]
    fn each_setting_has_one_name_in_three_spellings() {
        let command = <Settings as Args>::augment_args(clap::Command::new("settings"));
        let mut keys = 0;
        for arg in command.get_arguments() {
            let key = arg.get_id().as_str();
            assert_eq!(arg.get_long().unwrap(), key.replace('_', "-"));
            assert_eq!(arg.get_env().unwrap().to_str().unwrap(), format!("EVERMESH_{}", key.to_uppercase()));
            let text = |value: &str| format!("{key} = {value}\n");
            let values = ["\"json\"", "true", "1", "[\"a:1\"]"];
            assert!(values.iter().any(|value| Settings::parse(&text(value)).is_ok()), "the file knows no {key}");
            keys += 1;
        }
        assert_eq!(keys, 16);
    }

    #[test]
    fn streams_sleep_unless_that_is_switched_off() {
        let sleep_after = |args: &[&str]| flags(&[&["--data", "x"], args].concat()).resolve(None).unwrap().sleep_after;
        assert_eq!(sleep_after(&[]), Some(Duration::from_millis(limits::SLEEP_AFTER_MS)));
        assert_eq!(sleep_after(&["--sleep-after", "5"]), Some(Duration::from_secs(5)));
        assert_eq!(sleep_after(&["--sleep-after", "0"]), None);
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("node.toml");
        std::fs::write(&file, "data = \"here\"\nlisten = \"127.0.0.1:1\"\npeer_listen = \"127.0.0.1:2\"\nauto_create_streams = true\nsecret_file = \"../s\"\n").unwrap();
        let resolved = flags(&["--listen", "127.0.0.1:9", "--name", "n7"]).resolve(Some(&file)).unwrap();
        assert_eq!(resolved.listen, "127.0.0.1:9");
        assert_eq!(resolved.peer_listen, "127.0.0.1:2");
        assert_eq!(resolved.data, dir.path().join("here"));
        assert_eq!(resolved.secret_file, Some(dir.path().join("../s")));
        assert!(resolved.auto_create_streams && !resolved.insecure);
        assert_eq!(resolved.start, Start::Resume);
        assert_eq!(flags(&["--auto-create-streams=false", "--data", "x"]).resolve(Some(&file)).unwrap().data, PathBuf::from("x"));
    }

    #[test]
    fn the_file_in_the_data_folder_is_found_by_itself() {
        let dir = tempfile::tempdir().unwrap();
        let said = flags(&["--name", "n3", "--join", "a:1,b:2"]);
        std::fs::write(dir.path().join(FILE_NAME), said.to_toml("Made by a test.")).unwrap();
        let resolved = flags(&["--data", dir.path().to_str().unwrap()]).resolve(None).unwrap();
        assert_eq!(resolved.name, Some(NodeName::new("n3").unwrap()));
        assert_eq!(resolved.start, Start::Join(vec!["a:1".into(), "b:2".into()]));
        let founded = flags(&["--data", dir.path().to_str().unwrap(), "--bootstrap"]).resolve(None).unwrap();
        assert_eq!(founded.start, Start::Bootstrap, "the choice on the command line is whole");
    }

    #[test]
    fn an_unknown_key_is_named() {
        let why = Settings::parse("data = \"x\"\nlisen = \"127.0.0.1:1\"\n").unwrap_err();
        assert!(why.contains("lisen") && why.contains("line 2"), "{why}");
        assert!(Settings::parse("insecure = \"yes\"").unwrap_err().contains("insecure"));
        assert!(Settings::parse("[node]\nname = \"x\"").unwrap_err().contains("node"));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert!(flags(&[]).resolve(None).unwrap_err().to_string().contains("--data"));
        assert!(flags(&["--data", "x", "--disk-reserve", "much"]).resolve(None).unwrap_err().to_string().contains("--disk-reserve"));
        assert_eq!(flags(&["--data", "x", "--disk-reserve", "1GiB"]).resolve(None).unwrap().disk_reserve, Some(1 << 30));
        assert!(flags(&["--data", "x", "--name", "a/b"]).resolve(None).unwrap_err().to_string().contains("--name"));
        assert!(Line::try_parse_from(["serve", "--bootstrap", "--join", "a:1"]).is_err());
        assert!(Line::try_parse_from(["serve", "--replace", "n3"]).is_err());
        assert!(flags(&["--data", "x", "--join", "a:1", "--replace", "a/b"]).resolve(None).unwrap_err().to_string().contains("--replace"));
        let start = flags(&["--data", "x", "--join", "a:1", "--replace", "n3"]).resolve(None).unwrap().start;
        assert_eq!(start, Start::Replace { seeds: vec!["a:1".into()], node: NodeName::new("n3").unwrap() });
        assert!(
            Settings { bootstrap: Some(true), join: Some(vec!["a:1".into()]), data: Some("x".into()), ..Default::default() }
                .with_defaults()
                .is_err()
        );
    }

    #[test]
    fn a_misspelt_variable_is_noticed() {
        let names = ["EVERMESH_DATA", "EVERMESH_DTA", "EVERMESH_SECRET", "PATH", "EVERMESH_LOG"].map(String::from);
        assert_eq!(unknown_variables(names.into_iter()), ["EVERMESH_DTA"]);
    }
}
