//! Drawings as SVG, for light and dark pages.

mod bars;
mod lines;

use std::fmt::Write;

pub(crate) use bars::bars;
pub(crate) use lines::{Curve, lines};

/// Every colour by its role; a viewer who prefers dark pages gets the second set.
const STYLE: &str = "\
text{font:12px system-ui,sans-serif;fill:#24292f}.title{font-size:15px;font-weight:600}.faint{fill:#57606a}\
.back{fill:#ffffff}.grid{stroke:#d0d7de}.one{stroke:#57606a;stroke-width:1.5}\
.c0{fill:#0969da;stroke:#0969da}.c1{fill:#bf3989;stroke:#bf3989}.c2{fill:#1a7f37;stroke:#1a7f37}.c3{fill:#9a6700;stroke:#9a6700}\
.line{fill:none;stroke-width:2}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.faint{fill:#9198a1}.back{fill:#0d1117}.grid{stroke:#30363d}\
.one{stroke:#9198a1}.c0{fill:#4493f8;stroke:#4493f8}.c1{fill:#db61a2;stroke:#db61a2}.c2{fill:#3fb950;stroke:#3fb950}\
.c3{fill:#d29922;stroke:#d29922}.line{fill:none}}";

/// Where a text is attached to its point.
#[derive(Clone, Copy)]
enum Anchor {
    Start,
    Middle,
    End,
}

/// A drawing that grows.
struct Drawing {
    body: String,
    width: f64,
    height: f64,
}

impl Drawing {
    fn new(width: f64, height: f64, title: &str) -> Self {
        let mut drawing = Self { body: String::new(), width, height };
        drawing.rectangle(0.0, 0.0, width, height, "back");
        drawing.text(16.0, 26.0, Anchor::Start, "title", title);
        drawing
    }

    fn rectangle(&mut self, x: f64, y: f64, width: f64, height: f64, class: &str) {
        let _ = writeln!(
            self.body,
            r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" class="{class}"/>"#
        );
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64), class: &str) {
        let ((x1, y1), (x2, y2)) = (from, to);
        let _ = writeln!(
            self.body,
            r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" class="{class}"/>"#
        );
    }

    fn curve(&mut self, points: &[(f64, f64)], class: &str) {
        let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(self.body, r#"<polyline points="{}" class="line {class}"/>"#, points.join(" "));
    }

    fn dot(&mut self, (x, y): (f64, f64), class: &str) {
        let _ = writeln!(self.body, r#"<circle cx="{x:.1}" cy="{y:.1}" r="3" class="{class}"/>"#);
    }

    fn text(&mut self, x: f64, y: f64, anchor: Anchor, class: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let _ = writeln!(
            self.body,
            r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" class="{class}">{}</text>"#,
            escaped(text)
        );
    }

    fn finish(self) -> String {
        let Self { body, width, height } = self;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" height=\"{height:.0}\">\n<style>{STYLE}</style>\n{body}</svg>\n"
        )
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A logarithmic axis between two powers of ten.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Axis {
    low: i32,
    high: i32,
    start: f64,
    length: f64,
}

impl Axis {
    /// An axis of a place and a length that shows all values; one that runs backwards has a negative length.
    fn around(values: impl IntoIterator<Item = f64>, start: f64, length: f64) -> Self {
        let (mut low, mut high) = (0, 0);
        for (at, exponent) in values.into_iter().filter(|value| *value > 0.0).map(f64::log10).enumerate() {
            let (floor, ceiling) = (exponent.floor() as i32, exponent.ceil() as i32);
            (low, high) = if at == 0 { (floor, ceiling) } else { (low.min(floor), high.max(ceiling)) };
        }
        Self { low, high: high.max(low + 1), start, length }
    }

    fn place(self, value: f64) -> f64 {
        let part = (value.log10() - f64::from(self.low)) / f64::from(self.high - self.low);
        self.start + self.length * part
    }

    /// The powers of ten on it.
    fn marks(self) -> impl Iterator<Item = f64> {
        (self.low..=self.high).map(|exponent| 10_f64.powi(exponent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_reaches_around_its_values() {
        let axis = Axis::around([0.3, 42.0], 100.0, 300.0);
        assert_eq!((axis.low, axis.high), (-1, 2));
        assert_eq!([0.1, 1.0, 100.0].map(|value| axis.place(value).round()), [100.0, 200.0, 400.0]);
        assert_eq!(axis.marks().count(), 4);
        assert_eq!(Axis::around([], 0.0, 1.0).marks().count(), 2);
        assert_eq!(Axis::around([2.0, 3.0], 0.0, -10.0).place(10.0), -10.0);
    }

    #[test]
    fn a_drawing_is_whole_and_escapes_texts() {
        let drawing = Drawing::new(100.0, 50.0, "a < b & c").finish();
        assert!(drawing.starts_with("<svg xmlns=") && drawing.ends_with("</svg>\n"));
        assert!(drawing.contains("a &lt; b &amp; c"), "{drawing}");
        assert!(drawing.contains("prefers-color-scheme:dark"));
    }
}
