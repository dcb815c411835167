// A row of a table: a form made from the model's metadata.

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

/** Fill the form; `send` gets the row, a value for each column. A copied row of a sheet may be pasted into any field. */
export function makeRowForm(form, metadata, send) {
  const columns = columnsOf(metadata);
  const fields = columns.map((column, index) => makeField(column, index));
  const paste = (event) => {
    const values = event.clipboardData.getData("text").trim().split(/[\t;,]/);
    if (values.length < 2) return;
    event.preventDefault();
    const from = fields.indexOf(event.target);
    values.forEach((value, offset) => {
      if (fields[from + offset]) fields[from + offset].value = value.trim();
    });
  };
  form.replaceChildren(
    ...columns.map((column, index) =>
      element("label", {}, element("span", {}, column.name, column.mayBeMissing && element("span", { class: "faint" }, " (may be empty)")), fields[index])),
    element("div", { class: "buttons" }, element("button", { class: "primary" }, "Send the row"),
      element("span", { class: "faint" }, "Cells copied from a sheet can be pasted into the first field.")),
  );
  form.onpaste = paste;
  form.onsubmit = (event) => {
    event.preventDefault();
    send(columns.map((column, index) => readField(column, fields[index])));
  };
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
