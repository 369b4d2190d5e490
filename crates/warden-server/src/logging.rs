//! Log lines: JSON objects with the original's keys, or text for people.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::config::{Format, Level, Logging};
use crate::failure::Failure;

/// The file that log lines go to.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    open: RwLock<File>,
}

impl LogFile {
    fn open(path: &Path) -> Result<Self, Failure> {
        Ok(Self { path: path.to_owned(), open: RwLock::new(open(path)?) })
    }

    /// Goes on in the file of this name that is there now, or in a new one: the old one was moved away.
    pub(crate) fn reopen(&self) {
        match open(&self.path) {
            Ok(file) => *self.open.write().unwrap_or_else(PoisonError::into_inner) = file,
            Err(error) => tracing::error!(%error, "the log goes on in the old file"),
        }
    }
}

/// Each line is one write, which the kernel appends as a whole.
impl Write for &LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        (&*self.open.read().unwrap_or_else(PoisonError::into_inner)).write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts to write log lines; what was logged before is lost. Gives the file, where it is one.
pub(crate) fn start(logging: &Logging) -> Result<Option<Arc<LogFile>>, Failure> {
    let file = logging.file.as_deref().map(LogFile::open).transpose()?.map(Arc::new);
    let writer = match &file {
        None => BoxMakeWriter::new(std::io::stderr),
        Some(file) => BoxMakeWriter::new(Arc::clone(file)),
    };
    // A line that cannot be written is lost: telling of that on stderr would end the daemon where that fails, too.
    let lines = tracing_subscriber::fmt()
        .with_max_level(filter(logging.level))
        .with_writer(writer)
        .with_ansi(false)
        .log_internal_errors(false);
    match logging.format {
        Format::Json => lines.event_format(JsonLine).init(),
        Format::Text => lines.with_target(false).init(),
    }
    Ok(file)
}

fn open(path: &Path) -> Result<File, Failure> {
    let opened = OpenOptions::new().create(true).append(true).mode(0o640).open(path);
    opened.map_err(|source| Failure::file("opening the log file", path, source))
}

/// The least severe lines that a level of the original lets through.
fn filter(level: Level) -> LevelFilter {
    match level {
        Level::Off => LevelFilter::OFF,
        Level::Fatal | Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Debug1 | Level::Debug2 | Level::All => LevelFilter::TRACE,
    }
}

/// The original's name of a level.
fn name(level: tracing::Level) -> &'static str {
    match level {
        tracing::Level::ERROR => "error",
        tracing::Level::WARN => "warn",
        tracing::Level::INFO => "info",
        tracing::Level::DEBUG => "debug",
        tracing::Level::TRACE => "debug1",
    }
}

/// One JSON object per event.
struct JsonLine;

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let line = json!({
            "timestamp": now.as_secs_f64(),
            "message": fields.message,
            "log_level": name(*event.metadata().level()),
            "source": event.metadata().target(),
            "data": fields.data,
            "process_id": process::id(),
        });
        writeln!(writer, "{line}")
    }
}

/// The message and the data of one event.
#[derive(Default)]
struct Fields {
    message: String,
    data: Map<String, Value>,
}

impl Fields {
    fn insert(&mut self, field: &Field, value: impl Into<Value>) {
        self.data.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        if field.name() == "message" { self.message = text } else { self.insert(field, text) }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message)
        } else {
            self.insert(field, value)
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.insert(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.insert(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.insert(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field, value);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn levels_let_through_what_the_original_s_did() {
        let filters = [
            (Level::Off, LevelFilter::OFF),
            (Level::Fatal, LevelFilter::ERROR),
            (Level::Error, LevelFilter::ERROR),
            (Level::Warn, LevelFilter::WARN),
            (Level::Info, LevelFilter::INFO),
            (Level::Debug, LevelFilter::DEBUG),
            (Level::Debug1, LevelFilter::TRACE),
            (Level::Debug2, LevelFilter::TRACE),
            (Level::All, LevelFilter::TRACE),
        ];
        assert!(filters.iter().all(|(level, expected)| filter(*level) == *expected));
    }

    #[test]
    fn a_json_line_holds_message_level_source_and_data() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let writer = Arc::new(LogFile::open(file.path()).unwrap());
        let lines = tracing_subscriber::fmt().with_writer(writer).event_format(JsonLine).finish();
        tracing::subscriber::with_default(lines, || {
            tracing::warn!(handle = "a\nb", count = 7, fine = true, error = %"gone", "half {}", "done");
        });
        let text = fs::read_to_string(file.path()).unwrap();
        assert_eq!(text.lines().count(), 1);
        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["message"], "half done");
        assert_eq!(line["log_level"], "warn");
        assert_eq!(line["source"], module_path!());
        assert_eq!(line["data"], json!({"handle": "a\nb", "count": 7, "fine": true, "error": "gone"}));
        assert_eq!(line["process_id"], process::id());
        assert!(line["timestamp"].as_f64().unwrap() > 1.6e9);
    }
}
