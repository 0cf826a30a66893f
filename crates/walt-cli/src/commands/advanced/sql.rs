//! `walt advanced sql`: a prompt for statements, on a terminal or from a pipe.
//!
//! ```text
//! line ──begins with \ or .──▶ Meta ──▶ a statement that lists tables or columns
//!   └───▶ Splitter ──`;`──▶ statement ──▶ server ──▶ table, JSON or an error
//! ```
//! An error does not end the prompt; it decides the exit status.

mod meta;
mod show;
mod split;

use crate::{
    context::Context,
    error::Failure,
    terminal::line::Editor,
    ui::{self, prompt::Answer},
};
use clap::Args;
use meta::Meta;
use split::Splitter;
use walt_api::sql::{ROWS_MAX, SqlResult};

/// The user who may change the database.
const ROOT: &str = "root";

/// `walt advanced sql`
#[derive(Debug, Args)]
pub struct Sql {
    /// print each result as JSON: a list of objects
    #[arg(long)]
    json: bool,
}

/// What the next line is.
enum Next {
    Line(String),
    /// ctrl-C: a new statement begins.
    Interrupted,
    End,
}

impl Sql {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let info = context.ui.watch(context.client.info()).await?;
        let is_root = info.user.as_str() == ROOT;
        if context.ui.interactive {
            ui::note(
                "Type \\dt for a list of tables, \\? for help, and \\q to quit. Statements end with ';'.",
            );
        }
        let (mut splitter, mut editor, mut failed) = (Splitter::default(), Editor::default(), false);
        loop {
            let prompt = prompt(is_root, splitter.is_empty());
            match next(context, &mut editor, &prompt).await? {
                Next::Interrupted => splitter = Splitter::default(),
                Next::End => break,
                Next::Line(line) => {
                    if splitter.is_empty()
                        && let Some(meta) = Meta::parse(&line)
                    {
                        match meta {
                            Meta::Quit => return done(failed),
                            meta => failed |= !self.meta(context, &meta).await?,
                        }
                        continue;
                    }
                    for statement in splitter.add(&line) {
                        failed |= !self.statement(context, &statement).await?;
                    }
                }
            }
        }
        // As psql does with the last statement of a file.
        if let Some(statement) = splitter.rest().filter(|_| !context.ui.interactive) {
            failed |= !self.statement(context, &statement).await?;
        }
        done(failed)
    }

    /// Runs a statement; false if it failed, and that is printed.
    async fn statement(&self, context: &mut Context, sql: &str) -> Result<bool, Failure> {
        let Some(result) = ask(context, sql).await? else { return Ok(false) };
        match self.json {
            true => ui::out_json(&show::objects(&result))?,
            false => ui::out_text(&show::table(&result))?,
        }
        if result.truncated {
            ui::note(&format!(
                "Note: there are more rows: at most {ROWS_MAX} rows and 4 MiB are given. Use LIMIT, or ask for less."
            ));
        }
        if result.changed.is_some_and(|rows| rows > 0) {
            ui::note(
                "Note: the server keeps some of this in memory, and reads the change when it starts again.",
            );
        }
        Ok(true)
    }

    async fn meta(&self, context: &mut Context, meta: &Meta) -> Result<bool, Failure> {
        let Some(sql) = meta.statement() else {
            ui::out_text(&meta.text())?;
            return Ok(!matches!(meta, Meta::Unknown(_)));
        };
        let Some(result) = ask(context, &sql).await? else { return Ok(false) };
        if let (Meta::Describe(name), true) = (meta, result.rows.is_empty()) {
            ui::note(&format!("Did not find any table named \"{name}\": \\dt lists them."));
            return Ok(false);
        }
        match self.json {
            true => ui::out_json(&show::objects(&result))?,
            false => ui::out_text(&(meta.text() + &show::table(&result)))?,
        }
        Ok(true)
    }
}

fn done(failed: bool) -> Result<(), Failure> {
    if failed { Err(Failure::Status(1)) } else { Ok(()) }
}

fn prompt(is_root: bool, is_first: bool) -> String {
    let (middle, end) = (if is_first { '=' } else { '-' }, if is_root { '#' } else { '>' });
    format!("walt{middle}{end} ")
}

/// The next line of the user, or of a pipe.
async fn next(context: &mut Context, editor: &mut Editor, prompt: &str) -> Result<Next, Failure> {
    if !context.ui.interactive {
        return Ok(context.ui.input.line().await?.map_or(Next::End, Next::Line));
    }
    Ok(match editor.read(&mut context.ui, prompt).await? {
        Answer::Line(line) => Next::Line(line),
        Answer::End => Next::End,
        Answer::Interrupted => Next::Interrupted,
        Answer::Terminated(number) => return Err(Failure::signal(number)),
    })
}

/// Asks the server. A statement that it refuses is none, and printed; the loss of the server ends the command.
async fn ask(context: &mut Context, sql: &str) -> Result<Option<SqlResult>, Failure> {
    match context.ui.watch(context.client.sql(sql)).await {
        Ok(result) => Ok(Some(result)),
        Err(Failure::Api(error)) => {
            let failure = Failure::Api(error);
            failure.report();
            Ok(None)
        }
        Err(other) => Err(other),
    }
}
