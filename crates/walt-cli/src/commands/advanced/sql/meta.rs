//! What is not SQL: `\dt`, `\d TABLE`, `\q` of psql, `.tables`, `.schema TABLE` of sqlite3.

/// Help of the prompt.
const HELP: &str = "\
\\dt, \\d, .tables            list the tables
\\d TABLE, .schema TABLE     list the columns of a table
\\q, .quit, ctrl-D           quit
Anything else is a statement of SQLite's SQL. It ends with ';' and may have several lines.
";

/// A command of the prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meta {
    /// Ends it.
    Quit,
    /// Prints help.
    Help,
    /// Lists the tables.
    Tables,
    /// Lists the columns of a table.
    Describe(String),
    /// Another word.
    Unknown(String),
}

impl Meta {
    /// The command of a line; none if it is (a part of) a statement.
    pub fn parse(line: &str) -> Option<Self> {
        let line = line.trim().trim_end_matches(';').trim_end();
        let mut words = line.split_whitespace();
        let first = words.next()?;
        let name = words.next();
        Some(match (first, name) {
            ("\\q" | ".quit" | ".exit" | "quit" | "exit", None) => Self::Quit,
            ("\\?" | "\\h" | ".help" | "help", _) => Self::Help,
            ("\\dt" | "\\d" | "\\dv" | ".tables" | ".schema", None) => Self::Tables,
            ("\\d" | "\\dt" | "\\d+" | ".schema", Some(name)) => Self::Describe(plain(name)),
            _ if first.starts_with(['\\', '.']) => Self::Unknown(first.to_owned()),
            _ => return None,
        })
    }

    /// The statement whose result it shows.
    pub fn statement(&self) -> Option<String> {
        match self {
            Self::Tables => Some("SELECT name, description FROM tables ORDER BY name".to_owned()),
            Self::Describe(name) => {
                let name = name.replace('\'', "''");
                Some(format!("SELECT name AS \"column\", type FROM pragma_table_info('{name}')"))
            }
            Self::Quit | Self::Help | Self::Unknown(_) => None,
        }
    }

    /// What is printed, before the result if there is one.
    pub fn text(&self) -> String {
        match self {
            Self::Tables => "List of tables\n".to_owned(),
            Self::Describe(name) => format!("Table \"{name}\"\n"),
            Self::Help => HELP.to_owned(),
            Self::Unknown(word) => format!("{word} is not a command here.\n{HELP}"),
            Self::Quit => String::new(),
        }
    }
}

/// The name of a table without quotes and without the schema of the existing server.
fn plain(name: &str) -> String {
    let name = name.trim_matches('"');
    name.strip_prefix("public.").unwrap_or(name).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let describe = |name: &str| Some(Meta::Describe(name.to_owned()));
        for (line, meta) in [
            ("\\dt", Some(Meta::Tables)),
            (" .tables ;", Some(Meta::Tables)),
            ("\\d", Some(Meta::Tables)),
            ("\\d devices", describe("devices")),
            (".schema public.devices", describe("devices")),
            ("\\q", Some(Meta::Quit)),
            ("exit;", Some(Meta::Quit)),
            ("\\?", Some(Meta::Help)),
            ("\\copy x", Some(Meta::Unknown("\\copy".into()))),
            ("SELECT 1;", None),
            ("exit now", None),
            ("", None),
        ] {
            assert_eq!(Meta::parse(line), meta, "{line}");
        }
        let odd = Meta::Describe("o'x".into());
        assert_eq!(
            odd.statement().unwrap(),
            "SELECT name AS \"column\", type FROM pragma_table_info('o''x')"
        );
    }
}
