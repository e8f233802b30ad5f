// The stage: messages fly from right to left in lanes, above a dark ground.
//
// Each flight is one element moved by one Web Animation, so the compositor does the work. What
// finds no free lane waits briefly in a bounded queue; what waits too long is only in the log, and
// is counted on the stage. With prefers-reduced-motion messages stand still in their lane for a while.
//
// It does not: keep messages (the log does), or choose lanes (`lanes`).

import { Lanes } from "./lanes.js";

const SPEED_PX_PER_S = 118;
const HOLD_MS = 5_000;

/** Messages that wait for a lane. Full, or older than MAX_WAIT_MS, means: only in the log, counted. */
const MAX_WAITING = 32;
const MAX_WAIT_MS = 2_500;

/** A longer text is cut on the stage; the log has all of it. */
const MAX_STAGE_CHARS = 90;

/** How long the count of messages that did not fly stays up after the last of them. */
const SKIPPED_SHOWN_MS = 4_000;

export class Stage {
  #sky;
  #quiet;
  #skippedBadge;
  #still = matchMedia("(prefers-reduced-motion: reduce)");
  #lanes = new Lanes(0, SPEED_PX_PER_S);
  #laneHeight = 0;
  #width = 0;
  #height = 0;
  /** `{message, since, landed}`, oldest first; at most MAX_WAITING. */
  #waiting = [];
  #timer = null;
  #skipped = 0;
  #skippedDrawn = 0;
  #skippedTimer = null;

  constructor({ sky, quiet, skipped }) {
    this.#sky = sky;
    this.#quiet = quiet;
    this.#skippedBadge = skipped;
    new ResizeObserver(() => this.#fit()).observe(sky);
    this.#still.addEventListener("change", () => this.clear());
    document.addEventListener("visibilitychange", () => document.hidden && this.clear());
  }

  /** Shows `message`; `landed()` is called once, when it has left the stage or will never be on it. */
  fly(message, landed) {
    this.#quiet.classList.add("gone");
    // Nobody watches a hidden tab, and its animations stand still while the lanes' clock runs on.
    if (document.hidden || this.#lanes.count === 0) {
      landed();
      return;
    }
    if (this.#waiting.length >= MAX_WAITING) {
      // The oldest goes: in a flood the stage shows what is said now.
      this.#skip(this.#waiting.shift().landed);
    }
    this.#waiting.push({ message, since: performance.now(), landed });
    this.#schedule(0);
  }

  /** Takes everything down, as when the room changes. */
  clear() {
    for (const { landed } of this.#waiting.splice(0)) {
      landed();
    }
    for (const element of [...this.#sky.children]) {
      element.getAnimations().forEach((animation) => animation.finish());
    }
    this.#layOut();
  }

  #fit() {
    const width = this.#sky.clientWidth;
    const height = this.#sky.clientHeight;
    if (width !== this.#width || height !== this.#height) {
      this.#width = width;
      this.#height = height;
      // Those in flight started from the old edge; the no-overlap rule would not hold for them.
      this.clear();
    }
  }

  #layOut() {
    const least = parseFloat(getComputedStyle(this.#sky).getPropertyValue("--lane-min")) || 40;
    const count = Math.max(1, Math.floor(this.#height / least));
    this.#laneHeight = this.#height / count;
    this.#sky.style.setProperty("--lane", `${this.#laneHeight}px`);
    this.#lanes = new Lanes(count, SPEED_PX_PER_S);
  }

  #schedule(ms) {
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      this.#launch();
    }, ms);
  }

  #launch() {
    const now = performance.now();
    while (this.#waiting.length > 0 && now - this.#waiting[0].since > MAX_WAIT_MS) {
      this.#skip(this.#waiting.shift().landed);
    }
    while (this.#waiting.length > 0 && this.#lanes.hasRoom(now)) {
      const { message, landed } = this.#waiting.shift();
      this.#start(message, landed, now);
    }
    this.#drawSkipped();
    if (this.#waiting.length > 0) {
      this.#schedule(80);
    }
  }

  #start(message, landed, now) {
    const element = build(message);
    this.#sky.append(element);
    const still = this.#still.matches;
    const { lane, durationMs } = still
      ? this.#lanes.hold(now, HOLD_MS)
      : this.#lanes.take(now, element.offsetWidth, this.#width);
    element.style.top = `${lane * this.#laneHeight}px`;
    const frames = still
      ? { opacity: [0, 1, 1, 0], offset: [0, 0.06, 0.9, 1] }
      : { transform: ["translateX(0)", `translateX(${-(this.#width + element.offsetWidth)}px)`] };
    element.classList.toggle("still", still);
    const animation = element.animate(frames, { duration: durationMs, easing: "linear", fill: "both" });
    // Left alone it starts with the next frame, late on a busy machine, and the lane's sums would be wrong.
    animation.startTime = now;
    animation.onfinish = () => {
      element.remove();
      landed();
    };
  }

  #skip(landed) {
    landed();
    this.#skipped += 1;
  }

  #drawSkipped() {
    if (this.#skipped === this.#skippedDrawn) {
      return;
    }
    this.#skippedDrawn = this.#skipped;
    this.#skippedBadge.textContent = `+${this.#skipped.toLocaleString("en")} only in the log`;
    this.#skippedBadge.hidden = false;
    clearTimeout(this.#skippedTimer);
    this.#skippedTimer = setTimeout(() => {
      this.#skippedBadge.hidden = true;
      this.#skipped = 0;
      this.#skippedDrawn = 0;
    }, SKIPPED_SHOWN_MS);
  }
}

function build({ kind, user, text, own, hue }) {
  const element = document.createElement("div");
  element.className = `flight ${kind}${own ? " own" : ""}`;
  element.style.setProperty("--hue", hue);
  const who = document.createElement("bdi");
  who.className = "who";
  who.textContent = user;
  const what = document.createElement("bdi");
  const chars = Array.from(text);
  what.textContent = chars.length > MAX_STAGE_CHARS ? `${chars.slice(0, MAX_STAGE_CHARS).join("")}…` : text;
  element.append(who, what);
  return element;
}
