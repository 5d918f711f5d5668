// The viewer's buttons and sliders: what they do to it, and what they show of it.
//
// Does not: draw the picture (viewer.js does).

import { byId } from "./elements.js";

export class Controls {
  constructor(viewer) {
    this.viewer = viewer;
    const clicks = {
      "tool-window": () => viewer.set({ tool: "window" }),
      "tool-pan": () => viewer.set({ tool: "pan" }),
      "zoom-out": () => viewer.zoomOut(),
      "zoom-in": () => viewer.zoomIn(),
      invert: () => viewer.invert(),
      reset: () => viewer.reset(),
      heatmap: () => viewer.toggleHeatmap(),
    };
    for (const [id, clicked] of Object.entries(clicks)) {
      byId(id).addEventListener("click", clicked);
    }
    const slides = {
      "window-width": (width) => viewer.setWindow({ width }),
      "window-centre": (centre) => viewer.setWindow({ centre }),
      opacity: (percent) => viewer.set({ opacity: percent / 100, heatmapShown: true }),
    };
    for (const [id, slid] of Object.entries(slides)) {
      byId(id).addEventListener("input", (event) => slid(Number(event.target.value)));
    }
  }

  /** Show how the viewer shows a reading, or none, by whose facts; null before any are known. */
  show(reading, judgement) {
    const { viewer } = this;
    const { picture, heatmapSeen } = viewer;
    const caution = heatmapSeen && !judgement.heatmapValidated;
    const heatmap = heatmapSeen ? ` with heatmap${caution ? ", not validated" : ""}` : "";
    byId("picture").hidden = picture === null;
    byId("picture").dataset.tool = viewer.tool;
    byId("picture").setAttribute(
      "aria-label",
      reading ? `Radiograph ${reading.path}${heatmap}` : "No radiograph",
    );
    byId("heatmap-caution").hidden = !caution;
    byId("colour-bar").hidden = !heatmapSeen;
    byId("colour-bar").style.setProperty("--opacity", viewer.opacity);
    byId("window-width").value = viewer.window.width;
    byId("window-centre").value = viewer.window.centre;
    byId("opacity").value = 100 * viewer.opacity;
    const pressed = {
      "tool-window": viewer.tool === "window",
      "tool-pan": viewer.tool === "pan",
      invert: viewer.window.inverted,
      heatmap: viewer.heatmapShown,
    };
    for (const [id, is] of Object.entries(pressed)) {
      byId(id).setAttribute("aria-pressed", is);
    }
    byId("save-png").disabled = byId("print").disabled = picture === null || judgement === null;
    byId("readout").textContent = picture === null ? "" : this.#readout(reading);
  }

  #readout(reading) {
    const { zoom, window, pointer } = this.viewer;
    const parts = [
      `zoom ${zoom.toFixed(1)}×`,
      `window ${Math.round(window.width)} at ${Math.round(window.centre)}`,
    ];
    const evidence = reading?.prediction?.evidence;
    if (evidence && pointer) {
      const cells = evidence[Math.floor(pointer.y * evidence.length)];
      const value = cells[Math.floor(pointer.x * cells.length)];
      parts.push(`evidence here ${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(1)}`);
    }
    return parts.join(" · ");
  }
}
