//! What was found, as people read it: on a terminal, and in `docs/benchmarks.md`.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use windlass_e2e::binary;

use crate::machine::Machine;
use crate::race::Race;
use crate::samples::Samples;

/// One thing that was measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Figure {
    /// What.
    pub(crate) what: String,
    /// What was found.
    pub(crate) found: String,
    /// What was promised.
    pub(crate) target: String,
    /// Whether it was kept; none where nothing was promised.
    pub(crate) met: Option<bool>,
}

impl Figure {
    /// One for which nothing was promised.
    pub(crate) fn told(what: &str, found: String) -> Self {
        Self { what: what.to_owned(), found, target: String::new(), met: None }
    }
}

/// All of it.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    machine: Machine,
    rounds: u32,
    /// How long it took in all.
    pub(crate) took: Duration,
    /// The races.
    pub(crate) races: Vec<Race>,
    /// The rest.
    pub(crate) figures: Vec<Figure>,
}

impl Report {
    /// Nothing yet, on this machine.
    ///
    /// # Errors
    /// When the machine does not tell what it is.
    pub(crate) fn new(rounds: u32) -> Result<Self> {
        let machine = Machine::here(&[
            (&binary("windlass")?, "--version"),
            (Path::new("rsync"), "--version"),
            (Path::new("ssh"), "-V"),
        ])?;
        Ok(Self { machine, rounds, took: Duration::ZERO, races: Vec::new(), figures: Vec::new() })
    }

    /// For a terminal.
    pub(crate) fn text(&self) -> String {
        format!("{}\n{}{}", self.conditions(), aligned(&self.race_table()), aligned(&self.figure_table()))
    }

    /// For the documentation.
    pub(crate) fn markdown(&self) -> String {
        let introduction = include_str!("introduction.md");
        let conditions = self.conditions();
        let (race, figures) = (piped(&self.race_table()), piped(&self.figure_table()));
        format!("{introduction}\n## The last run\n\n{conditions}\n{race}\n{figures}")
    }

    fn conditions(&self) -> String {
        format!("{}; {} rounds; {} s in all.\n", self.machine.told(), self.rounds, self.took.as_secs())
    }

    fn race_table(&self) -> Vec<[String; 10]> {
        let (windlass, rsync) = ("Windlass: median (spread)", "rsync: median (spread)");
        let confirmed = "Windlass, confirmed by new logins";
        let (fused, to_rsync) = ("rsync in one script", "that to rsync");
        let head = ["hosts, row", windlass, rsync, "ratio", "target", "", fused, "ratio to that", confirmed, to_rsync];
        let mut table = vec![head.map(str::to_owned)];
        for race in &self.races {
            for (row, [windlass, rsync, fused]) in &race.rows {
                let ratio = windlass.to(rsync);
                let confirmed = race.confirmed.get(row);
                let target = row.target().map_or(String::new(), |target| format!("at most {target}"));
                table.push([
                    format!("{}, {row}", race.hosts),
                    windlass.to_string(),
                    rsync.to_string(),
                    format!("{ratio:.2}"),
                    target,
                    verdict(row.target().map(|target| ratio <= target)),
                    fused.to_string(),
                    format!("{:.2}", windlass.to(fused)),
                    confirmed.map_or(String::new(), Samples::to_string),
                    confirmed.map_or(String::new(), |confirmed| format!("{:.2}", confirmed.to(rsync))),
                ]);
            }
        }
        table
    }

    fn figure_table(&self) -> Vec<[String; 4]> {
        let mut table = vec![["what", "found", "target", ""].map(str::to_owned)];
        let row =
            |figure: &Figure| [figure.what.clone(), figure.found.clone(), figure.target.clone(), verdict(figure.met)];
        table.extend(self.figures.iter().map(row));
        table
    }
}

pub(crate) fn verdict(met: Option<bool>) -> String {
    match met {
        Some(true) => "PASS",
        Some(false) => "MISS",
        None => "",
    }
    .to_owned()
}

/// Columns below each other; nothing where there is only a head.
pub(crate) fn aligned<const N: usize>(table: &[[String; N]]) -> String {
    let mut text = String::new();
    if table.len() < 2 {
        return text;
    }
    let width = |column: usize| table.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    for row in table {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
    text + "\n"
}

/// The same as Markdown.
pub(crate) fn piped<const N: usize>(table: &[[String; N]]) -> String {
    let mut text = String::new();
    if table.len() < 2 {
        return text;
    }
    for (index, row) in table.iter().enumerate() {
        let _ = writeln!(text, "| {} |", row.join(" | "));
        if index == 0 {
            let _ = writeln!(text, "|{}", " --- |".repeat(N));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contestant::Row;

    #[test]
    fn tables_are_drawn() {
        let table = [["what", "found"], ["a", "12 ms"]].map(|row| row.map(str::to_owned));
        assert_eq!(aligned(&table), "what  found\na     12 ms\n\n");
        assert_eq!(piped(&table), "| what | found |\n| --- | --- |\n| a | 12 ms |\n");
        assert_eq!(aligned(&table[..1]), "");
    }

    #[test]
    fn what_was_promised_is_what_the_design_says() {
        let targets: Vec<_> = Row::ALL.iter().map(|row| row.target()).collect();
        assert_eq!(targets, [Some(1.0), Some(0.8), Some(0.5), None]);
    }
}
