//! `pushctl top`: what the kernel does right now, on a terminal.
//!
//! Two samples make a view: what moved between them, per second. The tables are read as any other verb reads them, so the daemon
//! need not run; without it, there are no shards to show.
//!
//! Layout: `view` from samples to rows · `draw` from rows to the screen · here: the terminal and its keys.

mod draw;
mod view;

use std::{
    io::{self, IsTerminal as _},
    path::Path,
    time::{Duration, Instant},
};

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use self::view::{Sample, View};
use super::{Answer, Failure};
use crate::kernel::Tables;

const EVERY: Duration = Duration::from_secs(1);

/// Shows the view until `q` or Ctrl-C.
pub(super) fn run(pin_root: &Path) -> Result<Answer, Failure> {
    if !io::stdout().is_terminal() {
        return Err(Failure::NoTerminal);
    }
    let tables = Tables::open(pin_root)?;
    let mut before = Sample::take(&tables, pin_root)?;
    let mut terminal = ratatui::try_init()?;
    let outcome = watch(&mut terminal, &tables, pin_root, &mut before);
    ratatui::try_restore()?;
    outcome.map(|()| Answer::already_given())
}

fn watch(
    terminal: &mut ratatui::DefaultTerminal,
    tables: &Tables,
    pin_root: &Path,
    before: &mut Sample,
) -> Result<(), Failure> {
    let mut view = View::between(before, before);
    loop {
        terminal.draw(|frame| draw::draw(frame, &view))?;
        let next = before.at + EVERY;
        while Instant::now() < next {
            let left = next.saturating_duration_since(Instant::now());
            if event::poll(left)? && ends(&event::read()?) {
                return Ok(());
            }
        }
        let now = Sample::take(tables, pin_root)?;
        view = View::between(before, &now);
        *before = now;
    }
}

fn ends(event: &Event) -> bool {
    let Event::Key(key) = event else { return false };
    let interrupted = key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c');
    key.kind == KeyEventKind::Press && (interrupted || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc))
}
