//! Holds the table of rooms and arrows: which room may name which other, and which library is named in which room.
//!
//! It reads the sources as text, without comments and strings, and looks for `crate::ROOM` and `LIBRARY::`. It does not follow
//! `super::` out of a room, and does not see a path that a macro puts together: a reader of the change sees those.

use std::fs;
use std::path::{Path, PathBuf};

/// One row a room: what it may look at besides itself. Whatever is not here is a stray arrow.
const ROOMS: &[(&str, &[&str])] = &[
    ("core", &[]),
    ("wire", &["core"]),
    ("migrations", &["core"]),
    ("store", &["core", "migrations"]),
    ("cluster", &["core", "store"]),
    ("node", &["core", "store", "cluster"]),
    ("api", &["core", "wire", "node"]),
    ("client", &["core", "wire"]),
    ("cli", &["core", "wire", "client", "node", "api"]),
];

/// One row a library that has its own room; every other library may be named anywhere but in `core`.
const LIBRARIES: &[(&str, &[&str])] = &[
    ("redb", &["store", "migrations"]),
    ("openraft", &["cluster"]),
    ("axum", &["api"]),
    ("tower", &["api"]),
    ("tower_http", &["api"]),
    ("utoipa_axum", &["api"]),
    ("clap", &["cli"]),
    ("indicatif", &["cli"]),
    ("reqwest", &["client"]),
    ("tokio_tungstenite", &["client"]),
];

/// What deciding must not touch: the clock, the disk, the network, chance, tasks, logs.
const NOT_IN_CORE: &[&str] = &[
    "tokio::",
    "tracing::",
    "getrandom::",
    "std::fs",
    "std::net",
    "std::thread",
    "SystemTime",
    "Instant",
    "async fn",
    ".await",
    "println!",
];

#[test]
fn rooms_look_down_only() {
    report(sources(&["src", "migrations"]).iter().filter(|file| !is_test_only(file)).flat_map(|file| match room(file) {
        Some(room) => strays(&room, &read(file)).into_iter().map(|what| format!("{}: {what}", file.display())).collect(),
        None => Vec::new(),
    }));
}

#[test]
fn every_file_says_what_lives_in_it() {
    let files = sources(&["src", "migrations", "tests", "benches"]);
    assert!(files.len() > 5, "the scan found next to nothing: {files:?}");
    report(files.iter().filter(|file| !read(file).starts_with("//!")).map(|file| format!("{} does not begin with //!", file.display())));
}

#[test]
fn every_room_of_the_source_tree_has_its_row() {
    let unknown = sources(&["src"]).iter().filter_map(|file| room(file)).find(|room| row(ROOMS, room).is_none());
    assert_eq!(unknown, None, "a new room needs its row in ROOMS, and its place in ARCHITECTURE.md");
}

#[test]
fn a_stray_arrow_is_seen() {
    let check = |room: &str, source: &str, expected: &[&str]| assert_eq!(strays(room, source), expected, "{room}: {source}");
    check("core", "use crate::core::Name;", &[]);
    check("core", "use crate::store::Log;", &["core must not look at store"]);
    check("core", "// as crate::store does\nlet a = \"crate::store\";", &[]);
    check("core", "let now = std::time::Instant::now();", &["core must not know Instant"]);
    check("core", "fn f() {}\n#[cfg(test)]\nmod tests {\n    use std::fs;\n}", &[]);
    check("node", "use crate::{core::{Name, api}, cluster::Groups};", &[]);
    check("node", "use crate::{\n    core::Name,\n    api::Router,\n};", &["node must not look at api"]);
    check("store", "fn open() -> redb::Database", &[]);
    check("cluster", "use redb::Database;", &["cluster must not name redb"]);
    check("cluster", "use my_redb::Database; struct redb;", &[]);
    check("api", "#[derive(clap::Parser)]", &["api must not name clap"]);
    check("wire", "pub(in crate::wire) fn x() {} use crate::node::Error;", &["wire must not look at node"]);
}

/// Every stray arrow of one file's text, in words.
fn strays(room: &str, source: &str) -> Vec<String> {
    let code = code_only(source);
    let allowed = row(ROOMS, room).unwrap_or(&[]);
    let mut found = Vec::new();
    for other in named_rooms(&code) {
        if other != room && row(ROOMS, &other).is_some() && !allowed.contains(&other.as_str()) {
            found.push(format!("{room} must not look at {other}"));
        }
    }
    for (library, homes) in LIBRARIES {
        if !homes.contains(&room) && names_library(&code, library) {
            found.push(format!("{room} must not name {library}"));
        }
    }
    if room == "core" {
        let deciding = without_tests(&code);
        found.extend(NOT_IN_CORE.iter().filter(|word| has_word(deciding, word)).map(|word| format!("core must not know {word}")));
    }
    found
}

/// The text before the module of tests that ends a file: tests of deciding code may read a golden from the disk.
fn without_tests(code: &str) -> &str {
    let ends = ["\n#[cfg(test)]\nmod tests {", "\n#[cfg(test)]\nmod test {"];
    code.split_once(ends[0]).or_else(|| code.split_once(ends[1])).map_or(code, |(before, _)| before)
}

/// Whether the module above the file takes it in for tests only.
fn is_test_only(file: &Path) -> bool {
    let (Some(folder), Some(name)) = (file.parent(), file.file_stem()) else { return false };
    let name = name.to_string_lossy();
    let taken_in = ["", "pub(crate) "].map(|seen_by| format!("#[cfg(test)]\n{seen_by}mod {name};"));
    fs::read_to_string(folder.join("mod.rs")).is_ok_and(|above| taken_in.iter().any(|line| above.contains(line)))
}

/// The first path segment after each `crate::`, groups in braces included.
fn named_rooms(code: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(group) => rooms.extend(group_heads(group)),
            None => rooms.push(identifier(rest)),
        }
    }
    rooms
}

/// The first segment of each member of a `{…}` group whose opening brace is already taken off.
fn group_heads(group: &str) -> Vec<String> {
    let (mut depth, mut heads, mut start) = (0_usize, Vec::new(), 0);
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => {
                heads.push(identifier(group[start..at].trim_start()));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                heads.push(identifier(group[start..at].trim_start()));
                start = at + 1;
            }
            _ => {}
        }
    }
    heads
}

fn names_library(code: &str, library: &str) -> bool {
    code.match_indices(library).any(|(at, _)| {
        let after = &code[at + library.len()..];
        !code[..at].ends_with(is_identifier) && !code[..at].ends_with("crate::") && after.starts_with("::")
    })
}

fn has_word(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| !code[..at].ends_with(is_identifier) && !code[at + word.len()..].starts_with(is_identifier))
        || (word.ends_with("::") && names_library(code, word.trim_end_matches("::")))
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|letter| is_identifier(*letter)).collect()
}

fn is_identifier(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

/// The source without line comments and without the inside of plain strings. A string over several lines ends at its first line:
/// enough here, since both only hide prose.
fn code_only(source: &str) -> String {
    source.lines().map(line_code).collect::<Vec<_>>().join("\n")
}

fn line_code(line: &str) -> String {
    let (mut code, mut in_string, mut before) = (String::new(), false, ' ');
    for (at, letter) in line.char_indices() {
        match letter {
            '"' if before != '\\' && before != '\'' => in_string = !in_string,
            _ if in_string => {}
            '/' if line[at..].starts_with("//") => break,
            _ => code.push(letter),
        }
        before = if before == '\\' { ' ' } else { letter };
    }
    code
}

fn row<'a>(table: &'a [(&str, &[&str])], name: &str) -> Option<&'a [&'a str]> {
    table.iter().find(|(known, _)| *known == name).map(|(_, allowed)| *allowed)
}

/// The room a file lives in; `lib.rs` and `main.rs` stand at the door and have none.
fn room(file: &Path) -> Option<String> {
    let path = file.strip_prefix(root()).expect("every file was found under the root");
    let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    match parts.as_slice() {
        [top, ..] if top == "migrations" => Some("migrations".to_owned()),
        [_, room, _, ..] => Some(room.clone()),
        [_, file] if file != "lib.rs" && file != "main.rs" => Some(file.trim_end_matches(".rs").to_owned()),
        _ => None,
    }
}

fn sources(folders: &[&str]) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for folder in folders {
        collect(&root().join(folder), &mut files);
    }
    files.sort();
    files
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("a folder of the project can be listed").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn report(complaints: impl Iterator<Item = String>) {
    let complaints: Vec<_> = complaints.collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}
