// Where images come from: a file, a drop, the clipboard, the examples.

import { ApiError, request } from "./api.js";
import { byId, element } from "./dom.js";

const EXAMPLES = [
  { file: "digits.jpg", words: "handwritten digits" },
  { file: "tilted-digits.jpg", words: "tilted digits" },
  { file: "middle-two.jpg", words: "a two in the middle" },
  { file: "seven.png", words: "a seven" },
];

/**
 * Connect the inputs of the page.
 * @param {(image: {blob: Blob, name: string}) => void} use
 * @param {(error: unknown) => void} fail
 */
export function connectSources(use, fail) {
  const useFirst = (files) => {
    const file = [...files].find((each) => each.type.startsWith("image/") || /\.(tiff?|bmp|avif|webp|jpe?g|png|gif)$/i.test(each.name)) ?? files[0];
    if (!file) fail(new ApiError("What was dropped or pasted holds no file.", { next: "Save the image first, and choose the file." }));
    else use({ blob: file, name: file.name || "pasted.png" });
  };
  const input = byId("file");
  input.addEventListener("change", () => {
    if (input.files.length) useFirst(input.files);
    input.value = "";
  });
  document.addEventListener("paste", (event) => {
    if (event.target.matches?.("input:not([type=file]), textarea")) return;
    if (event.clipboardData.files.length) useFirst(event.clipboardData.files);
  });
  connectDrop(useFirst);
  byId("examples").replaceChildren(...EXAMPLES.map(({ file, words }) => element("li", {}, exampleButton(file, words, use, fail))));
}

function exampleButton(file, words, use, fail) {
  const path = `playground/examples/${file}`;
  const load = async () => {
    try {
      use({ blob: await (await request(path)).blob(), name: file });
    } catch (error) {
      fail(error);
    }
  };
  return element("button", { type: "button", title: words, onclick: load }, element("img", { src: path, alt: `Example: ${words}`, height: "48" }));
}

function connectDrop(useFirst) {
  const mark = byId("drop-here");
  let depth = 0;
  const isFile = (event) => [...event.dataTransfer.types].includes("Files");
  addEventListener("dragenter", (event) => {
    if (!isFile(event)) return;
    depth += 1;
    mark.hidden = false;
  });
  addEventListener("dragleave", () => {
    depth = Math.max(depth - 1, 0);
    mark.hidden = depth === 0;
  });
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    depth = 0;
    mark.hidden = true;
    useFirst(event.dataTransfer.files);
  });
}
