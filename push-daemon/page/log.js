// The chat log: everything the room said, newest last, the last few hundred entries.
//
// Entries are gathered and added at most ten times a second, so that a fast room costs a bounded
// amount of layout; those that would be pushed out at once are never built, and a line says how many.
// The view follows the newest entry until the reader scrolls up.
//
// It does not: parse bodies, or put anything but text into the document.

/** Entries kept. More push out the oldest. */
const MAX_ENTRIES = 300;
const FLUSH_MS = 100;

/** After a flush the log rests this many times as long as it took: at most a fifth of a slow machine is ours. */
const REST_FACTOR = 4;

/** Above this many entries a second the log stops speaking to screen readers, who could not follow it. */
const SPOKEN_PER_S = 4;

const KIND_LABEL = { chat: "", gift: "gift", notice: "notice" };

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

export class Log {
  #list;
  #scroll;
  #newer;
  /** Entries not yet in the document; at most MAX_ENTRIES, older ones are counted in #passed. */
  #pending = [];
  #passed = 0;
  #flushAt = null;
  #nextFlush = 0;
  #following = true;
  #recent = 0;

  constructor({ list, scroll, newer }) {
    this.#list = list;
    this.#scroll = scroll;
    this.#newer = newer;
    scroll.addEventListener("scroll", () => this.#noteScroll(), { passive: true });
    newer.addEventListener("click", () => this.#toEnd());
    new ResizeObserver(() => this.#following && this.#toEnd()).observe(scroll);
    setInterval(() => this.#speakOrNot(), 1000);
  }

  /** Adds one message. Returns a handle whose `land()` says that it has left the stage. */
  add(message) {
    const entry = { message, at: Date.now(), element: null, aloft: true };
    this.#queue(entry);
    return {
      land() {
        entry.aloft = false;
        entry.element?.classList.remove("aloft");
      },
    };
  }

  /** A line of our own between messages: a change of room, a loss. */
  divide(text) {
    this.#queue({ divider: text });
  }

  #queue(entry) {
    this.#pending.push(entry);
    this.#recent += 1;
    if (this.#pending.length > MAX_ENTRIES) {
      this.#pending.shift();
      this.#passed += 1;
    }
    if (this.#flushAt === null) {
      // A timer, not an animation frame: a hidden tab has none, and the log must not lag behind.
      const wait = Math.max(0, this.#nextFlush - performance.now());
      this.#flushAt = setTimeout(() => this.#flush(), wait);
    }
  }

  #flush() {
    this.#flushAt = null;
    // Where the reader is now, not where the last scroll event said: it may still be on its way.
    this.#noteScroll();
    const started = performance.now();
    const entries = this.#pending.splice(0);
    const fragment = document.createDocumentFragment();
    if (this.#passed > 0) {
      fragment.append(buildDivider(`${this.#passed.toLocaleString("en")} messages went by too fast to show`));
      this.#passed = 0;
    }
    for (const entry of entries) {
      fragment.append(entry.divider === undefined ? buildEntry(entry) : buildDivider(entry.divider));
    }
    this.#list.append(fragment);
    while (this.#list.childElementCount > MAX_ENTRIES) {
      this.#list.firstElementChild.remove();
    }
    if (this.#following) {
      this.#toEnd();
    } else {
      this.#newer.hidden = false;
    }
    const ended = performance.now();
    this.#nextFlush = ended + Math.max(FLUSH_MS, REST_FACTOR * (ended - started));
  }

  #noteScroll() {
    const below = this.#scroll.scrollHeight - this.#scroll.scrollTop - this.#scroll.clientHeight;
    this.#following = below < 48;
    if (this.#following) {
      this.#newer.hidden = true;
    }
  }

  #toEnd() {
    this.#scroll.scrollTop = this.#scroll.scrollHeight;
    this.#following = true;
    this.#newer.hidden = true;
  }

  #speakOrNot() {
    const live = this.#recent > SPOKEN_PER_S ? "off" : "polite";
    this.#recent = 0;
    if (this.#list.getAttribute("aria-live") !== live) {
      this.#list.setAttribute("aria-live", live);
    }
  }
}

function buildEntry(entry) {
  const { kind, operation, user, text, own, hue, tripText } = entry.message;
  const element = document.createElement("div");
  element.className = `entry ${kind}${own ? " own" : ""}${entry.aloft ? " aloft" : ""}`;
  element.dataset.testid = "entry";
  element.dataset.operation = operation;
  element.style.setProperty("--hue", hue);

  const who = document.createElement("bdi");
  who.className = "who";
  who.textContent = user;
  const what = document.createElement("bdi");
  what.className = "text";
  what.dataset.testid = "text";
  what.textContent = text;
  const when = document.createElement("time");
  const at = new Date(entry.at);
  when.dateTime = at.toISOString();
  when.textContent = clock.format(at);

  element.append(when, " ", who);
  if (KIND_LABEL[kind]) {
    const label = document.createElement("span");
    label.className = "kind";
    label.textContent = KIND_LABEL[kind];
    element.append(" ", label);
  }
  element.append(" ", what);
  if (tripText) {
    const trip = document.createElement("span");
    trip.className = "took";
    trip.textContent = tripText;
    element.append(" ", trip);
  }
  entry.element = element;
  return element;
}

function buildDivider(text) {
  const element = document.createElement("div");
  element.className = "divider";
  element.textContent = text;
  return element;
}
