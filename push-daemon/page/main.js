// The live page: a chat room that speaks the daemon's protocol, and the appliance's gauges.
//
// This file only wires: the room's events to the stage, the log and the status line; the user's
// keys and clicks to the room.
//
// Layout: `packet` bytes · `room` the connection · `message` what a push says · `lanes`, `stage`
// what flies · `log` what was said · `outbox` our own messages · `publish` the curl line ·
// `stats`, `gauges` the appliance · `settings` what the browser remembers
//
// For tests: ?room= and ?name= preset the room and the name, ?ws= replaces the socket's address.

import { Gauges } from "./gauges.js";
import { Log } from "./log.js";
import { readMessage } from "./message.js";
import { Outbox } from "./outbox.js";
import { MAX_BODY_BYTES } from "./packet.js";
import { PublishBox, readRoom, splitRoom } from "./publish.js";
import { Room } from "./room.js";
import { recall, recallMid, recallRooms, remember, rememberRoom } from "./settings.js";
import { Stage } from "./stage.js";

const DEFAULT_WS_PORT = 3102;
const FIRST_READING_MS = 1500;
const OFFERED_ROOMS = ["live://1000", "live://2000", "live://3000"];
/** Remembered rooms that get a button; the one we are in always has one. */
const ROOM_CHIPS = 5;

const byId = (id) => document.getElementById(id);
const query = new URLSearchParams(location.search);
const utf8 = new TextEncoder();

let wsPort = DEFAULT_WS_PORT;
let shown = { phase: "closed", reason: "", retryAt: null, room: "", movingTo: null };
let malformedCount = 0;

const stage = new Stage({ sky: byId("sky"), quiet: byId("quiet"), skipped: byId("skipped") });
const log = new Log({ list: byId("log"), scroll: byId("scroll"), newer: byId("newer") });
const outbox = new Outbox(sayTrip);
const publish = new PublishBox({
  code: byId("curl"),
  copy: byId("copy"),
  radios: [...document.querySelectorAll("input[name=operation]")],
  host: location.hostname,
});
const gauges = new Gauges((stats) => (wsPort = stats.wsPort ?? wsPort));

const room = new Room(
  {
    open: (address) => new WebSocket(address),
    address: socketAddress,
    now: () => performance.now(),
    random: Math.random,
    after(ms, run) {
      const timer = setTimeout(run, ms);
      return () => clearTimeout(timer);
    },
  },
  {
    state: showState,
    online: showOnline,
    push: showPush,
    answered: (sequence, refusal) => outbox.answered(sequence, refusal),
    lost: () => outbox.lost(),
    moved(to) {
      rememberRoom(to);
      stage.clear();
      log.divide(`you are in ${to}`);
      speak(`You are in ${to}`);
    },
    moveFailed(reason) {
      byId("room").value = shown.room;
      sayTrip(`Still in ${shown.room}: ${reason}`, "bad");
    },
    malformed: showMalformed,
  },
  recallMid(),
  readRoom(query.get("room") ?? "") ?? readRoom(recall("room") ?? "") ?? OFFERED_ROOMS[0],
);

byId("name").value = query.get("name")?.slice(0, 32) ?? recall("name") ?? `guest-${Math.floor(Math.random() * 900 + 100)}`;

byId("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  sendTyped();
});
byId("name").addEventListener("change", (event) => remember("name", event.target.value.trim()));
byId("room-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const typed = readRoom(byId("room").value);
  byId("room").setAttribute("aria-invalid", String(typed === null));
  if (typed === null) {
    sayTrip("A room is named type://id, for example live://1000.", "bad");
  } else {
    goTo(typed);
  }
});
byId("link-button").addEventListener("click", () => {
  if (shown.phase === "joined" || shown.phase === "connecting") {
    room.leave();
  } else {
    room.enter();
  }
});
addEventListener("online", () => shown.phase === "waiting" && room.enter());
// A page that goes away leaves; one that comes back from the browser's cache enters again.
addEventListener("pagehide", () => room.leave());
addEventListener("pageshow", (event) => event.persisted && room.enter());
setInterval(() => shown.phase === "waiting" && showState(shown), 250);

// The first reading names the WebSocket port. Without one we soon try the usual port.
await Promise.race([gauges.start(), new Promise((resolve) => setTimeout(resolve, FIRST_READING_MS))]);
room.enter();

function socketAddress() {
  const given = query.get("ws");
  if (given !== null && /^wss?:\/\//.test(given)) {
    return given;
  }
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  return `${scheme}://${location.hostname || "127.0.0.1"}:${wsPort}/sub`;
}

function goTo(to) {
  if (to === shown.room && shown.movingTo === null && shown.phase === "joined") {
    return;
  }
  room.changeRoom(to);
  room.enter();
}

function sendTyped() {
  const input = byId("message");
  const text = input.value.trim();
  if (text === "") {
    return;
  }
  const id = crypto.getRandomValues(new Uint32Array(2)).join("-");
  const user = byId("name").value.trim() || "someone";
  // `cmd` is what Bilibili's client libraries sort messages by; some of them fail on one without it.
  const body = utf8.encode(JSON.stringify({ cmd: "DANMU_MSG", user, text, t: Date.now(), id }));
  if (body.byteLength > MAX_BODY_BYTES) {
    sayTrip(`Too long: ${body.byteLength} bytes, a message holds ${MAX_BODY_BYTES}.`, "bad");
    return;
  }
  const result = room.send(body);
  if (result.error !== undefined) {
    sayTrip(`Not sent: ${result.error}.`, "bad");
    return;
  }
  outbox.sent(id, result.sequence);
  remember("name", user);
  input.value = "";
  input.focus();
}

function showPush(operation, body) {
  const message = readMessage(operation, body);
  message.operation = operation;
  message.tripText = message.id === null ? null : outbox.seen(message.id);
  message.own = message.tripText !== null;
  message.hue = hueOf(message.user);
  const entry = log.add(message);
  stage.fly(message, entry.land);
}

function showState(state) {
  const before = shown;
  shown = state;
  const { phase, reason, retryAt, movingTo } = state;
  const text = {
    connecting: "connecting",
    joined: movingTo === null ? "in the room" : `moving to ${movingTo}`,
    refused: "refused",
    waiting: `reconnecting in ${Math.max(0, Math.ceil(((retryAt ?? 0) - performance.now()) / 1000))} s`,
    closed: "closed",
  }[phase];
  document.body.dataset.phase = phase;
  setText("state", text);
  setText("link-button", { joined: "Leave", connecting: "Stop", waiting: "Retry now", refused: "Try again", closed: "Join" }[phase]);
  setText("reason", phase === "refused" ? `The edge refused us: ${reason}` : reason);
  byId("reason").hidden = reason === "";
  byId("send").disabled = phase !== "joined";
  if (before.phase !== phase) {
    speak(reason === "" ? text : `${text}: ${reason}`);
    if (before.phase === "joined") {
      showOnline(null);
      log.divide(reason === "" ? `you left ${state.room}` : reason);
    }
    if (phase === "joined") {
      log.divide(`you are in ${state.room}`);
      rememberRoom(state.room);
    }
  }
  if (before.room !== state.room) {
    showRoom(state.room);
  }
}

function showRoom(id) {
  setText("where", id);
  byId("room").value = id;
  byId("room").removeAttribute("aria-invalid");
  publish.setRoom(id);
  document.title = `${splitRoom(id)[1]} · push-daemon`;
  const known = recallRooms(OFFERED_ROOMS);
  const near = [...new Set([...known.slice(0, ROOM_CHIPS), id])];
  byId("room-list").replaceChildren(...known.map((each) => Object.assign(document.createElement("option"), { value: each })));
  byId("room-chips").replaceChildren(...near.map((each) => roomChip(each, id)));
}

function roomChip(each, current) {
  const chip = document.createElement("button");
  chip.type = "button";
  chip.textContent = splitRoom(each)[1];
  chip.title = each;
  chip.setAttribute("aria-pressed", String(each === current));
  chip.addEventListener("click", () => goTo(each));
  return chip;
}

function showOnline(count) {
  setText("online", count === null ? "–" : count.toLocaleString("en"));
}

function showMalformed(why) {
  malformedCount += 1;
  byId("malformed").hidden = false;
  setText("malformed", `${malformedCount} malformed ${malformedCount === 1 ? "packet" : "packets"} ignored, last: ${why}`);
}

function sayTrip(text, tone) {
  byId("trip").dataset.tone = tone;
  setText("trip", text);
}

function speak(text) {
  setText("spoken", text);
}

function setText(id, text) {
  const element = byId(id);
  if (element.textContent !== text) {
    element.textContent = text;
  }
}

/** One colour per name, the same on every screen. */
function hueOf(user) {
  let hash = 2166136261;
  for (const byte of utf8.encode(user)) {
    hash = Math.imul(hash ^ byte, 16777619);
  }
  return (hash >>> 0) % 360;
}
