// Elements: those of the page, and new ones. Text stays text; nothing here makes markup of it.

export const byId = (id) => document.getElementById(id);

export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

/** A table's row; a cell is text or a node. */
export function row(header, ...cells) {
  return element(
    "tr",
    {},
    element("th", { scope: "row" }, header),
    ...cells.map((cell) => element("td", {}, cell)),
  );
}

/** One of several things to choose, with a remark; `onChosen(value)` hears of it. */
export function radio(name, value, text, remark, onChosen) {
  const input = element("input", { type: "radio", name, value });
  input.addEventListener("change", () => onChosen(value));
  return element(
    "label",
    {},
    input,
    element("span", {}, text),
    element("span", { className: "quiet" }, remark),
  );
}
