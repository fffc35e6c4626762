// The image with masks and prompts: zoom, pan and drawing.

export const COLOURS = ["#56b4e9", "#f0a03c", "#3fd6a4", "#f2e55c", "#e08bbd", "#ff7a5c", "#9aa8ff", "#a6e36b", "#6fe0e6", "#d7b08a"];
export const colourOf = (number) => COLOURS[(number - 1) % COLOURS.length];

const MOST_ZOOM = 40;

export class Stage {
  constructor(element) {
    this.element = element;
    this.pictures = element.querySelector("#image");
    this.drawings = element.querySelector("#overlay");
    this.scale = 1;
    this.x = 0;
    this.y = 0;
    this.bitmap = null;
    this.size = null; // [width, height] of the image in pixels
    this.fitted = true;
    this.scene = { objects: [], active: null, pending: null, box: null, cursor: null, opacity: 0.35, masks: true, prompts: true, diameter: true };
    this.onView = () => {};
    this.waiting = false;
    new ResizeObserver(() => this.resize()).observe(element);
    this.resize();
  }

  resize() {
    const { width, height } = this.element.getBoundingClientRect();
    const ratio = window.devicePixelRatio || 1;
    for (const canvas of [this.pictures, this.drawings]) {
      canvas.width = Math.max(1, Math.round(width * ratio));
      canvas.height = Math.max(1, Math.round(height * ratio));
    }
    this.ratio = ratio;
    this.width = width;
    this.height = height;
    if (this.fitted) this.fit();
    else this.moved();
  }

  // Shows another frame; the view stays where the size is the same.
  show(bitmap) {
    const same = this.size && this.size[0] === bitmap.width && this.size[1] === bitmap.height;
    this.bitmap = bitmap;
    this.size = [bitmap.width, bitmap.height];
    if (same) this.draw();
    else this.fit();
  }

  clear() {
    this.bitmap = null;
    this.size = null;
    this.draw();
  }

  fit() {
    this.fitted = true;
    if (!this.size || !this.width) return;
    this.scale = Math.min(this.width / this.size[0], this.height / this.size[1]);
    this.x = (this.width - this.size[0] * this.scale) / 2;
    this.y = (this.height - this.size[1] * this.scale) / 2;
    this.moved();
  }

  // Zooms around a place of the stage, which stays where it is.
  zoom(factor, x = this.width / 2, y = this.height / 2) {
    if (!this.size) return;
    const least = Math.min(0.2, this.scale, this.width / this.size[0], this.height / this.size[1]);
    const scale = Math.min(MOST_ZOOM, Math.max(least, this.scale * factor));
    this.x = x - ((x - this.x) * scale) / this.scale;
    this.y = y - ((y - this.y) * scale) / this.scale;
    this.scale = scale;
    this.fitted = false;
    this.moved();
  }

  pan(dx, dy) {
    this.x += dx;
    this.y += dy;
    this.fitted = false;
    this.moved();
  }

  moved() {
    if (this.size) {
      // Some of the image stays in sight.
      const margin = 60;
      this.x = Math.min(this.width - margin, Math.max(margin - this.size[0] * this.scale, this.x));
      this.y = Math.min(this.height - margin, Math.max(margin - this.size[1] * this.scale, this.y));
    }
    this.onView();
    this.draw();
  }

  // Place in the image, in pixels, of a place on the stage.
  toImage(x, y) {
    return [(x - this.x) / this.scale, (y - this.y) / this.scale];
  }

  toStage(x, y) {
    return [x * this.scale + this.x, y * this.scale + this.y];
  }

  isInside(x, y) {
    return this.size !== null && x >= 0 && y >= 0 && x < this.size[0] && y < this.size[1];
  }

  filter(brightness, contrast) {
    this.pictures.style.filter = brightness === 100 && contrast === 100 ? "" : `brightness(${brightness}%) contrast(${contrast}%)`;
  }

  draw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.drawImage();
      this.drawScene();
    });
  }

  drawImage() {
    const pen = this.pictures.getContext("2d");
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, this.pictures.width, this.pictures.height);
    if (!this.bitmap) return;
    const ratio = this.ratio;
    pen.imageSmoothingEnabled = this.scale * ratio < 4;
    pen.imageSmoothingQuality = "high";
    pen.setTransform(ratio * this.scale, 0, 0, ratio * this.scale, ratio * this.x, ratio * this.y);
    pen.drawImage(this.bitmap, 0, 0);
  }

  drawScene() {
    const pen = this.drawings.getContext("2d");
    const { objects, active, pending, box, cursor, opacity, masks, prompts, diameter } = this.scene;
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, this.drawings.width, this.drawings.height);
    if (!this.size) return;
    const ratio = this.ratio;
    if (masks)
      for (const object of objects) if (object.outline) this.drawMask(pen, object, object.number === active, opacity);
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    const chosen = objects.find((object) => object.number === active);
    if (prompts && chosen?.mark?.box) this.drawBox(pen, chosen.mark.box, colourOf(active));
    if (masks) for (const object of objects) if (object.crop) this.drawNumber(pen, object, prompts && object === chosen);
    if (masks && diameter && chosen?.mark?.measures.long_ends) this.drawDiameter(pen, chosen.mark.measures.long_ends);
    if (prompts && chosen?.mark)
      for (const [x, y, inside] of chosen.mark.points) this.drawPoint(pen, x + 0.5, y + 0.5, inside);
    for (const mark of pending || []) {
      if (mark.box) this.drawBox(pen, mark.box, "#ffffff");
      else this.drawPoint(pen, mark.x + 0.5, mark.y + 0.5, mark.inside, true);
    }
    if (box) this.drawBox(pen, box, "#ffffff");
    if (cursor) this.drawCursor(pen, cursor);
  }

  drawMask(pen, object, isActive, opacity) {
    const ratio = this.ratio;
    pen.setTransform(ratio * this.scale, 0, 0, ratio * this.scale, ratio * this.x, ratio * this.y);
    const colour = colourOf(object.number);
    pen.globalAlpha = opacity;
    pen.fillStyle = colour;
    pen.fill(object.outline, "evenodd");
    pen.globalAlpha = 1;
    pen.lineJoin = "round";
    pen.strokeStyle = "#000000a0";
    pen.lineWidth = (isActive ? 4 : 3) / this.scale;
    pen.stroke(object.outline);
    pen.strokeStyle = colour;
    pen.lineWidth = (isActive ? 2.2 : 1.4) / this.scale;
    pen.stroke(object.outline);
  }

  drawNumber(pen, object, aboveBox) {
    const { crop, mark } = object;
    const above = aboveBox && mark.box ? Math.min(mark.box[1], crop.y + 1) : crop.y + 1;
    const [x, y] = this.toStage(crop.x + crop.width / 2, above);
    const text = String(object.number);
    pen.font = "700 11px system-ui, sans-serif";
    const width = Math.max(18, pen.measureText(text).width + 10);
    const top = Math.max(2, y - 21);
    pen.fillStyle = colourOf(object.number);
    pen.beginPath();
    pen.roundRect(x - width / 2, top, width, 17, 5);
    pen.fill();
    pen.fillStyle = "#0b0e11";
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    pen.fillText(text, x, top + 9);
  }

  // A line with calipers at its ends, which are places of pixels by their index.
  drawDiameter(pen, ends) {
    const [[a, b], [c, d]] = ends.map(([x, y]) => this.toStage(x + 0.5, y + 0.5));
    for (const [colour, width] of [["#000000b0", 3], ["#ffffff", 1.1]]) {
      pen.strokeStyle = colour;
      pen.lineWidth = width;
      pen.setLineDash([2, 4]);
      pen.beginPath();
      pen.moveTo(a, b);
      pen.lineTo(c, d);
      pen.stroke();
      pen.setLineDash([]);
      pen.beginPath();
      for (const [x, y] of [[a, b], [c, d]]) {
        pen.moveTo(x - 5, y);
        pen.lineTo(x + 5, y);
        pen.moveTo(x, y - 5);
        pen.lineTo(x, y + 5);
      }
      pen.stroke();
    }
  }

  drawPoint(pen, x, y, inside, isPending = false) {
    const [u, v] = this.toStage(x, y);
    pen.globalAlpha = isPending ? 0.65 : 1;
    pen.beginPath();
    pen.arc(u, v, 7, 0, 2 * Math.PI);
    pen.fillStyle = inside ? "#2e9e5b" : "#d5402b";
    pen.fill();
    pen.lineWidth = 1.6;
    pen.strokeStyle = "#fff";
    pen.stroke();
    pen.beginPath();
    pen.moveTo(u - 3.5, v);
    pen.lineTo(u + 3.5, v);
    if (inside) {
      pen.moveTo(u, v - 3.5);
      pen.lineTo(u, v + 3.5);
    }
    pen.stroke();
    pen.globalAlpha = 1;
  }

  drawBox(pen, [x1, y1, x2, y2], colour) {
    const [left, top] = this.toStage(x1, y1);
    const [right, bottom] = this.toStage(x2, y2);
    pen.setLineDash([]);
    pen.lineWidth = 3;
    pen.strokeStyle = "#000000b0";
    pen.strokeRect(left, top, right - left, bottom - top);
    pen.setLineDash([6, 4]);
    pen.lineWidth = 1.5;
    pen.strokeStyle = colour;
    pen.strokeRect(left, top, right - left, bottom - top);
    pen.setLineDash([]);
  }

  drawCursor(pen, [x, y]) {
    const [u, v] = this.toStage(x + 0.5, y + 0.5);
    for (const [colour, width] of [["#000", 3], ["#fff", 1.2]]) {
      pen.strokeStyle = colour;
      pen.lineWidth = width;
      pen.beginPath();
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
        pen.moveTo(u + 5 * dx, v + 5 * dy);
        pen.lineTo(u + 18 * dx, v + 18 * dy);
      }
      pen.stroke();
    }
  }
}
