//! Text to tokens with line numbers. Comments vanish here.

use super::error::LoadErrorKind;

/// A token, borrowing from the text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Tok<'a> {
    /// A name, register, directive or opcode with its modifiers: dots and `::` included.
    Word(&'a str),
    /// An integer; negative numbers are `-` and this.
    Int(u64),
    /// The bits of a `0f` literal.
    F32(u32),
    /// The bits of a `0d` literal or of a decimal fraction.
    F64(u64),
    /// A string without quotes.
    Str(&'a str),
    /// Punctuation.
    Sym(u8),
    /// The end of the text.
    End,
}

impl Tok<'_> {
    /// The token as text, for messages.
    pub(crate) fn describe(&self) -> String {
        match self {
            Tok::Word(w) => (*w).chars().take(60).collect(),
            Tok::Int(v) => v.to_string(),
            Tok::F32(b) => format!("0f{b:08X}"),
            Tok::F64(b) => format!("0d{b:016X}"),
            Tok::Str(_) => "a string".into(),
            Tok::Sym(c) => (*c as char).to_string(),
            Tok::End => "end of text".into(),
        }
    }
}

/// A token with its line, counted from 1.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Token<'a> {
    pub tok: Tok<'a>,
    pub line: u32,
}

fn is_word(c: u8) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, b'_' | b'$' | b'%' | b'.')
}

/// Splits a text into tokens; the last one is [`Tok::End`].
///
/// # Errors
/// The line and what is wrong there.
pub(crate) fn lex(text: &str) -> Result<Vec<Token<'_>>, (u32, LoadErrorKind)> {
    let b = text.as_bytes();
    let mut out = Vec::with_capacity(b.len() / 6 + 8);
    let (mut i, mut line) = (0, 1);
    while i < b.len() {
        let c = b[i];
        match c {
            b'\n' => {
                line += 1;
                i += 1;
            }
            // A driver reads up to the first NUL; whoever passes more bytes does not mean them.
            0 => break,
            b' ' | b'\t' | b'\r' => i += 1,
            b'/' if b.get(i + 1) == Some(&b'/') => {
                while i < b.len() && b[i] != b'\n' {
                    i += 1;
                }
            }
            b'/' if b.get(i + 1) == Some(&b'*') => {
                i += 2;
                loop {
                    match b.get(i) {
                        None => return Err((line, syntax("the end of a comment", "end of text"))),
                        Some(b'*') if b.get(i + 1) == Some(&b'/') => break,
                        Some(b'\n') => line += 1,
                        Some(_) => {}
                    }
                    i += 1;
                }
                i += 2;
            }
            b'"' => {
                let start = i + 1;
                i = start;
                while i < b.len() && b[i] != b'"' && b[i] != b'\n' {
                    i += 1 + usize::from(b[i] == b'\\');
                }
                if b.get(i) != Some(&b'"') {
                    return Err((line, syntax("a closing quote", "end of line")));
                }
                out.push(Token { tok: Tok::Str(text.get(start..i).unwrap_or("")), line });
                i += 1;
            }
            b'0'..=b'9' => {
                let start = i;
                while i < b.len() && is_word(b[i]) {
                    i += 1;
                    // An exponent's sign belongs to a decimal fraction.
                    if i < b.len()
                        && matches!(b[i], b'+' | b'-')
                        && matches!(b[i - 1], b'e' | b'E')
                        && b[start..i].contains(&b'.')
                    {
                        i += 1;
                    }
                }
                let word = &text[start..i];
                let tok = number(word).ok_or_else(|| (line, syntax("a number", word)))?;
                out.push(Token { tok, line });
            }
            _ if is_word(c) => {
                let start = i;
                while i < b.len() {
                    if is_word(b[i]) {
                        i += 1;
                    } else if b[i] == b':' && b.get(i + 1) == Some(&b':') {
                        i += 2;
                    } else {
                        break;
                    }
                }
                out.push(Token { tok: Tok::Word(&text[start..i]), line });
            }
            b'{' | b'}' | b'(' | b')' | b'[' | b']' | b'<' | b'>' | b',' | b';' | b':' | b'=' | b'+'
            | b'-' | b'@' | b'!' | b'|' | b'~' => {
                out.push(Token { tok: Tok::Sym(c), line });
                i += 1;
            }
            _ => {
                let found = text[i..].chars().next().map(String::from).unwrap_or_default();
                return Err((line, syntax("a token", &found)));
            }
        }
    }
    out.push(Token { tok: Tok::End, line });
    Ok(out)
}

fn syntax(expected: &'static str, found: &str) -> LoadErrorKind {
    LoadErrorKind::Syntax { expected, found: found.chars().take(60).collect() }
}

fn number(word: &str) -> Option<Tok<'static>> {
    let hex = |s: &str, digits: usize| (s.len() == digits).then(|| u64::from_str_radix(s, 16).ok()).flatten();
    if let Some(rest) = word.strip_prefix("0f").or_else(|| word.strip_prefix("0F")) {
        return hex(rest, 8).map(|v| Tok::F32(v as u32));
    }
    if let Some(rest) = word.strip_prefix("0d").or_else(|| word.strip_prefix("0D")) {
        return hex(rest, 16).map(Tok::F64);
    }
    if word.contains('.') {
        return word.parse::<f64>().ok().filter(|v| v.is_finite()).map(|v| Tok::F64(v.to_bits()));
    }
    let w = word.strip_suffix('U').unwrap_or(word);
    let v = if let Some(h) = w.strip_prefix("0x").or_else(|| w.strip_prefix("0X")) {
        u64::from_str_radix(h, 16)
    } else if let Some(o) = w.strip_prefix("0b").or_else(|| w.strip_prefix("0B")) {
        u64::from_str_radix(o, 2)
    } else if w.len() > 1 && w.starts_with('0') {
        u64::from_str_radix(&w[1..], 8)
    } else {
        w.parse::<u64>()
    };
    v.ok().map(Tok::Int)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toks(s: &str) -> Vec<Tok<'_>> {
        lex(s).unwrap().into_iter().map(|t| t.tok).collect()
    }

    #[test]
    fn words_keep_dots_and_double_colons_and_labels_end_before_a_colon() {
        assert_eq!(
            toks("$L__BB0_1: ld.global.L1::evict_last.f32 %f1, [%rd1+-256];"),
            [
                Tok::Word("$L__BB0_1"),
                Tok::Sym(b':'),
                Tok::Word("ld.global.L1::evict_last.f32"),
                Tok::Word("%f1"),
                Tok::Sym(b','),
                Tok::Sym(b'['),
                Tok::Word("%rd1"),
                Tok::Sym(b'+'),
                Tok::Sym(b'-'),
                Tok::Int(256),
                Tok::Sym(b']'),
                Tok::Sym(b';'),
                Tok::End
            ]
        );
    }

    #[test]
    fn numbers_of_every_radix() {
        assert_eq!(
            toks("10 0x1F 017 0b101 7U 0f3F800000 0d3FF0000000000000 1.5 1.0e-3"),
            [
                Tok::Int(10),
                Tok::Int(31),
                Tok::Int(15),
                Tok::Int(5),
                Tok::Int(7),
                Tok::F32(0x3F80_0000),
                Tok::F64(0x3FF0_0000_0000_0000),
                Tok::F64(1.5f64.to_bits()),
                Tok::F64(1.0e-3f64.to_bits()),
                Tok::End
            ]
        );
        assert!(lex("0fZZ").is_err() && lex("99999999999999999999").is_err() && lex("0f3F8").is_err());
    }

    #[test]
    fn comments_vanish_but_count_lines() {
        let t = lex("// a\n/* b\n */ x \"s\\\"t\"").unwrap();
        assert_eq!((t[0].tok, t[0].line, t[1].tok), (Tok::Word("x"), 3, Tok::Str("s\\\"t")));
        assert!(lex("/* open").is_err() && lex("\"open").is_err() && lex("é").is_err());
    }
}
