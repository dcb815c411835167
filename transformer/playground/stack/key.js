// The field of the API key, which is shown where a route requires one.

import { apiKey, setApiKey } from "../api.js";
import { byId } from "../dom.js";

/** Have the form keep and forget the tab's key; `changed` is called after both. */
export function connectKey(changed) {
  const update = () => {
    byId("forget-key").hidden = !apiKey();
    if (apiKey()) requireKey();
    changed();
  };
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    setApiKey(byId("key").value.trim());
    byId("key").value = "";
    update();
  });
  byId("forget-key").addEventListener("click", () => {
    setApiKey("");
    update();
    byId("key").focus();
  });
  byId("forget-key").hidden = !apiKey();
  if (apiKey()) requireKey();
}

/** Show the form. */
export function requireKey() {
  byId("key-form").hidden = false;
}
