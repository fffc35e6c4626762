// The frames of the open file: which one is shown, its picture, and its encoding on the server.

import { api } from "./api.js";

const CACHE_PIXELS = 24_000_000; // of pictures that are kept, 4 bytes each
const REST_MS = 180; // a frame is encoded once the slider rests on it

const find = (id) => document.getElementById(id);

export class Frames {
  // `hooks`: say(text, keep), fail(error), loaded(objects of the frame).
  constructor(stage, hooks) {
    this.stage = stage;
    this.hooks = hooks;
    this.study = null;
    this.number = 0;
    this.encodeSeconds = 0;
    this.pictures = new Map();
    this.stopper = null;
    this.bar = null;
    const slider = find("frame");
    slider.addEventListener("input", () => this.go(Number(slider.value)));
    find("frame-prev").addEventListener("click", () => this.step(-1));
    find("frame-next").addEventListener("click", () => this.step(1));
  }

  async open(study) {
    this.study = study;
    this.pictures.forEach((picture) => picture.close());
    this.pictures.clear();
    const many = study.frames > 1;
    find("frames").hidden = !many;
    find("frame").max = String(study.frames - 1);
    this.number = -1;
    await this.go(0, 0.7);
  }

  step(by) {
    if (this.study) this.go(Math.min(this.study.frames - 1, Math.max(0, this.number + by)));
  }

  refresh() {
    const number = this.number;
    this.number = -1;
    return this.go(number);
  }

  // `base`: part of the bar that is full already, for a file that was just sent.
  async go(number, base = 0) {
    const { study } = this;
    if (!study || number === this.number) return;
    this.number = number;
    find("frame").value = String(number);
    find("frame").setAttribute("aria-valuetext", `Frame ${number + 1} of ${study.frames}`);
    find("frame-number").textContent = `${number + 1} / ${study.frames}`;
    find("frame-prev").disabled = number === 0;
    find("frame-next").disabled = number === study.frames - 1;
    this.stopper?.abort();
    this.stopper = new AbortController();
    const { signal } = this.stopper;
    try {
      const [picture, objects] = await Promise.all([this.picture(number, signal), api.objects(study.id, number, signal)]);
      if (signal.aborted) return;
      this.stage.show(picture);
      this.hooks.loaded(objects);
      if (study.frames > 1) await new Promise((resolve) => setTimeout(resolve, REST_MS));
      if (!signal.aborted) await this.encode(number, signal, base);
    } catch (error) {
      if (signal.aborted) return;
      this.progress(null);
      this.hooks.say("");
      this.hooks.fail(error);
    }
  }

  async picture(number, signal) {
    const { study } = this;
    if (!this.pictures.has(number)) {
      const made = await api.image(study.id, number, signal);
      if (this.study !== study) return made;
      const most = Math.max(2, Math.floor(CACHE_PIXELS / (study.width * study.height)));
      while (this.pictures.size >= most) {
        const [oldest] = this.pictures.keys();
        this.pictures.delete(oldest);
      }
      this.pictures.set(number, made);
    }
    return this.pictures.get(number);
  }

  async encode(number, signal, base) {
    const started = performance.now();
    this.hooks.say(this.study.frames > 1 ? `Encoding frame ${number + 1}` : "Encoding the image");
    // The server says when it is done; in between the bar follows the time that the last frame took.
    this.progress(base);
    const timer = setInterval(() => {
      const passed = (performance.now() - started) / 1000;
      const expected = Math.max(0.3, this.encodeSeconds || 2);
      this.progress(base + (0.98 - base) * (1 - Math.exp((-2 * passed) / expected)));
    }, 200);
    try {
      const answer = await api.encode(this.study.id, number, signal);
      this.encodeSeconds = answer.encode_seconds;
      this.hooks.say("Ready", true);
    } finally {
      clearInterval(timer);
      if (!signal.aborted) this.progress(null);
    }
  }

  // Shows a part between 0 and 1 as done; null hides the bar.
  progress(part) {
    find("progress").hidden = part === null;
    find("progress-bar").style.width = `${100 * (part || 0)}%`;
  }

  // Dots below the slider where something is marked.
  ticks(objects) {
    const last = (this.study?.frames || 1) - 1;
    const marked = new Set(objects.flatMap((object) => object.frames));
    find("ticks").replaceChildren(
      ...[...marked].map((frame) => {
        const dot = document.createElement("i");
        dot.style.left = `${last ? (100 * frame) / last : 0}%`;
        return dot;
      }),
    );
  }
}
