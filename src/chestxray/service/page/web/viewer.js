// The viewer: one picture on a canvas, moved, zoomed and windowed, with the heatmap laid over.
//
// Does not: know of answers or of the page's buttons; `onChange` tells who does.

import { drawHeatmap, FULL_WINDOW, pixelsInBox, throughWindow } from "./picture.js";

const MAX_ZOOM = 20; // of the size at which the whole picture is seen
const ZOOM_STEP = 1.25;
const PAN_STEP_PX = 40;
const WINDOW_STEP = 8; // grey levels
const GREY_LEVELS_PER_PX = 0.75; // of a drag

export class Viewer {
  picture = null; // {image, width, height}
  heatmap = null; // an image that covers the picture
  heatmapShown = false;
  opacity = 0.7;
  tool = "window"; // or "pan": what dragging does
  window = FULL_WINDOW;
  zoom = 1;
  pointer = null; // {x, y} in shares of the picture, while over it
  #pan = { x: 0, y: 0 }; // of the picture's middle from the canvas's, in px of the screen
  #plain = null; // pixels without window, of the box drawn last
  #pointers = new Map();
  #frame = 0;

  constructor(canvas, onChange) {
    this.canvas = canvas;
    this.onChange = onChange;
    this.context = canvas.getContext("2d", { willReadFrequently: true });
    new ResizeObserver(() => this.#moved()).observe(canvas);
    canvas.addEventListener("pointerdown", (event) => this.#pressed(event));
    canvas.addEventListener("pointermove", (event) => this.#pointed(event));
    canvas.addEventListener("pointerleave", () => this.#pointedNowhere());
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, (event) => this.#pointers.delete(event.pointerId));
    }
    canvas.addEventListener("wheel", (event) => this.#wheeled(event), { passive: false });
    canvas.addEventListener("dblclick", () => this.reset());
    canvas.addEventListener("keydown", (event) => this.#typed(event));
  }

  get heatmapSeen() {
    return this.heatmapShown && this.heatmap !== null;
  }

  /** Another picture, or none: whole, with its full window. */
  show(picture) {
    this.picture = picture;
    this.heatmap = null;
    this.reset();
  }

  setHeatmap(heatmap) {
    this.heatmap = heatmap;
    this.redraw();
  }

  /** Change what is seen of the picture, not where it is. */
  set(changes) {
    Object.assign(this, changes);
    this.redraw();
  }

  setWindow(changes) {
    const { centre, width, inverted } = { ...this.window, ...changes };
    this.window = {
      centre: Math.min(Math.max(centre, 0), 255),
      width: Math.min(Math.max(width, 1), 512),
      inverted,
    };
    this.redraw();
  }

  toggleHeatmap() {
    this.set({ heatmapShown: !this.heatmapShown });
  }

  invert() {
    this.setWindow({ inverted: !this.window.inverted });
  }

  reset() {
    this.window = FULL_WINDOW;
    this.zoom = 1;
    this.#pan = { x: 0, y: 0 };
    this.#moved();
  }

  /** Zoom so that what was seen at `from`, px from the canvas's middle, is seen at `to`. */
  zoomBy(factor, to = { x: 0, y: 0 }, from = to) {
    const zoom = Math.min(Math.max(this.zoom * factor, 1), MAX_ZOOM);
    const by = zoom / this.zoom;
    this.zoom = zoom;
    this.#panTo(to.x + (this.#pan.x - from.x) * by, to.y + (this.#pan.y - from.y) * by);
  }

  zoomIn() {
    this.zoomBy(ZOOM_STEP);
  }

  zoomOut() {
    this.zoomBy(1 / ZOOM_STEP);
  }

  panBy(x, y) {
    this.#panTo(this.#pan.x + x, this.#pan.y + y);
  }

  redraw() {
    cancelAnimationFrame(this.#frame);
    this.#frame = requestAnimationFrame(() => this.#draw());
    this.onChange();
  }

  #moved() {
    this.#plain = null;
    this.redraw();
  }

  #panTo(x, y) {
    const box = this.#box(1);
    // Half of what does not fit: an edge may come to the edge, and the middle never leaves.
    const most = (side, room) => Math.max((side - room) / 2, 0);
    const limit = (value, bound) => Math.min(Math.max(value, -bound), bound);
    this.#pan = {
      x: limit(x, most(box.width, this.canvas.clientWidth)),
      y: limit(y, most(box.height, this.canvas.clientHeight)),
    };
    this.#moved();
  }

  /** Where the whole picture lies, in px of the screen times `density`. */
  #box(density) {
    const { clientWidth, clientHeight } = this.canvas;
    const { width, height } = this.picture ?? { width: 1, height: 1 };
    const scale = this.zoom * Math.min(clientWidth / width, clientHeight / height);
    const [w, h] = [width * scale, height * scale];
    return {
      x: density * ((clientWidth - w) / 2 + this.#pan.x),
      y: density * ((clientHeight - h) / 2 + this.#pan.y),
      width: density * w,
      height: density * h,
    };
  }

  #draw() {
    const { canvas, context } = this;
    const density = window.devicePixelRatio;
    const [width, height] = [canvas.clientWidth * density, canvas.clientHeight * density];
    if (canvas.width !== Math.round(width) || canvas.height !== Math.round(height)) {
      canvas.width = Math.round(width);
      canvas.height = Math.round(height);
      this.#plain = null;
    }
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (this.picture === null || canvas.width === 0 || canvas.height === 0) {
      return;
    }
    const box = this.#box(density);
    this.#plain ??= pixelsInBox(context, this.picture.image, box);
    if (this.#plain !== null) {
      const { left, top } = this.#plain;
      context.putImageData(throughWindow(this.#plain, this.window), left, top);
    }
    if (this.heatmapSeen) {
      drawHeatmap(context, this.heatmap, box, this.opacity);
    }
  }

  #fromMiddle(event) {
    const { left, top, width, height } = this.canvas.getBoundingClientRect();
    return { x: event.clientX - left - width / 2, y: event.clientY - top - height / 2 };
  }

  #pressed(event) {
    if (event.button > 1) {
      return;
    }
    this.canvas.setPointerCapture(event.pointerId);
    this.#pointers.set(event.pointerId, this.#fromMiddle(event));
    if (event.button === 1) {
      event.preventDefault(); // or the browser scrolls
    } else {
      this.canvas.focus({ preventScroll: true });
    }
  }

  #pointed(event) {
    const at = this.#fromMiddle(event);
    const before = this.#pointers.get(event.pointerId);
    if (before === undefined) {
      this.#hover(at);
      return;
    }
    const others = [...this.#pointers].filter(([id]) => id !== event.pointerId);
    this.#pointers.set(event.pointerId, at);
    const [dx, dy] = [at.x - before.x, at.y - before.y];
    if (others.length > 0) {
      const other = others[0][1];
      const distance = (point) => Math.hypot(point.x - other.x, point.y - other.y);
      const middle = (point) => ({ x: (point.x + other.x) / 2, y: (point.y + other.y) / 2 });
      this.zoomBy(distance(at) / Math.max(distance(before), 1), middle(at), middle(before));
    } else if (this.tool === "pan" || event.shiftKey || event.buttons & 4) {
      this.panBy(dx, dy);
    } else {
      this.setWindow({
        width: this.window.width + GREY_LEVELS_PER_PX * dx,
        centre: this.window.centre + GREY_LEVELS_PER_PX * dy,
      });
    }
  }

  #hover(at) {
    const box = this.#box(1);
    const x = (at.x + this.canvas.clientWidth / 2 - box.x) / box.width;
    const y = (at.y + this.canvas.clientHeight / 2 - box.y) / box.height;
    const over = this.picture !== null && x >= 0 && x < 1 && y >= 0 && y < 1;
    this.pointer = over ? { x, y } : null;
    this.onChange();
  }

  #pointedNowhere() {
    this.pointer = null;
    this.onChange();
  }

  #wheeled(event) {
    event.preventDefault();
    this.zoomBy(Math.exp(-event.deltaY / 600), this.#fromMiddle(event));
  }

  #typed(event) {
    const directions = {
      ArrowLeft: [-1, 0],
      ArrowRight: [1, 0],
      ArrowUp: [0, -1],
      ArrowDown: [0, 1],
    };
    const direction = directions[event.key];
    if (direction === undefined || event.ctrlKey || event.altKey || event.metaKey) {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
    const [x, y] = direction;
    if (event.shiftKey) {
      this.setWindow({
        width: this.window.width + x * WINDOW_STEP,
        centre: this.window.centre + y * WINDOW_STEP,
      });
    } else {
      this.panBy(-x * PAN_STEP_PX, -y * PAN_STEP_PX);
    }
  }
}
