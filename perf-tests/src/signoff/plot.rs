//! Lines over time as SVG, with the phases behind them.
//!
//! Colours are names here and get their values, light and dark, from the page's style sheet; text is left to whoever
//! shows the picture, so that no fonts are read and none are embedded.

use std::ops::Range;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::report::PhaseRun;

/// Size of a plot; the page scales it.
const SIZE: (u32, u32) = (760, 210);

/// Points of a line; what lies between two of them shows as the highest.
const MAX_POINTS: usize = 500;

/// About what a letter of a phase's name takes.
const LETTER_PIXELS: f64 = 6.4;

/// A line ends where nothing is known for so many of its usual steps, and at least so many seconds.
const GAP_STEPS: f64 = 6.0;
const GAP_SECONDS: f64 = 3.0;

/// Lines that have a colour of their own.
pub const COLOURS: usize = 4;

/// Colours that the style sheet replaces: they tell what a stroke is.
const LINES: [RGBColor; COLOURS] =
    [RGBColor(37, 99, 235), RGBColor(217, 119, 6), RGBColor(5, 150, 105), RGBColor(147, 51, 234)];
const INK: RGBColor = RGBColor(91, 100, 114);
const GRID: RGBColor = RGBColor(217, 222, 229);
const BAND: RGBColor = RGBColor(238, 241, 245);

/// A line: its points as (seconds, value).
pub type Line = Vec<(f64, f64)>;

/// Draws up to [`COLOURS`] lines over the phases. `None`: there is nothing to draw.
#[must_use]
pub fn plot(lines: &[Line], phases: &[PhaseRun]) -> Option<String> {
    let all = || lines.iter().flatten();
    let last = all().map(|point| point.0).fold(0.0, f64::max);
    let highest = all().map(|point| point.1).fold(0.0, f64::max);
    if last <= 0.0 || highest <= 0.0 {
        return None;
    }
    let mut svg = String::new();
    draw(&mut svg, lines, phases, 0.0..last, 0.0..highest * 1.18).ok()?;
    // The page declares what it is by being HTML.
    Some(svg.replacen(" xmlns=\"http://www.w3.org/2000/svg\"", " role=\"img\"", 1))
}

fn draw(
    svg: &mut String,
    lines: &[Line],
    phases: &[PhaseRun],
    seconds: Range<f64>,
    values: Range<f64>,
) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    let top = values.end;
    let mut chart = ChartBuilder::on(&area)
        .margin(4)
        .margin_right(14)
        .x_label_area_size(24)
        .y_label_area_size(56)
        .build_cartesian_2d(seconds.clone(), values)?;
    let per_pixel = (seconds.end - seconds.start) / f64::from(SIZE.0 - 74);
    for (index, phase) in phases.iter().enumerate() {
        let (from, to) = (phase.from_seconds.min(seconds.end), phase.to_seconds.min(seconds.end));
        if index % 2 == 0 {
            chart.draw_series([Rectangle::new([(from, 0.0), (to, top)], BAND.filled())])?;
        }
        let pixels = (to - from) / per_pixel;
        let font = ("sans-serif", LETTER_PIXELS * 1.7).into_font();
        // Along the top where it fits there, else downwards where a line fits; the page lists all with their times.
        let (font, at, position) = match pixels {
            wide if wide >= phase.name.len() as f64 * LETTER_PIXELS => {
                (font, f64::midpoint(from, to), Pos::new(HPos::Center, VPos::Top))
            }
            fair if fair >= LETTER_PIXELS * 2.0 => {
                let at = f64::midpoint(from, to) + LETTER_PIXELS * 0.8 * per_pixel;
                (font.transform(FontTransform::Rotate90), at, Pos::new(HPos::Left, VPos::Top))
            }
            _ => continue,
        };
        chart.draw_series([Text::new(phase.name.clone(), (at, top * 0.985), font.color(&INK).pos(position))])?;
    }
    chart
        .configure_mesh()
        .disable_x_mesh()
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(GRID)
        .x_labels(8)
        .y_labels(5)
        .x_label_formatter(&|seconds| format!("{seconds:.0} s"))
        .y_label_formatter(&|value| short(*value))
        .label_style(("sans-serif", 12).into_font().color(&INK))
        .draw()?;
    for (line, colour) in lines.iter().zip(LINES) {
        for part in unbroken(&thinned(line)) {
            chart.draw_series(LineSeries::new(part.iter().copied(), colour.stroke_width(2)))?;
        }
    }
    area.present()?;
    Ok(())
}

fn thinned(line: &Line) -> Line {
    let each = line.len().div_ceil(MAX_POINTS).max(1);
    let highest = |points: &[(f64, f64)]| points.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1));
    line.chunks(each).filter_map(highest).collect()
}

/// The parts of a line between which nothing is known.
fn unbroken(line: &[(f64, f64)]) -> impl Iterator<Item = &[(f64, f64)]> {
    let mut steps: Vec<f64> = line.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    steps.sort_by(f64::total_cmp);
    let usual = steps.get(steps.len() / 2).copied().unwrap_or(0.0);
    let gap = (usual * GAP_STEPS).max(GAP_SECONDS);
    line.chunk_by(move |before, after| after.0 - before.0 < gap)
}

/// A number as it is read on an axis: three digits and a letter.
#[must_use]
pub fn short(value: f64) -> String {
    let (scaled, letter) = match value.abs() {
        high if high >= 1e9 => (value / 1e9, "G"),
        high if high >= 1e6 => (value / 1e6, "M"),
        high if high >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let digits = match scaled.abs() {
        high if high >= 100.0 || scaled == 0.0 => 0,
        high if high >= 10.0 => 1,
        high if high >= 0.1 => 2,
        _ => 3,
    };
    let text = format!("{scaled:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{letter}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, expected) in [
            (0.0, "0"),
            (0.0123, "0.012"),
            (0.5, "0.5"),
            (2.3456, "2.35"),
            (42.0, "42"),
            (1234.0, "1234"),
            (12_345.0, "12.3k"),
            (6_800_000.0, "6.8M"),
            (-2.5, "-2.5"),
        ] {
            assert_eq!(short(value), expected);
        }
    }

    #[test]
    fn a_long_line_keeps_its_peaks() {
        let line: Line = (0..10_000).map(|n| (f64::from(n), if n == 7777 { 9.0 } else { 1.0 })).collect();
        let thin = thinned(&line);
        assert!(thin.len() <= MAX_POINTS);
        assert!(thin.contains(&(7777.0, 9.0)));
    }

    #[test]
    fn a_line_ends_where_nothing_is_known() {
        let line: Line = [0.0, 0.5, 1.0, 9.0, 9.5, 11.0].map(|at| (at, 1.0)).to_vec();
        let parts: Vec<usize> = unbroken(&line).map(<[_]>::len).collect();
        assert_eq!(parts, [3, 3]);
    }

    #[test]
    fn nothing_gives_no_plot() {
        assert_eq!(plot(&[], &[]), None);
        assert_eq!(plot(&[vec![(0.0, 0.0), (5.0, 0.0)]], &[]), None);
        assert!(plot(&[vec![(0.0, 1.0), (5.0, 2.0)]], &[]).unwrap().contains("<polyline"));
    }
}
