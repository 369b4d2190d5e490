//! Latency against the number of containers, as lines.

use super::{Anchor, Axis, Drawing};

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 130.0;
const TOP: f64 = 56.0;
const BOTTOM: f64 = 48.0;
const COLOURS: usize = 4;

/// A line with its name.
#[derive(Clone, Debug)]
pub(crate) struct Curve {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// Draws the curves on logarithmic axes.
pub(crate) fn lines(title: &str, below: &str, curves: &[Curve]) -> String {
    let mut drawing = Drawing::new(WIDTH, HEIGHT, title);
    let points = || curves.iter().flat_map(|curve| curve.points.iter().copied());
    let across = Axis::around(points().map(|(x, _)| x), LEFT, WIDTH - LEFT - RIGHT);
    let up = Axis::around(points().map(|(_, y)| y), HEIGHT - BOTTOM, -(HEIGHT - TOP - BOTTOM));
    for mark in up.marks() {
        let y = up.place(mark);
        drawing.line((LEFT, y), (WIDTH - RIGHT, y), "grid");
        drawing.text(LEFT - 8.0, y + 4.0, Anchor::End, "faint", &format!("{mark} ms"));
    }
    let mut measured: Vec<f64> = points().map(|(x, _)| x).collect();
    measured.sort_by(f64::total_cmp);
    measured.dedup();
    for x in measured {
        drawing.line((across.place(x), TOP), (across.place(x), HEIGHT - BOTTOM), "grid");
        drawing.text(across.place(x), HEIGHT - BOTTOM + 18.0, Anchor::Middle, "faint", &format!("{x}"));
    }
    for (number, curve) in curves.iter().enumerate() {
        let class = format!("c{}", number % COLOURS);
        let places: Vec<(f64, f64)> =
            curve.points.iter().map(|(x, y)| (across.place(*x), up.place(*y))).collect();
        drawing.curve(&places, &class);
        places.iter().for_each(|place| drawing.dot(*place, &class));
        if let Some((x, y)) = places.last() {
            drawing.text(x + 10.0, y + 4.0, Anchor::Start, "", &curve.name);
        }
    }
    drawing.text((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 10.0, Anchor::Middle, "faint", below);
    drawing.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_curve_is_drawn_and_named() {
        let curve = |name: &str, factor: f64| Curve {
            name: name.to_owned(),
            points: vec![(10.0, factor), (2000.0, 2.0 * factor)],
        };
        let drawing = lines("latency", "containers", &[curve("create", 5.0), curve("info", 0.2)]);
        assert_eq!(drawing.matches("<polyline").count(), 2);
        assert_eq!(drawing.matches("<circle").count(), 4);
        for text in [">create<", ">info<", ">2000<", ">0.1 ms<", ">10 ms<"] {
            assert!(drawing.contains(text), "{text}: {drawing}");
        }
    }
}
