//! The pager of `walt help show`: a full screen with links and search.
//!
//! ```text
//! keys ──▶ view::View ──▶ a screen          pure: which page, where in it, what is selected
//! bytes, sizes ──▶ run ──▶ the terminal     raw mode and the alternate screen, restored in every case
//! ```
//! The mouse is not read, so that text can be selected. On the alternate screen, terminals send a turn of the wheel as
//! arrow keys (mode 1007 of xterm).

mod keys;
mod view;

use crate::{
    error::Failure,
    stdio::Input,
    terminal::{RawMode, window_size},
    ui::{self, Interrupt, Signals},
};
use std::io;
use tokio::signal::unix::{SignalKind, signal};
use view::View;

/// Alternate screen, the wheel as arrow keys, no cursor.
const BEGIN: &str = "\x1b[?1049h\x1b[?1007h\x1b[?25l";
/// The opposite.
const END: &str = "\x1b[?25h\x1b[?1007l\x1b[?1049l";

/// The screen of the pager; dropping it brings the former one back.
struct Screen {
    _raw: RawMode,
}

impl Screen {
    fn enter() -> io::Result<Self> {
        let raw = RawMode::enter()?;
        ui::out_text(BEGIN)?;
        Ok(Self { _raw: raw })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = ui::out_text(END);
    }
}

/// Shows a topic, and those that the user opens from there, until the user quits.
///
/// # Errors
/// The terminal cannot be used, or SIGTERM or SIGHUP.
pub async fn run(topic: &str) -> Result<(), Failure> {
    let mut input = Input::new();
    let mut signals = Signals::new()?;
    let mut resized = signal(SignalKind::window_change())?;
    let mut view = View::new(topic, window_size());
    let screen = Screen::enter()?;
    loop {
        ui::out_text(&view.screen())?;
        tokio::select! {
            bytes = input.bytes() => {
                let bytes = bytes?;
                // The end of the input is a terminal that is gone.
                if bytes.is_empty() || !keys::of(&bytes).into_iter().all(|key| view.key(key)) {
                    break;
                }
            }
            _ = resized.recv() => view.resize(window_size()),
            interrupt = signals.next() => {
                drop(screen);
                return match interrupt {
                    Interrupt::Interrupted => Ok(()),
                    other => Err(other.failure()),
                };
            }
        }
    }
    Ok(())
}
