// Elements from data. Text is text and never markup, so names of models and classes cannot carry script.

/** An element: attributes by name, `class` among them, `on*` functions as listeners; null and false leave one out. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** The element of an id, which the page has. */
export function byId(id) {
  return document.getElementById(id);
}

/** Show an error or a notice in an element; null hides it. */
export function show(place, error, level = "bad") {
  place.hidden = !error;
  place.className = `message ${level}`;
  place.replaceChildren(...(error ? [element("span", {}, error.message ?? String(error)), " ", element("span", { class: "faint" }, error.next ?? "")] : []));
}
