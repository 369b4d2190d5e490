//! What was measured: rows, each of one competitor in one scenario.

use crate::statistics::Summary;

/// Whose figure a row is, where it is the product's.
pub(crate) const WARDEN: &str = "warden";
/// Whose it is, where it is that of raw system calls.
pub(crate) const FLOOR: &str = "floor";

/// A unit, and so whether less of it is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Milliseconds,
    PerSecond,
    MegabytesPerSecond,
    Kilobytes,
    Megabytes,
    Count,
}

impl Unit {
    /// How it is written.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Milliseconds => "ms",
            Self::PerSecond => "1/s",
            Self::MegabytesPerSecond => "MB/s",
            Self::Kilobytes => "KB",
            Self::Megabytes => "MB",
            Self::Count => "",
        }
    }

    /// Whether more of it is better.
    pub(crate) fn more_is_better(self) -> bool {
        matches!(self, Self::PerSecond | Self::MegabytesPerSecond)
    }
}

/// One competitor's figures in one scenario.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    /// What was done.
    pub(crate) scenario: String,
    /// By whom.
    pub(crate) who: String,
    pub(crate) unit: Unit,
    values: Vec<f64>,
    /// The first failure.
    failure: Option<String>,
}

impl Row {
    /// The figures, or why there are none.
    pub(crate) fn outcome(&self) -> Result<Summary, &str> {
        Summary::of(&self.values).ok_or(self.failure.as_deref().unwrap_or("not measured"))
    }

    /// Whether it has failed without ever succeeding.
    fn is_hopeless(&self) -> bool {
        self.values.is_empty() && self.failure.is_some()
    }
}

/// All rows, those of one scenario together.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

impl Report {
    /// Adds a measurement, or its failure, to the row that it belongs to.
    pub(crate) fn record(&mut self, scenario: &str, who: &str, unit: Unit, measured: anyhow::Result<f64>) {
        let row = self.row(scenario, who, unit);
        match measured {
            Ok(value) => row.values.push(value),
            Err(error) => {
                row.failure.get_or_insert_with(|| format!("{error:#}").trim_end().replace('\n', "; "));
            }
        }
    }

    /// Adds a measurement of the product's.
    pub(crate) fn figure(&mut self, scenario: &str, unit: Unit, value: f64) {
        self.record(scenario, WARDEN, unit, Ok(value));
    }

    /// Whether it is of no use to measure this once more.
    pub(crate) fn is_hopeless(&self, scenario: &str, who: &str) -> bool {
        self.rows.iter().any(|row| row.scenario == scenario && row.who == who && row.is_hopeless())
    }

    /// The row, made where it is new: in a scenario the product comes first, the floor second.
    fn row(&mut self, scenario: &str, who: &str, unit: Unit) -> &mut Row {
        let found = self.rows.iter().position(|row| row.scenario == scenario && row.who == who);
        let at = found.unwrap_or_else(|| {
            let last = self.rows.iter().rposition(|row| row.scenario == scenario);
            let later = |row: &Row| row.scenario == scenario && rank(&row.who) > rank(who);
            let at = self.rows.iter().position(later);
            let at = at.unwrap_or_else(|| last.map_or(self.rows.len(), |last| last + 1));
            let (scenario, who) = (scenario.to_owned(), who.to_owned());
            self.rows.insert(at, Row { scenario, who, unit, values: Vec::new(), failure: None });
            at
        });
        &mut self.rows[at]
    }

    /// The rows in their order.
    pub(crate) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The median of the product in a scenario.
    pub(crate) fn median(&self, scenario: &str) -> Option<f64> {
        let own = self.rows.iter().find(|own| own.scenario == scenario && own.who == WARDEN)?;
        own.outcome().ok().map(|summary| summary.median)
    }

    /// How many times a row's median the product's is, in the same scenario; None for the product's own.
    pub(crate) fn ratio(&self, row: &Row) -> Option<f64> {
        let other = row.outcome().ok().filter(|other| row.who != WARDEN && other.median > 0.0)?;
        Some(self.median(&row.scenario)? / other.median)
    }
}

/// Who comes before whom.
fn rank(who: &str) -> usize {
    [WARDEN, FLOOR].iter().position(|name| *name == who).unwrap_or(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_scenario_stay_together_and_are_compared() {
        let mut report = Report::default();
        report.record("run", FLOOR, Unit::Milliseconds, Ok(2.0));
        report.figure("rate", Unit::PerSecond, 9.0);
        report.figure("run", Unit::Milliseconds, 3.0);
        report.record("run", "crun", Unit::Milliseconds, Err(anyhow::anyhow!("not installed")));
        assert!(report.is_hopeless("run", "crun") && !report.is_hopeless("run", FLOOR));
        let rows = report.rows();
        let names: Vec<&str> = rows.iter().map(|row| row.who.as_str()).collect();
        assert_eq!(names, [WARDEN, FLOOR, "crun", WARDEN]);
        assert_eq!(report.ratio(&rows[1]), Some(1.5));
        assert_eq!(report.ratio(&rows[0]), None);
        assert_eq!(report.ratio(&rows[2]), None);
        assert_eq!(rows[2].outcome(), Err("not installed"));
    }
}
