//! A line on the terminal that shows that a long request is still going on.
//!
//! The server answers a copy at its end and says nothing before. So there is no share that is done to be shown, only
//! the time that has passed and, where it can be known, how much there is to copy.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::pin::pin;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use crate::human;
use crate::source_size::SourceSize;

/// What takes less time than this is not shown.
const DELAY: Duration = Duration::from_secs(1);

/// The time between two pictures.
const STEP: Duration = Duration::from_millis(100);

/// The width of the bar, in columns, and of the part that moves.
const WIDTH: usize = 24;
const PART: usize = 5;

/// Waits for some work; while it takes long, and standard error is a terminal, shows a bar with the command's name.
pub(crate) async fn during<T>(name: &str, source: Option<PathBuf>, work: impl Future<Output = T>) -> T {
    if !io::stderr().is_terminal() {
        return work.await;
    }
    let start = Instant::now();
    let mut work = pin!(work);
    if let Ok(done) = timeout(DELAY, &mut work).await {
        return done;
    }
    let size = source.map(SourceSize::measure);
    let line = Line;
    for step in 0.. {
        line.draw(&picture(name, step, start.elapsed(), size.as_ref().and_then(SourceSize::bytes)));
        if let Ok(done) = timeout(STEP, &mut work).await {
            return done;
        }
    }
    work.await
}

/// The terminal's current line, which is cleared at the end, also when the work is given up.
struct Line;

impl Line {
    /// Replaces the line.
    fn draw(&self, picture: &str) {
        // A picture that cannot be shown is not worth an error.
        let _ = write!(io::stderr(), "\r{picture}\x1b[K");
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.draw("");
    }
}

/// Draws a bar whose part goes to and fro.
fn picture(name: &str, step: usize, elapsed: Duration, size: Option<u64>) -> String {
    let range = WIDTH - PART;
    let at = range - (step % (2 * range)).abs_diff(range);
    let bar = format!("{}{}{}", " ".repeat(at), "=".repeat(PART), " ".repeat(range - at));
    let size = size.map(|bytes| format!(" of {}", human::size(bytes))).unwrap_or_default();
    format!("{name}{size} [{bar}] {}", human::time(elapsed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_goes_to_and_fro() {
        let at = |step| picture("x", step, Duration::ZERO, None).find('=').unwrap() - "x [".len();
        let positions: Vec<_> = (0..40).map(at).collect();
        assert_eq!(positions[..3], [0, 1, 2]);
        assert_eq!(positions[18..22], [18, 19, 18, 17]);
        assert_eq!(positions[37..], [1, 0, 1]);
    }

    #[test]
    fn time_and_size_are_shown() {
        assert_eq!(
            picture("copy_in", 0, Duration::from_secs(75), Some(1_200_000_000)),
            "copy_in of 1.2 GB [=====                   ] 1m15s"
        );
        assert_eq!(picture("copy_out", 19, DELAY, None), "copy_out [                   =====] 1s");
    }
}
