import { colourOf } from "../page/colours.js";
import { addSection, make, makeChoice, makeSlider, makeSwitch, makeTool } from "../page/controls.js";
import { counted } from "../page/readout.js";
import { minor, showTools } from "../page/tools.js";
import { AXES } from "./pose.js";

const VOLUME_KEYS = [
    [["+", "-"], "nearer and farther"],
    [["←", "→", "↑", "↓"], "turn"],
    [["0"], "the whole volume"],
    [["b"], "blocks"],
    [["c"], "cut it open"],
    [["x", "y", "z"], "slices"],
];

const VOLUME_NOTE = "Drag to turn, scroll or pinch to zoom, drag with two fingers or the right button to move. "
    + "Double-click a point to turn around it. Drop a .miner file on the page to open it.";

/** The settings of a volume. page: whose state they tell and set. */
export class VolumePanel {
    constructor(page, { panel, sections }) {
        this.page = page;
        this.lastCut = { axis: 0, part: 0.5, isFlipped: false };
        this.#addSurface(sections);
        this.#addBlocks(sections);
        this.#addSlices(sections);
        this.#addCut(sections);
        panel.hidden = false;
    }

    /** Shows a state. */
    tell({ level, opacity, isFlat, up, cut, slices, boxes }) {
        this.level.set(level);
        this.size.textContent = sizeInWords(this.page.fit.levels.get(level).size);
        this.opacity.input.value = opacity;
        this.flat.input.checked = isFlat;
        this.up.set(up);
        for (const [index, { input }] of this.boxes) input.checked = boxes.includes(index);
        this.slices.forEach(({ input, slider, label }, axis) => {
            input.checked = slices[axis] !== null;
            if (input.checked) slider.value = slices[axis];
            label.textContent = `${AXES[axis]} ${slider.value}`;
        });
        this.cutAxis.set(cut ? cut.axis : -1);
        for (const { row } of [this.cutPart, this.cutSide]) row.hidden = !cut;
        if (cut) {
            this.lastCut = cut;
            this.cutPart.input.value = cut.part;
            this.cutSide.input.checked = cut.isFlipped;
        }
    }

    switchBoxes() {
        const { state, levels } = this.page;
        this.page.set({ boxes: state.boxes.length ? [] : levels.map(({ index }) => index) });
    }

    switchCut() {
        this.page.set({ cut: this.page.state.cut ? null : this.#cutAcross(this.lastCut.axis) });
    }

    /** A cut that takes away the side from which one looks. */
    #cutAcross(axis) {
        return { ...this.lastCut, axis, isFlipped: this.page.stage.isBelow(axis) };
    }

    switchSlice(axis, isOn = this.page.state.slices[axis] === null) {
        this.#slice(axis, isOn ? this.slices[axis].slider.valueAsNumber : null);
    }

    #slice(axis, voxel) {
        this.page.set({ slices: this.page.state.slices.with(axis, voxel) });
    }

    #addSurface(sections) {
        const { page } = this;
        const levels = page.levels.map(({ index }) => [index, `${index}`]);
        this.level = makeChoice("Level", levels, page.defaultLevel, (level) => page.set({ level }));
        this.size = make("small", {});
        this.opacity = makeSlider("Opacity", [0, 1, 0.05], 1, (opacity) => page.set({ opacity }));
        this.flat = makeSwitch("Flat faces", false, (isFlat) => page.set({ isFlat }));
        this.up = makeChoice("Up", [["y", "y"], ["z", "z"]], "y", (up) => page.set({ up }));
        const properties = { type: "button", className: "button quiet", onclick: () => page.download() };
        addSection(sections, "Surface of level", this.level.row, make("div", { className: "row" }, this.size),
            this.opacity.row, this.flat.row, make("div", { className: "row" }, make("span", {}, "Up"), this.up.row),
            make("button", properties, "Save as STL"));
    }

    #addBlocks(sections) {
        const { page } = this;
        this.boxes = new Map(page.levels.toReversed().map(({ index, nActive, entry }) => {
            const change = (isOn) => page.set({
                boxes: isOn ? [...page.state.boxes, index] : page.state.boxes.filter((other) => other !== index),
            });
            const one = makeSwitch(`Level ${index}`, false, change, colourOf(index));
            one.row.title = `${counted(nActive, "block")}, ${counted(entry.parameters, "parameter")}`;
            one.input.before(make("small", {}, `${nActive.toLocaleString("en")} · ${shortened(entry.parameters)}`));
            return [index, one];
        }));
        addSection(sections, "Blocks · parameters", ...[...this.boxes.values()].map(({ row }) => row));
    }

    #addSlices(sections) {
        const along = this.page.fit.size.toReversed();
        this.slices = [...AXES].map((name, axis) => {
            const middle = Math.floor(along[axis] / 2);
            const slider = makeSlider(name, [0, along[axis] - 1, 1], middle, (voxel) => this.#slice(axis, voxel));
            const { input } = makeSwitch(name, false, (isOn) => this.switchSlice(axis, isOn));
            input.setAttribute("aria-label", `Slice across ${name}`);
            const row = make("div", { className: "row" }, slider.row, make("label", { className: "switch" }, input));
            return { row, input, slider: slider.input, label: slider.row.querySelector("span") };
        });
        addSection(sections, "Slices", ...this.slices.map(({ row }) => row));
    }

    #addCut(sections) {
        const { page } = this;
        const change = (changes) => page.set({ cut: { ...this.lastCut, ...changes } });
        const choose = (axis) => page.set({ cut: axis < 0 ? null : this.#cutAcross(axis) });
        const axes = [...AXES].map((name, axis) => [axis, name]);
        this.cutAxis = makeChoice("Cut across", [[-1, "Off"], ...axes], -1, choose);
        this.cutPart = makeSlider("Place", [0, 1, 0.005], 0.5, (part) => change({ part }));
        this.cutSide = makeSwitch("The other side", false, (isFlipped) => change({ isFlipped }));
        addSection(sections, "Cut", this.cutAxis.row, this.cutPart.row, this.cutSide.row);
    }
}

function sizeInWords([depth, height, width]) {
    const voxels = depth * height * width;
    const count = voxels < 1e6 ? voxels.toLocaleString("en") : `${(voxels / 1e6).toFixed(1)} million`;
    return `${width} × ${height} × ${depth}, ${count} voxels`;
}

function shortened(n) {
    if (n < 1e4) return n.toLocaleString("en");
    return n < 1e6 ? `${Math.round(n / 1e3)}k` : `${(n / 1e6).toFixed(1)}M`;
}

/** The buttons and keys of a volume: { tell(state), close() }. */
export function makeVolumeTools(page, element) {
    const { stage, panel } = page;
    const [nearer, farther, home] = [() => stage.zoom(1.25), () => stage.zoom(0.8), () => stage.home()];
    const [switchBoxes, switchCut] = [() => panel.switchBoxes(), () => panel.switchCut()];
    const boxes = makeTool("blocks", "Blocks", "b", switchBoxes);
    const cut = makeTool("compare", "Cut it open", "c", switchCut);
    const close = showTools(element, {
        groups: [
            [
                minor(makeTool("plus", "Nearer", "+", nearer)),
                minor(makeTool("minus", "Farther", "-", farther)),
                makeTool("home", "The whole volume", "0", home),
            ],
            [boxes, cut],
        ],
        keys: {
            "+": nearer, "=": nearer, "-": farther, "_": farther, 0: home, b: switchBoxes, c: switchCut,
            ArrowLeft: () => stage.turn(-1, 0), ArrowRight: () => stage.turn(1, 0),
            ArrowUp: () => stage.turn(0, 1), ArrowDown: () => stage.turn(0, -1),
            x: () => panel.switchSlice(0), y: () => panel.switchSlice(1), z: () => panel.switchSlice(2),
        },
        told: VOLUME_KEYS,
        note: VOLUME_NOTE,
        hash: page.site.isLocal ? null : () => page.link.hash(),
    });
    const tell = (state) => {
        boxes.setAttribute("aria-pressed", state.boxes.length > 0);
        cut.setAttribute("aria-pressed", state.cut !== null);
    };
    return { tell, close };
}
