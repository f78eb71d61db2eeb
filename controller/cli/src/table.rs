//! Tables: columns that line up, for eyes and for `awk` alike: no borders, no colour, nothing behind the last column.

/// What stands between two columns.
const GAP: &str = "   ";

/// The widths that a table has reached. They only grow, so that the rows of `get -w` line up with those before.
#[derive(Debug, Default)]
pub(crate) struct Columns {
    widths: Vec<usize>,
}

impl Columns {
    /// Renders rows of one length, of which the first may be the headings.
    pub(crate) fn render(&mut self, rows: &[Vec<String>]) -> String {
        for row in rows {
            self.widths.resize(self.widths.len().max(row.len()), 0);
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        rows.iter().map(|row| self.line(row) + "\n").collect()
    }

    fn line(&self, row: &[String]) -> String {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&self.widths) {
            line.push_str(cell);
            line.push_str(&" ".repeat(width.saturating_sub(cell.chars().count())));
            line.push_str(GAP);
        }
        line.trim_end().to_owned()
    }
}

/// A cell, with a dash where there is nothing: an empty one would shift the columns for programs.
pub(crate) fn cell(value: &impl ToString) -> String {
    let text = value.to_string();
    // A line break in somebody's value would make two rows of one.
    let text = text.replace(char::is_control, " ");
    if text.is_empty() { "-".to_owned() } else { text }
}

/// A cell for a value that may be missing.
pub(crate) fn optional<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| cell(&""), |value| cell(&value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[&[&str]]) -> Vec<Vec<String>> {
        rows.iter().map(|row| row.iter().map(cell).collect()).collect()
    }

    #[test]
    fn columns_line_up_and_stay_where_they_are() {
        let mut columns = Columns::default();
        let table = columns.render(&rows(&[
            &["NAME", "READY", "STATUS"],
            &["web", "2/3", "RollingOut"],
            &["prédictor", "", ""],
        ]));
        insta::assert_snapshot!(table, @r"
        NAME        READY   STATUS
        web         2/3     RollingOut
        prédictor   -       -
        ");
        insta::assert_snapshot!(columns.render(&rows(&[&["web", "3/3", "a\nb"]])), @"web         3/3     a b");
    }
}
