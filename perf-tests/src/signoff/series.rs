//! What is kept over time, within a bound: the longer the run, the coarser.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Points kept. With as many, every second one goes, and from then on half as many come.
const MAX_POINTS: usize = 4096;

/// How things stood at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Since the sign-off began.
    pub at_seconds: f64,
    /// CPU of each process since the last point, 1 being a whole core.
    pub cpu_cores: BTreeMap<String, f64>,
    /// Resident memory of each process.
    pub rss_mb: BTreeMap<String, f64>,
    /// Memory in the host's slab caches.
    pub slab_mb: f64,
    /// Memory that the host's TCP holds for buffers.
    pub tcp_memory_mb: f64,
    /// Clients that are in.
    pub connections: f64,
    /// Messages that clients received, per second since the last point.
    pub delivered_per_second: f64,
    /// Segments sent again, per second since the last point.
    pub retransmits_per_second: f64,
}

/// Points in the order of time.
#[derive(Debug)]
pub struct Series {
    points: Vec<Point>,
    /// Time between two points.
    every_seconds: f64,
}

impl Series {
    /// With a point every so many seconds to begin with.
    #[must_use]
    pub fn new(every_seconds: f64) -> Self {
        Self { points: Vec::new(), every_seconds }
    }

    /// Whether it is time for a point.
    #[must_use]
    pub fn is_due(&self, at_seconds: f64) -> bool {
        self.points.last().is_none_or(|last| at_seconds - last.at_seconds >= self.every_seconds)
    }

    /// One more.
    pub fn push(&mut self, point: Point) {
        self.points.push(point);
        if self.points.len() >= MAX_POINTS {
            let mut keep = false;
            self.points.retain(|_| {
                keep = !keep;
                keep
            });
            self.every_seconds *= 2.0;
        }
    }

    /// All of them.
    #[must_use]
    pub fn into_points(self) -> Vec<Point> {
        self.points
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_it_runs_the_coarser_it_gets() {
        let mut series = Series::new(1.0);
        let mut taken = 0;
        for second in 0..100_000 {
            let at_seconds = f64::from(second);
            if series.is_due(at_seconds) {
                series.push(Point { at_seconds, ..Point::default() });
                taken += 1;
            }
        }
        let points = series.into_points();
        assert!(points.len() < MAX_POINTS && points.len() >= MAX_POINTS / 4, "{}", points.len());
        assert!(taken < 20_000, "it stops taking what it would throw away: {taken}");
        assert!(points.windows(2).all(|pair| pair[0].at_seconds < pair[1].at_seconds));
        assert!(points.last().unwrap().at_seconds > 99_000.0, "it goes to the end");
    }
}
