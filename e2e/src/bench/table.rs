//! Plain tables on standard output.

use std::io::{Write, stdout};

use anyhow::Result;

/// Prints rows in columns as wide as needed, the first row as head.
pub fn print(title: &str, rows: &[Vec<String>]) -> Result<()> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(String::len)
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = stdout().lock();
    writeln!(out, "\n{title}")?;
    for row in rows {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        writeln!(out, "  {}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(out.flush()?)
}

/// One line of progress or result.
pub fn say(line: &str) -> Result<()> {
    Ok(writeln!(stdout().lock(), "{line}")?)
}

/// The head of a table.
#[must_use]
pub fn head(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// A ratio, or a dash where there is none.
#[must_use]
pub fn ratio(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"))
}
