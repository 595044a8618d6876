//! Curves and scatters as inline SVG.
//!
//! Own code and not a plotting crate: those measure text with the system's fonts, and cannot follow the
//! page's light and dark colours. A chart is drawn in display units (per cent, millions), so an axis is
//! a label and a range; its size is fixed in a view box that suits a phone's width.

use std::collections::HashSet;
use std::fmt::Write;

use super::markup::escape;

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 270.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 44.0;
/// More points than pixels say nothing.
const MAX_POINTS: usize = 300;

/// What is drawn; later marks cover earlier ones. `class` gives colour and pattern by the page's style.
pub enum Mark {
    /// Points joined by lines; where there are too many, means of neighbours.
    Line { class: &'static str, title: String, points: Vec<[f64; 2]> },
    /// A level that holds until the next point.
    Steps { class: &'static str, title: String, points: Vec<[f64; 2]> },
    /// Many small dots.
    Dots { class: &'static str, title: String, points: Vec<[f64; 2]> },
    /// One point with a title of its own.
    Point { class: &'static str, title: String, at: [f64; 2] },
}

impl Mark {
    fn points(&self) -> &[[f64; 2]] {
        match self {
            Mark::Line { points, .. } | Mark::Steps { points, .. } | Mark::Dots { points, .. } => points,
            Mark::Point { at, .. } => std::slice::from_ref(at),
        }
    }
}

/// What is along, with its label.
pub enum Along<'a> {
    /// A course: it begins at 0.
    From0(&'a str),
    /// A quantity: the range of its values with a margin.
    Range(&'a str),
}

/// A chart.
pub struct Chart<'a> {
    /// For assistive technology: what it shows and what is seen in it.
    pub about: &'a str,
    /// What is along.
    pub x: Along<'a>,
    /// What is up.
    pub y: &'a str,
    /// What is drawn.
    pub marks: Vec<Mark>,
}

/// Whether the point can be drawn; beyond 1e100 differences and sums of values may overflow.
fn finite(point: &[f64; 2]) -> bool {
    point.iter().all(|v| v.abs() < 1e100)
}

/// Range and places of ticks of an axis.
struct Axis {
    low: f64,
    high: f64,
    step: f64,
}

impl Axis {
    /// Covers the values, widened to whole ticks if `round`; about `ticks` ticks.
    fn covering(values: impl Iterator<Item = f64>, ticks: f64, round: bool) -> Option<Self> {
        let (mut low, mut high) =
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        if low > high {
            return None;
        }
        if high - low <= 1e-9 * high.abs().max(low.abs()) {
            let margin = if high == 0.0 { 1.0 } else { 0.1 * high.abs() };
            (low, high) = (low - margin, high + margin);
        }
        let rough = (high - low) / ticks;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|s| *s >= rough * 0.999)?;
        if round {
            low = (low / step + 1e-9).floor() * step;
            high = (high / step - 1e-9).ceil() * step;
        }
        Some(Self { low, high, step })
    }

    fn with_margin(self) -> Self {
        let margin = 0.03 * (self.high - self.low);
        Self { low: self.low - margin, high: self.high + margin, ..self }
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        let first = (self.low / self.step - 1e-9).ceil();
        let last = (self.high / self.step + 1e-9).floor();
        (0..=((last - first).clamp(0.0, 20.0) as usize)).map(move |i| (first + i as f64) * self.step)
    }

    fn label(&self, value: f64) -> String {
        let top = self.low.abs().max(self.high.abs());
        let decimals = (-self.step.log10() - 1e-9).ceil().max(0.0) as usize;
        let size = value.abs();
        let text = match decimals {
            _ if top >= 1e7 || self.step < 1e-4 => format!("{size:.1e}"),
            0 => crate::figures::count(size.round() as u64),
            _ => format!("{size:.decimals$}"),
        };
        // A tick at zero may be a tiny negative number.
        if value < -0.5 * self.step { format!("−{text}") } else { text }
    }

    fn place(&self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }
}

impl Chart<'_> {
    /// The chart as an `svg` element; nothing if no point is finite.
    pub fn svg(&self) -> Option<String> {
        let all = || self.marks.iter().flat_map(Mark::points).filter(|p| finite(p));
        all().next()?;
        let x = match self.x {
            Along::From0(_) => Axis::covering(all().map(|p| p[0]).chain([0.0]), 5.0, false)?,
            Along::Range(_) => Axis::covering(all().map(|p| p[0]), 5.0, false)?.with_margin(),
        };
        let y = Axis::covering(all().map(|p| p[1]), 5.0, true)?;
        let px = |v: f64| LEFT + x.place(v) * (WIDTH - LEFT - RIGHT);
        let py = |v: f64| HEIGHT - BOTTOM - y.place(v) * (HEIGHT - TOP - BOTTOM);
        let mut out = String::new();
        write!(
            out,
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{0}"><title>{0}</title>"#,
            escape(self.about)
        )
        .expect(STRING);
        self.axes(&mut out, &x, &y, px, py);
        for mark in &self.marks {
            draw(&mut out, mark, px, py);
        }
        out += "</svg>";
        Some(out)
    }

    fn axes(&self, out: &mut String, x: &Axis, y: &Axis, px: impl Fn(f64) -> f64, py: impl Fn(f64) -> f64) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        let (Along::From0(along) | Along::Range(along)) = self.x;
        for tick in y.ticks() {
            let at = py(tick);
            write!(
                out,
                r#"<path class="grid" d="M{LEFT} {at:.1}H{right}"/><text class="tick" x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
                LEFT - 6.0,
                at + 4.0,
                y.label(tick)
            )
            .expect(STRING);
        }
        for tick in x.ticks() {
            let at = px(tick);
            let label = x.label(tick);
            // A long label at the right edge ends there instead of running out of the picture.
            let half = 3.7 * label.chars().count() as f64;
            let (anchor, place) = if at + half > WIDTH { ("end", WIDTH - 1.0) } else { ("middle", at) };
            write!(
                out,
                r#"<path class="axis" d="M{at:.1} {bottom}v4"/><text class="tick" x="{place:.1}" y="{:.1}" text-anchor="{anchor}">{label}</text>"#,
                bottom + 17.0,
            )
            .expect(STRING);
        }
        write!(
            out,
            r#"<path class="axis" d="M{LEFT} {bottom}H{right}"/><text class="name" x="{:.1}" y="{:.1}" text-anchor="middle">{}</text><text class="name" transform="translate(12 {:.1}) rotate(-90)" text-anchor="middle">{}</text>"#,
            (LEFT + right) / 2.0,
            HEIGHT - 8.0,
            escape(along),
            (TOP + bottom) / 2.0,
            escape(self.y)
        )
        .expect(STRING);
    }
}

const STRING: &str = "writing to a string cannot fail";

fn draw(out: &mut String, mark: &Mark, px: impl Fn(f64) -> f64, py: impl Fn(f64) -> f64) {
    let mut path = String::new();
    let (class, title) = match mark {
        Mark::Line { class, title, points } => {
            for (i, [x, y]) in thin(points).into_iter().enumerate() {
                let command = if i == 0 { 'M' } else { 'L' };
                write!(path, "{command}{:.1} {:.1}", px(x), py(y)).expect(STRING);
            }
            (class, title)
        }
        Mark::Steps { class, title, points } => {
            let mut last = f64::NAN;
            for (i, [x, y]) in points.iter().filter(|p| finite(p)).copied().enumerate() {
                match i {
                    0 => write!(path, "M{:.1} {:.1}", px(x), py(y)),
                    _ if y == last => write!(path, "H{:.1}", px(x)),
                    _ => write!(path, "H{:.1}V{:.1}", px(x), py(y)),
                }
                .expect(STRING);
                last = y;
            }
            (class, title)
        }
        Mark::Dots { class, title, points } => {
            // One dot per place: however many candidates there are, the picture stays small.
            let mut taken = HashSet::new();
            for [x, y] in points.iter().filter(|p| finite(p)).copied() {
                let (x, y) = (px(x).round() as i32, (2.0 * py(y)).round() as i32);
                if taken.insert((x, y)) {
                    // A line without length and with round ends is a dot.
                    write!(path, "M{x} {}h0", f64::from(y) / 2.0).expect(STRING);
                }
            }
            (class, title)
        }
        Mark::Point { class, title, at } => {
            if finite(at) {
                write!(
                    out,
                    r#"<circle class="{class}" cx="{:.1}" cy="{:.1}" r="4"><title>{}</title></circle>"#,
                    px(at[0]),
                    py(at[1]),
                    escape(title)
                )
                .expect(STRING);
            }
            return;
        }
    };
    if !path.is_empty() {
        write!(out, r#"<path class="{class}" d="{path}"><title>{}</title></path>"#, escape(title))
            .expect(STRING);
    }
}

/// At most [`MAX_POINTS`] points: means over runs of equal length.
fn thin(points: &[[f64; 2]]) -> Vec<[f64; 2]> {
    let points: Vec<[f64; 2]> = points.iter().filter(|p| finite(p)).copied().collect();
    let run = points.len().div_ceil(MAX_POINTS).max(1);
    points
        .chunks(run)
        .map(|chunk| [0, 1].map(|axis| chunk.iter().map(|p| p[axis]).sum::<f64>() / chunk.len() as f64))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(values: &[f64]) -> (Vec<String>, f64, f64) {
        let axis = Axis::covering(values.iter().copied(), 5.0, true).unwrap();
        (axis.ticks().map(|t| axis.label(t)).collect(), axis.low, axis.high)
    }

    #[test]
    fn ticks_are_round_numbers_that_cover_the_values() {
        assert_eq!(axis(&[0.0, 100.0]).0, ["0", "20", "40", "60", "80", "100"]);
        assert_eq!(axis(&[83.2, 87.4]).0, ["83", "84", "85", "86", "87", "88"]);
        assert_eq!(axis(&[0.31, 2.3]).0, ["0.0", "0.5", "1.0", "1.5", "2.0", "2.5"]);
        assert_eq!(axis(&[-1.0, 1.0]).0, ["−1.0", "−0.5", "0.0", "0.5", "1.0"]);
        assert_eq!(axis(&[0.0, 23_400.0]).0, ["0", "5,000", "10,000", "15,000", "20,000", "25,000"]);
        for values in [[7.0, 7.0], [0.0, 0.0], [-3.0, -3.0], [1e-7, 2e-7], [1e12, 3e12]] {
            let (labels, low, high) = axis(&values);
            assert!(low <= values[0] && values[1] <= high && (2..=12).contains(&labels.len()), "{labels:?}");
            let distinct: HashSet<&String> = labels.iter().collect();
            assert_eq!(distinct.len(), labels.len(), "{labels:?}");
        }
    }

    #[test]
    fn points_that_are_no_numbers_are_left_out() {
        let line = |points| Mark::Line { class: "found", title: "t".into(), points };
        let chart = |marks| Chart { about: "a", x: Along::From0("x"), y: "y", marks };
        assert!(chart(vec![]).svg().is_none());
        assert!(chart(vec![line(vec![[f64::NAN, 1.0], [1.0, f64::INFINITY]])]).svg().is_none());
        let svg = chart(vec![line(vec![[0.0, 1.0], [1.0, f64::NAN], [2.0, 3.0]])]).svg().unwrap();
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        for extreme in [f64::MAX, -f64::MAX, f64::MIN_POSITIVE] {
            if let Some(svg) = chart(vec![line(vec![[0.0, extreme], [extreme, 0.0]])]).svg() {
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            }
        }
    }

    #[test]
    fn a_long_curve_is_thinned_to_means() {
        let points: Vec<[f64; 2]> = (0..9000).map(|i| [f64::from(i), f64::from(i % 2)]).collect();
        let thinned = thin(&points);
        assert_eq!(thinned.len(), MAX_POINTS);
        assert!(thinned.iter().all(|p| p[1] == 0.5));
    }
}
