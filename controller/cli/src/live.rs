//! The live view: the board on a terminal, drawn again in place. Nothing is hidden or left behind on exit.

use jiff::Timestamp;
use windlass_crds::id::ResourceKey;

use crate::board::{Board, Room};
use crate::inventory::Resource;
use crate::output;

/// A terminal that does not say how large it is gets what every terminal has had (DEC VT100).
const USUAL: (usize, usize) = (80, 24);

/// Rows that are never drawn on: the line that the cursor is on, and one for what was typed.
const SPARE: usize = 2;

/// What is shown, and how much of the screen it takes at present.
#[derive(Debug, Default)]
pub(crate) struct Live {
    board: Board,
    /// Lines that were drawn and can be drawn over.
    drawn: usize,
    /// The width for which they were drawn.
    columns: usize,
}

impl Live {
    /// A live view; nothing where stderr is no screen.
    pub(crate) fn start() -> Option<Self> {
        output::is_screen().then(Self::default)
    }

    /// Shows how a resource is now.
    pub(crate) fn show(&mut self, resource: &Resource) {
        self.board.take(resource, Timestamp::now());
        self.draw();
    }

    /// Draws everything again where it was drawn last.
    pub(crate) fn draw(&mut self) {
        let room = room();
        if room.columns != self.columns {
            // Terminals differ in what a new width makes of the lines that are there: they are left as they are.
            (self.columns, self.drawn) = (room.columns, 0);
        }
        let lines = self.board.lines(room, Timestamp::now());
        output::draw(&frame(self.drawn, &lines));
        self.drawn = lines.len();
    }

    /// Draws a resource a last time, to stay; the rest goes on below.
    pub(crate) fn leave(&mut self, key: &ResourceKey) {
        self.erase();
        let lines = self.board.whole(key, room(), Timestamp::now());
        output::draw(&frame(0, &lines));
        self.board.remove(key);
    }

    /// Takes away what is drawn, so that something else can be written there.
    pub(crate) fn erase(&mut self) {
        output::draw(&frame(self.drawn, &[]));
        self.drawn = 0;
    }
}

/// What to write to draw `lines` over the last `drawn` ones (ECMA-48: CUU, EL, ED; DEC's autowrap mode, so that
/// wide characters do not make two rows of one).
fn frame(drawn: usize, lines: &[String]) -> String {
    let mut text = String::new();
    if drawn > 0 {
        text += &format!("\x1b[{drawn}A\r");
    }
    if !lines.is_empty() {
        text += "\x1b[?7l";
        for line in lines {
            text += line;
            text += "\x1b[K\r\n";
        }
        text += "\x1b[?7h";
    }
    if drawn > lines.len() {
        text += "\x1b[J";
    }
    text
}

/// How much room the terminal has now: asked each time, since people resize it.
fn room() -> Room {
    let size = rustix::termios::tcgetwinsize(std::io::stderr()).ok();
    let of = |said: Option<u16>, usual| said.filter(|count| *count > 0).map_or(usual, usize::from);
    let columns = of(size.map(|size| size.ws_col), USUAL.0);
    let rows = of(size.map(|size| size.ws_row), USUAL.1);
    Room { columns, rows: rows.saturating_sub(SPARE).max(1), coloured: output::coloured() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_goes_over_the_one_before() {
        let lines = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert_eq!(frame(0, &lines(&["a", "b"])), "\x1b[?7la\x1b[K\r\nb\x1b[K\r\n\x1b[?7h");
        assert_eq!(frame(2, &lines(&["c"])), "\x1b[2A\r\x1b[?7lc\x1b[K\r\n\x1b[?7h\x1b[J");
        assert_eq!(frame(2, &[]), "\x1b[2A\r\x1b[J");
        assert_eq!(frame(0, &[]), "");
    }
}
