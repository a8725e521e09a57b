//! Text for people: tables, numbers, sizes, and a stdout that may be closed.

use std::io::{ErrorKind, Write};

/// Columns to the width of their widest cell; numbers to the right.
pub struct Table {
    rows: Vec<Vec<String>>,
    /// Columns that hold numbers.
    right: &'static [usize],
}

impl Table {
    pub fn new(headings: &[&str], right: &'static [usize]) -> Table {
        Table { rows: vec![headings.iter().map(|&heading| heading.to_owned()).collect()], right }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub fn text(&self) -> String {
        let columns = self.rows[0].len();
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<_> = (0..columns).map(width).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().enumerate().map(|(column, cell)| match self.right.contains(&column) {
                true => format!("{cell:>0$}", widths[column]),
                false => format!("{cell:<0$}", widths[column]),
            });
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        self.rows.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

/// `1234567` as `1,234,567`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes with the unit that leaves one to four digits before the point.
pub fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if number < 1024 {
        return format!("{number} B");
    }
    let (mut value, mut unit) = (number as f64 / 1024.0, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// What there is, or a dash.
pub fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}

/// A line on stdout.
pub fn say(text: &str) {
    write_out(format!("{text}\n").as_bytes());
}

/// Bytes on stdout. When its reader is gone (`| head`), the process ends quietly: there is nobody left to write for.
pub fn write_out(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = out.write_all(bytes).and_then(|()| out.flush()) {
        if error.kind() != ErrorKind::BrokenPipe {
            eprintln!("error: cannot write to stdout: {error}");
        }
        std::process::exit(if error.kind() == ErrorKind::BrokenPipe { 0 } else { 1 });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["NAME", "EVENTS"], &[1]);
        table.row(["orders".into(), count(1_234_567)]);
        table.row(["é".into(), count(7)]);
        assert_eq!(table.text(), "NAME       EVENTS\norders  1,234,567\né               7");
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!([0, 999, 1000, 12_345_678].map(count), ["0", "999", "1,000", "12,345,678"]);
        assert_eq!([0, 1023, 1536, 5 << 30].map(bytes), ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]);
    }
}
