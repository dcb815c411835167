// Rows of a table: a form made from the model's metadata.

import { element } from "./dom.js";

/**
 * The columns of a table, as its metadata has them.
 * @returns {{name: string, isText: boolean, mayBeMissing: boolean, categories: (string | number)[] | null}[]}
 */
export function columnsOf({ inputs, parameters }) {
  const { features = [], missing = [], categories = {} } = parameters;
  const texts = new Set(inputs.filter((each) => each.datatype === "BYTES").map((each) => each.name));
  const width = Math.max(inputs[0]?.shape.at(-1) ?? 1, 1);
  const names = features.length ? features : Array.from({ length: width }, (_, index) => `column ${index + 1}`);
  return names.map((name) => ({
    name,
    isText: texts.has(name),
    mayBeMissing: missing.includes(name),
    categories: Object.hasOwn(categories, name) ? categories[name] : null,
  }));
}

// Rows to begin with, by the names of their columns: of the model that is shipped.
const KNOWN = { "sepal length (cm),sepal width (cm),petal length (cm),petal width (cm)": [[5.1, 3.5, 1.4, 0.2], [6.3, 3.3, 6, 2.5]] };
const MOST_ROWS = 100;

/** Rows that the model takes: known ones, or one of zeros, first categories and empty texts. @returns {unknown[][]} */
export function exampleRows(metadata) {
  const columns = columnsOf(metadata);
  return KNOWN[columns.map(({ name }) => name)] ?? [columns.map(({ isText, categories }) => categories?.[0] ?? (isText ? "" : 0))];
}

/** Fill the form; `send` gets rows, each a value for each column. Cells of a sheet may be pasted into any field. */
export function makeRowForm(form, metadata, send) {
  const columns = columnsOf(metadata);
  const list = element("div", { class: "rows" });
  /** @type {{root: HTMLElement, fields: HTMLInputElement[]}[]} */
  const rows = [];
  const add = () => {
    if (rows.length === MOST_ROWS) return;
    const row = makeRow(columns, () => {
      rows.splice(rows.indexOf(row), 1);
      row.root.remove();
      number(rows);
    });
    rows.push(row);
    list.append(row.root);
    number(rows);
  };
  const fill = (cells, fromRow, fromColumn) => cells.forEach((line, down) => {
    if (!rows[fromRow + down]) add();
    line.forEach((value, right) => {
      const field = rows[fromRow + down]?.fields[fromColumn + right];
      if (field) field.value = String(value).trim();
    });
  });
  add();
  const button = (words, act) => element("button", { type: "button", onclick: act }, words);
  form.replaceChildren(list, element("div", { class: "buttons" },
    element("button", { class: "primary" }, "Send the rows"), button("Add a row", add),
    button("Example", () => fill(exampleRows(metadata), 0, 0)),
    element("span", { class: "faint" }, `Cells copied from a sheet can be pasted into any field; ${MOST_ROWS} rows at most.`)));
  form.onpaste = (event) => {
    const cells = readCells(event.clipboardData.getData("text"));
    const row = rows.findIndex(({ fields }) => fields.includes(event.target));
    if (row < 0 || (cells.length < 2 && cells[0].length < 2)) return;
    event.preventDefault();
    fill(cells, row, rows[row].fields.indexOf(event.target));
  };
  form.onsubmit = (event) => {
    event.preventDefault();
    send(rows.map(({ fields }) => columns.map((column, index) => readField(column, fields[index]))));
  };
}

/** The cells of a sheet: tabs between them as sheets copy them, else semicolons or commas. @returns {string[][]} */
export function readCells(text) {
  const separator = ["\t", ";", ","].find((each) => text.includes(each)) ?? "\t";
  return text.replace(/(\r?\n)+$/, "").split(/\r?\n/).map((line) => line.split(separator));
}

function makeRow(columns, remove) {
  const fields = columns.map(makeField);
  const labels = columns.map(({ name, mayBeMissing }, index) => element("label", {},
    element("span", {}, name, mayBeMissing && element("span", { class: "faint" }, " (may be empty)")), fields[index]));
  const root = element("fieldset", { class: "row" }, element("legend", {}), labels,
    element("button", { type: "button", class: "remove", onclick: remove }, "Remove"));
  return { root, fields };
}

/** Name the rows, where there are several. */
function number(rows) {
  rows.forEach(({ root }, index) => {
    root.querySelector("legend").textContent = `Row ${index + 1}`;
    root.querySelector("legend").hidden = root.querySelector(".remove").hidden = rows.length === 1;
    root.querySelector(".remove").setAttribute("aria-label", `Remove row ${index + 1}`);
  });
}

function makeField({ isText, mayBeMissing, categories }, index) {
  const shared = { name: `column-${index}`, required: !mayBeMissing };
  if (!categories) {
    const kind = isText ? { type: "text" } : { type: "number", step: "any", inputmode: "decimal" };
    return element("input", { ...shared, ...kind, autocomplete: "off" });
  }
  return element("select", shared, element("option", { value: "" }, ""), categories.map((each) => element("option", { value: String(each) }, String(each))));
}

function readField({ isText, categories }, { value }) {
  if (value === "") return null;
  if (categories) return categories.find((each) => String(each) === value) ?? value;
  return isText ? value : Number(value);
}
