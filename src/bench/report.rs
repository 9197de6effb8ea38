//! Figures, as a table for people or as JSON.

use std::io::Write;

use serde::Serialize;

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    /// What was measured.
    pub(crate) name: String,
    /// How much.
    pub(crate) value: f64,
    /// Of what.
    pub(crate) unit: &'static str,
    /// What it must reach, where the project has promised something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) must: Option<f64>,
}

/// All figures of a run.
#[derive(Debug, Default)]
pub(crate) struct Report(Vec<Figure>);

impl Report {
    /// Adds a figure.
    pub(crate) fn add(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        self.0.push(Figure { name: name.into(), value, unit, must: None });
    }

    /// Adds a figure with what it must reach.
    pub(crate) fn promised(&mut self, name: impl Into<String>, value: f64, unit: &'static str, must: f64) {
        self.0.push(Figure { name: name.into(), value, unit, must: Some(must) });
    }

    /// Prints them all on stdout.
    pub(crate) fn print(&self, json: bool) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        if json {
            writeln!(out, "{}", serde_json::to_string_pretty(&self.0)?)?;
            return Ok(());
        }
        let width = self.0.iter().map(|f| f.name.len()).max().unwrap_or_default();
        for Figure { name, value, unit, must } in &self.0 {
            let must = must.map(|m| format!("   (must: {})", show(m))).unwrap_or_default();
            writeln!(out, "{name:<width$}  {:>10} {unit}{must}", show(*value))?;
        }
        Ok(())
    }
}

/// A number with three digits that matter.
fn show(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shown_with_the_digits_that_matter() {
        let shown: Vec<String> = [12_345.6, 45.67, 3.456, 0.012_34].into_iter().map(show).collect();
        assert_eq!(shown, ["12346", "45.7", "3.46", "0.012"]);
    }
}
