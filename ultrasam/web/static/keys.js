// Keyboard: shortcuts, and a cursor that makes points and boxes without a mouse.

const isText = (target) => target instanceof HTMLInputElement && !["range", "radio", "checkbox", "file"].includes(target.type);

export function listen(actions) {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || isText(event.target) || document.querySelector("dialog[open]")) return;
    const command = commandOf(event, actions);
    if (!command) return;
    event.preventDefault();
    command();
  });
  document.addEventListener("keyup", (event) => {
    if (event.key === " ") actions.hold(false);
  });
  window.addEventListener("blur", () => actions.hold(false));
}

function commandOf(event, actions) {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const control = event.ctrlKey || event.metaKey;
  if (event.altKey) return null;
  if (control) {
    if (key === "z") return event.shiftKey ? actions.redo : actions.undo;
    if (key === "y") return actions.redo;
    return null;
  }
  const onControl = event.target.closest("button, input, a, summary");
  // Space and Enter press the button that has the focus, arrows move the slider or the radio button.
  if (onControl && [" ", "Enter"].includes(key)) return null;
  if (onControl && onControl.tagName === "INPUT" && /^(Arrow|Home|End|Page)/.test(key)) return null;
  if (key === " ") return () => actions.hold(true);
  if (actions.hasCursor()) {
    const step = event.shiftKey ? 1 : 10;
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (moves[key]) return () => actions.moveCursor(...moves[key]);
    if (key === "Enter") return () => actions.cursorClick(!event.shiftKey);
    if (key === "x") return actions.cursorCorner;
  }
  if (key === "z") return event.shiftKey ? actions.redo : actions.undo;
  if (/^[1-9]$/.test(key)) return () => actions.choose(Number(key));
  const plain = {
    n: actions.startNew, p: () => actions.setTool("inside"), m: () => actions.setTool("outside"),
    b: () => actions.setTool("box"), v: () => actions.setTool("move"), h: actions.toggleMasks, c: actions.toggleCursor,
    o: actions.open, s: actions.save, "?": actions.help, "0": actions.fit, "+": () => actions.zoom(1.25), "=": () => actions.zoom(1.25),
    "-": () => actions.zoom(0.8), "[": () => actions.opacity(-5), "]": () => actions.opacity(5), Delete: actions.remove,
    Backspace: actions.remove, Escape: actions.escape, ArrowLeft: () => actions.step(-1), ArrowRight: () => actions.step(1),
    PageUp: () => actions.step(-10), PageDown: () => actions.step(10), Home: () => actions.step(-Infinity), End: () => actions.step(Infinity),
  };
  return Object.hasOwn(plain, key) ? plain[key] : null;
}
