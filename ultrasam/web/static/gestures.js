// Mouse, pen and fingers on the stage, turned into clicks, boxes, zoom and pan.

const SLOP = 5; // CSS pixels that a click may move

export class Gestures {
  // `actions`: click(x, y, inside), box(corners, shift), preview(corners or null), tool(), both in pixels of the image.
  constructor(stage, actions) {
    this.stage = stage;
    this.actions = actions;
    this.pointers = new Map();
    this.drag = null;
    this.pinch = null;
    this.space = false;
    const element = stage.element;
    element.addEventListener("pointerdown", (event) => this.down(event));
    element.addEventListener("pointermove", (event) => this.move(event));
    element.addEventListener("pointerup", (event) => this.up(event));
    element.addEventListener("pointercancel", (event) => this.cancel(event));
    element.addEventListener("contextmenu", (event) => event.preventDefault());
    element.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    // Safari's own pinch would zoom the page.
    element.addEventListener("gesturestart", (event) => event.preventDefault());
  }

  hold(space) {
    this.space = space;
    this.stage.element.classList.toggle("can-pan", space || this.actions.tool() === "move");
  }

  place(event) {
    const { left, top } = this.stage.element.getBoundingClientRect();
    return [event.clientX - left, event.clientY - top];
  }

  down(event) {
    if (!this.stage.size || event.target.closest("button")) return;
    const [x, y] = this.place(event);
    this.pointers.set(event.pointerId, [x, y]);
    try {
      this.stage.element.setPointerCapture(event.pointerId);
    } catch {
      // The pointer has gone again already, as those that scripts make may.
    }
    if (event.pointerType === "touch" && this.pointers.size > 1) {
      this.reset();
      if (this.pointers.size === 2) this.pinch = this.spread();
      return;
    }
    if (this.pinch) return;
    const pans = event.button === 1 || this.space || (event.button === 0 && this.actions.tool() === "move");
    if (event.button === 1) event.preventDefault();
    this.drag = { id: event.pointerId, x, y, lastX: x, lastY: y, button: event.button, pans, moved: false };
    if (pans) this.stage.element.classList.add("panning");
  }

  move(event) {
    if (!this.pointers.has(event.pointerId)) return;
    const [x, y] = this.place(event);
    this.pointers.set(event.pointerId, [x, y]);
    if (this.pinch) {
      if (this.pointers.size === 2) this.pinched();
      return;
    }
    const drag = this.drag;
    if (!drag || drag.id !== event.pointerId) return;
    if (Math.hypot(x - drag.x, y - drag.y) > SLOP) drag.moved = true;
    if (drag.pans) this.stage.pan(x - drag.lastX, y - drag.lastY);
    else if (drag.moved && drag.button === 0) this.actions.preview(this.corners(drag, x, y));
    drag.lastX = x;
    drag.lastY = y;
  }

  up(event) {
    if (!this.pointers.delete(event.pointerId)) return;
    const drag = this.drag;
    if (this.pinch) {
      // A finger that is left does nothing until it is lifted too.
      if (this.pointers.size === 0) this.pinch = null;
      return;
    }
    if (!drag || drag.id !== event.pointerId) return;
    this.reset();
    if (drag.pans) return;
    const [x, y] = this.place(event);
    if (drag.moved) {
      if (drag.button === 0) this.actions.box(this.corners(drag, x, y), event.shiftKey);
      return;
    }
    const [px, py] = this.stage.toImage(drag.x, drag.y);
    const negative = this.actions.tool() === "outside" || event.shiftKey || drag.button === 2;
    if (this.stage.isInside(px, py)) this.actions.click(Math.floor(px), Math.floor(py), !negative);
  }

  cancel(event) {
    this.pointers.delete(event.pointerId);
    if (this.pointers.size === 0) this.pinch = null;
    this.reset();
  }

  reset() {
    this.drag = null;
    this.stage.element.classList.remove("panning");
    this.actions.preview(null);
  }

  corners(drag, x, y) {
    const [left, top] = this.stage.toImage(Math.min(drag.x, x), Math.min(drag.y, y));
    const [right, bottom] = this.stage.toImage(Math.max(drag.x, x), Math.max(drag.y, y));
    const [width, height] = this.stage.size;
    const within = (value, most) => Math.min(most, Math.max(0, value));
    return [within(Math.floor(left), width), within(Math.floor(top), height), within(Math.ceil(right), width), within(Math.ceil(bottom), height)];
  }

  spread() {
    const [[x1, y1], [x2, y2]] = [...this.pointers.values()];
    return { x: (x1 + x2) / 2, y: (y1 + y2) / 2, distance: Math.max(10, Math.hypot(x2 - x1, y2 - y1)) };
  }

  pinched() {
    const before = this.pinch, now = this.spread();
    this.stage.pan(now.x - before.x, now.y - before.y);
    this.stage.zoom(now.distance / before.distance, now.x, now.y);
    this.pinch = now;
  }

  wheel(event) {
    if (!this.stage.size) return;
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 30 : event.deltaMode === 2 ? 300 : 1;
    // The pinch of a touchpad comes as a wheel with ctrl and small steps.
    const speed = event.ctrlKey ? 0.01 : 0.0016;
    const step = Math.max(-300, Math.min(300, event.deltaY * lines));
    this.stage.zoom(Math.exp(-step * speed), ...this.place(event));
  }
}
