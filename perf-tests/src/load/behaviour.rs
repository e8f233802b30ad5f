//! What clients do besides listening: come in a ramp, go and come back, read slowly or not at all, fall silent.
//!
//! An [`Order`] tells a running engine that some of its clients shall behave so from now on. A [`Behaviour`] is what a
//! scenario asks for from the start: it is put into orders once everybody has joined, so that there is one way only.
//!
//! A share is of all clients, to the nearest client. Who is picked is spread evenly over threads and rooms and is the same in every run;
//! only those who are joined and behave well are picked, and each order goes on where the last one ended, so that two
//! orders pick different clients while there are any.

use serde::{Deserialize, Serialize};

use super::scenario::ScenarioError;

/// How a client ends its connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Goodbye {
    /// In order: a close frame on WebSocket, then the end of the stream, then reading until the server has closed.
    #[default]
    Orderly,
    /// With a reset, as from a phone that lost its network and its application.
    Reset,
    /// The one and the other in turn.
    Mixed,
}

/// What some clients of an engine shall do from now on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Reads nothing any more, but goes on to say that it is alive.
    StopReading {
        /// Of all clients, 0 to 1.
        share: f64,
    },
    /// Reads so many bytes a second and no more.
    ReadSlowly {
        /// Of all clients, 0 to 1.
        share: f64,
        /// Of each of them.
        bytes_per_second: u32,
    },
    /// Neither reads, nor says that it is alive, nor closes.
    GoSilent {
        /// Of all clients, 0 to 1.
        share: f64,
    },
    /// Is gone without a word to the server, not even a FIN (`TCP_REPAIR`: needs `CAP_NET_ADMIN`). It does not come back.
    Vanish {
        /// Of all clients, 0 to 1.
        share: f64,
    },
    /// Whoever stopped reading, reads slowly or is silent behaves again. It is owed messages from the next phase on.
    Resume,
    /// So many clients a second, one after another, say goodbye and come back. A rate of 0 ends it.
    Churn {
        /// Goodbyes a second, over all threads.
        per_second: f64,
        /// How they say it.
        goodbye: Goodbye,
        /// How long each is away.
        away_ms: u32,
    },
    /// All of these say goodbye at once and come back at once: a storm.
    Reconnect {
        /// Of all clients, 0 to 1.
        share: f64,
        /// How they say goodbye.
        goodbye: Goodbye,
        /// How long they are away.
        away_ms: u32,
    },
    /// Says goodbye and stays away.
    Leave {
        /// Of all clients, 0 to 1.
        share: f64,
        /// How they say it.
        goodbye: Goodbye,
    },
    /// Whoever joined once and has no connection (closed by the server, left, vanished) comes back, at the pace of the scenario.
    ComeBack,
}

/// An order with its time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TimedOrder {
    /// Since the phase began.
    pub after_ms: u32,
    /// What to do then.
    pub order: Order,
}

/// A rate of connects that rises, or falls, evenly and then stays.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Ramp {
    /// Connects a second in the end. It begins at the scenario's `connects_per_second`.
    pub to_per_second: f64,
    /// How long it takes to get there.
    pub over_seconds: f64,
}

impl Ramp {
    /// Connects that may have been begun `seconds` after the first, when it starts at `from` a second: the area under
    /// the rate.
    #[must_use]
    pub fn begun_by(&self, from: f64, seconds: f64) -> f64 {
        let rising = seconds.clamp(0.0, self.over_seconds);
        let slope = if self.over_seconds > 0.0 { (self.to_per_second - from) / self.over_seconds } else { 0.0 };
        from * rising + slope * rising * rising / 2.0 + self.to_per_second * (seconds - rising).max(0.0)
    }

    /// Seconds until `count` connects may have been begun; infinite when it never comes to that.
    #[must_use]
    pub fn seconds_for(&self, from: f64, count: f64) -> f64 {
        let in_ramp = self.begun_by(from, self.over_seconds);
        if count > in_ramp {
            return self.over_seconds + (count - in_ramp) / self.to_per_second;
        }
        // The smallest non-negative root of slope/2 t^2 + from t - count.
        let slope = (self.to_per_second - from) / self.over_seconds;
        if slope == 0.0 {
            return count / from;
        }
        ((from * from + 2.0 * slope * count).max(0.0).sqrt() - from) / slope
    }
}

/// Clients that read too slowly.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SlowReaders {
    /// Of all clients, 0 to 1.
    pub share: f64,
    /// Of each of them; 0 is to read nothing, for good.
    pub bytes_per_second: u32,
}

/// Clients that go and come back, one after another.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Churn {
    /// Goodbyes a second, over all threads.
    pub per_second: f64,
    /// How they say it.
    pub goodbye: Goodbye,
    /// How long each is away.
    pub away_ms: u32,
}

/// Clients that all go at once and come back at once.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Storm {
    /// Since the phase began.
    pub after_ms: u32,
    /// Of all clients, 0 to 1.
    pub share: f64,
    /// How they say goodbye.
    pub goodbye: Goodbye,
    /// How long they are away.
    pub away_ms: u32,
}

/// How what the server sends is acknowledged: at once and all of it by default. Only clients made of XDP can do it otherwise,
/// as the kernel acknowledges for a socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Acknowledging {
    /// This share of the segments with data is lost, unheard and unanswered, 0 to 1.
    pub lost_share: f64,
    /// How much later than it comes what came is acknowledged.
    pub delay_ms: u32,
}

/// What a scenario's clients do besides listening; nothing by default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Behaviour {
    /// Some read too slowly, or not at all.
    pub slow: Vec<SlowReaders>,
    /// `SO_RCVBUF` of a client from the moment that it is told not to read as it should, which the kernel doubles; 0 leaves
    /// it as it is. A small one brings the server's end under pressure sooner.
    pub slow_buffer_bytes: usize,
    /// This share neither reads, nor sends heartbeats, nor closes.
    pub silent_share: f64,
    /// This share is gone without a FIN.
    pub vanishing_share: f64,
    /// Some go and come back all the time.
    pub churn: Option<Churn>,
    /// Many go and come back at once.
    pub storm: Option<Storm>,
    /// How they acknowledge what comes.
    pub acknowledging: Acknowledging,
    /// How long, after the last message, to wait for the server to close those who do not read or are silent.
    pub closes_within_ms: u32,
}

impl Behaviour {
    /// As orders to an engine whose clients have joined.
    #[must_use]
    pub fn orders(&self) -> Vec<TimedOrder> {
        let mut orders = Vec::new();
        let mut at = |after_ms, order| orders.push(TimedOrder { after_ms, order });
        for &SlowReaders { share, bytes_per_second } in &self.slow {
            at(
                0,
                match bytes_per_second {
                    0 => Order::StopReading { share },
                    _ => Order::ReadSlowly { share, bytes_per_second },
                },
            );
        }
        if self.silent_share > 0.0 {
            at(0, Order::GoSilent { share: self.silent_share });
        }
        if self.vanishing_share > 0.0 {
            at(0, Order::Vanish { share: self.vanishing_share });
        }
        if let Some(Churn { per_second, goodbye, away_ms }) = self.churn {
            at(0, Order::Churn { per_second, goodbye, away_ms });
        }
        if let Some(Storm { after_ms, share, goodbye, away_ms }) = self.storm {
            at(after_ms, Order::Reconnect { share, goodbye, away_ms });
        }
        orders
    }

    /// # Errors
    /// When a share is none, or a rate.
    pub(super) fn check(&self) -> Result<(), ScenarioError> {
        let slow = self.slow.iter().map(|slow| ("the share of slow readers", slow.share));
        let storm = self.storm.iter().map(|storm| ("--storm", storm.share));
        let others = [
            ("--silent", self.silent_share),
            ("--vanish", self.vanishing_share),
            ("--ack-loss", self.acknowledging.lost_share),
        ];
        for (name, share) in slow.chain(storm).chain(others) {
            if !(0.0..=1.0).contains(&share) {
                return Err(ScenarioError::Share(name));
            }
        }
        match self.churn {
            Some(churn) if !(churn.per_second >= 0.0 && churn.per_second.is_finite()) => {
                Err(ScenarioError::Rate("--churn"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ramp_is_the_area_under_its_rate() {
        let rising = Ramp { to_per_second: 300.0, over_seconds: 10.0 };
        let falling = Ramp { to_per_second: 0.0, over_seconds: 10.0 };
        let sudden = Ramp { to_per_second: 50.0, over_seconds: 0.0 };
        let flat = Ramp { to_per_second: 100.0, over_seconds: 10.0 };
        for (name, ramp, from, seconds, begun) in [
            ("before it begins", rising, 100.0, 0.0, 0.0),
            ("half way: 100 a second rises to 200", rising, 100.0, 5.0, 750.0),
            ("at its end", rising, 100.0, 10.0, 2000.0),
            ("behind it", rising, 100.0, 12.0, 2600.0),
            ("from nothing", rising, 0.0, 10.0, 1500.0),
            ("to nothing", falling, 100.0, 20.0, 500.0),
            ("at once", sudden, 10.0, 2.0, 100.0),
            ("no ramp at all", flat, 100.0, 7.0, 700.0),
        ] {
            assert!((ramp.begun_by(from, seconds) - begun).abs() < 1e-6, "{name}: {}", ramp.begun_by(from, seconds));
            if begun > 0.0 && !(ramp == falling) {
                assert!((ramp.seconds_for(from, begun) - seconds).abs() < 1e-6, "{name}, backwards");
            }
        }
        assert_eq!(falling.seconds_for(100.0, 501.0), f64::INFINITY, "it never comes to that");
    }

    #[test]
    fn a_behaviour_becomes_orders() {
        let behaviour = Behaviour {
            slow: vec![
                SlowReaders { share: 0.1, bytes_per_second: 0 },
                SlowReaders { share: 0.2, bytes_per_second: 512 },
            ],
            silent_share: 0.01,
            storm: Some(Storm { after_ms: 700, share: 0.5, goodbye: Goodbye::Reset, away_ms: 5 }),
            ..Behaviour::default()
        };
        let orders: Vec<_> = behaviour.orders().into_iter().map(|timed| (timed.after_ms, timed.order)).collect();
        assert_eq!(
            orders,
            [
                (0, Order::StopReading { share: 0.1 }),
                (0, Order::ReadSlowly { share: 0.2, bytes_per_second: 512 }),
                (0, Order::GoSilent { share: 0.01 }),
                (700, Order::Reconnect { share: 0.5, goodbye: Goodbye::Reset, away_ms: 5 }),
            ]
        );
        assert_eq!(Behaviour::default().orders(), []);
        for share in [-0.1, 1.1, f64::NAN] {
            let wrong = Behaviour { silent_share: share, ..Behaviour::default() };
            assert_eq!(wrong.check(), Err(ScenarioError::Share("--silent")), "{share}");
        }
    }
}
