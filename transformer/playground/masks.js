// Masks of objects: outlines as paths, and COCO's compressed RLE (pycocotools, `rleFrString` in maskApi.c) as images.

/** @type {WeakMap<object, HTMLCanvasElement>} */
const painted = new WeakMap();

/** The path of the outlines of a mask. */
export function maskPath(prediction, scale) {
  const path = new Path2D();
  for (const ring of prediction.parts ?? [prediction.points]) {
    ring.forEach(({ x, y }, index) => (index ? path.lineTo(x * scale, y * scale) : path.moveTo(x * scale, y * scale)));
    path.closePath();
  }
  return path;
}

/** A canvas with the mask of an RLE, and where it lies in the image. */
export function maskImage({ rle, box }, [red, green, blue]) {
  const [height, width] = rle.size;
  const [left, top] = [Math.max(Math.floor(box.x1), 0), Math.max(Math.floor(box.y1), 0)];
  const [right, bottom] = [Math.min(Math.ceil(box.x2) + 1, width), Math.min(Math.ceil(box.y2) + 1, height)];
  let canvas = painted.get(rle);
  if (!canvas) {
    canvas = Object.assign(document.createElement("canvas"), { width: right - left, height: bottom - top });
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(canvas.width, canvas.height);
    const fill = (x, y) => pixels.data.set([red, green, blue, 255], 4 * ((y - top) * canvas.width + x - left));
    let position = 0; // down the columns
    readRuns(rle.counts).forEach((length, index) => {
      for (let at = position; index % 2 && at < position + length; at++) {
        const [x, y] = [Math.floor(at / height), at % height];
        if (x >= left && x < right && y >= top && y < bottom) fill(x, y);
      }
      position += length;
    });
    context.putImageData(pixels, 0, 0);
    painted.set(rle, canvas);
  }
  return { canvas, left, top };
}

/** Lengths of runs, of 0 and 1 in turn, down the columns. @returns {number[]} */
export function readRuns(counts) {
  const runs = [];
  for (let at = 0; at < counts.length; ) {
    let value = 0;
    let shift = 0;
    let code;
    do {
      code = counts.charCodeAt(at++) - 48;
      value |= (code & 0x1f) << shift;
      shift += 5;
    } while (code & 0x20);
    if (code & 0x10) value |= -1 << shift;
    runs.push(runs.length > 2 ? value + runs[runs.length - 2] : value);
  }
  return runs;
}
