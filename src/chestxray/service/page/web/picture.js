// Pictures: decoding, the window, the heatmap laid over, and all of it with a caption.
//
// Does not: know the page, or listen to anything (viewer.js does).

/** The whole range of an 8-bit picture: what is in the file is what is seen. */
export const FULL_WINDOW = Object.freeze({ centre: 128, width: 256, inverted: false });

/** What the browser makes of a file, or null if it cannot; upright, as the service reads it. */
export async function decode(blob) {
  try {
    return await createImageBitmap(blob);
  } catch {
    return null;
  }
}

export async function fromUrl(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  return image;
}

/** A canvas with the whole picture, of `width` × `height`, in a square of `sidePx`. */
export function thumbnail(image, width, height, sidePx) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = sidePx;
  const scale = sidePx / Math.max(width, height);
  const [w, h] = [width * scale, height * scale];
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(image, (sidePx - w) / 2, (sidePx - h) / 2, w, h);
  return canvas;
}

/** The pixels of a picture drawn into `box` of a context, as far as they are seen. */
export function pixelsInBox(context, image, box) {
  const { canvas } = context;
  context.imageSmoothingQuality = "high";
  context.drawImage(image, box.x, box.y, box.width, box.height);
  const left = Math.max(0, Math.floor(box.x));
  const top = Math.max(0, Math.floor(box.y));
  const right = Math.min(canvas.width, Math.ceil(box.x + box.width));
  const bottom = Math.min(canvas.height, Math.ceil(box.y + box.height));
  if (right <= left || bottom <= top) {
    return null;
  }
  return { left, top, data: context.getImageData(left, top, right - left, bottom - top) };
}

/** `pixels` through the window, for putImageData. */
export function throughWindow(pixels, window) {
  const table = windowTable(window);
  const { data: from, width, height } = pixels.data;
  const seen = new ImageData(width, height);
  const to = seen.data;
  for (let i = 0; i < from.length; i += 4) {
    to[i] = table[from[i]];
    to[i + 1] = table[from[i + 1]];
    to[i + 2] = table[from[i + 2]];
    to[i + 3] = from[i + 3];
  }
  return seen;
}

/** Grey level in → grey level out; the linear VOI function of DICOM PS3.3 C.11.2.1.2.1. */
function windowTable({ centre, width, inverted }) {
  return Uint8ClampedArray.from({ length: 256 }, (_, grey) => {
    const share = (grey - (centre - 0.5)) / Math.max(width - 1, 1e-6) + 0.5;
    const out = Math.min(Math.max(share, 0), 1) * 255;
    return Math.round(inverted ? 255 - out : out);
  });
}

export function drawHeatmap(context, heatmap, box, opacity) {
  context.save();
  context.globalAlpha = opacity;
  context.imageSmoothingQuality = "high";
  context.drawImage(heatmap, box.x, box.y, box.width, box.height);
  context.restore();
}

const COMPOSED_MIN_PX = 1024; // so that the caption can be read
const COMPOSED_MAX_PX = 2048;

/**
 * Draw a whole picture into `canvas`, as large as it is: through the window, with the heatmap (or
 * null) and its colour bar `{image, ticks: [{at, text}], title}`, and the lines of a caption below.
 */
export function compose(canvas, { picture, window, heatmap, opacity, colourBar, caption }) {
  const longest = Math.max(picture.width, picture.height);
  const target = Math.min(Math.max(longest, COMPOSED_MIN_PX), COMPOSED_MAX_PX);
  const width = Math.round((picture.width * target) / longest);
  const height = Math.round((picture.height * target) / longest);
  const text = Math.round(target / 48);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const font = `${text}px system-ui, sans-serif`;
  const margin = heatmap ? 8 * text : 0;
  context.font = font;
  const lines = caption.flatMap((line) => wrapped(context, line, width + margin - text));
  canvas.width = width + margin;
  canvas.height = height + Math.round(lines.length > 0 ? text * (1.45 * lines.length + 1) : 0);
  context.fillStyle = "#000";
  context.fillRect(0, 0, canvas.width, canvas.height);
  const box = { x: 0, y: 0, width, height };
  const pixels = pixelsInBox(context, picture.image, box);
  context.putImageData(throughWindow(pixels, window), pixels.left, pixels.top);
  context.fillStyle = "#fff";
  context.font = font; // a new size has forgotten it
  context.textBaseline = "top";
  if (heatmap) {
    drawHeatmap(context, heatmap, box, opacity);
    const place = { x: width + text, y: 2 * text, height: height / 2, text };
    drawColourBar(context, colourBar, opacity, place);
  }
  lines.forEach((line, i) => {
    context.fillText(line, text / 2, height + text * (0.5 + 1.45 * i));
  });
}

function wrapped(context, line, widthPx) {
  const lines = [];
  let current = "";
  for (const word of line.split(" ")) {
    const longer = current ? `${current} ${word}` : word;
    if (current && context.measureText(longer).width > widthPx) {
      lines.push(current);
      current = word;
    } else {
      current = longer;
    }
  }
  return [...lines, current];
}

function drawColourBar(context, { image, ticks, title }, opacity, { x, y, height, text }) {
  context.fillStyle = "#808080"; // as over a picture of middle grey
  context.fillRect(x, y, text, height);
  drawHeatmap(context, image, { x, y, width: text, height }, opacity);
  context.fillStyle = "#fff";
  for (const tick of ticks) {
    context.fillText(tick.text, x + 1.4 * text, y + height * (1 - tick.at) - text / 2);
  }
  title.split(" ").forEach((word, i) => {
    context.fillText(word, x, y + height + text * (1 + 1.2 * i), 6.5 * text);
  });
}
