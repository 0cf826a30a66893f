//! The language of `--format`: a subset of Python's `str.format`.
//!
//! `{field}` or `{field:spec}`, with the fields `timestamp`, `issuer`, `stream` and `line`; `{{` and `}}` are braces.
//! The spec of a text is `[[fill]<|>|^][0][width][.precision][s]`; the spec of a timestamp is a format of `strftime`, with
//! `%f` for six digits of microseconds and `%s` for seconds since 1970. Without one, a timestamp is `2026-11-30
//! 10:14:37.000000`. Widths count characters. A template is checked when it is parsed, so that printing cannot fail.

use jiff::fmt::strtime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use std::fmt::Write;

/// Longest template, in bytes.
pub const MAX_TEMPLATE: usize = 4096;
/// Largest width.
pub const MAX_WIDTH: usize = 1000;

/// What a template prints.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    /// Microseconds since 1970.
    pub timestamp: i64,
    /// Name of the issuer.
    pub issuer: &'a str,
    /// Name of the stream.
    pub stream: &'a str,
    /// The line as it is shown: see [`crate::show::escaped`].
    pub line: &'a str,
}

/// Why a template cannot be used. `Display` is a sentence without a final stop.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the format string is not valid: {0}")]
pub struct TemplateError(String);

/// A parsed template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Time(Vec<TimePart>),
    Field(Field, Align),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum TimePart {
    /// A format of strftime without `%f`.
    Strftime(String),
    Microseconds,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Issuer,
    Stream,
    Line,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Align {
    fill: char,
    /// `<`, `>` or `^`.
    side: char,
    width: usize,
    precision: Option<usize>,
}

fn error<T>(text: impl Into<String>) -> Result<T, TemplateError> {
    Err(TemplateError(text.into()))
}

impl std::str::FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Template, TemplateError> {
        if text.len() > MAX_TEMPLATE {
            return error(format!("it has {} bytes, and at most {MAX_TEMPLATE} are allowed", text.len()));
        }
        let (mut parts, mut plain, mut rest) = (Vec::new(), String::new(), text);
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(behind) = rest.strip_prefix(brace) {
                plain.push_str(brace);
                rest = behind;
                continue;
            }
            if brace == "}" {
                return error("a single '}' has to be written as '}}'");
            }
            let Some(end) = rest.find(['{', '}']) else {
                return error("a '{' is not closed; the character itself is written as '{{'");
            };
            if rest[end..].starts_with('{') {
                return error("a field cannot contain another one");
            }
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(field(&rest[..end])?);
            rest = &rest[end + 1..];
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Template(parts))
    }
}

fn field(text: &str) -> Result<Part, TemplateError> {
    let (name, spec) = text.split_once(':').unwrap_or((text, ""));
    let name = name.strip_suffix("!s").unwrap_or(name);
    let field = match name {
        "timestamp" => return time(spec).map(Part::Time),
        "issuer" => Field::Issuer,
        "stream" => Field::Stream,
        "line" => Field::Line,
        _ => return error(format!("'{name}' is not a field: use timestamp, issuer, stream or line")),
    };
    Ok(Part::Field(field, align(spec)?))
}

fn align(spec: &str) -> Result<Align, TemplateError> {
    let bad = || {
        let example = "such as '>20' (right), '<20' (left), '^20' (centred) or '.20' (at most 20 characters)";
        TemplateError(format!("'{spec}' cannot be applied to a text: use a width, {example}"))
    };
    let mut chars = spec.chars();
    let (first, second) = (chars.next(), chars.next());
    let is_side = |c: Option<char>| c.filter(|c| matches!(c, '<' | '>' | '^'));
    let (fill, side, mut rest) = match (first, is_side(second), is_side(first)) {
        (Some(fill), Some(side), _) => (fill, side, &spec[fill.len_utf8() + 1..]),
        (_, None, Some(side)) => (' ', side, &spec[1..]),
        _ => (' ', '<', spec),
    };
    let explicit = is_side(second).is_some();
    let zero = rest.starts_with('0') && !explicit;
    let mut number = || {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (digits, behind) = rest.split_at(end);
        rest = behind;
        match digits {
            "" => Ok(None),
            _ => digits.parse::<usize>().ok().filter(|n| *n <= MAX_WIDTH).map(Some).ok_or_else(bad),
        }
    };
    let width = number()?.unwrap_or(0);
    let precision = match rest.strip_prefix('.') {
        Some(behind) => {
            let end = behind.find(|c: char| !c.is_ascii_digit()).unwrap_or(behind.len());
            let value = behind[..end].parse::<usize>().map_err(|_| bad())?;
            rest = &behind[end..];
            Some(value)
        }
        None => None,
    };
    if !matches!(rest, "" | "s") {
        return Err(bad());
    }
    Ok(Align { fill: if zero { '0' } else { fill }, side, width, precision })
}

fn time(spec: &str) -> Result<Vec<TimePart>, TemplateError> {
    let spec = if spec.is_empty() { "%Y-%m-%d %H:%M:%S.%f" } else { spec };
    let (mut parts, mut plain, mut chars) = (Vec::new(), String::new(), spec.chars());
    while let Some(c) = chars.next() {
        match (c, chars.clone().next()) {
            ('%', Some('f')) => {
                chars.next();
                if !plain.is_empty() {
                    parts.push(TimePart::Strftime(std::mem::take(&mut plain)));
                }
                parts.push(TimePart::Microseconds);
            }
            ('%', Some(next)) => {
                chars.next();
                plain.extend(['%', next]);
            }
            _ => plain.push(c),
        }
    }
    if !plain.is_empty() {
        // All that depends on the time is numbers and names, so a format that works once works always.
        if let Err(e) = strtime::format(&plain, &Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC)) {
            return error(format!("'{spec}' is not a format of timestamps ({e}): see 'man strftime'"));
        }
        parts.push(TimePart::Strftime(plain));
    }
    Ok(parts)
}

impl Template {
    /// Appends a record as the template says, in a time zone, without a newline.
    pub fn print(&self, fields: &Fields<'_>, zone: &TimeZone, out: &mut String) {
        // Timestamps outside of the years that a calendar has are shown as its ends.
        let bounds = [Timestamp::MIN, Timestamp::MAX].map(|t| t.as_second() * 1_000_000);
        let micros = fields.timestamp.clamp(bounds[0], bounds[1]);
        let mut zoned: Option<Zoned> = None;
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Time(parts) => {
                    let zoned = zoned.get_or_insert_with(|| {
                        Timestamp::from_microsecond(micros)
                            .unwrap_or(Timestamp::UNIX_EPOCH)
                            .to_zoned(zone.clone())
                    });
                    print_time(parts, zoned, micros, out);
                }
                Part::Field(Field::Issuer, align) => align.print(fields.issuer, out),
                Part::Field(Field::Stream, align) => align.print(fields.stream, out),
                Part::Field(Field::Line, align) => align.print(fields.line, out),
            }
        }
    }
}

fn print_time(parts: &[TimePart], zoned: &Zoned, micros: i64, out: &mut String) {
    for part in parts {
        match part {
            TimePart::Strftime(format) => out.push_str(&strtime::format(format, zoned).unwrap_or_default()),
            // Writing to a String cannot fail.
            TimePart::Microseconds => drop(write!(out, "{:06}", micros.rem_euclid(1_000_000))),
        }
    }
}

impl Align {
    fn print(&self, text: &str, out: &mut String) {
        let text = match self.precision {
            Some(max) => text.char_indices().nth(max).map_or(text, |(at, _)| &text[..at]),
            None => text,
        };
        let space = match self.width {
            0 => 0,
            width => width.saturating_sub(text.chars().count()),
        };
        let before = match self.side {
            '>' => space,
            '^' => space / 2,
            _ => 0,
        };
        out.extend(std::iter::repeat_n(self.fill, before));
        out.push_str(text);
        out.extend(std::iter::repeat_n(self.fill, space - before));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn print(template: &str) -> Result<String, String> {
        let template: Template = template.parse().map_err(|e: TemplateError| e.to_string())?;
        // 2026-11-30 10:14:37.042 UTC
        let fields =
            Fields { timestamp: 1_796_033_677_042_000, issuer: "vn1", stream: "app.log", line: "h\u{e9}llo" };
        let mut out = String::new();
        template.print(&fields, &TimeZone::UTC, &mut out);
        Ok(out)
    }

    /// The expected texts were printed by CPython 3.11, but for the last digits of a whole second.
    #[test]
    fn as_python_prints_it() {
        let cases = [
            ("{timestamp} {issuer} {stream} {line}", "2026-11-30 10:14:37.042000 vn1 app.log h\u{e9}llo"),
            ("{timestamp:%H:%M:%S.%f}|{line}", "10:14:37.042000|h\u{e9}llo"),
            ("{timestamp:%s %%f %%%f}", "1796033677 %f %042000"),
            ("{timestamp:%d/%m/%y %j %b %A %p}", "30/11/26 334 Nov Monday AM"),
            ("[{issuer:>6}] [{issuer:<6}] [{issuer:^6}] [{issuer:6}]", "[   vn1] [vn1   ] [ vn1  ] [vn1   ]"),
            ("{issuer:*^7}{stream:.3}{stream:.>10.3s}", "**vn1**app.......app"),
            (
                "{line:\u{e9}>7}{line:>>6}{issuer:06}{issuer:>06}",
                "\u{e9}\u{e9}h\u{e9}llo>h\u{e9}llovn1000000vn1",
            ),
            ("{{{issuer}}} {{}}", "{vn1} {}"),
            ("{issuer!s:>4}", " vn1"),
            ("", ""),
            ("{line:.0}", ""),
        ];
        for (template, expected) in cases {
            assert_eq!(print(template).as_deref(), Ok(expected), "{template}");
        }
    }

    #[test]
    fn what_is_refused() {
        let cases = [
            ("{", "a '{' is not closed"),
            ("}", "a single '}'"),
            ("{line", "a '{' is not closed"),
            ("a}b", "a single '}'"),
            ("{}", "'' is not a field"),
            ("{0}", "'0' is not a field"),
            ("{lines}", "'lines' is not a field: use timestamp, issuer, stream or line"),
            ("{line!r}", "'line!r' is not a field"),
            ("{line:{issuer}}", "cannot contain another one"),
            ("{line:=5}", "'=5' cannot be applied to a text"),
            ("{line:5d}", "'5d' cannot be applied"),
            ("{line:.}", "'.' cannot be applied"),
            ("{line:+5}", "'+5' cannot be applied"),
            ("{line:99999}", "'99999' cannot be applied"),
            ("{timestamp:%}", "is not a format of timestamps"),
            ("{timestamp:%!}", "is not a format of timestamps"),
        ];
        for (template, expected) in cases {
            let message = print(template).unwrap_err();
            assert!(
                message.starts_with("the format string is not valid: ") && message.contains(expected),
                "{message}"
            );
        }
        assert!(print(&"x".repeat(MAX_TEMPLATE + 1)).unwrap_err().contains("4097 bytes"));
    }

    #[test]
    fn any_timestamp_can_be_printed() {
        let template: Template = "{timestamp:%Y %f %Z}".parse().unwrap();
        let years = [i64::MIN, -1, 0, i64::MAX].map(|timestamp| {
            let mut out = String::new();
            let fields = Fields { timestamp, issuer: "", stream: "", line: "" };
            template.print(&fields, &TimeZone::UTC, &mut out);
            out
        });
        assert_eq!(years[1..3], ["1969 999999 UTC", "1970 000000 UTC"]);
        assert!(years[0].starts_with("-9999") && years[3].starts_with("9999"), "{years:?}");
    }

    proptest! {
        #[test]
        fn no_template_panics(template in "[{}:%a-z<>^.0-9 !\u{e9}]{0,12}|\\{(timestamp|line):.{0,6}\\}") {
            let _ = print(&template);
        }
    }
}
