//! One client in a room: what it hears, and what it says when it talks.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use perf_tests::probe::daemons::Stack;
use perf_tests::probe::{AuthRequest, Packet, Probe, ProbeError, Transport};

use super::account::{Account, Fate, Name};
use super::{DONE_WITHIN, FIRST_END, HEARD_WITHIN, LAST_END, Progress, body, read_body};

/// The least that a talker waits between two messages: it is a person, not a load generator.
const PAUSE: Duration = Duration::from_millis(2);

/// What a member needs of its probe, whatever transport that has.
pub(super) trait Client: Send {
    fn send_message(&mut self, body: &[u8]) -> Result<Packet, ProbeError>;
    fn recv_push(&mut self, within: Duration) -> Result<Packet, ProbeError>;
}

impl<T: Transport + Send> Client for Probe<T> {
    fn send_message(&mut self, body: &[u8]) -> Result<Packet, ProbeError> {
        Probe::send_message(self, body)
    }

    fn recv_push(&mut self, within: Duration) -> Result<Packet, ProbeError> {
        Probe::recv_push(self, within)
    }
}

/// A client that the edge has let in.
pub(crate) struct Member {
    pub(super) name: String,
    pub(super) room: String,
    pub(super) client: Box<dyn Client>,
    /// Its name as a sender, when it talks.
    pub(super) talks_as: Option<String>,
}

/// What it came to.
pub(super) struct Attendance {
    pub(super) name: String,
    pub(super) room: String,
    pub(super) heard: Vec<Name>,
    pub(super) account: Account,
}

impl Member {
    /// A room's four kinds of member: both transports, both dialects. Those of the first two talk.
    pub(super) fn four(stack: &Stack, room: u32) -> [Self; 4] {
        let id = format!("live://{room}");
        let mid = i64::from(room) * 10;
        let goim = |kind: i64| AuthRequest::goim(mid + kind, &id);
        let bilibili = |kind: i64| AuthRequest::bilibili(mid + kind, u64::from(room));
        let row = |kind: &str, client: Box<dyn Client>, talks: bool| Self {
            name: kind.to_owned(),
            room: id.clone(),
            client,
            talks_as: talks.then(|| format!("t{room}-{kind}")),
        };
        let tcp = |request: AuthRequest| {
            let mut probe = stack.join_tcp(&request).expect("the edge lets a TCP client in");
            probe.set_patience(DONE_WITHIN);
            Box::new(probe)
        };
        let websocket = |request: AuthRequest| {
            let mut probe = stack.join_ws(&request).expect("the edge lets a WebSocket client in");
            probe.set_patience(DONE_WITHIN);
            Box::new(probe)
        };
        [
            row("goim-on-tcp", tcp(goim(1)), true),
            row("bilibili-on-websocket", websocket(bilibili(2)), true),
            row("goim-on-websocket", websocket(goim(3)), false),
            row("bilibili-on-tcp", tcp(bilibili(4)), false),
        ]
    }

    /// Talks, if it does, until the publishers are done; then listens to the end.
    pub(super) fn attend(mut self, progress: &Progress) -> Attendance {
        let mut account = Account::default();
        if let Some(sender) = self.talks_as.clone() {
            self.talk(&sender, progress, &mut account);
            progress.talking.fetch_sub(1, Ordering::AcqRel);
        }
        let heard = self.listen();
        Attendance { name: self.name, room: self.room, heard, account }
    }

    fn talk(&mut self, sender: &str, progress: &Progress, account: &mut Account) {
        let mut number = 0;
        while !progress.is_published() {
            let began = Instant::now();
            let fate = match self.client.send_message(&body(sender, number)) {
                Ok(_) => Fate::Accepted,
                Err(ProbeError::Refused { .. }) => Fate::Refused,
                // Its connection to the edge was never touched: it is due an answer, however late.
                Err(error) => panic!("{sender} got no answer to its message {number}: {error}"),
            };
            account.enter(&self.room, sender, number, fate);
            progress.chats.fetch_add(usize::from(fate == Fate::Accepted), Ordering::Relaxed);
            number += 1;
            std::thread::sleep(PAUSE.saturating_sub(began.elapsed()));
        }
    }

    /// Everything up to the room's second end: a copy that comes late still comes between the two.
    fn listen(&mut self) -> Vec<Name> {
        let mut heard = Vec::new();
        loop {
            let push = match self.client.recv_push(HEARD_WITHIN) {
                Ok(push) => push,
                Err(error) => panic!("{}, {}: after {} messages: {error}", self.room, self.name, heard.len()),
            };
            match push.text().as_str() {
                FIRST_END => {}
                LAST_END => return heard,
                text => heard.push(read_body(text)),
            }
        }
    }
}
