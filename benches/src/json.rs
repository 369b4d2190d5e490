//! The rows as JSON for programs.

use serde_json::{Value, json};

use crate::report::{Report, Row};

/// Makes the document; `machine` is what the run says of itself.
pub(crate) fn document(report: &Report, machine: &Value) -> Value {
    let rows: Vec<Value> = report.rows().iter().map(|row| value(report, row)).collect();
    json!({ "machine": machine, "rows": rows })
}

fn value(report: &Report, row: &Row) -> Value {
    let mut value = json!({ "scenario": row.scenario, "who": row.who, "unit": row.unit.text() });
    match row.outcome() {
        Ok(summary) => {
            value["median"] = json!(rounded(summary.median));
            value["minimum"] = json!(rounded(summary.minimum));
            value["p99"] = json!(rounded(summary.p99));
            value["count"] = json!(summary.count);
            if let Some(ratio) = report.ratio(row) {
                value["warden_to_this"] = json!(rounded(ratio));
            }
        }
        Err(reason) => value["not_available"] = json!(reason),
    }
    value
}

fn rounded(value: f64) -> f64 {
    (value * 10_000.0).round() / 10_000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{FLOOR, Unit};

    #[test]
    fn a_document() {
        let mut report = Report::default();
        report.figure("run", Unit::Milliseconds, 3.0);
        report.record("run", FLOOR, Unit::Milliseconds, Ok(2.0));
        report.record("run", "lxc", Unit::Milliseconds, Err(anyhow::anyhow!("not installed")));
        let document = document(&report, &json!({ "kernel": "6" }));
        assert_eq!(document["machine"]["kernel"], "6");
        assert_eq!(document["rows"][0]["median"], 3.0);
        assert_eq!(document["rows"][0]["warden_to_this"], Value::Null);
        assert_eq!(document["rows"][1]["warden_to_this"], 1.5);
        assert_eq!(document["rows"][2]["not_available"], "not installed");
    }
}
