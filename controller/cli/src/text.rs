//! Text of others on a person's terminal: nothing in it does anything there, and none of it is endless.

/// So much of somebody else's line is shown where nothing else bounds it: a screen or two of an error message.
pub(crate) const LINE: usize = 400;

/// Somebody else's text on one line. Control characters (which a terminal would obey), line breaks and what turns
/// the direction of writing around are spelled out.
pub(crate) fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if is_harmless(c) { vec![c] } else { c.escape_default().collect() }).collect()
}

/// The beginning of a text, in `width` characters; the last of them says that there is more.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    if width > 0 {
        short.push('…');
    }
    short
}

/// The beginning of a body that a program answered with, or that it is no text.
pub(crate) fn body(body: &str) -> String {
    let odd = body.chars().filter(|c| *c == '\u{fffd}' || (c.is_control() && !c.is_whitespace())).count();
    // A stray escape is still a message; where every eighth character is none, nobody can read it.
    if odd * 8 > body.chars().count() {
        return format!("({} bytes that are no text)", body.len());
    }
    cut(&printable(body.trim_end()), LINE)
}

fn is_harmless(c: char) -> bool {
    let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !c.is_control() && !turns && !matches!(c, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_host_said_does_nothing_to_the_terminal() {
        for (said, shown) in [
            ("plain, prédictor, 日本", "plain, prédictor, 日本"),
            ("a\x1b[2Jb", "a\\u{1b}[2Jb"),
            ("\x1b]0;title\x07", "\\u{1b}]0;title\\u{7}"),
            ("c1 \u{9b}31m", "c1 \\u{9b}31m"),
            ("over\rwrite", "over\\rwrite"),
            ("two\nlines\tand a tab", "two\\nlines\\tand a tab"),
            ("\u{202e}txet", "\\u{202e}txet"),
        ] {
            assert_eq!(printable(said), shown, "{said:?}");
        }
    }

    #[test]
    fn what_is_long_is_cut() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "ab…");
        assert_eq!(cut("日本語", 2), "日…");
        assert_eq!(cut("a", 0), "");
    }

    #[test]
    fn bodies_are_short_and_readable() {
        assert_eq!(body("no database\n"), "no database");
        assert_eq!(body("oops\n\x1b[2J and more of it"), "oops\\n\\u{1b}[2J and more of it");
        assert_eq!(body("\u{fffd}PNG\r\n\u{1a}\n\0\0\0\rIHDR"), "(18 bytes that are no text)");
        assert_eq!(body(&"x".repeat(1000)).chars().count(), LINE);
        assert_eq!(body(""), "");
    }
}
