// The list of objects and the dialog of downloads.

import { colourOf } from "./stage.js";

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#${name}`);
  svg.append(use);
  return svg;
}

const digits = (value, unit) => {
  const places = value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return `${value.toFixed(places)} ${unit}`;
};

// Rows (name, value) of what is measured; millimetres where they are known.
export function measureRows(mark) {
  const found = mark.measures;
  if (!found || !found.area_px) return [["Mask", "empty"]];
  const rows = [];
  if (found.area_mm2 != null) {
    const area = found.area_mm2 >= 100 ? digits(found.area_mm2 / 100, "cm²") : digits(found.area_mm2, "mm²");
    rows.push(["Area", area]);
    rows.push(["Diameters", `${digits(found.long_mm, "")}× ${digits(found.short_mm, "mm")}`]);
  } else {
    rows.push(["Area", `${Math.round(found.area_px).toLocaleString("en")} px`]);
    rows.push(["Diameters", `${Math.round(found.long_px)} × ${Math.round(found.short_px)} px`]);
  }
  rows.push(["Score", mark.score.toFixed(2)]);
  return rows;
}

// "frame 3", "frames 3, 5-9", with numbers from 1.
export function frameWords(frames) {
  const parts = [];
  for (let index = 0; index < frames.length; index++) {
    const start = index;
    while (index + 1 < frames.length && frames[index + 1] === frames[index] + 1) index++;
    const [first, last] = [frames[start] + 1, frames[index] + 1];
    parts.push(first === last ? `${first}` : `${first}–${last}`);
  }
  const shown = parts.length > 6 ? [...parts.slice(0, 5), "…"] : parts;
  return `${frames.length === 1 ? "frame" : "frames"} ${shown.join(", ")}`;
}

export class Panel {
  // `actions`: choose(number), remove(number), rename(number, text), classify(number, text), go(frame).
  constructor(list, hint, actions) {
    this.list = list;
    this.hint = hint;
    this.actions = actions;
    this.cards = new Map();
  }

  // Cards are kept and only filled anew, so that focus and half-typed text stay.
  update(objects, active, { isNew, isOpen, many }) {
    const present = new Set(objects.map((object) => object.number));
    for (const [number, card] of this.cards)
      if (!present.has(number)) {
        card.root.remove();
        this.cards.delete(number);
      }
    objects.forEach((object, index) => {
      if (!this.cards.has(object.number)) this.cards.set(object.number, this.make(object.number));
      const card = this.cards.get(object.number);
      if (this.list.children[index] !== card.root) this.list.insertBefore(card.root, this.list.children[index] || null);
      this.fill(card, object, object.number === active);
    });
    if (active !== this.shown) this.reveal(active);
    this.shown = active;
    if (!isOpen) this.hint.textContent = "Open a file first.";
    else if (objects.length === 0) this.hint.textContent = "Click inside a structure, or drag a box around it.";
    else if (isNew) this.hint.textContent = "The next click or box starts a new object.";
    else if (many) this.hint.textContent = "Clicks go to the chosen object, on every frame.";
    else this.hint.textContent = "Clicks go to the chosen object.";
  }

  // Scrolls the list, where it scrolls by itself, to the chosen card; the page below a small screen stays where it is.
  reveal(active) {
    const section = this.list.parentElement, card = this.cards.get(active)?.root;
    if (!card || section.scrollHeight <= section.clientHeight) return;
    const frame = section.getBoundingClientRect(), place = card.getBoundingClientRect();
    const head = 60;
    if (place.top < frame.top + head) section.scrollTop -= frame.top + head - place.top;
    else if (place.bottom > frame.bottom - 8) section.scrollTop += place.bottom - frame.bottom + 8;
  }

  make(number) {
    const root = element("li", "object");
    root.style.setProperty("--colour", colourOf(number));
    const top = element("div", "top");
    const badge = element("button", "badge", String(number));
    badge.type = "button";
    const name = element("input", "name");
    name.setAttribute("aria-label", `Name of object ${number}`);
    const remove = element("button", "button icon remove");
    remove.type = "button";
    remove.append(icon("i-trash"));
    top.append(badge, name, remove);
    const kind = element("input", "class");
    kind.placeholder = "Class";
    kind.setAttribute("aria-label", `Class of object ${number}`);
    for (const input of [name, kind]) {
      input.maxLength = 60;
      input.autocomplete = "off";
      input.spellcheck = false;
      input.addEventListener("keydown", (event) => {
        if (event.key === "Enter" || event.key === "Escape") {
          if (event.key === "Escape") input.value = input.dataset.kept || "";
          input.blur();
          event.stopPropagation();
        }
      });
    }
    const outcome = element("p", "outcome");
    const rows = element("dl");
    const elsewhere = element("button", "elsewhere");
    elsewhere.type = "button";
    root.append(top, kind, outcome, rows, elsewhere);
    root.addEventListener("pointerdown", () => this.actions.choose(number));
    badge.addEventListener("click", () => this.actions.choose(number));
    remove.addEventListener("click", () => this.actions.remove(number));
    name.addEventListener("change", () => this.actions.rename(number, name.value));
    kind.addEventListener("change", () => this.actions.classify(number, kind.value));
    return { root, badge, name, kind, remove, outcome, rows, elsewhere };
  }

  fill(card, object, isActive) {
    const { number } = object;
    card.root.classList.toggle("is-active", isActive);
    card.badge.setAttribute("aria-pressed", String(isActive));
    card.badge.setAttribute("aria-label", `Choose object ${number}, ${object.name}`);
    card.remove.setAttribute("aria-label", `Delete ${object.name}`);
    card.remove.title = isActive ? "Delete (Delete key)" : "Delete";
    for (const [input, text] of [[card.name, object.name], [card.kind, object.category]]) {
      if (document.activeElement !== input || input.dataset.kept !== text) input.value = text;
      input.dataset.kept = text;
    }
    const found = object.class;
    card.outcome.hidden = !found;
    if (found) card.outcome.textContent = `${found.name}: ${(100 * found.probability).toFixed(0)} %`;
    card.rows.hidden = !object.mark;
    card.rows.replaceChildren();
    if (object.mark)
      for (const [word, value] of measureRows(object.mark)) card.rows.append(element("dt", "", word), element("dd", "", value));
    const away = !object.mark && object.frames.length > 0;
    card.elsewhere.hidden = object.mark !== null;
    card.elsewhere.disabled = !away;
    card.elsewhere.replaceChildren();
    if (away) {
      card.elsewhere.append("On ", element("u", "", frameWords(object.frames)));
      card.elsewhere.onclick = () => this.actions.go(object.frames[0]);
    } else if (!object.mark) card.elsewhere.append("Nothing marked");
  }
}

// Fills the dialog with the files that the server offers; `fetchFile(kind)` gets one.
export function fillDownloads(list, offers, fetchFile) {
  list.replaceChildren();
  for (const { kind, label, note } of offers) {
    const item = element("li"), button = element("button", "button"), words = element("span");
    button.type = "button";
    button.dataset.kind = kind;
    words.append(element("b", "", label), element("small", "", note));
    button.append(icon("i-save"), words);
    button.addEventListener("click", () => fetchFile(kind));
    item.append(button);
    list.append(item);
  }
}
