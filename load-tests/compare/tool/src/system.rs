//! The systems: how each is asked, and a publisher of one event after another for each.

use crate::{
    Result,
    grpc::Grpc,
    http::{self, Http},
    nats::{self, Nats},
    payload,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use clap::ValueEnum;
use serde_json::Value;
use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// etcd keeps keys, not events: so many are written in turn.
const KEYS: u64 = 1_000;
const BLOCK_BYTES: usize = 4096;
const LEADER_WAIT: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub enum System {
    Evermesh,
    Nats,
    /// By gRPC
    Etcd,
    /// By its JSON gateway
    EtcdHttp,
    Nchan,
    /// A handler that stores nothing
    Axum,
    /// A block written and synced: `--at` is a folder
    Disk,
}

#[derive(clap::Args, Clone, Debug)]
pub struct Target {
    #[arg(long)]
    pub system: System,
    /// Addresses of the nodes, with commas between them
    #[arg(long, value_delimiter = ',', required = true)]
    pub at: Vec<String>,
    /// The stream; a new one a measurement
    #[arg(long, default_value = "compare")]
    pub stream: String,
    /// The system's processes, whose processor time is read
    #[arg(long, value_delimiter = ',')]
    pub pids: Vec<u32>,
}

impl Target {
    /// Processor time of the system's processes and their children until now, in steps of 10 ms.
    pub fn cpu_us(&self) -> u64 {
        self.pids.iter().map(|&pid| cpu_us(pid)).sum()
    }

    pub fn create(&self) -> Result {
        match self.system {
            System::Evermesh => drop(http::once(&self.at[0], "PUT", &format!("/v1/streams/{}", self.stream), "{\"replicas\":3}")?),
            System::Nats => {
                let config = format!(
                    "{{\"name\":\"{0}\",\"subjects\":[\"{0}\"],\"retention\":\"limits\",\"max_consumers\":-1,\"max_msgs\":-1,\"max_bytes\":-1,\
                     \"max_age\":0,\"storage\":\"file\",\"num_replicas\":3,\"discard\":\"old\"}}",
                    self.stream
                );
                Nats::connect(&self.at[0], Duration::from_secs(10))?.api(&format!("STREAM.CREATE.{}", self.stream), &config)?;
            }
            _ => {}
        }
        self.leader().map(drop)
    }

    /// Which of the addresses leads; waits a while for one that does.
    pub fn leader(&self) -> Result<usize> {
        let until = Instant::now() + LEADER_WAIT;
        loop {
            match self.leader_now() {
                Ok(Some(at)) => return Ok(at),
                other if Instant::now() > until => return Err(format!("no leader: {other:?}").into()),
                _ => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    fn leader_now(&self) -> Result<Option<usize>> {
        let named = |name: &Value| name.as_str().and_then(|name| name.strip_prefix('n')?.parse::<usize>().ok()?.checked_sub(1));
        match self.system {
            System::Evermesh => Ok(named(&self.state()?["leader"])),
            System::Nats => Ok(named(&self.state()?["cluster"]["leader"])),
            System::Etcd | System::EtcdHttp => {
                for (number, at) in self.at.iter().enumerate() {
                    let status: Value = serde_json::from_str(&unchunked(&http::once(at, "POST", "/v3/maintenance/status", "{}")?))?;
                    if status["leader"].is_string() && status["leader"] == status["header"]["member_id"] {
                        return Ok(Some(number));
                    }
                }
                Ok(None)
            }
            _ => Ok(Some(0)),
        }
    }

    /// What the system says of the stream; from the first node that answers.
    fn state(&self) -> Result<Value> {
        let mut why = "no address".into();
        for at in &self.at {
            let state = match self.system {
                System::Evermesh => {
                    http::once(at, "GET", &format!("/v1/streams/{}", self.stream), "").and_then(|text| Ok(serde_json::from_str(&text)?))
                }
                System::Nats => {
                    Nats::connect(at, Duration::from_secs(2)).and_then(|mut nats| nats.api(&format!("STREAM.INFO.{}", self.stream), ""))
                }
                _ => http::once(at, "POST", "/v3/kv/range", "{\"key\":\"AA==\"}")
                    .and_then(|text| Ok(serde_json::from_str(&unchunked(&text))?)),
            };
            match state {
                Ok(state) => return Ok(state),
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    /// How many writes the system says it has stored; `None` where it stores nothing.
    pub fn stored(&self) -> Result<Option<u64>> {
        let number = |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok());
        Ok(match self.system {
            System::Evermesh => number(&self.state()?["last_seq"]),
            System::Nats => number(&self.state()?["state"]["last_seq"]),
            System::Etcd | System::EtcdHttp => number(&self.state()?["header"]["revision"]),
            System::Nchan | System::Axum | System::Disk => None,
        })
    }

    /// A publisher at one of the nodes, which waits `patience` for an answer.
    pub fn publisher(&self, at: usize, patience: Duration) -> Result<Box<dyn Publisher>> {
        let (at, stream) = (&self.at[at], &self.stream);
        Ok(match self.system {
            System::Evermesh => Box::new(Post { http: Http::connect(at, patience)?, path: format!("/v1/streams/{stream}/events") }),
            System::Axum => Box::new(Post { http: Http::connect(at, patience)?, path: "/events".into() }),
            System::Nchan => Box::new(Post { http: Http::connect(at, patience)?, path: format!("/pub/{stream}") }),
            System::Nats => Box::new(JetStream { nats: Nats::connect(at, patience)?, subject: stream.clone() }),
            System::Etcd => Box::new(Put { grpc: Grpc::connect(at, patience)? }),
            System::EtcdHttp => Box::new(Gateway { http: Http::connect(at, patience)? }),
            System::Disk => Box::new(Disk::new(at)?),
        })
    }
}

fn cpu_us(pid: u32) -> u64 {
    /// Linux counts in hundredths of a second here, whatever the kernel's own tick is.
    const TICK_US: u64 = 10_000;
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    // The name in parentheses may hold spaces; the fields behind it do not. User and system time are the 12th and 13th of them.
    let stat = read("stat");
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let own: u64 = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    let children = read(&format!("task/{pid}/children"));
    own * TICK_US + children.split_whitespace().filter_map(|child| child.parse().ok()).map(cpu_us).sum::<u64>()
}

/// The gateway of etcd sends chunks: the JSON object within them.
fn unchunked(text: &str) -> String {
    match (text.find('{'), text.rfind('}')) {
        (Some(from), Some(to)) => text[from..=to].to_owned(),
        _ => text.to_owned(),
    }
}

/// One event after another.
pub trait Publisher: Send {
    /// Whether event `n` was acknowledged; an error is a broken connection, or no answer in time.
    fn publish(&mut self, n: u64) -> Result<bool>;
}

struct Post {
    http: Http,
    path: String,
}

impl Publisher for Post {
    fn publish(&mut self, n: u64) -> Result<bool> {
        let status = self.http.call("POST", &self.path, &payload::event(n, payload::now_us()))?.status;
        Ok((200..300).contains(&status))
    }
}

struct JetStream {
    nats: Nats,
    subject: String,
}

impl Publisher for JetStream {
    fn publish(&mut self, n: u64) -> Result<bool> {
        Ok(nats::is_ack(&self.nats.ask(&self.subject, &payload::event(n, payload::now_us()))?))
    }
}

fn key(n: u64) -> String {
    format!("compare/{:03}", n % KEYS)
}

struct Put {
    grpc: Grpc,
}

impl Publisher for Put {
    fn publish(&mut self, n: u64) -> Result<bool> {
        self.grpc.put(key(n).as_bytes(), &payload::event(n, payload::now_us()))
    }
}

struct Gateway {
    http: Http,
}

impl Publisher for Gateway {
    fn publish(&mut self, n: u64) -> Result<bool> {
        let value = STANDARD.encode(payload::event(n, payload::now_us()));
        let body = format!("{{\"key\":\"{}\",\"value\":\"{value}\"}}", STANDARD.encode(key(n)));
        Ok(self.http.call("POST", "/v3/kv/put", body.as_bytes())?.status == 200)
    }
}

/// A file that is there only while it is written.
struct Disk {
    file: File,
    path: PathBuf,
}

impl Disk {
    fn new(folder: &str) -> Result<Disk> {
        let path = Path::new(folder).join(format!("probe-{}", std::process::id()));
        Ok(Disk { file: File::create_new(&path)?, path })
    }
}

impl Publisher for Disk {
    fn publish(&mut self, _n: u64) -> Result<bool> {
        self.file.write_all(&[0xe5; BLOCK_BYTES])?;
        self.file.sync_data()?;
        Ok(true)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
