/** An element: properties (or attributes, where no such property is there), then children: elements or text. */
export function make(tag, properties = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
        if (name in element) {
            element[name] = value;
        } else {
            element.setAttribute(name, value);
        }
    }
    element.append(...children);
    return element;
}

const ICONS = {
    plus: "M10 4v12M4 10h12",
    minus: "M4 10h12",
    home: "M3 10l7-6.5 7 6.5M5 9v7.5h10V9",
    actual: "M4 7l2-1.5V15M14 7l2-1.5V15M10 8v.01M10 13v.01",
    full: "M4 8V4h4M12 4h4v4M16 12v4h-4M8 16H4v-4",
    blocks: "M3.5 3.5h13v13h-13zM10 3.5v13M3.5 10h13M10 13.2h6.5M13.2 10v6.5",
    compare: "M3.5 4.5h13v11h-13zM10 2.5v15",
    theme: "M10 3a7 7 0 1 0 0 14zM10 3a7 7 0 0 1 0 14",
    link: "M8 12l4-4M9 6l1.5-1.5a3.5 3.5 0 0 1 5 5L14 11M11 14l-1.5 1.5a3.5 3.5 0 0 1-5-5L6 9",
    cross: "M10 3v5M10 12v5M3 10h5M12 10h5",
    help: "M7 7.5a3 3 0 1 1 4.2 2.7c-.8.4-1.2.9-1.2 1.8M10 15v.01",
    close: "M5 5l10 10M15 5L5 15",
};

function iconOf(name) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", "0 0 20 20");
    svg.setAttribute("aria-hidden", "true");
    const path = document.createElementNS(svg.namespaceURI, "path");
    path.setAttribute("d", ICONS[name]);
    svg.append(path);
    return svg;
}

/** A button with an icon. key: the key that does the same, told in its tooltip. */
export function makeTool(icon, label, key, action) {
    const title = key ? `${label} (${key})` : label;
    const properties = { type: "button", className: "tool", title, "aria-label": label, onclick: action };
    return make("button", properties, iconOf(icon));
}

/** The same with a word in place of an icon. */
export function makeWord(word, label, key, action) {
    const tool = makeTool("help", label, key, action);
    tool.replaceChildren(word);
    return tool;
}

/** A switch in a row of its own: .checked and "change" are those of its input. colour: of a swatch, or null. */
export function makeSwitch(label, checked, onChange, colour = null) {
    const input = make("input", { type: "checkbox", checked, role: "switch" });
    input.addEventListener("change", () => onChange(input.checked));
    const swatch = colour ? [make("span", { className: "swatch", style: `background: ${colour}` })] : [];
    return { input, row: make("label", { className: "row switch" }, ...swatch, make("span", {}, label), input) };
}

let nChoices = 0;

/** One of several values. options: [[value, label], ...]; set(value) shows another without calling onChange. */
export function makeChoice(label, options, chosen, onChange) {
    const name = `choice${nChoices++}`;
    const inputs = new Map();
    const row = make("div", { className: "choice", role: "radiogroup", "aria-label": label });
    for (const [value, text] of options) {
        const input = make("input", { type: "radio", name, checked: value === chosen });
        input.addEventListener("change", () => onChange(value));
        inputs.set(value, input);
        row.append(make("label", {}, input, make("span", {}, text)));
    }
    return { row, set: (value) => { inputs.get(value).checked = true; } };
}

/** One of many values. options: [[value, label], ...], texts; set(value) shows another without calling onChange. */
export function makeSelect(label, options, onChange) {
    const choices = options.map(([value, text]) => make("option", { value }, text));
    const select = make("select", { "aria-label": label }, ...choices);
    select.addEventListener("change", () => onChange(select.value));
    return { row: select, set: (value) => { select.value = value; } };
}

/** A range from low to high: .value is that of its input. */
export function makeSlider(label, [low, high, step], value, onChange) {
    const input = make("input", { type: "range", min: low, max: high, step, value, "aria-label": label });
    input.addEventListener("input", () => onChange(input.valueAsNumber));
    return { input, row: make("label", { className: "row slider" }, make("span", {}, label), input) };
}

/** The same with its value in words beside it; set([low, high, step], value, words) shows another. */
export function makeMeter(label, onChange) {
    const { input, row } = makeSlider(label, [0, 1, 1], 0, onChange);
    const number = make("small", { className: "number" });
    row.append(number);
    const set = ([min, max, step], value, words) => {
        Object.assign(input, { min, max, step });
        input.value = value;
        number.textContent = words;
    };
    return { input, row, set };
}

/** A section of the panel, with a title; it is appended and returned. */
export function addSection(sections, title, ...children) {
    const section = make("section", { className: "section" }, make("h2", {}, title), ...children);
    sections.append(section);
    return section;
}

/** Whether a key belongs to what has the focus: text that is typed, or a choice or range that arrows change. */
function isForField({ target, key }) {
    const type = target.closest?.("input, textarea, select")?.type;
    return type !== undefined && type !== "checkbox" && (!["radio", "range"].includes(type) || key.startsWith("Arrow"));
}

/** Listens to keys, {"b": action, ...}, wherever the focus is. Returns a function that ends it. */
export function listenToKeys(actions) {
    const listen = (event) => {
        const action = actions[event.key];
        const isOthers = event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented;
        if (action && !isOthers && !isForField(event) && !document.querySelector("dialog[open]")) {
            event.preventDefault();
            action(event);
        }
    };
    window.addEventListener("keydown", listen);
    return () => window.removeEventListener("keydown", listen);
}
