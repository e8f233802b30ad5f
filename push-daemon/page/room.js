// One viewer's place in a room: connect, authenticate, stay alive, change room, come back.
//
// A state machine over one WebSocket at a time. Phases:
//   connecting → joined → (waiting → connecting)* , or refused, or closed.
// "refused" is an answer that trying again will not change, so it waits for the user; every other
// loss is retried with a growing, jittered delay. "closed" means that the user left.
//
// It does not: read message bodies, touch the DOM, or reach for a clock, a random number or a
// socket of its own; they are arguments, so the tests run it through an hour in a millisecond.

import { ACCEPTS, readRefusal } from "./message.js";
import { Operation, decode, encode } from "./packet.js";

const HEARTBEAT_MS = 30_000;
/** Edges hear of a room's count about once a second: what the first heartbeat brings is from before we came. */
const COUNTED_MS = 3_000;
const HEARTBEAT_REPLY_MS = 10_000;
const CONNECT_MS = 10_000;
const AUTH_REPLY_MS = 8_000;
const CHANGE_REPLY_MS = 5_000;

/** goim's own back-off shape, with shorter limits: a viewer at a page is less patient than an app. */
const BACKOFF = { baseMs: 1_000, factor: 1.6, jitter: 0.25, maxMs: 30_000 };

/** A stay this long was a good one: the next loss starts again from the shortest delay. */
const SETTLED_MS = 10_000;

/** Refusals that time may heal: goim's "server error", and an edge that is full, going down or without a tier. */
const CODES_THAT_PASS = new Set([-500, -503]);

/** Sends whose reply is still due. Full means the server is behind, and send() says so. */
const MAX_UNANSWERED = 64;

/** Bytes the browser may hold for a slow uplink before send() refuses. */
const MAX_BUFFERED_BYTES = 256 * 1024;

export class Room {
  #env;
  #on;
  #mid;
  #socket = null;
  #phase = "closed";
  #reason = "";
  #retryAt = null;
  #attempt = 0;
  #joinedAt = 0;
  #sequence = 0;
  #room;
  /** The room asked for and not yet confirmed, with the sequence of the asking. */
  #moving = null;
  /** Sequences of sends whose reply is due; at most MAX_UNANSWERED. */
  #unanswered = new Set();
  /** Running timers by name, as functions that cancel them. */
  #timers = new Map();

  /**
   * `env`: `open(address)` → WebSocket, `address()`, `now()`, `after(ms, fn)` → cancel, `random()`.
   * `on`: `state({phase, reason, retryAt, room, movingTo})`, `online(n)`, `push(operation, body)`,
   * `answered(sequence, refusal)`, `moved(room)`, `moveFailed(reason)`, `lost()`, `malformed(why)`.
   */
  constructor(env, on, mid, room) {
    this.#env = env;
    this.#on = on;
    this.#mid = mid;
    this.#room = room;
  }

  get phase() {
    return this.#phase;
  }

  /** Enters, or enters again at once; also the way out of "refused" and "waiting". */
  enter() {
    if (this.#phase === "connecting" || this.#phase === "joined") {
      return;
    }
    this.#connect();
  }

  leave() {
    this.#drop();
    this.#become("closed", "");
  }

  /** Live when joined; otherwise the next entry goes to `room`. */
  changeRoom(room) {
    if (this.#phase === "joined") {
      const sequence = this.#post(Operation.CHANGE_ROOM, room);
      this.#moving = { room, sequence };
      this.#timer("change", CHANGE_REPLY_MS, () => this.#moveFailed("no answer to the change of room"));
      this.#report();
      return;
    }
    this.#room = room;
    if (this.#phase === "connecting") {
      this.#drop();
      this.#connect();
    } else {
      this.#report();
    }
  }

  /** Sends one message: `{sequence}`, or `{error}` when it was not sent. */
  send(body) {
    if (this.#phase !== "joined") {
      return { error: "not in the room" };
    }
    if (this.#unanswered.size >= MAX_UNANSWERED || this.#socket.bufferedAmount > MAX_BUFFERED_BYTES) {
      return { error: "the server is behind, try again in a moment" };
    }
    const sequence = this.#post(Operation.SEND, body);
    this.#unanswered.add(sequence);
    return { sequence };
  }

  #connect() {
    this.#drop();
    let socket;
    try {
      socket = this.#env.open(this.#env.address());
    } catch (error) {
      this.#retryLater(`cannot connect: ${error.message}`);
      return;
    }
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    this.#become("connecting", "");
    this.#timer("connect", CONNECT_MS, () => this.#retryLater("no connection within 10 s"));
    // A socket that was replaced may still deliver events; they are nobody's.
    const mine = (handler) => (event) => {
      if (this.#socket === socket) {
        handler(event);
      }
    };
    socket.onopen = mine(() => this.#authenticate());
    socket.onmessage = mine((event) => this.#receive(event.data, socket));
    socket.onclose = mine((event) => this.#retryLater(closeReason(event, this.#phase)));
  }

  #authenticate() {
    this.#stop("connect");
    this.#post(
      Operation.AUTH,
      JSON.stringify({ mid: this.#mid, room_id: this.#room, platform: "web", accepts: ACCEPTS }),
    );
    this.#timer("auth", AUTH_REPLY_MS, () => this.#retryLater("no answer to our auth within 8 s"));
  }

  #receive(data, socket) {
    if (typeof data === "string") {
      this.#on.malformed("a text message where packets should be");
      return;
    }
    const { packets, malformed } = decode(data);
    for (const packet of packets) {
      this.#handle(packet);
      if (this.#socket !== socket) {
        return;
      }
    }
    if (malformed !== null) {
      this.#on.malformed(malformed);
    }
  }

  #handle({ operation, sequence, body }) {
    if (operation === Operation.GOODBYE) {
      this.#goodbye(readRefusal(body));
    } else if (operation === Operation.AUTH_REPLY && this.#phase === "connecting") {
      this.#authReply(readRefusal(body));
    } else if (this.#phase !== "joined") {
      this.#on.malformed(`operation ${operation} before the auth reply`);
    } else if (operation >= Operation.FIRST_PUSH) {
      this.#on.push(operation, body);
    } else if (operation === Operation.HEARTBEAT_REPLY) {
      this.#heartbeatReply(body);
    } else if (operation === Operation.SEND_REPLY) {
      if (this.#unanswered.delete(sequence)) {
        this.#on.answered(sequence, readRefusal(body));
      }
    } else if (operation === Operation.CHANGE_ROOM_REPLY) {
      this.#moveReply(sequence, readRefusal(body));
    } else {
      this.#on.malformed(`operation ${operation}, which we never asked for`);
    }
  }

  #authReply(refusal) {
    this.#stop("auth");
    // `{"code":0}` is how other dialects say yes.
    if (refusal === null || refusal.code === 0) {
      this.#joinedAt = this.#env.now();
      this.#become("joined", "");
      this.#heartbeat(COUNTED_MS);
    } else {
      this.#refusedOrLater(refusal);
    }
  }

  #goodbye(refusal) {
    const message = refusal?.message ?? "no reason given";
    if (this.#phase === "joined") {
      this.#retryLater(`the server said goodbye: ${message}`);
    } else {
      this.#refusedOrLater({ code: refusal?.code ?? null, message });
    }
  }

  #refusedOrLater({ code, message }) {
    if (CODES_THAT_PASS.has(code)) {
      this.#retryLater(message);
    } else {
      this.#drop();
      this.#become("refused", code === null ? message : `${message} (code ${code})`);
    }
  }

  #heartbeat(nextMs = HEARTBEAT_MS) {
    this.#post(Operation.HEARTBEAT);
    this.#timer("heartbeat", nextMs, () => this.#heartbeat());
    this.#timer("heartbeat reply", HEARTBEAT_REPLY_MS, () => this.#retryLater("the server fell silent"));
  }

  #heartbeatReply(body) {
    this.#stop("heartbeat reply");
    if (body.byteLength >= 4) {
      this.#on.online(new DataView(body.buffer, body.byteOffset, 4).getUint32(0));
    } else {
      this.#on.malformed(`a heartbeat reply of ${body.byteLength} bytes`);
    }
  }

  #moveReply(sequence, refusal) {
    // Only the last change counts: the user may have clicked twice.
    if (this.#moving === null || this.#moving.sequence !== sequence) {
      return;
    }
    if (refusal !== null && refusal.code !== null && refusal.code !== 0) {
      this.#moveFailed(refusal.message);
      return;
    }
    this.#stop("change");
    this.#room = this.#moving.room;
    this.#moving = null;
    this.#report();
    this.#on.moved(this.#room);
    this.#heartbeat(COUNTED_MS);
  }

  #moveFailed(reason) {
    this.#stop("change");
    this.#moving = null;
    this.#report();
    this.#on.moveFailed(reason);
  }

  #retryLater(reason) {
    if (this.#phase === "joined" && this.#env.now() - this.#joinedAt >= SETTLED_MS) {
      this.#attempt = 0;
    }
    // A move under way when the line broke is where the user wants to be.
    this.#room = this.#moving?.room ?? this.#room;
    this.#drop();
    const delayMs = backoffMs(this.#attempt, this.#env.random());
    this.#attempt += 1;
    this.#retryAt = this.#env.now() + delayMs;
    this.#timer("retry", delayMs, () => this.#connect());
    this.#become("waiting", reason);
  }

  /** Forgets the socket, its timers and what it still owed us. */
  #drop() {
    for (const cancel of this.#timers.values()) {
      cancel();
    }
    this.#timers.clear();
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
    this.#moving = null;
    this.#retryAt = null;
    this.#unanswered.clear();
    if (this.#phase === "joined") {
      this.#on.lost();
    }
  }

  #post(operation, body = "") {
    this.#sequence = (this.#sequence % 0x7fffffff) + 1;
    this.#socket.send(encode(operation, this.#sequence, body));
    return this.#sequence;
  }

  #timer(name, ms, run) {
    this.#stop(name);
    this.#timers.set(name, this.#env.after(ms, run));
  }

  #stop(name) {
    this.#timers.get(name)?.();
    this.#timers.delete(name);
  }

  #become(phase, reason) {
    this.#phase = phase;
    this.#reason = reason;
    this.#report();
  }

  #report() {
    this.#on.state({
      phase: this.#phase,
      reason: this.#reason,
      retryAt: this.#retryAt,
      room: this.#room,
      movingTo: this.#moving?.room ?? null,
    });
  }
}

/** Delay before attempt `attempt` (from 0); `random` in [0, 1) spreads a crowd that lost its edge at once. */
export function backoffMs(attempt, random) {
  const delayMs = Math.min(BACKOFF.baseMs * BACKOFF.factor ** attempt, BACKOFF.maxMs);
  return Math.round(delayMs * (1 + BACKOFF.jitter * (2 * random - 1)));
}

function closeReason(event, phase) {
  if (event.reason) {
    return `the connection closed: ${event.reason}`;
  }
  if (phase === "connecting") {
    return "the edge cannot be reached";
  }
  return event.code === 1006 ? "the connection broke" : `the connection closed (${event.code})`;
}
