//! What is seen while a sign-off is under way: a bar on a terminal, a line now and then elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::plot::short;
use crate::load::watch::{Step, View};

/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// See the module. It writes to stderr.
#[derive(Debug)]
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    /// Phases that are to be run, in all repeats, those of the floor with them.
    phases: usize,
    begun: usize,
    name: String,
    shown: Option<Instant>,
}

impl Progress {
    pub(super) fn new(phases: usize) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{prefix} [{bar:24}] {pos}/{len} {msg}")
                .expect("the template above names only keys that indicatif knows");
            ProgressBar::new(0).with_style(style.progress_chars("=> "))
        });
        Self { bar, phases, begun: 0, name: String::new(), shown: None }
    }

    /// A phase begins.
    pub(super) fn begin(&mut self, name: &str, repeat: u64) {
        self.begun += 1;
        self.name = format!("phase {} of {}, repeat {repeat}: {name}", self.begun, self.phases);
        self.shown = None;
        match &self.bar {
            Some(bar) => bar.set_prefix(self.name.clone()),
            None => eprintln!("{}", self.name),
        }
    }

    /// How it stands.
    pub(super) fn look(&mut self, view: &View) {
        let step = match view.step {
            Step::Build => "joining",
            Step::Listen => "listening",
            Step::Settle => "settling",
        };
        let message = format!("{step}, {}/s, {} clients", short(view.per_second), view.gauges.present);
        if let Some(bar) = &self.bar {
            bar.set_length(view.total.max(view.done));
            bar.set_position(view.done);
            bar.set_message(message);
            return;
        }
        let now = Instant::now();
        match self.shown {
            None => self.shown = Some(now),
            Some(at) if now - at >= LINE_EVERY => {
                self.shown = Some(now);
                eprintln!("  {} of {}, {message}", view.done, view.total);
            }
            Some(_) => {}
        }
    }

    /// Something went wrong that people should see at once.
    pub(super) fn trouble(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => eprintln!("  {text}"),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
