// The field of the API key, of both pages: shown where a route requires a key, or one is set.

import { apiKey, setApiKey } from "./api.js";
import { byId } from "./dom.js";

/** Have the form keep and forget the tab's key. @param {() => void} changed is called after both */
export function connectKey(changed) {
  const use = (key) => {
    setApiKey(key);
    byId("key").value = "";
    showKey();
    byId("key").focus();
    changed();
  };
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    use(byId("key").value.trim());
  });
  byId("forget-key").addEventListener("click", () => use(""));
  showKey();
}

/** The server requires a key, or another one. The focus goes to the field once, since a page may find this every 2 s. */
export function requireKey() {
  if (!byId("key-form").hidden) return;
  byId("key-form").hidden = false;
  byId("key").focus();
}

function showKey() {
  const isSet = apiKey() !== "";
  if (isSet) byId("key-form").hidden = false;
  byId("forget-key").hidden = !isSet;
  byId("key").placeholder = isSet ? "(set)" : "";
}
