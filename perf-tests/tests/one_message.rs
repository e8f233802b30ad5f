//! One message, posted once, is heard by every kind of client there is: plain TCP, WebSocket, a third-party library in
//! every body format that it takes, and the live page in a real browser. And one typed into the page is heard by them.
//!
//! `PUSH_SCREENSHOTS=DIR` has the page's pictures taken as well, with a lively room on them.
#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

mod browser;
mod missing_part;
mod peers;

use std::path::Path;
use std::time::Duration;

use browser::Browser;
use missing_part::{Kind, or_skip};
use peers::{Bilibili, Peer};
use perf_tests::probe::AuthRequest;
use perf_tests::probe::daemons::{Stack, StackOptions};
use perf_tests::probe::publisher::Publisher;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(30);
const ROOM: u64 = 1000;

#[test]
fn one_message_is_heard_by_every_kind_of_client_and_the_page_is_heard_by_them() {
    let Some(folder) = or_skip(Kind::Peers, "one_message", peers::install()) else { return };
    let Some(browser) = or_skip(Kind::Peers, "one_message", Browser::open()) else { return };
    // The name is on the page, and so in its pictures.
    let push_daemon_toml = "[node]\nname = \"edge-1\"\n".to_owned();
    let stack = Stack::start_with(&StackOptions { push_daemon_toml, ..StackOptions::default() }).unwrap();
    let addresses = *stack.addresses();

    let mut tcp = stack.join_tcp(&AuthRequest::goim(1, "live://1000")).unwrap();
    let mut websocket = stack.join_ws(&AuthRequest::goim(2, "live://1000")).unwrap();
    let over_websocket = (0..=3).map(|protover| ("ws", addresses.websocket, protover));
    let mut libraries: Vec<Peer> = over_websocket
        .chain([("tcp", addresses.tcp, 0)])
        .map(|(transport, edge, protover)| Bilibili { transport, edge, room: ROOM, protover })
        .map(|settings| Peer::bilibili(&folder, settings))
        .collect();
    for library in &mut libraries {
        library.wait_for("live", SOON, |_| true);
    }
    browser.go(&format!("http://{}/?room=live://{ROOM}&name=grace", addresses.admin));
    browser.wait_for("state", SOON, |state| state == ["in the room"]);
    browser.wait_for("online", SOON, |online| online == ["8"]);

    // From a publisher to everybody.
    let message = json!({ "cmd": "DANMU_MSG", "user": "ada", "text": "hello, every kind of client — 你好" });
    assert!(stack.publisher().push_room(1000, "live", "1000", message.to_string().as_bytes()).unwrap().is_accepted());
    for push in [tcp.recv_push(SOON).unwrap(), websocket.recv_push(SOON).unwrap()] {
        assert_eq!((push.operation, &push.body), (1000, &message.to_string().into_bytes()));
    }
    for library in &mut libraries {
        assert_eq!(library.wait_for("DANMU_MSG", SOON, |_| true), message, "{}", library.name);
    }
    browser.wait_for("text", SOON, |texts| texts == [message["text"].as_str().unwrap()]);

    // From the page's keys to everybody, the page included.
    let typed = "typed with real keys";
    browser.press("input", typed);
    browser.click("send");
    let is_typed = |body: &Value| body["user"] == "grace" && body["text"] == typed;
    for push in [tcp.recv_push(SOON).unwrap(), websocket.recv_push(SOON).unwrap()] {
        assert!(is_typed(&serde_json::from_slice(&push.body).unwrap()), "{}", push.text());
    }
    for library in &mut libraries {
        library.wait_for("DANMU_MSG", SOON, is_typed);
    }
    browser.wait_for("text", SOON, |texts| texts.len() == 2 && texts[1] == typed);

    // And from the library to everybody. It is the last message, so a second copy of an earlier one would be here.
    let answer = json!({ "cmd": "DANMU_MSG", "user": "lin", "text": "from the library" });
    libraries[0].send(&answer);
    for push in [tcp.recv_push(SOON).unwrap(), websocket.recv_push(SOON).unwrap()] {
        assert_eq!(push.text(), answer.to_string());
    }
    for library in &mut libraries {
        library.wait_for("DANMU_MSG", SOON, |body| *body == answer);
        assert_eq!(library.seen("DANMU_MSG", |_| true), 3, "{}: each came once", library.name);
    }
    browser.wait_for("text", SOON, |texts| texts.len() == 3);

    // The gauges say what the edge says.
    browser.wait_for("connections", SOON, |connections| connections == ["8"]);
    browser.wait_for("published", SOON, |published| published == ["3"]);
    browser.wait_for("delivered", SOON, |delivered| delivered == ["24"]);
    browser.wait_for("drops", SOON, |drops| drops == ["0"]);
    browser.wait_for("shards", SOON, |shards| shards[0].contains("shard 0") && shards[0].contains(" conn"));
    browser.wait_for("trunk", SOON, |lines| lines[0].contains("line A") && lines[0].contains("up"));
    browser.wait_for("kernel", SOON, |kernel| kernel[0].contains("no kernel plane"));

    // On a phone nothing sticks out at the side, and what one types with is there.
    browser.resize(390, 844, true);
    assert_eq!(browser.sticks_out(), Vec::<String>::new());
    browser.press("input", "typed with a thumb");
    browser.click("send");
    browser.wait_for("text", SOON, |texts| texts.len() == 4 && texts[3] == "typed with a thumb");
    assert_eq!(browser.complaints(), [""; 0], "the page's console");

    if let Some(directory) = std::env::var_os("PUSH_SCREENSHOTS") {
        take_pictures(&browser, &stack.publisher(), Path::new(&directory));
    }
}

/// What a room looks like on a good evening.
const EVENING: [(i32, &str, &str); 16] = [
    (1002, "house", "The encore starts at nine"),
    (1000, "mira", "made it just in time!"),
    (1000, "tomasz", "sound is great tonight"),
    (1000, "小雨", "晚上好，大家"),
    (1001, "jonas", "sent a rocket"),
    (1000, "priya", "that intro gives me chills"),
    (1000, "kofi", "hello from Accra"),
    (1000, "léa", "encore une fois !"),
    (1000, "yuki", "ギターの音がきれい"),
    (1000, "sam", "who is on drums?"),
    (1001, "ines", "sent a bouquet"),
    (1000, "omar", "same seat as last year"),
    (1000, "nora", "louder at the back, please"),
    (1000, "bo", "this one is my favourite"),
    (1000, "zofia", "waving from the balcony"),
    (1000, "dev", "turn it up!"),
];

fn take_pictures(browser: &Browser, publisher: &Publisher, directory: &Path) {
    std::fs::create_dir_all(directory).unwrap();
    for (name, width, height, mobile) in [("page.png", 1280, 800, false), ("page-phone.png", 390, 844, true)] {
        browser.resize(width, height, mobile);
        let before = browser.texts("entry").len();
        for (operation, user, text) in EVENING {
            let body = json!({ "cmd": "DANMU_MSG", "user": user, "text": text });
            let answer = publisher.push_room(operation, "live", "1000", body.to_string().as_bytes()).unwrap();
            assert!(answer.is_accepted());
            // One after another, as people type, so that the stage is filled and not flooded.
            std::thread::sleep(Duration::from_millis(250));
        }
        browser.wait_for("entry", SOON, |entries| entries.len() >= before + EVENING.len());
        let picture = browser.screenshot();
        assert!(picture.starts_with(b"\x89PNG"));
        std::fs::write(directory.join(name), picture).unwrap();
    }
}
