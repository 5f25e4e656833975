import { make } from "../page/controls.js";
import { linkTo } from "../page/link.js";
import { say } from "../page/messages.js";
import { workInWords } from "../page/readout.js";
import { arrange } from "./layout.js";
import { readLook, writeLook } from "./look.js";
import { Measure } from "./measure.js";
import { ValuesPanel, makeValuesTools, stepOf } from "./panel.js";
import { PlaneView } from "./plane.js";
import { Sample } from "./sample.js";
import { shadesOf } from "./shading.js";
import { Solid } from "./solid.js";
import { planesOf, spotOf, unitInWords } from "./space.js";

const MOST_SURVEYED = 2 ** 22; // numbers of the coarsest level from which window and threshold follow
const FEW = 0.01; // of the values: so many are below the window that is chosen by itself, and as many above
const AROUND = 0.5; // times its width, on either side, that sliders reach beyond it
const PULL = 250; // pixels that a window is pulled by its own width
const MOST_ZOOMED = 32;
const ROOM = 0.97; // of a pane that the slice fills
const SMALL = "(max-width: 640px)"; // screens that have room for one pane

/** The page of a volume of values; close() takes it away. elements: of the page. */
export async function showValues(fit, tiles, site, elements) {
    const { index, size: [depth, ...others] } = [...fit.levels.values()][0];
    const thickness = Math.min(depth, Math.ceil(MOST_SURVEYED / fit.nChannels / others[0] / others[1]));
    const first = Math.floor((depth - thickness) / 2);
    const middle = [[first, first + thickness], ...others.map((n) => [0, n])];
    const coarsest = await tiles.window("raw", index, middle);
    return new ValuesPage(fit, tiles, site, elements, coarsest);
}

/** The state of the page is what a link tells, of look.js, and `hasCross`. */
class ValuesPage {
    #closers = [];
    #samples = new Map(); // by channel
    #pointed = null; // { voxel, view }
    #shaded = ""; // what the shades are for

    constructor(fit, tiles, site, elements, coarsest) {
        Object.assign(this, { fit, tiles, site, elements, coarsest });
        const { source } = fit.header;
        this.source = source;
        this.measure = new Measure(source);
        this.hasColour = fit.nChannels === 3;
        this.levels = [...fit.levels.values()].filter(({ index }) => index >= fit.finest);
        this.planes = planesOf(fit.size, source);
        const finest = Math.min(...this.planes.map(({ across }) => across.spacing));
        this.decimals = Math.max(1 - Math.floor(Math.log10(finest)), 0); // of places: a tenth of a voxel or less
        this.views = this.planes.map((plane) => new PlaneView(this, plane));
        this.active = this.views[0];
        this.solid = new Solid(this);
        this.firstView = window.matchMedia(SMALL).matches ? this.planes[0].key : "all";
        this.firstChannel = this.hasColour ? "colour" : "1";
        this.state = {
            at: [...fit.size].reverse().map((n) => Math.floor(n / 2)), window: null, view: this.firstView,
            channel: this.firstChannel, surface: null, zoom: 1, focus: null, level: null, opacity: 1, hasCross: true,
        };
        const panes = [...this.views, this.solid].map(({ element }) => element);
        this.panes = make("div", { className: "planes" }, ...panes);
        elements.view.append(this.panes);
        this.#makeReadout(elements.readout);
        this.panel = new ValuesPanel(this, elements);
        this.tools = makeValuesTools(this, elements.tools);
        this.#follow(elements);
        this.link = linkTo({
            read: () => this.#told(), show: (look) => this.show(look), parse: readLook, format: writeLook,
        });
        this.#closers.push(this.tools.close, () => this.link.close());
    }

    /** The panes take the room that nothing floats over; the panel is drawn in the colours of the theme. */
    #follow(elements) {
        arrange(this.panes, elements);
        const sizes = new ResizeObserver(() => {
            arrange(this.panes, elements);
            this.#refresh();
        });
        for (const one of [elements.view, elements.panel, elements.tools, elements.readout]) sizes.observe(one);
        const theme = new MutationObserver(() => this.panel.tell(this.state));
        theme.observe(document.documentElement, { attributeFilter: ["data-theme"] });
        this.#closers.push(() => sizes.disconnect(), () => theme.disconnect());
    }

    close() {
        for (const close of this.#closers) close();
        for (const part of [...this.views, this.solid]) part.close();
        this.panes.remove();
    }

    /** Resolves when the slices, and the surface if it is shown, are complete and drawn. */
    async settled() {
        const wanted = () => this.views.map(({ slicer }) => slicer.whenDone);
        for (let seen = []; wanted().some((promise, i) => promise !== seen[i]); ) {
            seen = wanted();
            await Promise.all(seen);
        }
        await this.solid.settled();
        await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
    }

    /** Shows what a link tells. */
    show({ at, view, channel, zoom, focus, level, camera, ...others }) {
        const isInside = (n, axis) => Number.isInteger(n) && n >= 0 && n < this.fit.size[2 - axis];
        const isPlace = (voxel) => voxel?.every(isInside);
        const keys = [...this.planes.map(({ key }) => key), "solid", "all"];
        const place = isPlace(at) ? at : this.state.at;
        const isChannel = this.panel.channels.some(([name]) => name === channel);
        this.camera = camera;
        if (camera && this.solid.stage) this.solid.stage.look = camera;
        this.set({
            ...others, at: place, zoom: Math.min(zoom, MOST_ZOOMED), focus: isPlace(focus) ? focus : place,
            view: keys.includes(view) ? view : this.firstView, channel: isChannel ? channel : this.firstChannel,
            level: this.levels.some(({ index }) => index === level) ? level : null,
        });
    }

    /** The state, without what is as the page has it by itself. */
    #told() {
        const { view, channel } = this.state;
        return {
            ...this.state, camera: this.solid.stage?.look ?? this.camera,
            view: view === this.firstView ? null : view, channel: channel === this.firstChannel ? null : channel,
        };
    }

    /** Changes the state, and what is seen with it. */
    set(changes) {
        Object.assign(this.state, changes);
        const { view } = this.state;
        for (const { element, plane } of this.views) element.hidden = view !== "all" && view !== plane.key;
        this.solid.element.hidden = view !== "all" && view !== "solid";
        this.panes.dataset.view = view === "all" ? "all" : "one";
        if (!this.active.isShown) this.active = this.views.find((one) => one.isShown) ?? this.active;
        this.#shade();
        this.#refresh();
        this.panel.tell(this.state);
        this.tools.tell(this.state);
        this.solid.hint.textContent = `Where values pass ${this.measure.inWords(this.firstThreshold)}`;
        this.solid.show({ ...this.state, camera: this.camera }).catch((error) => this.tellFailure(error));
        this.tell();
        this.link?.changed();
    }

    /** Slices that are side by side have one scale. */
    #refresh() {
        const shown = this.views.filter((one) => one.isShown);
        const scale = ROOM * this.state.zoom * Math.min(...shown.map(({ room }) => room));
        for (const one of shown) one.show(scale);
    }

    #shade() {
        const shaded = `${this.shownWindow} ${this.state.channel}`;
        if (shaded === this.#shaded) return;
        this.#shaded = shaded;
        this.shades = shadesOf(this.measure, this.shownWindow);
        for (const one of this.views) one.reshade();
    }

    /** The channel that is shown as grey, or null for the first three as colours. */
    get colourChannel() {
        return this.state.channel === "colour" ? null : Number(this.state.channel) - 1;
    }

    /** Of the coarsest level, or of its middle where it is large, of what is shown. */
    get sample() {
        const { channel } = this.state;
        if (!this.#samples.has(channel)) {
            const n = this.coarsest.length / this.fit.nChannels;
            const [first, count] = this.colourChannel === null ? [0, 3] : [this.colourChannel, 1];
            this.#samples.set(channel, new Sample(this.coarsest.subarray(first * n, (first + count) * n)));
        }
        return this.#samples.get(channel);
    }

    /** The values, lower first, that two parts of the sample do not exceed. */
    #between(...parts) {
        const values = parts.map((part) => this.measure.valueOf(this.sample.quantile(part)));
        return values.map((value) => this.#rounded(value)).sort((a, b) => a - b);
    }

    #rounded(value) {
        return this.measure.isWhole ? Math.round(value) : value;
    }

    /** Most of the values that are there, or all of them, or all that could be there. */
    get #mostValues() {
        const { low, high } = this.measure;
        const found = [this.#between(FEW, 1 - FEW), this.#between(0, 1), [low, high]];
        return found.find(([least, most]) => least < most);
    }

    /** Whether it shows colours as they are meant to be seen, such as those of a video. */
    get #isPicture() {
        return this.colourChannel === null && this.source.bits === 8 && !this.source.transfer;
    }

    get firstWindow() {
        return this.#isPicture ? [this.measure.low, this.measure.high] : this.#mostValues;
    }

    get shownWindow() {
        return this.state.window ?? this.firstWindow;
    }

    /** Of Otsu, between what is body and what is not. */
    get firstThreshold() {
        return this.#rounded(this.measure.valueOf(this.sample.otsu));
    }

    /** What sliders reach over: the values that are there mostly, and those that are chosen. */
    get range() {
        const { low, high } = this.measure;
        const [least, most] = this.firstWindow;
        const around = AROUND * (most - least);
        const { window, surface } = this.state;
        const chosen = [...(window ?? []), ...(surface === null ? [] : [surface])];
        return [Math.max(low, Math.min(least - around, ...chosen)), Math.min(high, Math.max(most + around, ...chosen))];
    }

    get step() {
        return stepOf(...this.firstWindow, this.measure.isWhole);
    }

    setWindow(level, width) {
        const half = Math.max(width, this.step) / 2;
        this.set({ window: [level - half, level + half] });
    }

    showMostValues() {
        this.set({ window: this.#isPicture ? this.#mostValues : null });
    }

    showAllValues() {
        this.set({ window: [this.measure.low, this.measure.high] });
    }

    /** Pulls the window: to the right it grows wider, down its level rises, and the picture grows darker. */
    pull(right, down) {
        const [low, high] = this.shownWindow;
        const width = high - low;
        this.setWindow((low + high) / 2 + (down * width) / PULL, width * Math.exp(right / PULL));
    }

    /** The surface that is asked for, as Bricks takes it. */
    get field() {
        const threshold = this.measure.numberOf(this.state.surface ?? this.firstThreshold);
        return { threshold, channel: this.colourChannel ?? 0 };
    }

    switchSurface() {
        const isOn = this.state.surface !== null;
        const view = ["all", "solid"].includes(this.state.view) ? this.state.view : "solid";
        this.set(isOn ? { surface: null } : { surface: this.firstThreshold, view });
    }

    /** Goes to a slice. */
    move(axis, voxel) {
        this.set({ at: this.state.at.with(axis, Math.min(Math.max(voxel, 0), this.fit.size[2 - axis] - 1)) });
    }

    /** One pane alone, or all of them if it is alone already. */
    switchView(key) {
        this.set({ view: this.state.view === key ? "all" : key });
    }

    activate(view) {
        this.active = view;
    }

    /** Nearer by a factor, around a voxel; a factor of 0 shows the whole. */
    zoom(factor, focus = this.state.at) {
        if (this.state.view === "solid") {
            this.solid.zoom(factor);
            return;
        }
        const zoom = Math.min(Math.max(this.state.zoom * factor, 1), MOST_ZOOMED);
        this.set({ zoom, focus });
    }

    point(voxel, view) {
        this.#pointed = voxel && { voxel, view };
        this.tell();
    }

    tellFailure(error) {
        say(`Not all could be shown: ${error.message}`, { isBad: true });
    }

    #makeReadout(output) {
        const field = (name, title, label) =>
            make("span", { className: `field ${name}`, title, ...(label && { "data-label": label }) });
        this.fields = {
            level: field("level", "The level of detail that is shown"),
            voxel: field("voxel", "The voxel under the pointer, or that of the crosshair: x, y, z", "voxel"),
            place: field("place", "Where it lies: x, y, z", "at"),
            value: field("reading", "Its value, as the file has it", "value"),
            work: field("work", "Decoded by each worker; read of the file"),
        };
        output.replaceChildren(...Object.values(this.fields));
        output.hidden = false;
    }

    /** Writes the line of figures. */
    tell() {
        const shown = this.views.filter((one) => one.isShown && one.slicer.slice);
        const { voxel, view } = this.#pointed ?? { voxel: this.state.at, view: this.active };
        const place = spotOf(voxel, this.source)?.map((one) => one.toFixed(this.decimals));
        const numbers = view.numbersAt(voxel, this.colourChannel);
        const bricks = this.solid.shell?.bricks;
        const level = shown.length ? Math.max(...shown.map(({ slicer }) => slicer.slice.level.index)) : bricks?.level;
        const isExact = shown.length ? shown.every(({ slicer }) => slicer.isDone) : bricks?.isComplete;
        const texts = {
            level: level === undefined ? "" : `level ${level}`,
            voxel: voxel.join(", "),
            place: place ? `${place.join(", ")} ${unitInWords(this.source)}` : "",
            value: numbers ? numbers.map((number) => this.measure.read(number)).join(" ") : "",
            work: workInWords(this.tiles, "megavoxels/s"),
        };
        for (const [name, text] of Object.entries(texts)) this.fields[name].textContent = text;
        this.fields.level.dataset.state = isExact ? "exact" : "loading";
    }
}
