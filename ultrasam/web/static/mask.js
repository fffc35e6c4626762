// Masks: COCO's compressed run lengths to outlines that the canvas draws at any zoom.

// Returns the runs of a compressed COCO encoding: pixels outside, inside, outside, ... column by column.
export function decodeCounts(text) {
  const runs = [];
  let at = 0;
  while (at < text.length) {
    let value = 0, shift = 0, more = true, code = 0;
    while (more) {
      code = text.charCodeAt(at++) - 48;
      value |= (code & 31) << shift;
      more = (code & 32) !== 0;
      shift += 5;
    }
    if (code & 16 && shift < 32) value |= -1 << shift;
    if (runs.length > 2) value += runs[runs.length - 2];
    runs.push(value);
  }
  return runs;
}

// Returns {x, y, width, height, pixels} of the part that holds the mask, with a border of one empty pixel, or null.
export function decodeCrop(text, height) {
  const runs = decodeCounts(text);
  let left = Infinity, right = -1, top = Infinity, bottom = -1, place = 0;
  const spans = [];
  runs.forEach((length, index) => {
    let start = place;
    place += length;
    if (index % 2 === 0) return;
    // A run may go on in the next column.
    while (start < place) {
      const column = Math.floor(start / height);
      const end = Math.min(place, (column + 1) * height);
      const from = start - column * height, to = end - column * height;
      spans.push(column, from, to);
      left = Math.min(left, column); right = Math.max(right, column);
      top = Math.min(top, from); bottom = Math.max(bottom, to - 1);
      start = end;
    }
  });
  if (right < 0) return null;
  const x = left - 1, y = top - 1, width = right - left + 3, tall = bottom - top + 3;
  const pixels = new Uint8Array(width * tall);
  for (let index = 0; index < spans.length; index += 3)
    for (let row = spans[index + 1]; row < spans[index + 2]; row++) pixels[(row - y) * width + spans[index] - x] = 1;
  return { x, y, width, height: tall, pixels };
}

// Where the outline goes from one side of a cell of 2 x 2 pixels to another, the mask on its right: top, right, bottom,
// left are 0 to 3; the index is 8 (left top) + 4 (right top) + 2 (right bottom) + 1 (left bottom).
const TURNS = [
  [], [[3, 2]], [[2, 1]], [[3, 1]], [[1, 0]], [[1, 0], [3, 2]], [[2, 0]], [[3, 0]],
  [[0, 3]], [[0, 2]], [[0, 3], [2, 1]], [[0, 1]], [[1, 3]], [[1, 2]], [[2, 3]], [],
];

// Returns the outlines of a crop as a Path2D in pixels of the image, through the middle of the pixel sides.
export function outlineOf(crop) {
  const { x: left, y: top, width, height, pixels } = crop;
  const following = new Int32Array(2 * width * height).fill(-1);
  const edge = (side, x, y) => {
    if (side === 0) return 2 * (y * width + x);
    if (side === 1) return 2 * (y * width + x + 1) + 1;
    if (side === 2) return 2 * ((y + 1) * width + x);
    return 2 * (y * width + x) + 1;
  };
  const starts = [];
  for (let y = 0; y + 1 < height; y++)
    for (let x = 0; x + 1 < width; x++) {
      const at = y * width + x;
      const kind = 8 * pixels[at] + 4 * pixels[at + 1] + 2 * pixels[at + width + 1] + pixels[at + width];
      for (const [from, to] of TURNS[kind]) {
        const begin = edge(from, x, y);
        following[begin] = edge(to, x, y);
        starts.push(begin);
      }
    }
  const path = new Path2D();
  for (const start of starts) {
    let at = start, first = true;
    while (following[at] >= 0) {
      const cell = at >> 1, x = cell % width, y = (cell - x) / width;
      // Even: between a pixel and the one on its right; odd: the one below.
      const px = left + x + (at & 1 ? 0.5 : 1), py = top + y + (at & 1 ? 1 : 0.5);
      if (first) path.moveTo(px, py);
      else path.lineTo(px, py);
      first = false;
      const next = following[at];
      following[at] = -1;
      at = next;
    }
    if (!first) path.closePath();
  }
  return path;
}
