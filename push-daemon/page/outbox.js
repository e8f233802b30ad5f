// Our own messages between the key press and the moment the room shows them.
//
// A message is known by the random id in its body; the server's reply by the packet's sequence. A
// message is done when it is seen, refused, lost with its connection, or not seen in time.
//
// It does not: send, or show; `say(text, tone)` is told what became of a message.

const NOT_SEEN_MS = 10_000;

/** Messages on their way. Room.send() refuses before this is reached; the bound holds anyway. */
const MAX_ON_THE_WAY = 128;

export class Outbox {
  #say;
  /** id → {sequence, sentAt, timer} */
  #onTheWay = new Map();

  constructor(say) {
    this.#say = say;
  }

  sent(id, sequence) {
    if (this.#onTheWay.size >= MAX_ON_THE_WAY) {
      this.#forget(this.#onTheWay.keys().next().value);
    }
    const timer = setTimeout(() => {
      this.#forget(id);
      this.#say("Accepted or lost? The room has not shown your message within 10 s.", "bad");
    }, NOT_SEEN_MS);
    this.#onTheWay.set(id, { sequence, sentAt: performance.now(), timer });
    this.#say("Sent, waiting for the room to show it …", "");
  }

  /** The server's reply to a send: null is accepted. */
  answered(sequence, refusal) {
    if (refusal === null || refusal.code === 0) {
      return;
    }
    for (const [id, entry] of this.#onTheWay) {
      if (entry.sequence === sequence) {
        this.#forget(id);
        this.#say(`Refused: ${refusal.message}`, "bad");
        return;
      }
    }
  }

  /** A message with this id was pushed to us: "sent → seen in 3 ms" when it is ours, else null. */
  seen(id) {
    const entry = this.#onTheWay.get(id);
    if (entry === undefined) {
      return null;
    }
    const took = readable(performance.now() - entry.sentAt);
    this.#forget(id);
    const text = `sent → seen in ${took}`;
    this.#say(text, "good");
    return text;
  }

  /** The connection is gone, and with it the answers. */
  lost() {
    if (this.#onTheWay.size === 0) {
      return;
    }
    const count = this.#onTheWay.size;
    for (const id of [...this.#onTheWay.keys()]) {
      this.#forget(id);
    }
    const what = count === 1 ? "a message was" : `${count} messages were`;
    this.#say(`The connection was lost while ${what} on the way.`, "bad");
  }

  #forget(id) {
    clearTimeout(this.#onTheWay.get(id)?.timer);
    this.#onTheWay.delete(id);
  }
}

function readable(ms) {
  if (ms < 1) {
    return "under 1 ms";
  }
  return ms < 10 ? `${ms.toFixed(1)} ms` : ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}
