//! Charts: bars and curves as SVG, for light and for dark pages.
//!
//! No background is drawn. Every colour has medium lightness, so that it stands out from white and
//! from black.

use std::fmt::Write;

/// One bar.
#[derive(Debug, Clone)]
pub struct Bar {
    /// Name of the peer.
    pub label: String,
    /// End of the bar, or the reason for which there is none.
    pub value: Result<f64, String>,
    /// Values around the end of the bar: a line from the first to the last, with a tick at each.
    pub ticks: Vec<f64>,
    /// `true` if the bar is highlighted, as those of Ropewalk are.
    pub ours: bool,
}

/// Group of related bars.
#[derive(Debug, Clone)]
pub struct Panel {
    /// Title of the group.
    pub title: String,
    /// Bars from top to bottom.
    pub bars: Vec<Bar>,
}

/// Scale of the horizontal axis.
#[derive(Debug, Clone, Copy)]
pub enum Scale {
    /// Linear. Bars begin at 1, and are cut off at the margins.
    Ratio {
        /// Value at the left margin.
        low: f64,
        /// Value at the right margin.
        high: f64,
    },
    /// Logarithmic.
    Log,
}

/// Labelled curve.
#[derive(Debug, Clone)]
pub struct Curve {
    /// Name of the peer.
    pub label: String,
    /// Points from left to right.
    pub points: Vec<(f64, f64)>,
}

const TEXT: &str = "#727c88";
const GRID: &str = "#8b949e";
const OURS: &str = "#e8590c";
const THEIRS: &str = "#4c8bca";
const CURVES: [&str; 6] = ["#e8590c", "#4c8bca", "#2f9e6b", "#a66bd3", "#c2922a", "#d6568b"];

/// Margins and sizes in pixels.
const LABEL_WIDTH: f64 = 118.0;
const BAR_WIDTH: f64 = 210.0;
const VALUE_WIDTH: f64 = 62.0;
const ROW_HEIGHT: f64 = 17.0;
const HEAD_HEIGHT: f64 = 40.0;

/// Draws panels of bars, two in a row.
pub fn bars(title: &str, unit: &str, panels: &[Panel], scale: Scale) -> String {
    let panel_width = LABEL_WIDTH + BAR_WIDTH + VALUE_WIDTH;
    let columns = panels.len().clamp(1, 2);
    let mut body = String::new();
    let mut y = HEAD_HEIGHT;
    for row in panels.chunks(columns) {
        for (column, panel) in row.iter().enumerate() {
            draw_panel(&mut body, panel, column as f64 * panel_width, y, scale);
        }
        let tallest = row.iter().map(|panel| panel.bars.len()).max().unwrap_or(0);
        y += 24.0 + tallest as f64 * ROW_HEIGHT + 24.0;
    }
    page(title, unit, columns as f64 * panel_width, y, &body)
}

fn draw_panel(body: &mut String, panel: &Panel, left: f64, top: f64, scale: Scale) {
    text(body, left + LABEL_WIDTH, top + 12.0, "start", true, &panel.title);
    let (low, high) = domain(panel, scale);
    let position = |value: f64| {
        let part = match scale {
            Scale::Ratio { .. } => (value - low) / (high - low),
            Scale::Log => (value.max(low) / low).ln() / (high / low).ln(),
        };
        left + LABEL_WIDTH + part.clamp(0.0, 1.0) * BAR_WIDTH
    };
    let (first, height) = (top + 20.0, panel.bars.len() as f64 * ROW_HEIGHT);
    let lines = match scale {
        Scale::Ratio { .. } => vec![1.0],
        Scale::Log => powers(low, high),
    };
    for at in lines {
        line(body, (position(at), first), (position(at), first + height), GRID, 0.7);
        text(body, position(at), first + height + 12.0, "middle", false, &number_text(at));
    }
    for (number, bar) in panel.bars.iter().enumerate() {
        let y = first + number as f64 * ROW_HEIGHT;
        text(body, left + LABEL_WIDTH - 6.0, y + 12.5, "end", false, &bar.label);
        let Ok(value) = bar.value else {
            text(body, left + LABEL_WIDTH + 4.0, y + 12.5, "start", false, "not measured");
            continue;
        };
        let start = if matches!(scale, Scale::Ratio { .. }) { position(1.0) } else { position(low) };
        let (from, to) = (start.min(position(value)), start.max(position(value)));
        let colour = if bar.ours { OURS } else { THEIRS };
        // A bar of no length stays visible.
        let width = (to - from).max(1.5);
        let _ = write!(
            body,
            r#"<rect x="{from:.1}" y="{:.1}" width="{width:.1}" height="{:.1}" fill="{colour}"/>"#,
            y + 3.0,
            ROW_HEIGHT - 6.0
        );
        draw_ticks(body, &bar.ticks, y + ROW_HEIGHT / 2.0, position);
        let cut_off = matches!(scale, Scale::Ratio { .. }) && !(low..=high).contains(&value);
        let label = format!("{}{}", if cut_off { "… " } else { "" }, number_text(value));
        text(body, left + LABEL_WIDTH + BAR_WIDTH + 6.0, y + 12.5, "start", false, &label);
    }
}

fn draw_ticks(body: &mut String, ticks: &[f64], middle: f64, position: impl Fn(f64) -> f64) {
    let (Some(&first), Some(&last)) = (ticks.first(), ticks.last()) else { return };
    line(body, (position(first), middle), (position(last), middle), TEXT, 1.2);
    for &tick in ticks {
        line(body, (position(tick), middle - 3.5), (position(tick), middle + 3.5), TEXT, 1.2);
    }
}

fn domain(panel: &Panel, scale: Scale) -> (f64, f64) {
    match scale {
        Scale::Ratio { low, high } => (low, high),
        Scale::Log => {
            let of = |bar: &Bar| bar.value.iter().copied().chain(bar.ticks.iter().copied()).collect::<Vec<_>>();
            range(panel.bars.iter().flat_map(of))
        }
    }
}

/// Returns the powers of ten that enclose the numbers.
fn range(numbers: impl Iterator<Item = f64>) -> (f64, f64) {
    let positive = numbers.filter(|&number| number > 0.0 && number.is_finite());
    let (low, high) = positive.fold((f64::MAX, 0.0), |(low, high): (f64, f64), it| (low.min(it), high.max(it)));
    if high == 0.0 {
        return (1.0, 10.0);
    }
    let low = 10_f64.powf(low.log10().floor());
    (low, 10_f64.powf(high.log10().ceil()).max(low * 10.0))
}

fn powers(low: f64, high: f64) -> Vec<f64> {
    let decades = (high / low).log10().round() as i32;
    (0..=decades).map(|power| low * 10_f64.powi(power)).collect()
}

/// Draws curves over a logarithmic horizontal axis. The vertical axis is logarithmic if
/// `logarithmic`, and otherwise begins at zero.
pub fn curves(title: &str, across: &str, up: &str, curves: &[Curve], logarithmic: bool) -> String {
    let (left, top, width, height) = (70.0, HEAD_HEIGHT + 8.0, 480.0, 250.0);
    let all = || curves.iter().flat_map(|curve| curve.points.iter().copied());
    let (x_low, x_high) = range(all().map(|(x, _)| x));
    let highest = all().map(|(_, y)| y).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let (y_low, y_high) = if logarithmic { range(all().map(|(_, y)| y)) } else { (0.0, ceiling(highest)) };
    let x_of = |x: f64| left + (x / x_low).ln() / (x_high / x_low).ln() * width;
    let y_of = |y: f64| {
        let part = if logarithmic { (y / y_low).ln() / (y_high / y_low).ln() } else { y / y_high };
        top + height - part * height
    };
    let mut body = String::new();
    for x in powers(x_low, x_high) {
        line(&mut body, (x_of(x), top), (x_of(x), top + height), GRID, 0.4);
        text(&mut body, x_of(x), top + height + 16.0, "middle", false, &number_text(x));
    }
    let rows = if logarithmic { powers(y_low, y_high) } else { (0..=4).map(|n| y_high * f64::from(n) / 4.0).collect() };
    for y in rows {
        line(&mut body, (left, y_of(y)), (left + width, y_of(y)), GRID, 0.4);
        text(&mut body, left - 6.0, y_of(y) + 4.0, "end", false, &number_text(y));
    }
    text(&mut body, left + width / 2.0, top + height + 34.0, "middle", false, across);
    for (number, curve) in curves.iter().enumerate() {
        let colour = CURVES[number % CURVES.len()];
        draw_curve(&mut body, curve, colour, x_of, y_of);
        let y = top + 14.0 + number as f64 * 18.0;
        line(&mut body, (left + width + 14.0, y - 4.0), (left + width + 34.0, y - 4.0), colour, 2.5);
        text(&mut body, left + width + 40.0, y, "start", false, &curve.label);
    }
    page(title, up, left + width + 300.0, top + height + 44.0, &body)
}

fn draw_curve(body: &mut String, curve: &Curve, colour: &str, x_of: impl Fn(f64) -> f64, y_of: impl Fn(f64) -> f64) {
    let points: Vec<_> = curve.points.iter().map(|&(x, y)| (x_of(x), y_of(y))).collect();
    let path: Vec<_> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let _ = write!(body, r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2"/>"#, path.join(" "));
    for (x, y) in points {
        let _ = write!(body, r#"<circle cx="{x:.1}" cy="{y:.1}" r="3" fill="{colour}"/>"#);
    }
}

/// Returns the next number that is 1, 1.2, 1.6, 2, 4 or 8 times a power of ten.
fn ceiling(number: f64) -> f64 {
    let power = 10_f64.powf(number.log10().floor());
    [1.0, 1.2, 1.6, 2.0, 4.0, 8.0, 10.0].map(|step| step * power).into_iter().find(|&it| it >= number).unwrap_or(number)
}

fn page(title: &str, unit: &str, width: f64, height: f64, body: &str) -> String {
    let mut head = String::new();
    text(&mut head, 8.0, 16.0, "start", true, title);
    text(&mut head, 8.0, 32.0, "start", false, unit);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" height=\"{height:.0}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"12\">{head}{body}</svg>\n"
    )
}

fn line(body: &mut String, from: (f64, f64), to: (f64, f64), colour: &str, width: f64) {
    let ((x1, y1), (x2, y2)) = (from, to);
    let _ = write!(
        body,
        r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" stroke="{colour}" stroke-width="{width}"/>"#
    );
}

fn text(body: &mut String, x: f64, y: f64, anchor: &str, bold: bool, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let weight = if bold { r#" font-weight="600""# } else { "" };
    let _ = write!(body, r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" fill="{TEXT}"{weight}>{text}</text>"#);
}

/// Formats a number for readers, with about three digits, and commas between thousands.
pub fn number_text(number: f64) -> String {
    if number.fract() != 0.0 && number.abs() < 100.0 {
        return if number.abs() < 10.0 { format!("{number:.2}") } else { format!("{number:.1}") };
    }
    let digits = format!("{:.0}", number.abs());
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    format!("{}{}", if number < 0.0 { "-" } else { "" }, groups.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers are short, and the charts contain their labels.
    #[test]
    fn numbers_and_pictures() {
        assert_eq!([0.0, 0.994, 1.0, 12.5, 1234567.0].map(number_text), ["0", "0.99", "1", "12.5", "1,234,567"]);
        let curve = Curve { label: "a<b".into(), points: vec![(1.0, 2.0), (1000.0, 20.0)] };
        let picture = curves("t", "x", "y", &[curve], true);
        assert!(picture.contains("a&lt;b") && !picture.contains("NaN"), "{picture}");
        let bar = |value| Bar { label: "b".into(), value, ticks: vec![], ours: true };
        let panel = Panel { title: "p".into(), bars: vec![bar(Ok(5.0)), bar(Err("why".into()))] };
        let picture = bars("t", "u", &[panel], Scale::Log);
        assert!(picture.contains("not measured") && !picture.contains("NaN"), "{picture}");
    }
}
