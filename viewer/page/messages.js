import { make, makeTool } from "./controls.js";

/** A message over the view that does not hide it. isBad: of something that went wrong; action: [label, what to do]. */
export function say(text, { isBad = false, action = null } = {}) {
    const bar = document.getElementById("message");
    const close = makeTool("close", "Close", "", hush);
    const buttons = action
        ? [make("button", { type: "button", className: "button", onclick: action[1] }, action[0])]
        : [];
    bar.className = isBad ? "bad" : "";
    bar.role = isBad ? "alert" : "status"; // what went well does not interrupt who listens
    bar.replaceChildren(make("span", {}, text), ...buttons, close);
    bar.hidden = false;
}

/** Takes the message away. */
export function hush() {
    document.getElementById("message").hidden = true;
}

/** A message in place of the view, where nothing can be shown; children are elements below it. */
export function sayInstead(title, text, ...children) {
    clearNotice();
    const words = [make("h1", {}, title), make("p", {}, text)];
    document.body.append(make("section", { className: "notice" }, ...words, ...children));
}

/** Takes what sayInstead() shows away. */
export function clearNotice() {
    document.querySelector(".notice")?.remove();
}
