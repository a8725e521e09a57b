//! What is wrong with a node's disk and clock: a few lines in a file that the harness writes and the node reads.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How old what was read may be.
const FRESH: Duration = Duration::from_millis(5);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Each sync takes so much longer.
    pub slow_ms: u64,
    /// Writes and syncs fail.
    pub failing: bool,
    /// What is not synced is kept back, as a disk's cache does it: a kill of the process is then a loss of power.
    pub power: bool,
    /// The clock is so much ahead.
    pub clock_seconds: i64,
}

impl Now {
    pub fn to_text(self) -> String {
        let Now { slow_ms, failing, power, clock_seconds } = self;
        format!("slow_ms {slow_ms}\nfailing {}\npower {}\nclock_seconds {clock_seconds}\n", u8::from(failing), u8::from(power))
    }

    pub fn of_text(text: &str) -> Now {
        let mut now = Now::default();
        for (name, value) in text.lines().filter_map(|line| line.split_once(' ')) {
            let number: i64 = value.parse().unwrap_or_default();
            match name {
                "slow_ms" => now.slow_ms = number.unsigned_abs(),
                "failing" => now.failing = number != 0,
                "power" => now.power = number != 0,
                "clock_seconds" => now.clock_seconds = number,
                _ => {}
            }
        }
        now
    }

    /// For the node to see it whole: never half a file.
    pub fn write(self, file: &Path) -> std::io::Result<()> {
        let new = file.with_extension("new");
        std::fs::write(&new, self.to_text())?;
        std::fs::rename(new, file)
    }
}

pub struct Rules {
    file: PathBuf,
    read: Mutex<(Instant, Now)>,
}

impl Rules {
    pub fn new(file: PathBuf) -> Rules {
        let now = read(&file);
        Rules { file, read: Mutex::new((Instant::now(), now)) }
    }

    pub fn now(&self) -> Now {
        let mut last = self.read.lock().expect("nobody panics while holding it");
        if last.0.elapsed() > FRESH {
            *last = (Instant::now(), read(&self.file));
        }
        last.1
    }
}

fn read(file: &Path) -> Now {
    std::fs::read_to_string(file).map_or(Now::default(), |text| Now::of_text(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_read_back() {
        let now = Now { slow_ms: 7, failing: true, power: true, clock_seconds: -60 };
        assert_eq!(Now::of_text(&now.to_text()), now);
        assert_eq!(Now::of_text("nonsense"), Now::default());
    }
}
