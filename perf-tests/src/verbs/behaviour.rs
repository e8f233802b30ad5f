//! Options for what clients do besides listening, and to whom is published.

use clap::{Args, ValueEnum};
use perf_tests::load::behaviour::{Acknowledging, Behaviour, Churn, Goodbye, Ramp, SlowReaders, Storm};
use perf_tests::load::target::Target;

/// To whom messages go.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum PushTo {
    /// The rooms, in turn
    Rooms,
    /// Everybody at once
    Everybody,
    /// Clients by user id
    Mids,
    /// Clients by key; needs --own-keys
    Keys,
}

#[derive(Debug, Args)]
#[command(
    next_help_heading = "What clients do besides listening (a share is of all clients: 0.01 is one of a hundred)"
)]
pub(crate) struct BehaviourArguments {
    /// Connects per second in the end: a ramp that begins at --rate
    #[arg(long, value_name = "RATE", requires = "ramp_seconds")]
    ramp_to: Option<f64>,
    /// How long the ramp takes
    #[arg(long, value_name = "SECONDS", requires = "ramp_to")]
    ramp_seconds: Option<f64>,
    /// Share that reads nothing, but says that it is alive
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    stop_reading: f64,
    /// Share that reads --slow-bytes a second
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    slow: f64,
    /// Bytes a second that a slow client reads
    #[arg(long, value_name = "BYTES", default_value_t = 1000)]
    slow_bytes: u32,
    /// Receive buffer of those who read slowly or nothing; 0 leaves it to the kernel
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    slow_buffer: usize,
    /// Share that neither reads, nor sends heartbeats, nor closes
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    silent: f64,
    /// Share that vanishes without a FIN (needs CAP_NET_ADMIN)
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    vanish: f64,
    /// Share of the server's segments that is lost on the way, so that it repeats them (--engine xdp)
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    ack_loss: f64,
    /// Milliseconds later that what comes is acknowledged (--engine xdp)
    #[arg(long, value_name = "MS", default_value_t = 0)]
    ack_delay: u32,
    /// Seconds, after the last message, to wait for the server to close those who do not read or are silent
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0)]
    closes_within: f64,
    /// Clients a second that say goodbye and come back under the same number
    #[arg(long, value_name = "RATE", default_value_t = 0.0)]
    churn: f64,
    /// Share that says goodbye at once and comes back at once
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    storm: f64,
    /// Seconds from the first message to the storm
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    storm_after: f64,
    /// How those who go say goodbye
    #[arg(long, value_enum, default_value_t = Goodbye::Orderly)]
    goodbye: Goodbye,
    /// Milliseconds that each of them is away
    #[arg(long, value_name = "MS", default_value_t = 0)]
    away_ms: u32,
    /// To whom messages go
    #[arg(long, value_enum, default_value = "rooms", help_heading = "To whom messages go")]
    push_to: PushTo,
    /// User ids, or keys, in one request
    #[arg(long, default_value_t = 1, help_heading = "To whom messages go")]
    each: u32,
    /// Connections a second that the edge serves of a push to everybody; 0 is as fast as it goes
    #[arg(long, default_value_t = 0, help_heading = "To whom messages go")]
    speed: u32,
    /// Gives each client a key: this and its number, from 0
    #[arg(long, value_name = "PREFIX", default_value = "", help_heading = "To whom messages go")]
    pub(crate) own_keys: String,
    /// Operations that clients accept outside their rooms [default: the one that is pushed, unless it goes to rooms]
    #[arg(long, value_delimiter = ',', help_heading = "To whom messages go")]
    accept: Vec<i32>,
}

impl BehaviourArguments {
    pub(crate) fn ramp(&self) -> Option<Ramp> {
        let (to_per_second, over_seconds) = self.ramp_to.zip(self.ramp_seconds)?;
        Some(Ramp { to_per_second, over_seconds })
    }

    pub(crate) fn behaviour(&self) -> Result<Behaviour, String> {
        let shares = [(self.stop_reading, 0), (self.slow, self.slow_bytes)];
        let (goodbye, away_ms) = (self.goodbye, self.away_ms);
        let storm_after = super::clients::seconds("--storm-after", self.storm_after)?;
        let closes_within = super::clients::seconds("--closes-within", self.closes_within)?;
        Ok(Behaviour {
            // What is no share is left in for the check to find.
            slow: shares
                .into_iter()
                .filter(|(share, _)| *share != 0.0)
                .map(|(share, bytes_per_second)| SlowReaders { share, bytes_per_second })
                .collect(),
            slow_buffer_bytes: self.slow_buffer,
            silent_share: self.silent,
            vanishing_share: self.vanish,
            acknowledging: Acknowledging { lost_share: self.ack_loss, delay_ms: self.ack_delay },
            churn: (self.churn != 0.0).then_some(Churn { per_second: self.churn, goodbye, away_ms }),
            storm: (self.storm != 0.0).then_some(Storm {
                after_ms: storm_after.as_millis() as u32,
                share: self.storm,
                goodbye,
                away_ms,
            }),
            closes_within_ms: closes_within.as_millis() as u32,
        })
    }

    pub(crate) fn target(&self) -> Target {
        match self.push_to {
            PushTo::Rooms => Target::Rooms,
            PushTo::Everybody => Target::Everybody { speed: self.speed },
            PushTo::Mids => Target::Mids { each: self.each },
            PushTo::Keys => Target::Keys { each: self.each },
        }
    }

    /// Operations that clients accept when `operation` is pushed.
    pub(crate) fn accepts(&self, operation: i32) -> Vec<i32> {
        match (self.accept.is_empty(), self.push_to) {
            (false, _) => self.accept.clone(),
            (true, PushTo::Rooms) => Vec::new(),
            (true, _) => vec![operation],
        }
    }
}
