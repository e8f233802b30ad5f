// Which lane a flying message takes, and when: arithmetic only.
//
// All messages of one lane fly at that lane's speed, so none can catch up with the one before it;
// a lane is free again once the tail of its last message, and a gap, has come in from the right.
// That is the whole proof that two messages never overlap.
//
// It does not: know the DOM or the clock (`now` is an argument).

const GAP_PX = 36;

export class Lanes {
  /** `freeAt[i]`: the moment, in ms, from which lane i may take another message. */
  #freeAt;
  #speeds;

  /** `speed` is in px per second; lanes differ a little from it, which looks alive. */
  constructor(count, speed) {
    this.#freeAt = new Array(count).fill(0);
    this.#speeds = Array.from({ length: count }, (_, lane) => speed * (1 + ((lane * 5) % 7) * 0.035));
  }

  get count() {
    return this.#freeAt.length;
  }

  /** Whether some lane can take a message now. */
  hasRoom(now) {
    return this.#freeAt.some((freeAt) => freeAt <= now);
  }

  /**
   * Takes the lane that has been free longest. Returns `{lane, durationMs}` for a flight of
   * `width` px over a stage `span` px wide, or null when every lane is taken.
   */
  take(now, width, span) {
    const lane = this.#longestFree(now);
    if (lane === -1) {
      return null;
    }
    const speed = this.#speeds[lane];
    this.#freeAt[lane] = now + ((width + GAP_PX) / speed) * 1000;
    return { lane, durationMs: ((width + span) / speed) * 1000 };
  }

  /** Takes a lane for a fixed time: a message that stands still. */
  hold(now, holdMs) {
    const lane = this.#longestFree(now);
    if (lane === -1) {
      return null;
    }
    this.#freeAt[lane] = now + holdMs;
    return { lane, durationMs: holdMs };
  }

  #longestFree(now) {
    let best = -1;
    this.#freeAt.forEach((freeAt, lane) => {
      if (freeAt <= now && (best === -1 || freeAt < this.#freeAt[best])) {
        best = lane;
      }
    });
    return best;
  }
}
