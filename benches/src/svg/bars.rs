//! How many times slower or faster others are, as bars to the right and left of one.

use super::{Anchor, Axis, Drawing};
use crate::report::{FLOOR, Report, Row, Unit, WARDEN};
use crate::table::number;

const WIDTH: f64 = 900.0;
const LEFT: f64 = 300.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 64.0;
const STEP: f64 = 22.0;

/// Draws one bar for each competitor in each scenario that the product shares with it.
pub(crate) fn bars(report: &Report) -> String {
    let all: Vec<(&Row, f64)> =
        report.rows().iter().filter_map(|row| Some((row, slower(report, row)?))).collect();
    let height = TOP + STEP * all.len() as f64 + 30.0;
    let axis = Axis::around(all.iter().map(|(_, value)| *value).chain([1.0]), LEFT, WIDTH - LEFT - RIGHT);
    let mut drawing =
        Drawing::new(WIDTH, height, "How many times as long as Warden the others take (medians)");
    for mark in axis.marks() {
        let x = axis.place(mark);
        drawing.line((x, TOP - 8.0), (x, height - 24.0), if mark == 1.0 { "one" } else { "grid" });
        drawing.text(x, TOP - 14.0, Anchor::Middle, "faint", &format!("{mark} x"));
    }
    for (number, (row, value)) in all.into_iter().enumerate() {
        bar(&mut drawing, axis, TOP + STEP * number as f64, row, value);
    }
    drawing.text(LEFT, height - 8.0, Anchor::Start, "faint", "left of 1 x: faster than Warden; logarithmic");
    drawing.finish()
}

fn bar(drawing: &mut Drawing, axis: Axis, y: f64, row: &Row, value: f64) {
    let class = if row.who == FLOOR { "c1" } else { "c0" };
    let (one, end) = (axis.place(1.0), axis.place(value));
    drawing.rectangle(one.min(end), y, (end - one).abs().max(1.0), STEP - 6.0, class);
    let label = format!("{} · {}", row.scenario, row.who);
    drawing.text(LEFT - 8.0, y + 12.0, Anchor::End, "", &label);
    let median = row.outcome().map_or(0.0, |summary| summary.median);
    let text = format!("{} x ({} {})", number(value), number(median), row.unit.text());
    drawing.text(one.max(end) + 6.0, y + 12.0, Anchor::Start, "faint", &text);
}

/// How many times slower than the product a competitor is; None for rows that are not about speed.
fn slower(report: &Report, row: &Row) -> Option<f64> {
    if row.who == WARDEN {
        return None;
    }
    let ratio = report.ratio(row).filter(|ratio| *ratio > 0.0)?;
    match row.unit {
        Unit::Milliseconds => Some(1.0 / ratio),
        unit if unit.more_is_better() => Some(ratio),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_for_each_that_can_be_compared() {
        let mut report = Report::default();
        report.figure("run", Unit::Milliseconds, 2.0);
        report.record("run", FLOOR, Unit::Milliseconds, Ok(1.0));
        report.record("run", "crun", Unit::Milliseconds, Ok(20.0));
        report.record("run", "lxc", Unit::Milliseconds, Err(anyhow::anyhow!("not installed")));
        report.figure("lives", Unit::PerSecond, 100.0);
        report.record("lives", "runc", Unit::PerSecond, Ok(25.0));
        let drawing = bars(&report);
        for text in
            ["run · floor", "0.50 x (1.00 ms)", "10.0 x (20.0 ms)", "lives · runc", "4.00 x (25.0 1/s)"]
        {
            assert!(drawing.contains(text), "{text}: {drawing}");
        }
        assert!(!drawing.contains("lxc"));
    }
}
