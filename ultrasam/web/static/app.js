// The page: what is open, and what happens on every action.

import { ServerError, api } from "./api.js";
import { Frames } from "./frames.js";
import { Gestures } from "./gestures.js";
import { listen } from "./keys.js";
import { decodeCrop, outlineOf } from "./mask.js";
import { Panel, fillDownloads } from "./panel.js";
import { Stage } from "./stage.js";

const find = (id) => document.getElementById(id);
const KEPT = "ultrasam.study";
const ALIVE_MS = 60_000;

const state = {
  study: null, // as the server describes it
  objects: [],
  // The chosen object. Without a number the next click starts it; a click that is still on its way gives it its number.
  target: { number: null },
  canUndo: false,
  canRedo: false,
  opening: false,
};

const stage = new Stage(find("stage"));
const scene = stage.scene;
const frames = new Frames(stage, { say, fail, loaded: showObjects });
let edits = Promise.resolve(); // edits are sent one after the other, in the order of the clicks

// ---- words

let resting = "";
function say(text, keep = false) {
  find("status").textContent = text;
  if (keep) resting = text;
}

function fail(error) {
  if (error.name === "AbortError") return;
  const sentence = error instanceof ServerError ? error.message : `The page failed: ${error.message}.`;
  if (!(error instanceof ServerError)) console.error(error);
  find("alert").querySelector("p").textContent = sentence;
  find("alert").hidden = false;
  if (error.status === 410 || error.status === 404) sessionStorage.removeItem(KEPT);
}

const calm = () => (find("alert").hidden = true);

// ---- files

async function openFile(file) {
  if (state.opening) return;
  state.opening = true;
  calm();
  const before = state.study;
  document.body.classList.remove("is-empty");
  try {
    frames.progress(0.01);
    say(`Sending ${file.name}`);
    const study = await api.upload(file, (part) => {
      frames.progress(0.7 * part);
      if (part >= 1) say(`Reading ${file.name}`);
    });
    if (before) api.close(before.id).catch(() => {});
    await show(study);
  } catch (error) {
    frames.progress(null);
    say(before ? resting : "");
    document.body.classList.toggle("is-empty", !before);
    fail(error);
  } finally {
    state.opening = false;
  }
}

async function show(study) {
  state.study = study;
  state.objects = [];
  state.target = { number: null };
  state.canUndo = state.canRedo = false;
  scene.pending = [];
  scene.cursor = null;
  sessionStorage.setItem(KEPT, study.id);
  document.body.classList.remove("is-empty");
  document.title = `${study.name} · UltraSam`;
  find("file-name").textContent = find("file-name").title = study.name;
  find("file-about").textContent = about(study);
  find("clip").checked = study.clip;
  stage.clear();
  update();
  await frames.open(study);
}

function about(study) {
  const parts = [`${study.width} × ${study.height}`];
  if (study.spacing) {
    const [row, column] = study.spacing;
    const round = (value) => Number(value.toPrecision(3));
    parts.push(Math.abs(row - column) < 1e-3 * row ? `${round(row)} mm/px` : `${round(column)} × ${round(row)} mm/px`);
  } else parts.push("no scale");
  if (study.frames > 1) parts.push(`${study.frames} frames`);
  return parts.join(" · ");
}

// Goes on with what was open before the page was loaded again.
async function resume() {
  const id = sessionStorage.getItem(KEPT);
  if (!id) return;
  try {
    await show(await api.study(id));
  } catch (error) {
    sessionStorage.removeItem(KEPT);
    document.body.classList.add("is-empty");
    if (error.status === 410 || error.status === 0) fail(error);
  }
}

async function stayAlive() {
  const { study } = state;
  if (!study) return;
  try {
    await api.alive(study.id);
  } catch (error) {
    if (state.study === study && error.status === 410 && find("alert").hidden) fail(error);
  }
}

// ---- objects

function withOutline(object) {
  const crop = object.mark ? decodeCrop(object.mark.rle, state.study.height) : null;
  return { ...object, crop, outline: crop && outlineOf(crop) };
}

function showObjects({ objects, undo, redo }) {
  state.objects = objects.map(withOutline);
  state.canUndo = undo;
  state.canRedo = redo;
  update();
}

const isThere = (number) => state.objects.some((object) => object.number === number);

function update() {
  const { study, objects } = state;
  if (state.target.number !== null && !isThere(state.target.number)) state.target = { number: null };
  const active = state.target.number;
  scene.objects = objects;
  scene.active = active;
  find("undo").disabled = !state.canUndo;
  find("redo").disabled = !state.canRedo;
  find("new").disabled = !study || active === null;
  find("save").disabled = !study || !objects.some((object) => object.frames.length > 0);
  panel.update(objects, active, { isNew: active === null, isOpen: study !== null, many: study !== null && study.frames > 1 });
  frames.ticks(objects);
  stage.draw();
}

// Sends an edit after those before it and returns the answer. `shown` is drawn until it is there.
function edit(change, shown = null) {
  const { study, target } = state;
  if (!study) return Promise.resolve();
  const frame = frames.number;
  if (shown) scene.pending.push(shown);
  stage.draw();
  const done = edits.then(async () => {
    if (state.study !== study) return;
    const start = performance.now();
    if (shown) say("Segmenting");
    try {
      const object = change.object === undefined ? target.number : change.object;
      const answer = await api.edit(study.id, frame, { ...change, object });
      if (state.study !== study) return;
      calm();
      if (shown) target.number = answer.changed;
      take(answer, frame);
      say(shown ? `Answered in ${Math.round(performance.now() - start)} ms` : resting);
      return answer;
    } finally {
      scene.pending = scene.pending.filter((mark) => mark !== shown);
      stage.draw();
    }
  });
  edits = done.catch((error) => {
    say(resting);
    fail(error);
  });
  return edits;
}

function take(answer, asked) {
  state.canUndo = answer.undo;
  state.canRedo = answer.redo;
  // A step back on another frame is shown there.
  if (answer.frame !== asked) frames.go(answer.frame);
  const others = state.objects.filter((object) => object.number !== answer.changed);
  if (answer.object) {
    // What was clicked before another frame was chosen has its mask there.
    const mark = answer.frame === frames.number ? answer.object.mark : null;
    others.push(withOutline({ ...answer.object, mark }));
    others.sort((a, b) => a.number - b.number);
  }
  state.objects = others;
  update();
}

function choose(number) {
  if (!isThere(number)) return;
  state.target = { number };
  update();
}

const panel = new Panel(find("objects"), find("objects-hint"), {
  choose,
  remove: (number) => edit({ action: "delete", object: number }),
  rename: (number, text) => edit({ action: "name", object: number, text }),
  classify: (number, text) => edit({ action: "category", object: number, text }),
  go: (frame) => frames.go(frame),
});

function startNew() {
  if (!state.study) return;
  state.target = { number: null };
  if (tool() === "outside") setTool("inside");
  update();
}

// ---- clicks and boxes

const tool = () => document.querySelector("input[name=tool]:checked").value;

function setTool(name) {
  document.querySelector(`input[name=tool][value=${name}]`).checked = true;
  gestures.hold(false);
}

function click(x, y, inside) {
  if (tool() === "box") say("Drag from one corner of the box to the other");
  else edit({ action: "point", x, y, inside }, { x, y, inside });
}

function drawBox(corners, replaces) {
  const [x1, y1, x2, y2] = corners;
  if (x2 - x1 < 2 || y2 - y1 < 2) return;
  const chosen = state.objects.find((object) => object.number === state.target.number);
  if (chosen?.mark && !replaces) startNew();
  edit({ action: "box", box: corners }, { box: corners });
}

const gestures = new Gestures(stage, {
  click,
  box: drawBox,
  tool,
  preview: (corners) => {
    scene.box = corners;
    stage.draw();
  },
});

// ---- the keyboard's cursor

function moveCursor(dx, dy) {
  const [width, height] = stage.size;
  scene.cursor = [Math.min(width - 1, Math.max(0, scene.cursor[0] + dx)), Math.min(height - 1, Math.max(0, scene.cursor[1] + dy))];
  if (scene.corner) scene.box = between(scene.corner, scene.cursor);
  say(`Cursor at ${scene.cursor[0]}, ${scene.cursor[1]}`);
  stage.draw();
}

const between = ([a, b], [c, d]) => [Math.min(a, c), Math.min(b, d), Math.max(a, c) + 1, Math.max(b, d) + 1];

function toggleCursor() {
  if (!stage.size) return;
  scene.corner = scene.box = null;
  if (scene.cursor) scene.cursor = null;
  else {
    const [x, y] = stage.toImage(stage.width / 2, stage.height / 2);
    scene.cursor = [0, 0];
    moveCursor(Math.round(x), Math.round(y));
    find("stage").focus();
  }
  say(scene.cursor ? "Cursor on: arrows move, Enter inside, Shift Enter outside, X corner of a box" : resting);
  stage.draw();
}

function cursorCorner() {
  if (!scene.corner) {
    scene.corner = scene.cursor;
    say("First corner; move and press X again");
    return;
  }
  const corners = between(scene.corner, scene.cursor);
  scene.corner = scene.box = null;
  drawBox(corners, false);
}

// ---- view

function slider(id, apply) {
  const input = find(id), output = input.parentElement.querySelector("output");
  const changed = () => {
    output.textContent = `${input.value} %`;
    apply(Number(input.value));
  };
  input.addEventListener("input", changed);
  // A double click takes brightness and contrast back.
  input.addEventListener("dblclick", () => {
    input.value = input.defaultValue;
    changed();
  });
  changed();
  return (by) => {
    input.value = String(Number(input.value) + by);
    changed();
  };
}

const opacity = slider("opacity", (value) => {
  scene.opacity = value / 100;
  stage.draw();
});
const filter = () => stage.filter(Number(find("brightness").value), Number(find("contrast").value));
slider("brightness", filter);
slider("contrast", filter);

for (const part of ["masks", "prompts", "diameter"])
  find(`show-${part}`).addEventListener("change", (event) => {
    scene[part] = event.target.checked;
    stage.draw();
  });
find("clip").addEventListener("change", async (event) => {
  if (state.study) await api.clip(state.study.id, event.target.checked).catch(fail);
});

stage.onView = () => {
  if (!stage.size) return;
  find("zoom").textContent = `${Math.round(100 * stage.scale)} %`;
  showScale();
};

function showScale() {
  const box = find("scale"), spacing = state.study && state.study.spacing;
  box.hidden = !spacing;
  if (!spacing) return;
  const perPixel = spacing[1] / stage.scale;
  const length = [1, 2, 5, 10, 20, 50, 100, 200].filter((mm) => mm / perPixel <= 130).pop() || 0.5;
  box.querySelector("i").style.width = `${length / perPixel}px`;
  box.querySelector("span").textContent = length >= 10 ? `${length / 10} cm` : `${length} mm`;
}

// ---- downloads

async function fetchFile(kind) {
  try {
    say("Writing the file");
    const { blob, name } = await api.file(state.study.id, kind, frames.number);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 30_000);
    find("save-dialog").close();
    say(`Downloaded ${name}`);
  } catch (error) {
    find("save-dialog").close();
    say(resting);
    fail(error);
  }
}

function save() {
  if (find("save").disabled) return;
  fillDownloads(find("files"), state.study.files, fetchFile);
  find("save-dialog").showModal();
}

async function stepBack(action, possible) {
  if (!possible) return;
  const answer = await edit({ action, object: null });
  if (answer?.object) choose(answer.changed);
}

// ---- wiring

const open = () => find("chooser").click();
find("open").addEventListener("click", open);
find("drop").addEventListener("click", open);
find("chooser").addEventListener("change", (event) => {
  const [file] = event.target.files;
  if (file) openFile(file);
  event.target.value = "";
});
find("save").addEventListener("click", save);
find("help").addEventListener("click", () => find("help-dialog").showModal());
find("new").addEventListener("click", startNew);
const undo = () => stepBack("undo", state.canUndo);
const redo = () => stepBack("redo", state.canRedo);
find("undo").addEventListener("click", undo);
find("redo").addEventListener("click", redo);
find("fit").addEventListener("click", () => stage.fit());
find("zoom").addEventListener("click", () => stage.fit());
find("alert").querySelector("button").addEventListener("click", calm);
for (const input of document.querySelectorAll("input[name=tool]")) input.addEventListener("change", () => gestures.hold(false));
for (const dialog of document.querySelectorAll("dialog"))
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());

const carriesFiles = (event) => [...(event.dataTransfer?.types || [])].includes("Files");
document.addEventListener("dragover", (event) => {
  if (!carriesFiles(event)) return;
  event.preventDefault();
  find("dropping").hidden = false;
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) find("dropping").hidden = true;
});
document.addEventListener("drop", (event) => {
  find("dropping").hidden = true;
  if (!carriesFiles(event)) return;
  event.preventDefault();
  const [file] = event.dataTransfer.files;
  if (file) openFile(file);
});
document.addEventListener("paste", (event) => {
  const [file] = event.clipboardData?.files || [];
  if (file) openFile(file);
});

listen({
  undo, redo, choose, startNew, setTool, open, save, toggleCursor, moveCursor, cursorCorner, opacity,
  hold: (on) => gestures.hold(on),
  hasCursor: () => scene.cursor !== null,
  cursorClick: (inside) => edit({ action: "point", x: scene.cursor[0], y: scene.cursor[1], inside }, { x: scene.cursor[0], y: scene.cursor[1], inside }),
  toggleMasks: () => find("show-masks").click(),
  help: () => find("help-dialog").showModal(),
  fit: () => stage.fit(),
  zoom: (factor) => stage.zoom(factor),
  remove: () => state.target.number !== null && edit({ action: "delete", object: state.target.number }),
  step: (by) => frames.step(by),
  escape: () => {
    calm();
    if (scene.cursor) toggleCursor();
  },
});

setInterval(stayAlive, ALIVE_MS);
update();
api.info().then(
  (info) => {
    find("model").textContent = `Model: ${info.model} · UltraSam ${info.version}`;
    find("limits").textContent = `Up to ${Math.round(info.max_upload_bytes / 2 ** 20)} MB. Files go to the server that you started, and nowhere else.`;
    frames.encodeSeconds = info.encode_seconds;
  },
  fail,
);
resume();
