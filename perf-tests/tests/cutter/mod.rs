//! A TCP proxy on loopback that breaks what it carries: cuts in the middle of a frame, or lets nothing through.
//!
//! It knows nothing of frames, which is the point: a cut falls wherever the count of bytes says.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::SockRef;

/// Small, so that a cut finds frames half delivered rather than at their edges.
const CHUNK_BYTES: usize = 1_000;

/// How long the far end may take to be there. A tier that was just killed refuses at once.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// The proxy. Dropping it cuts everything and ends its threads.
pub(crate) struct Cutter {
    address: SocketAddr,
    state: Arc<State>,
    acceptor: Option<JoinHandle<()>>,
}

struct State {
    upstream: SocketAddr,
    flow: Mutex<Flow>,
    flow_changed: Condvar,
    /// Links that were opened so far.
    opened: AtomicUsize,
    /// Links that were cut so far.
    cut: AtomicUsize,
    ending: AtomicBool,
}

#[derive(Default)]
struct Flow {
    stalled: bool,
    /// Bytes that may still pass before the next cut; none: no cut is due.
    before_cut: Option<usize>,
    links: Vec<Link>,
}

/// Both sockets of one connection that is carried.
struct Link(TcpStream, TcpStream);

impl Link {
    fn cut(&self) {
        for socket in [&self.0, &self.1] {
            // A reset when the last handle goes, as from a host that is gone; the shutdown wakes who reads or writes.
            let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Cutter {
    /// A proxy on a free port before `upstream`.
    pub(crate) fn before(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind((upstream.ip(), 0)).expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let state = Arc::new(State {
            upstream,
            flow: Mutex::default(),
            flow_changed: Condvar::new(),
            opened: AtomicUsize::new(0),
            cut: AtomicUsize::new(0),
            ending: AtomicBool::new(false),
        });
        let acceptor = thread::spawn({
            let state = Arc::clone(&state);
            move || state.accept(&listener)
        });
        Self { address, state, acceptor: Some(acceptor) }
    }

    /// Where to dial instead of the upstream.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets `bytes` more pass, both ways together, and then resets every connection.
    pub(crate) fn cut_after(&self, bytes: usize) {
        self.state.flow().before_cut = Some(bytes);
    }

    /// Lets nothing through any more; connections are still taken, as a network that loses every packet after the
    /// handshake would.
    pub(crate) fn stall(&self) {
        self.state.flow().stalled = true;
    }

    /// Lets everything through again, what was held back first.
    pub(crate) fn heal(&self) {
        self.state.flow().stalled = false;
        self.state.flow_changed.notify_all();
    }

    /// Connections carried so far.
    pub(crate) fn opened(&self) -> usize {
        self.state.opened.load(Ordering::Relaxed)
    }

    /// Cuts so far.
    pub(crate) fn cuts(&self) -> usize {
        self.state.cut.load(Ordering::Relaxed)
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.state.ending.store(true, Ordering::Relaxed);
        self.heal();
        self.state.cut_all(&mut self.state.flow());
        // Wakes the acceptor, which then sees that it shall end.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl State {
    fn flow(&self) -> MutexGuard<'_, Flow> {
        self.flow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(self: Arc<Self>, listener: &TcpListener) {
        for near in listener.incoming() {
            if self.ending.load(Ordering::Relaxed) {
                return;
            }
            let Ok(near) = near else { continue };
            // A far end that is not there: the near end sees its connection go, as it would without the proxy.
            let Ok(far) = TcpStream::connect_timeout(&self.upstream, CONNECT_WITHIN) else { continue };
            let _ = (near.set_nodelay(true), far.set_nodelay(true));
            let handles = (near.try_clone(), far.try_clone(), near.try_clone(), far.try_clone());
            let (Ok(near_to), Ok(far_to), Ok(near_held), Ok(far_held)) = handles else { continue };
            self.flow().links.push(Link(near_held, far_held));
            self.opened.fetch_add(1, Ordering::Relaxed);
            for (from, to) in [(near, far_to), (far, near_to)] {
                let state = Arc::clone(&self);
                // Ends with its connection, which ends with the proxy.
                thread::spawn(move || state.pump(from, to));
            }
        }
    }

    /// Carries one direction until either end is gone, and takes the other end with it.
    fn pump(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut chunk = [0; CHUNK_BYTES];
        loop {
            let read = match from.read(&mut chunk) {
                Ok(0) | Err(_) => break,
                Ok(read) => read,
            };
            let (passes, cut) = self.admit(read);
            if to.write_all(&chunk[..passes]).is_err() {
                break;
            }
            if cut {
                self.cut_all(&mut self.flow());
                return;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }

    /// How much of `bytes` may pass, and whether the cut comes behind it. Waits while nothing may.
    fn admit(&self, bytes: usize) -> (usize, bool) {
        let mut flow = self.flow();
        while flow.stalled {
            flow = self.flow_changed.wait(flow).unwrap_or_else(PoisonError::into_inner);
        }
        let Some(left) = flow.before_cut else { return (bytes, false) };
        if left > bytes {
            flow.before_cut = Some(left - bytes);
            return (bytes, false);
        }
        flow.before_cut = None;
        (left, true)
    }

    fn cut_all(&self, flow: &mut Flow) {
        for link in flow.links.drain(..) {
            link.cut();
        }
        self.cut.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn it_carries_cuts_in_the_middle_and_stalls() {
    let server = TcpListener::bind("127.0.0.1:0").expect("a port");
    let cutter = Cutter::before(server.local_addr().expect("an address"));
    let connect = || {
        let near = TcpStream::connect(cutter.address()).expect("the proxy listens");
        near.set_read_timeout(Some(Duration::from_secs(10))).expect("a deadline");
        (near, server.accept().expect("the proxy dials").0)
    };

    let (mut near, mut far) = connect();
    far.write_all(&[7; 5_000]).expect("carried");
    near.read_exact(&mut [0; 5_000]).expect("carried");
    cutter.cut_after(1_234);
    far.write_all(&[8; 5_000]).expect("carried, so far as the near end can see");
    let mut before_the_cut = Vec::new();
    let _ = near.read_to_end(&mut before_the_cut);
    assert!(before_the_cut.len() <= 1_234, "{} bytes came through", before_the_cut.len());

    let (mut near, mut far) = connect();
    cutter.stall();
    far.write_all(b"held back").expect("the kernel takes it");
    near.set_nonblocking(true).expect("set");
    let deadline = Instant::now() + Duration::from_millis(100);
    while Instant::now() < deadline {
        assert!(near.read(&mut [0; 16]).is_err(), "nothing passes a stalled link");
        thread::yield_now();
    }
    near.set_nonblocking(false).expect("set");
    cutter.heal();
    near.read_exact(&mut [0; 9]).expect("what was held back comes");
    assert_eq!((cutter.opened(), cutter.cuts()), (2, 1));
}
