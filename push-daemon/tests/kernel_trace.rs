//! The programs' own log: off unless it is asked for, and then a line per verdict.
#![allow(clippy::unwrap_used)] // A test that fails by panicking has said what it had to say, its helpers included.

mod filter_under_test;
mod netns;
mod packets;

use std::sync::Mutex;

use filter_under_test::FilterUnderTest;
use netns::eventually;
use packets::tcp;

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Keep;

impl log::Log for Keep {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        // The loader logs too.
        let line = format!("{} {}", record.level(), record.args());
        if line.contains("reason ") {
            LINES.lock().unwrap().push(line);
        }
    }

    fn flush(&self) {}
}

#[test]
fn a_verdict_is_logged_when_asked_for_and_only_then() {
    log::set_logger(&Keep).unwrap();
    log::set_max_level(log::LevelFilter::Debug);
    let judge = |trace: bool| {
        let mut filter = FilterUnderTest::bring_up_with(|config| config.trace = trace)?;
        filter.set_rules(&["deny 203.0.113.0/24"]);
        filter.judge(&tcp("203.0.113.9:4000 > 10.0.0.1:3101").build());
        filter.judge(&tcp("[2001:db8::9]:4000 > [2001:db8:ffff::1]:22").build());
        if trace {
            let has = |line: &str| LINES.lock().unwrap().iter().any(|logged| logged == line);
            eventually("both are logged", || {
                has("DEBUG reason 6: 203.0.113.9 to port 3101, flags 2, 54 bytes")
                    && has("DEBUG reason 1: 2001:db8::9 to port 22, flags 2, 74 bytes")
            });
        }
        Some(())
    };
    if judge(false).is_none() {
        return;
    }
    assert_eq!(*LINES.lock().unwrap(), Vec::<String>::new());
    judge(true).unwrap();
}
