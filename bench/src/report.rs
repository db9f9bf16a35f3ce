//! The results: a table, a JSON document, Markdown, and a page with charts.

use std::{collections::BTreeMap, fmt::Write, fs, path::Path};

use comfy_table::{CellAlignment, Table, presets::NOTHING};
use serde::Serialize;

use crate::{Result, chart, measure::Measured};

/// Ratios, each with its goal, and figures that have none.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) ratios: Vec<Ratio>,
    pub(crate) figures: Vec<Figure>,
}

/// Ours beside something else.
#[derive(Debug)]
#[expect(clippy::struct_field_names, reason = "the names are those of ratios.json")]
pub(crate) struct Ratio {
    pub(crate) name: String,
    /// What it is compared with.
    pub(crate) base: String,
    pub(crate) ours_ns: f64,
    pub(crate) base_ns: f64,
    pub(crate) ratio: f64,
    pub(crate) goal: Option<Goal>,
}

/// What a ratio is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Goal {
    pub(crate) reach: f64,
    pub(crate) not_above: f64,
}

/// A number that is no ratio.
#[derive(Debug)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
}

#[derive(Serialize)]
struct Json<'a> {
    ours_ns: f64,
    base_ns: f64,
    base: &'a str,
    ratio: f64,
}

impl Report {
    /// The ratio of two cases.
    pub(crate) fn compare(
        &mut self,
        name: &str,
        measured: &Measured,
        (ours, base): (&str, &str),
        goal: Option<(f64, f64)>,
    ) {
        if !measured.has(ours) || !measured.has(base) {
            return;
        }
        self.ratios.push(Ratio {
            name: name.to_owned(),
            base: base.to_owned(),
            ours_ns: measured.ns(ours),
            base_ns: measured.ns(base),
            ratio: measured.ratio(ours, base),
            goal: goal.map(|(reach, not_above)| Goal { reach, not_above }),
        });
    }

    /// The ratio of two numbers.
    pub(crate) fn ratio(
        &mut self,
        name: &str,
        ours: f64,
        (base_value, base): (f64, &str),
        goal: Option<(f64, f64)>,
    ) {
        self.ratios.push(Ratio {
            name: name.to_owned(),
            base: base.to_owned(),
            ours_ns: ours,
            base_ns: base_value,
            ratio: ours / base_value,
            goal: goal.map(|(reach, not_above)| Goal { reach, not_above }),
        });
    }

    /// A number.
    pub(crate) fn figure(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        self.figures.push(Figure { name: name.into(), value, unit });
    }

    /// The medians of all cases, as figures.
    pub(crate) fn figures(&mut self, group: &str, measured: &Measured) {
        for name in measured.names() {
            self.figure(format!("{group}: {name}"), measured.ns(name), "ns");
        }
    }

    /// For a terminal.
    pub(crate) fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(NOTHING);
        table.set_header(["RATIO", "OURS", "BASE", "RATIO", "REACH", "NOT ABOVE", "", "AGAINST"]);
        for ratio in &self.ratios {
            let goal = |of: fn(Goal) -> f64| ratio.goal.map_or_else(String::new, |g| number(of(g)));
            table.add_row([
                ratio.name.clone(),
                number(ratio.ours_ns),
                number(ratio.base_ns),
                number(ratio.ratio),
                goal(|goal| goal.reach),
                goal(|goal| goal.not_above),
                ratio.verdict().to_owned(),
                ratio.base.clone(),
            ]);
        }
        for column in table.column_iter_mut().skip(1).take(5) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let mut text = table.trim_fmt();
        if !self.figures.is_empty() {
            text.push_str("\n\n");
            let mut figures = Table::new();
            figures.load_style(NOTHING);
            for figure in &self.figures {
                figures.add_row([
                    figure.name.clone(),
                    number(figure.value),
                    figure.unit.to_owned(),
                ]);
            }
            for column in figures.column_iter_mut().skip(1).take(1) {
                column.set_cell_alignment(CellAlignment::Right);
            }
            text.push_str(&figures.trim_fmt());
        }
        text
    }

    /// Writes all forms into a directory.
    pub(crate) fn write(&self, directory: &Path) -> Result<()> {
        fs::create_dir_all(directory)?;
        let json: BTreeMap<&str, Json<'_>> = self
            .ratios
            .iter()
            .map(|one| {
                let Ratio { ours_ns, base_ns, ratio, .. } = *one;
                (one.name.as_str(), Json { ours_ns, base_ns, base: &one.base, ratio })
            })
            .collect();
        // What was not measured this time stays.
        let path = directory.join("ratios.json");
        let before = fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let mut all: BTreeMap<String, serde_json::Value> = before.unwrap_or_default();
        for (name, ratio) in json {
            all.insert(name.to_owned(), serde_json::to_value(ratio)?);
        }
        fs::write(path, serde_json::to_string_pretty(&all)? + "\n")?;
        fs::write(directory.join("report.md"), self.markdown())?;
        fs::write(directory.join("report.html"), chart::page(self))?;
        Ok(())
    }

    fn markdown(&self) -> String {
        let mut text = String::from(
            "| ratio | ours | base | ratio | reach | not above | | against |\n\
             | --- | ---: | ---: | ---: | ---: | ---: | --- | --- |\n",
        );
        for ratio in &self.ratios {
            let goal = |of: fn(Goal) -> f64| ratio.goal.map_or_else(String::new, |g| number(of(g)));
            let _infallible = writeln!(
                text,
                "| `{}` | {} | {} | **{}** | {} | {} | {} | {} |",
                ratio.name,
                number(ratio.ours_ns),
                number(ratio.base_ns),
                number(ratio.ratio),
                goal(|goal| goal.reach),
                goal(|goal| goal.not_above),
                ratio.verdict(),
                ratio.base,
            );
        }
        text.push_str("\n| figure | value | |\n| --- | ---: | --- |\n");
        for figure in &self.figures {
            let Figure { name, value, unit } = figure;
            let _infallible = writeln!(text, "| {name} | {} | {unit} |", number(*value));
        }
        text
    }
}

impl Ratio {
    /// Whether the goal is reached, for people.
    pub(crate) fn verdict(&self) -> &'static str {
        match self.goal {
            None => "",
            Some(goal) if self.ratio <= goal.reach => "reached",
            Some(goal) if self.ratio <= goal.not_above => "within",
            Some(_) => "MISSED",
        }
    }
}

/// A number with about three digits that say something.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        size if size >= 0.1 => format!("{value:.3}"),
        _ => format!("{value:.4}"),
    }
}
