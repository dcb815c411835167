// The field of the API key: shown where the server requires a key, or one is set.

import { apiKey, setApiKey } from "./api.js";
import { byId } from "./dom.js";

/** @param {() => void} changed */
export function connectKey(changed) {
  const use = (key) => {
    setApiKey(key);
    byId("key").value = "";
    showKey();
    changed();
  };
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    use(byId("key").value.trim());
  });
  byId("forget-key").addEventListener("click", () => use(""));
  showKey();
}

/** The server requires a key, or another one. */
export function requireKey() {
  byId("key-form").hidden = false;
  byId("key").focus();
}

function showKey() {
  const isSet = apiKey() !== "";
  if (isSet) byId("key-form").hidden = false;
  byId("forget-key").hidden = !isSet;
  byId("key").placeholder = isSet ? "(set)" : "";
}
