//! What is seen while a run is under way: a bar on a terminal, a line every few seconds elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::engine::Gauges;

/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// The parts of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Clients connect and join.
    Build,
    /// Messages are published and heard, or only heard.
    Listen,
    /// The last messages come in.
    Settle,
}

/// How far a run has come.
#[derive(Debug, Clone, Copy)]
pub struct View {
    /// The part that it is in.
    pub step: Step,
    /// The engine's gauges.
    pub gauges: Gauges,
    /// Of `total`: clients while building, then messages heard.
    pub done: u64,
    /// What `done` will be in the end, as far as is known.
    pub total: u64,
    /// `done` per second, lately.
    pub per_second: f64,
}

/// Looks on. Called about ten times a second.
pub trait Watch {
    /// How it stands.
    fn look(&mut self, view: &View);
}

/// Looks away.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unwatched;

impl Watch for Unwatched {
    fn look(&mut self, _: &View) {}
}

/// A progress bar on stderr if it is a terminal, else plain lines there.
#[derive(Debug)]
pub struct Display {
    bar: Option<ProgressBar>,
    shown: Option<(Step, Instant)>,
}

impl Default for Display {
    fn default() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{prefix:9} [{bar:32}] {pos}/{len} {msg}")
                .expect("the template above names only keys that indicatif knows");
            ProgressBar::new(0).with_style(style.progress_chars("=> "))
        });
        Self { bar, shown: None }
    }
}

impl Watch for Display {
    fn look(&mut self, view: &View) {
        let name = match view.step {
            Step::Build => "joining",
            Step::Listen => "listening",
            Step::Settle => "settling",
        };
        let Gauges { joined, failed, closed, faults, .. } = view.gauges;
        let troubles: String = [(failed, "refused"), (closed, "closed"), (faults, "faults")]
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!(", {count} {what}"))
            .collect();
        let message = format!("{:.0}/s, {joined} clients{troubles}", view.per_second);
        if let Some(bar) = &self.bar {
            bar.set_prefix(name);
            bar.set_length(view.total.max(view.done));
            bar.set_position(view.done);
            bar.set_message(message);
            return;
        }
        let now = Instant::now();
        if self.shown.is_none_or(|(step, at)| step != view.step || now - at >= LINE_EVERY) {
            self.shown = Some((view.step, now));
            eprintln!("{name}: {} of {}, {message}", view.done, view.total);
        }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
