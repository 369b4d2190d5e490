//! The table of all containers.

use std::ffi::OsStr;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use warden_protocol::messages::{InfoRequest, InfoResponse, ListRequest, MemoryStat};

use crate::connection::Connection;
use crate::failure::Failure;
use crate::{human, json};

/// What the table tells of a container.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Row {
    handle: Vec<u8>,
    state: Option<Vec<u8>>,
    address: Option<Vec<u8>>,
    /// Memory that would be missed if it were taken away, bytes.
    memory: Option<u64>,
    jobs: usize,
    age: Option<Duration>,
}

/// Asks the server for all containers; those that vanish meanwhile are left out.
pub(crate) async fn rows(connection: &mut Connection) -> Result<Vec<Row>, Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut rows = Vec::new();
    for handle in connection.request(ListRequest {}).await?.handles {
        match connection.request(InfoRequest { handle: Some(handle.clone()) }).await {
            Ok(info) => rows.push(Row::new(handle, info, now)),
            Err(failure) if failure.is_unknown_handle() => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(rows)
}

/// Writes rows as a table with a head, or as one JSON object on a line for each.
pub(crate) fn print(rows: &[Row], as_json: bool) -> String {
    if as_json {
        return rows.iter().map(|row| format!("{}\n", row.object())).collect();
    }
    let mut cells = vec![["HANDLE", "STATE", "ADDRESS", "MEMORY", "JOBS", "AGE"].map(str::to_owned)];
    cells.extend(rows.iter().map(Row::cells));
    let widths: [usize; 6] = std::array::from_fn(|column| {
        cells.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
    });
    let mut table = String::new();
    for [handle, state, address, memory, jobs, age] in cells {
        let [a, b, c, d, e, f] = widths;
        // A String takes all that is written to it.
        let _ = writeln!(table, "{handle:a$}  {state:b$}  {address:c$}  {memory:>d$}  {jobs:>e$}  {age:>f$}");
    }
    table
}

impl Row {
    fn new(handle: Vec<u8>, info: InfoResponse, now: Duration) -> Self {
        let path = info.container_path.as_deref().map(|path| Path::new(OsStr::from_bytes(path)));
        let directory = path.and_then(Path::file_name).map(OsStr::as_bytes);
        // The directory is named by the id, while a handle may have been chosen by a client.
        let birth = directory.and_then(birth).or_else(|| birth(&handle));
        Self {
            age: birth.map(|birth| now.saturating_sub(birth)),
            state: info.state,
            address: info.container_ip,
            memory: info.memory_stat.as_ref().and_then(memory),
            jobs: info.job_ids.len(),
            handle,
        }
    }

    fn cells(&self) -> [String; 6] {
        let text = |bytes: &Option<Vec<u8>>| bytes.as_deref().map_or_else(|| "-".to_owned(), human::text);
        [
            human::text(&self.handle),
            text(&self.state),
            text(&self.address),
            self.memory.map_or_else(|| "-".to_owned(), human::size),
            self.jobs.to_string(),
            self.age.map_or_else(|| "-".to_owned(), human::time),
        ]
    }

    fn object(&self) -> serde_json::Value {
        let text = |bytes: &Option<Vec<u8>>| bytes.as_deref().map(json::text);
        json!({
            "handle": json::text(&self.handle),
            "state": text(&self.state),
            "container_ip": text(&self.address),
            "memory_bytes": self.memory,
            "jobs": self.jobs,
            "age_seconds": self.age.map(|age| age.as_secs()),
        })
    }
}

/// The memory that cannot be had back by dropping files' pages that were not used lately, bytes.
fn memory(stat: &MemoryStat) -> Option<u64> {
    let cache =
        stat.total_cache.unwrap_or_default().saturating_sub(stat.total_inactive_file.unwrap_or_default());
    stat.total_rss.map(|rss| rss.saturating_add(cache))
}

/// The time since the epoch at which a container was made that has this id: its microseconds in base 32.
fn birth(id: &[u8]) -> Option<Duration> {
    /// The length of all ids from the year 2005 to the year 3111.
    const LENGTH: usize = 11;
    if id.len() != LENGTH {
        return None;
    }
    let microseconds = id.iter().try_fold(0_u64, |sum, &digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'v' => digit - b'a' + 10,
            _ => return None,
        };
        Some(sum << 5 | u64::from(digit))
    })?;
    Some(Duration::from_micros(microseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(path: &str) -> InfoResponse {
        let memory = MemoryStat {
            total_rss: Some(1_000_000),
            total_cache: Some(500_000),
            total_inactive_file: Some(300_000),
            ..MemoryStat::default()
        };
        InfoResponse {
            state: Some(b"active".to_vec()),
            container_ip: Some(b"10.254.0.34".to_vec()),
            container_path: Some(path.as_bytes().to_vec()),
            memory_stat: Some(memory),
            job_ids: vec![39, 40],
            ..InfoResponse::default()
        }
    }

    #[test]
    fn ids_are_times() {
        // The 6th of June 2014: an id from a session of the original.
        assert_eq!(birth(b"17r47v9ocsp").map(|birth| birth.as_secs()), Some(EXAMPLE));
        assert_eq!(birth(b"00000000010"), Some(Duration::from_micros(32)));
        for other in ["", "17r47v9ocs", "17r47v9ocspp", "17r47v9ocsw", "17R47v9ocsp", "my-handle-x"] {
            assert_eq!(birth(other.as_bytes()), None, "{other}");
        }
    }

    const EXAMPLE: u64 = 1_402_023_330;

    #[test]
    fn rows_come_from_infos() {
        let now = Duration::from_secs(EXAMPLE + 3700);
        let row = Row::new(b"mine".to_vec(), info("/depot/17r47v9ocsp"), now);
        assert_eq!(row.memory, Some(1_200_000));
        assert_eq!(row.age.map(|age| age.as_secs()), Some(3699));
        // A handle that looks like an id is not believed when the id itself is known.
        let row = Row::new(b"00000000010".to_vec(), info("/depot/17r47v9ocsp"), now);
        assert_eq!(row.age.map(|age| age.as_secs()), Some(3699));
        let row = Row::new(b"17r47v9ocsp".to_vec(), info("/depot/other/"), now);
        assert_eq!(row.age.map(|age| age.as_secs()), Some(3699));
        // A clock that was set back makes no negative age.
        let row = Row::new(b"17r47v9ocsp".to_vec(), InfoResponse::default(), Duration::ZERO);
        assert_eq!((row.age, row.memory, row.jobs), (Some(Duration::ZERO), None, 0));
    }

    #[test]
    fn rows_are_printed_in_columns() {
        let now = Duration::from_secs(EXAMPLE + 3700);
        let rows = [
            Row::new(b"17r47v9ocsp".to_vec(), info("/depot/17r47v9ocsp"), now),
            Row::new("né\n".into(), InfoResponse::default(), now),
        ];
        let expected = "\
HANDLE       STATE   ADDRESS      MEMORY  JOBS    AGE
17r47v9ocsp  active  10.254.0.34  1.2 MB     2  1h01m
n\\xc3\\xa9\\n  -       -                 -     0      -
";
        assert_eq!(print(&rows, false), expected);
        assert_eq!(print(&[], false), "HANDLE  STATE  ADDRESS  MEMORY  JOBS  AGE\n");
        let expected = concat!(
            r#"{"age_seconds":3699,"container_ip":"10.254.0.34","handle":"17r47v9ocsp","jobs":2,"memory_bytes":1200000,"state":"active"}"#,
            "\n",
            r#"{"age_seconds":null,"container_ip":null,"handle":"né\n","jobs":0,"memory_bytes":null,"state":null}"#,
            "\n",
        );
        assert_eq!(print(&rows, true), expected);
        assert_eq!(print(&[], true), "");
    }
}
