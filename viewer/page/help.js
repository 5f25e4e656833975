import { make, makeTool } from "./controls.js";

/** Shows which keys do what, [["+", "-"], "what they do"] of each, and a note. */
export function showHelp(keys, note) {
    const dialog = document.getElementById("help");
    const rows = keys.flatMap(([names, text]) => [
        make("dt", {}, ...names.flatMap((name, k) => (k ? [" ", make("kbd", {}, name)] : [make("kbd", {}, name)]))),
        make("dd", {}, text),
    ]);
    dialog.replaceChildren(
        make("header", {}, make("h2", {}, "Keys"), makeTool("close", "Close", "Esc", () => dialog.close())),
        make("dl", {}, ...rows),
        make("p", {}, note),
    );
    dialog.onclick = (event) => event.target === dialog && dialog.close();
    dialog.showModal();
}
