//! Plots as SVG: three kinds, with axes. Pure.
//!
//! Written by hand, since that is shorter than what a plotting library would have to be told, and looks the same for ever.
//! Colours are of middle lightness and the ground is transparent, so that a plot can be read on white and on black.

use std::fmt::Write as _;

const WIDTH: f64 = 720.0;
/// Right of the longest number, below the axis, above the legend.
const MARGIN: f64 = 48.0;
/// For names of rows.
const LEFT: f64 = 210.0;
const TOP: f64 = 64.0;
const ROW: f64 = 22.0;

const TEXT: &str = "#768390";
const GRID: &str = "#8b949e";

/// The colour of each of those that are compared.
const COLOURS: [&str; 3] = ["#d9822b", "#3b82d6", "#2da06a"];

/// What is compared, in the order of the colours.
pub(super) type Names<'a> = [&'a str; 3];

/// A row of [`ranges`]: a line from the first to the last of three values. Empty rows part groups.
#[derive(Clone, Debug, Default)]
pub(super) struct Range {
    pub(super) label: String,
    /// Which of the names it is of.
    pub(super) of: usize,
    /// From the smallest on.
    pub(super) values: Vec<f64>,
}

/// A row of [`bars`].
#[derive(Clone, Debug)]
pub(super) struct Bar {
    pub(super) label: String,
    pub(super) of: usize,
    pub(super) value: f64,
    /// Where a mark stands.
    pub(super) budget: Option<f64>,
}

/// What a plot says of itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Words<'a> {
    pub(super) title: &'a str,
    pub(super) x: &'a str,
    pub(super) y: &'a str,
    pub(super) names: Names<'a>,
}

/// Rows of values on a logarithmic axis.
pub(super) fn ranges(words: Words<'_>, rows: &[Range]) -> String {
    let values = || rows.iter().flat_map(|row| row.values.iter().copied());
    let axis = Axis::logarithmic(values(), LEFT, WIDTH - MARGIN);
    let mut svg = Svg::new(words, rows_height(rows.len()));
    svg.x_axis(&axis, words.x);
    for (row, at) in rows.iter().zip(0_u32..) {
        let (y, colour) = (row_y(at), COLOURS[row.of]);
        svg.text(LEFT - 12.0, y + 4.0, "end", &row.label);
        let (Some(first), Some(last)) = (row.values.first(), row.values.last()) else { continue };
        svg.line([axis.at(*first), y, axis.at(*last), y], colour, 3.0);
        for value in &row.values {
            svg.dot(axis.at(*value), y, colour);
        }
        svg.text(axis.at(*last) + 9.0, y + 4.0, "start", &short(*first));
    }
    svg.end()
}

/// Rows of bars from zero on.
pub(super) fn bars(words: Words<'_>, rows: &[Bar]) -> String {
    let values = rows.iter().flat_map(|row| [Some(row.value), row.budget]).flatten();
    let axis = Axis::linear(values, LEFT, WIDTH - MARGIN);
    let mut svg = Svg::new(words, rows_height(rows.len()));
    svg.x_axis(&axis, words.x);
    for (row, at) in rows.iter().zip(0_u32..) {
        let (y, colour) = (row_y(at), COLOURS[row.of]);
        svg.text(LEFT - 12.0, y + 4.0, "end", &row.label);
        svg.line([axis.at(0.0), y, axis.at(row.value), y], colour, 12.0);
        if let Some(budget) = row.budget {
            svg.line([axis.at(budget), y - 9.0, axis.at(budget), y + 9.0], TEXT, 2.0);
        }
        let right = row.budget.unwrap_or(0.0).max(row.value);
        svg.text(axis.at(right) + 8.0, y + 4.0, "start", &short(row.value));
    }
    svg.end()
}

/// A line for each name through one value for each of `xs`, which stand at equal distances.
pub(super) fn lines(words: Words<'_>, xs: &[usize], series: &[(usize, Vec<Option<f64>>)]) -> String {
    const HEIGHT: f64 = 380.0;
    const SIDE: f64 = 72.0;
    let (bottom, right) = (HEIGHT - MARGIN, WIDTH - MARGIN);
    let values = series.iter().flat_map(|(_, values)| values.iter().copied().flatten());
    let y_axis = Axis::linear(values, bottom, TOP);
    let mut svg = Svg::new(words, HEIGHT);
    svg.y_axis(&y_axis, words.y, SIDE, right);
    let x_of = |at: u32| SIDE + (right - SIDE) * (f64::from(at) + 0.5) / xs.len() as f64;
    for (x, at) in xs.iter().zip(0..) {
        svg.text(x_of(at), bottom + 18.0, "middle", &x.to_string());
    }
    svg.text((SIDE + right) / 2.0, bottom + 38.0, "middle", words.x);
    for (of, values) in series {
        let points: Vec<_> =
            values.iter().zip(0..).filter_map(|(value, at)| Some((x_of(at), y_axis.at((*value)?)))).collect();
        for pair in points.windows(2) {
            svg.line([pair[0].0, pair[0].1, pair[1].0, pair[1].1], COLOURS[*of], 2.5);
        }
        for (x, y) in points {
            svg.dot(x, y, COLOURS[*of]);
        }
    }
    svg.end()
}

fn row_y(at: u32) -> f64 {
    TOP + ROW * (f64::from(at) + 0.7)
}

fn rows_height(rows: usize) -> f64 {
    TOP + ROW * (rows as f64 + 0.4) + MARGIN
}

/// Where values lie between two places.
#[derive(Debug)]
struct Axis {
    ticks: Vec<f64>,
    is_logarithmic: bool,
    from: f64,
    to: f64,
}

impl Axis {
    /// From the tick below the smallest value to the one above the largest.
    fn logarithmic(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (mut least, mut most) = (f64::INFINITY, 0.0_f64);
        for value in values.filter(|value| *value > 0.0) {
            (least, most) = (least.min(value), most.max(value));
        }
        let all: Vec<f64> =
            (-4..8).flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powi(power))).collect();
        let first = all.iter().rposition(|tick| *tick <= least).unwrap_or(0);
        let last = all.iter().position(|tick| *tick >= most).unwrap_or(all.len() - 1);
        Self { ticks: all[first..=last.max(first + 1)].to_vec(), is_logarithmic: true, from, to }
    }

    /// From zero to the tick above the largest value.
    fn linear(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let most = values.fold(f64::MIN_POSITIVE, f64::max);
        let power = 10_f64.powf((most / 5.0).log10().floor());
        let steps = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power);
        let step = steps.into_iter().find(|step| step * 6.0 >= most).unwrap_or(steps[3]);
        let ticks = (0..8).map(|n| f64::from(n) * step);
        let end = ticks.clone().position(|tick| tick >= most).unwrap_or(7);
        Self { ticks: ticks.take(end + 1).collect(), is_logarithmic: false, from, to }
    }

    fn at(&self, value: f64) -> f64 {
        let scale = |value: f64| if self.is_logarithmic { value.ln() } else { value };
        let (first, last) = (scale(self.ticks[0]), scale(self.ticks[self.ticks.len() - 1]));
        self.from + (self.to - self.from) * (scale(value) - first) / (last - first)
    }
}

/// Up to three digits that count.
fn short(value: f64) -> String {
    let digits = if value >= 100.0 { 0 } else { 1 + usize::from(value < 10.0) };
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

struct Svg {
    text: String,
    height: f64,
}

impl Svg {
    fn new(words: Words<'_>, height: f64) -> Self {
        let mut svg = Self { text: String::new(), height };
        writeln!(
            svg.text,
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" font-family="system-ui, sans-serif" font-size="12" fill="{TEXT}">"#
        )
        .expect("a string");
        let title = escaped(words.title);
        writeln!(svg.text, r#"<title>{title}</title>"#).expect("a string");
        writeln!(svg.text, r#"<text x="12" y="22" font-size="15" font-weight="600">{title}</text>"#)
            .expect("a string");
        for (name, at) in words.names.into_iter().zip(0_u32..) {
            let x = 18.0 + 150.0 * f64::from(at);
            svg.dot(x, 42.0, COLOURS[at as usize]);
            svg.text(x + 12.0, 46.0, "start", name);
        }
        svg
    }

    fn x_axis(&mut self, axis: &Axis, label: &str) {
        let bottom = self.height - MARGIN;
        for tick in &axis.ticks {
            let x = axis.at(*tick);
            self.line([x, TOP, x, bottom], GRID, 0.4);
            self.text(x, bottom + 18.0, "middle", &short(*tick));
        }
        self.text((axis.from + axis.to) / 2.0, bottom + 38.0, "middle", label);
    }

    fn y_axis(&mut self, axis: &Axis, label: &str, left: f64, right: f64) {
        for tick in &axis.ticks {
            let y = axis.at(*tick);
            self.line([left, y, right, y], GRID, 0.4);
            self.text(left - 8.0, y + 4.0, "end", &short(*tick));
        }
        let middle = (axis.from + axis.to) / 2.0;
        writeln!(
            self.text,
            r#"<text transform="translate(18 {middle:.1}) rotate(-90)" text-anchor="middle">{}</text>"#,
            escaped(label)
        )
        .expect("a string");
    }

    fn line(&mut self, [x1, y1, x2, y2]: [f64; 4], colour: &str, width: f64) {
        writeln!(
            self.text,
            r#"<path d="M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}" stroke="{colour}" stroke-width="{width}"/>"#
        )
        .expect("a string");
    }

    fn dot(&mut self, x: f64, y: f64, colour: &str) {
        writeln!(self.text, r#"<circle cx="{x:.1}" cy="{y:.1}" r="4.5" fill="{colour}"/>"#)
            .expect("a string");
    }

    fn text(&mut self, x: f64, y: f64, anchor: &str, text: &str) {
        writeln!(self.text, r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{}</text>"#, escaped(text))
            .expect("a string");
    }

    fn end(mut self) -> String {
        self.text.push_str("</svg>\n");
        self.text
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_lie_between_the_ends_of_their_axis() {
        let linear = Axis::linear([0.0, 437.0].into_iter(), 100.0, 0.0);
        assert_eq!(linear.ticks, [0.0, 100.0, 200.0, 300.0, 400.0, 500.0]);
        assert_eq!((linear.at(0.0), linear.at(500.0), linear.at(250.0)), (100.0, 0.0, 50.0));
        let logarithmic = Axis::logarithmic([1.3, 72.0].into_iter(), 0.0, 100.0);
        assert_eq!((logarithmic.ticks[0], logarithmic.ticks.last()), (1.0, Some(&100.0)));
        assert!((logarithmic.at(10.0) - 50.0).abs() < 1e-9);
        for most in [0.04, 1.0, 1.3, 5.9, 6.1, 999.0, 123_456.0] {
            let axis = Axis::linear([most].into_iter(), 0.0, 1.0);
            assert!(axis.at(most) <= 1.0 + 1e-9 && axis.ticks.len() >= 4, "{most}: {axis:?}");
            let axis = Axis::logarithmic([most].into_iter(), 0.0, 1.0);
            assert!((-1e-9..=1.0 + 1e-9).contains(&axis.at(most)), "{most}: {axis:?}");
        }
    }

    #[test]
    fn numbers_are_short() {
        let shown = [0.31, 1.0, 2.345, 17.38, 20.0, 437.4, 10_000.0].map(short);
        assert_eq!(shown, ["0.31", "1", "2.35", "17.4", "20", "437", "10000"]);
    }
}
