//! Rows of figures, some with a limit: the table, the file, and whether all limits hold.

use std::{fs, path::Path};

use serde::Serialize;

/// What was measured.
#[derive(Default, Serialize)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

/// One comparison.
#[derive(Serialize)]
struct Row {
    what: String,
    ours: String,
    beside: String,
    /// Ours by what it is compared with, or the figure itself where it is compared with nothing.
    figure: f64,
    limit: Option<Limit>,
}

/// What a figure must keep to.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

impl Limit {
    fn holds(self, figure: f64) -> bool {
        match self {
            Self::AtMost(most) => figure <= most,
            Self::AtLeast(least) => figure >= least,
        }
    }
}

impl Report {
    /// Adds a row, and shows it at once: what follows takes a while.
    pub(crate) fn add(
        &mut self,
        what: impl Into<String>,
        ours: impl Into<String>,
        beside: impl Into<String>,
        figure: f64,
        limit: Option<Limit>,
    ) {
        let row = Row { what: what.into(), ours: ours.into(), beside: beside.into(), figure, limit };
        println!("  {}: {} ({}), {:.2}", row.what, row.ours, row.beside, row.figure);
        self.rows.push(row);
    }

    /// Whether every limit holds.
    pub(crate) fn holds(&self) -> bool {
        self.rows.iter().all(|row| row.limit.is_none_or(|limit| limit.holds(row.figure)))
    }

    /// The table.
    pub(crate) fn print(&self) {
        let head = ["", "measured", "beside", "figure", "limit", ""].map(str::to_owned);
        let rows: Vec<[String; 6]> = [head].into_iter().chain(self.rows.iter().map(cells)).collect();
        let widths: [usize; 6] =
            std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
        println!();
        for row in &rows {
            let line: Vec<String> = row
                .iter()
                .zip(widths)
                .map(|(cell, width)| format!("{cell}{}", " ".repeat(width - cell.chars().count())))
                .collect();
            println!("{}", line.join("  ").trim_end());
        }
    }

    /// The rows as JSON.
    pub(crate) fn write(&self, file: &Path) -> Result<(), String> {
        let failed = |error: &dyn std::fmt::Display| format!("cannot write {}: {error}", file.display());
        let text = serde_json::to_string_pretty(self).map_err(|error| failed(&error))?;
        fs::write(file, text + "\n").map_err(|error| failed(&error))
    }
}

fn cells(row: &Row) -> [String; 6] {
    let (limit, verdict) = match row.limit {
        Some(limit) => {
            let text = match limit {
                Limit::AtMost(most) => format!("<= {most:.2}"),
                Limit::AtLeast(least) => format!(">= {least:.2}"),
            };
            (text, if limit.holds(row.figure) { "holds" } else { "DOES NOT HOLD" })
        }
        None => (String::new(), ""),
    };
    [row.what.clone(), row.ours.clone(), row.beside.clone(), format!("{:.2}", row.figure), limit, verdict.to_owned()]
}

/// The middle one; of an even number the higher of the two.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}
