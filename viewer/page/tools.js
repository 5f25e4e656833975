import { listenToKeys, make, makeTool } from "./controls.js";
import { showHelp } from "./help.js";
import { say } from "./messages.js";
import { switchTheme } from "./theme.js";

const COMMON_KEYS = [
    [["f"], "full screen"],
    [["d", "l"], "dark or light"],
    [["?", "h"], "this help"],
];

function switchFull() {
    return document.fullscreenElement ? document.exitFullscreen() : document.documentElement.requestFullscreen();
}

async function copyLink(hash) {
    try {
        await navigator.clipboard.writeText(new URL(hash, window.location.href).href);
        say("The link to this view is copied.");
    } catch {
        say("The browser does not let the link be copied; it is in the address bar.");
    }
}

/** A tool that a phone has no room for. */
export function minor(tool) {
    tool.classList.add("minor");
    return tool;
}

/**
 * Shows the buttons of a page, and listens to its keys: its own, and those that every page has.
 *
 * groups: [[tool, ...], ...]; keys: {"b": action, ...}; told: those keys for the help, [[["b"], "what it does"], ...]
 * note: for the help; hash(): that of the view, or null where no link would lead back to it
 * Returns a function that ends the keys.
 */
export function showTools(element, { groups, keys, told, note, hash }) {
    const help = () => showHelp([...told, ...COMMON_KEYS], note);
    const common = [
        ...(hash ? [makeTool("link", "Copy the link to this view", "", () => copyLink(hash()))] : []),
        makeTool("theme", "Dark or light", "d, l", () => switchTheme()),
        ...(document.fullscreenEnabled ? [makeTool("full", "Full screen", "f", switchFull)] : []),
        minor(makeTool("help", "Help", "?", help)),
    ];
    const rule = () => make("div", { className: "rule" });
    element.replaceChildren(...[...groups, common].flatMap((group, k) => (k ? [rule(), ...group] : group)));
    return listenToKeys({
        ...keys, f: switchFull, "?": help, h: help, d: () => switchTheme("dark"), l: () => switchTheme("light"),
    });
}
