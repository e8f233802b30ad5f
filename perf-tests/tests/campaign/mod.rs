//! Numbered messages from many senders to many members, while something breaks.
//!
//! Publishers push over HTTP, some members talk over their own connections, and all members listen. Every sender keeps
//! an account of what was answered; at the end what every member heard is held against it: what was accepted is there
//! exactly once, what was not answered at most once, in the order of its sender, and all members of a room heard the
//! same.
//!
//! Layout: [`Campaign`] the run · `member` a client in a room · `account` what was sent and the verdict

pub(crate) mod account;
mod member;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use perf_tests::probe::daemons::Stack;
use perf_tests::probe::publisher::Publisher;

use account::{Account, Fate, Name, Totals};
use member::{Attendance, Member};

/// Before this everything is over, or it never will be.
pub(crate) const DONE_WITHIN: Duration = Duration::from_secs(120);

/// A member that hears nothing for this long has been forgotten: no fault here lasts nearly so long.
const HEARD_WITHIN: Duration = Duration::from_secs(45);

/// How long a publisher waits before it tries again what got no answer.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// How often progress is looked at by who waits for it.
const LOOK_EVERY: Duration = Duration::from_millis(1);

const OPERATION: i32 = 1000;
const FIRST_END: &str = "first end";
const LAST_END: &str = "last end";

/// About what a chat message has.
const PADDING: &str = "________________________________________________________________";

/// How large a campaign is.
pub(crate) struct Plan {
    /// Each has four members, two of which talk.
    pub(crate) rooms: u32,
    /// Threads that push, each over a connection of its own.
    pub(crate) publishers: usize,
    /// Pushes that shall be answered with code 0, over all publishers.
    pub(crate) pushes: usize,
}

/// How far a campaign is.
pub(crate) struct Progress {
    accepted: AtomicUsize,
    chats: AtomicUsize,
    talking: AtomicUsize,
    published: AtomicBool,
    deadline: Instant,
}

impl Progress {
    /// Waits until so many pushes were accepted.
    pub(crate) fn wait_for(&self, accepted: usize) {
        self.wait(&format!("{accepted} accepted pushes"), || self.accepted() >= accepted);
    }

    /// Pushes that were accepted so far.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Waits until `condition` holds.
    ///
    /// # Panics
    /// At the campaign's deadline.
    pub(crate) fn wait(&self, what: &str, mut condition: impl FnMut() -> bool) {
        while !condition() {
            assert!(
                Instant::now() < self.deadline,
                "waited for {what}, in vain: {} pushes were accepted, {} members still talk",
                self.accepted(),
                self.talking.load(Ordering::Relaxed)
            );
            thread::sleep(LOOK_EVERY);
        }
    }

    fn is_published(&self) -> bool {
        self.published.load(Ordering::Acquire)
    }
}

/// Members in their rooms, all let in, none spoken to yet.
pub(crate) struct Campaign {
    plan: Plan,
    http: SocketAddr,
    members: Vec<Member>,
}

impl Campaign {
    /// Fills the rooms.
    pub(crate) fn join(stack: &Stack, plan: Plan) -> Self {
        let members = (1..=plan.rooms).flat_map(|room| Member::four(stack, room)).collect();
        Self { plan, http: stack.addresses().http, members }
    }

    /// Runs it while `break_things` does, and says what came of it on standard error.
    ///
    /// # Panics
    /// When what a member heard is not what was accepted.
    pub(crate) fn run(self, title: &str, break_things: impl FnOnce(&Progress)) -> Totals {
        let Self { plan, http, members } = self;
        let began = Instant::now();
        let progress = Progress {
            accepted: AtomicUsize::new(0),
            chats: AtomicUsize::new(0),
            talking: AtomicUsize::new(members.iter().filter(|member| member.talks_as.is_some()).count()),
            published: AtomicBool::new(false),
            deadline: began + DONE_WITHIN,
        };
        let member_count = members.len();
        let (account, attendances) = thread::scope(|scope| {
            let progress = &progress;
            let members: Vec<_> =
                members.into_iter().map(|member| scope.spawn(move || member.attend(progress))).collect();
            let publishers: Vec<_> = (0..plan.publishers)
                .map(|number| {
                    let share = plan.pushes / plan.publishers + usize::from(number < plan.pushes % plan.publishers);
                    let rooms = plan.rooms;
                    scope.spawn(move || publish(http, &format!("p{number}"), share, rooms, progress))
                })
                .collect();
            break_things(progress);
            let mut account = Account::default();
            for publisher in publishers {
                account.merge(publisher.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
            progress.published.store(true, Ordering::Release);
            progress.wait("the last answer to a member", || progress.talking.load(Ordering::Acquire) == 0);
            end(http, plan.rooms, progress);
            let attendances: Vec<Attendance> = members
                .into_iter()
                .map(|member| member.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect();
            (account, attendances)
        });
        let totals = settle(account, attendances, plan.rooms);
        assert!(progress.accepted() >= plan.pushes, "the publishers gave up early");
        let chats = progress.chats.load(Ordering::Relaxed);
        eprintln!(
            "{title}: {} pushes and {chats} client messages accepted, {} got no answer ({} of them arrived), {} refused; \
             {member_count} members heard {} messages, none lost, none twice, in order, in {:.1} s",
            progress.accepted(),
            totals.unanswered,
            totals.unanswered_but_heard,
            totals.refused,
            totals.heard,
            began.elapsed().as_secs_f64()
        );
        totals
    }
}

/// Pushes until `share` were accepted. What got no answer is never sent again: the next number is.
fn publish(http: SocketAddr, sender: &str, share: usize, rooms: u32, progress: &Progress) -> Account {
    let publisher = Publisher::new(http);
    let mut account = Account::default();
    let (mut accepted, mut number) = (0, 0);
    while accepted < share {
        assert!(
            Instant::now() < progress.deadline,
            "{sender}: only {accepted} of {share} pushes were accepted in time"
        );
        let room = (number % rooms + 1).to_string();
        let fate = match publisher.push_room(OPERATION, "live", &room, &body(sender, number)) {
            Ok(answer) if answer.is_accepted() => Fate::Accepted,
            Ok(_) => Fate::Refused,
            Err(_) => Fate::Unanswered,
        };
        account.enter(&format!("live://{room}"), sender, number, fate);
        number += 1;
        if fate == Fate::Accepted {
            accepted += 1;
            progress.accepted.fetch_add(1, Ordering::Relaxed);
        } else {
            thread::sleep(RETRY_PAUSE);
        }
    }
    account
}

/// Marks the end of each room twice. Copies of a mark do no harm, so they are repeated until they are accepted.
fn end(http: SocketAddr, rooms: u32, progress: &Progress) {
    let publisher = Publisher::new(http);
    for mark in [FIRST_END, LAST_END] {
        for room in 1..=rooms {
            let push = || publisher.push_room(OPERATION, "live", &room.to_string(), mark.as_bytes());
            progress.wait("the end mark's acceptance", || push().is_ok_and(|answer| answer.is_accepted()));
        }
    }
}

fn settle(mut account: Account, attendances: Vec<Attendance>, rooms: u32) -> Totals {
    let mut heard: Vec<(String, (String, Vec<Name>))> = Vec::new();
    for attendance in attendances {
        account.merge(attendance.account);
        heard.push((attendance.room, (attendance.name, attendance.heard)));
    }
    let mut totals = Totals::default();
    for room in (1..=rooms).map(|room| format!("live://{room}")) {
        let (here, elsewhere) = heard.into_iter().partition(|(of, _)| *of == room);
        heard = elsewhere;
        let members: Vec<_> = here.into_iter().map(|(_, member)| member).collect();
        account.settle(&room, &members, &mut totals).unwrap_or_else(|what| panic!("{what}"));
    }
    totals
}

fn body(sender: &str, number: u32) -> Vec<u8> {
    format!("{sender} {number} {PADDING}").into_bytes()
}

fn read_body(text: &str) -> Name {
    let mut words = text.split(' ');
    match (words.next(), words.next().and_then(|number| number.parse().ok()), words.next()) {
        (Some(sender), Some(number), Some(PADDING)) => (sender.to_owned(), number),
        _ => panic!("a member heard what nobody sends: {text:?}"),
    }
}
