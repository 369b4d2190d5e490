//! The rows as text for people.

use std::fmt::Write;

use crate::report::{Report, Row};

/// Writes the whole table; the last column is how many times the competitor's median the product's is.
pub(crate) fn text(report: &Report) -> String {
    let mut text = String::new();
    let wide = report.rows().iter().map(|row| row.who.chars().count()).max().unwrap_or(0).max(12);
    let mut scenario = "";
    let _ = writeln!(
        text,
        "  {:wide$} {:>10} {:>10} {:>10} {:4} {:>6}  warden / this",
        "", "median", "minimum", "99th", "", "n"
    );
    for row in report.rows() {
        if row.scenario != scenario {
            scenario = &row.scenario;
            let _ = writeln!(text, "{scenario}");
        }
        let _ = writeln!(text, "  {:wide$} {}", row.who, figures(report, row));
    }
    text
}

fn figures(report: &Report, row: &Row) -> String {
    match row.outcome() {
        Ok(summary) => {
            let ratio = report.ratio(row).map_or(String::new(), |ratio| format!("{} x", number(ratio)));
            let [median, minimum, p99] = [summary.median, summary.minimum, summary.p99].map(number);
            let unit = row.unit.text();
            let line = format!("{median:>10} {minimum:>10} {p99:>10} {unit:4} {:>6}  {ratio}", summary.count);
            line.trim_end().to_owned()
        }
        Err(reason) => format!("not available: {reason}"),
    }
}

/// A number with three digits that count, and no more than two behind the point.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        size if size >= 0.0995 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{FLOOR, Unit};

    #[test]
    fn numbers() {
        let texts = [1234.5, 99.96, 12.345, 9.996, 1.234, 0.0, 0.1234, 0.01234].map(number);
        assert_eq!(texts, ["1234", "100", "12.3", "10.0", "1.23", "0.00", "0.12", "0.012"]);
    }

    #[test]
    fn a_table() {
        let mut report = Report::default();
        report.figure("run", Unit::Milliseconds, 3.0);
        report.figure("run", Unit::Milliseconds, 4.0);
        report.record("run", FLOOR, Unit::Milliseconds, Ok(2.0));
        report.record("run", "lxc", Unit::Milliseconds, Err(anyhow::anyhow!("not installed")));
        let table = text(&report);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines[1], "run");
        let words: Vec<&str> = lines[2].split_whitespace().collect();
        assert_eq!(words, ["warden", "3.00", "3.00", "4.00", "ms", "2"]);
        assert!(lines[3].ends_with("1  1.50 x"), "{}", lines[3]);
        assert_eq!(lines[4].trim(), "lxc          not available: not installed");
    }
}
