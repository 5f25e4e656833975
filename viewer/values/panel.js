import { addSection, make, makeChoice, makeMeter, makeSelect, makeSlider } from "../page/controls.js";
import { makeSwitch, makeTool, makeWord } from "../page/controls.js";
import { minor, showTools } from "../page/tools.js";

const STEPS = 1000; // of a slider of values, where these are not whole
const [BARS, HEIGHT] = [112, 48]; // of the histogram; pixels

const VALUES_KEYS = [
    [["↑", "↓"], "the slice before and after, where the pointer was last"],
    [["PgUp", "PgDn"], "ten slices"],
    [["1", "2", "3", "4"], "one view alone, and all again"],
    [["a"], "the window that suits most values"],
    [["e"], "the window over all values"],
    [["x"], "crosshair"],
    [["s"], "surface"],
    [["+", "-", "0"], "zoom in and out, the whole"],
];
const VALUES_NOTE = "Click or drag for a place, scroll for slices, drag with the right button for the window: across "
    + "for its width, up and down for its level. Double-click a slice to see it alone. "
    + "Drop a .miner file on the page to open it.";

/** The settings of a volume of values. page: whose state they tell and set. */
export class ValuesPanel {
    constructor(page, { panel, sections }) {
        this.page = page;
        const channels = Array.from({ length: page.fit.nChannels }, (_, k) => [`${k + 1}`, nameOf(page.source, k)]);
        this.channels = page.hasColour ? [["colour", "Red, green and blue"], ...channels] : channels;
        this.#addWindow(sections);
        if (page.fit.nChannels > 1) this.#addChannel(sections);
        this.#addSurface(sections);
        panel.hidden = false;
    }

    #addWindow(sections) {
        const { page } = this;
        this.histogram = make("canvas", { className: "histogram", width: 2 * BARS * 2, height: 2 * HEIGHT });
        this.histogram.setAttribute("aria-hidden", "true");
        const change = () => page.setWindow(this.level.input.valueAsNumber, this.width.input.valueAsNumber);
        [this.level, this.width] = ["Level", "Width"].map((name) => makeMeter(name, change));
        const button = (text, title, onclick) =>
            make("button", { type: "button", className: "button quiet", title, onclick }, text);
        const buttons = make("div", { className: "row" },
            button("Auto", "From the lowest to the highest hundredth (a)", () => page.showMostValues()),
            button("Full", "All values that the file could hold (e)", () => page.showAllValues()));
        addSection(sections, "Window", this.histogram, this.level.row, this.width.row, buttons);
    }

    #addChannel(sections) {
        this.channel = makeSelect("Channel", this.channels, (channel) => this.page.set({ channel }));
        addSection(sections, "Channel", this.channel.row);
    }

    #addSurface(sections) {
        const { page } = this;
        this.isOn = makeSwitch("Show it", false, () => page.switchSurface());
        this.threshold = makeMeter("Threshold", (surface) => page.set({ surface }));
        this.opacity = makeSlider("Opacity", [0, 1, 0.05], 1, (opacity) => page.set({ opacity }));
        const levels = page.levels.map(({ index }) => [index, `${index}`]);
        this.detail = makeChoice("Level of the surface", levels, page.solid.firstLevel, (level) => page.set({ level }));
        const detail = [make("span", {}, "Level"), this.detail.row];
        const row = make("div", { className: "row", hidden: levels.length < 2 }, ...detail);
        const properties = { type: "button", className: "button quiet", onclick: () => page.solid.download() };
        const save = make("button", properties, "Save as STL");
        this.ofSurface = make("div", {}, this.threshold.row, this.opacity.row, row, save);
        addSection(sections, "Surface", this.isOn.row, this.ofSurface);
    }

    /** Shows a state. */
    tell({ channel, surface, opacity, level }) {
        const { page, page: { measure, shownWindow: [low, high] } } = this;
        const { range, step } = page;
        const set = (meter, [least, most], value) => meter.set([least, most, step], value, measure.inWords(value));
        set(this.level, range, (low + high) / 2);
        set(this.width, [step, range[1] - range[0]], high - low);
        this.#drawHistogram(range, [low, high]);
        this.channel?.set(channel);
        this.isOn.input.checked = surface !== null;
        this.ofSurface.hidden = surface === null;
        set(this.threshold, range, surface ?? page.firstThreshold);
        this.opacity.input.value = opacity;
        this.detail.set(level ?? page.solid.firstLevel);
    }

    /** How often values occur, as roots so that few are seen too; those in the window in the colour of text. */
    #drawHistogram([least, most], [low, high]) {
        const { measure, sample } = this.page;
        const drawn = `${[least, most, low, high, this.page.state.channel, document.documentElement.dataset.theme]}`;
        if (drawn === this.drawn) return;
        this.drawn = drawn;
        const context = this.histogram.getContext("2d");
        const { width, height } = this.histogram;
        const ends = [least, most].map((value) => measure.numberOf(value)).sort((a, b) => a - b);
        const counts = [...sample.counts(...ends, BARS)].map(Math.sqrt);
        if (measure.isFalling) counts.reverse();
        const top = Math.max(...counts.slice(1, -1), 1); // the ends hold all that is background or beyond
        const style = getComputedStyle(this.histogram);
        context.clearRect(0, 0, width, height);
        counts.forEach((count, i) => {
            const value = least + ((i + 0.5) / BARS) * (most - least);
            context.fillStyle = style.getPropertyValue(value >= low && value <= high ? "--text" : "--line");
            const bar = Math.min(count / top, 1) * (height - 2);
            context.fillRect((i * width) / BARS, height - bar, width / BARS - 1, bar);
        });
        context.strokeStyle = style.getPropertyValue("--accent");
        context.lineWidth = 2;
        context.beginPath();
        const x = (value) => (width * (value - least)) / (most - least);
        context.moveTo(x(low), height - 1);
        context.lineTo(x(high), 1);
        context.stroke();
    }
}

/** Of a channel, which may be one of several times, by its number in the file. */
function nameOf({ channels, time }, number) {
    return `${time === "all" ? "Time" : "Channel"} ${channels?.[number] ?? number + 1}`;
}

/** The step of sliders over a range of values. */
export function stepOf(low, high, isWhole) {
    return isWhole ? 1 : (high - low) / STEPS;
}

/** The buttons and keys of a volume of values: { tell(state), close() }. */
export function makeValuesTools(page, element) {
    const views = [...page.planes.map(({ key, name }) => [key, name]), ["solid", "3-D"]];
    const words = views.map(([key, name], i) => {
        const word = name.length < 4 ? name : name[0];
        return [key, makeWord(word, name, `${i + 1}`, () => page.switchView(key))];
    });
    const cross = makeTool("cross", "Crosshair", "x", () => page.set({ hasCross: !page.state.hasCross }));
    const [nearer, farther, home] = [() => page.zoom(1.25), () => page.zoom(0.8), () => page.zoom(0)];
    const step = (slices) => () => page.active.step(slices);
    const close = showTools(element, {
        groups: [
            words.map(([, tool]) => tool),
            [
                minor(makeTool("plus", "Nearer", "+", nearer)),
                minor(makeTool("minus", "Farther", "-", farther)),
                minor(makeTool("home", "The whole slice", "0", home)),
                minor(cross),
            ],
        ],
        keys: {
            "+": nearer, "=": nearer, "-": farther, "_": farther, 0: home,
            ArrowUp: step(-1), ArrowDown: step(1), PageUp: step(-10), PageDown: step(10),
            ...Object.fromEntries(views.map(([key], i) => [i + 1, () => page.switchView(key)])),
            a: () => page.showMostValues(), e: () => page.showAllValues(),
            x: () => page.set({ hasCross: !page.state.hasCross }), s: () => page.switchSurface(),
        },
        told: VALUES_KEYS,
        note: VALUES_NOTE,
        hash: page.site.isLocal ? null : () => page.link.hash(),
    });
    const tell = ({ view, hasCross }) => {
        for (const [key, tool] of words) tool.setAttribute("aria-pressed", view === key);
        cross.setAttribute("aria-pressed", hasCross);
    };
    return { tell, close };
}
