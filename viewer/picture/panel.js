import { colourOf } from "../page/colours.js";
import { addSection, make, makeChoice, makeSwitch, makeTool } from "../page/controls.js";
import { minor, showTools } from "../page/tools.js";
import { GAINS } from "./compare.js";

const PICTURE_KEYS = [
    [["+", "-"], "zoom in and out"],
    [["←", "→", "↑", "↓"], "move"],
    [["0"], "the whole picture"],
    [["1"], "a pixel of the picture on each of the screen"],
    [["b"], "blocks"],
    [["o"], "the original: off, beside it, the difference"],
];

/** The sections of the panel; page: a PicturePage. */
export class PicturePanel {
    constructor(page, { panel, sections }) {
        this.switches = new Map(page.levels.toReversed().map((level) => [level.index, makeLevelSwitch(page, level)]));
        addSection(sections, "Blocks with a network", ...[...this.switches.values()].map(({ row }) => row));
        if (page.comparison) {
            this.choice = makeChoice("Original", page.comparison.modes, "off", (mode) => page.compare(mode));
            const gains = makeChoice("Amplified by", GAINS.map((gain) => [gain, `${gain}×`]), page.comparison.gain,
                (gain) => { page.comparison.gain = gain; });
            this.gains = make("div", { hidden: true }, make("small", {}, "Amplified by"), gains.row);
            addSection(sections, "Original", this.choice.row, this.gains);
        }
        panel.hidden = false;
    }

    /** Shows a state of the page. */
    show({ blocks, compare }) {
        for (const [index, { input }] of this.switches) {
            input.checked = blocks.includes(index);
        }
        this.choice?.set(compare);
        if (this.gains) {
            this.gains.hidden = compare !== "difference";
        }
        document.getElementById("tool-blocks").setAttribute("aria-pressed", blocks.length > 0);
        document.getElementById("tool-compare").setAttribute("aria-pressed", compare !== "off");
    }
}

function makeLevelSwitch(page, { index, nActive }) {
    const change = (isOn) => {
        const others = page.blocks.on.filter((other) => other !== index);
        page.showBlocks(isOn ? [...others, index] : others);
    };
    const made = makeSwitch(`Level ${index}`, false, change, colourOf(index));
    made.input.disabled = nActive === 0;
    made.input.before(make("small", {}, nActive.toLocaleString("en")));
    return made;
}

/** The buttons and the keys; returns what ends the keys. */
export function makePictureTools(page, tools) {
    const home = () => page.viewer.viewport.goHome();
    const [zoomIn, zoomOut] = [() => page.zoomBy(2), () => page.zoomBy(0.5)];
    const [blocks, compare] = [() => page.switchBlocks(), () => page.switchComparison()];
    const actual = () => page.actualSize();
    const named = (name, tool, isHidden = false) => Object.assign(tool, { id: `tool-${name}`, hidden: isHidden });
    return showTools(tools, {
        groups: [
            [
                minor(makeTool("plus", "Zoom in", "+", zoomIn)),
                minor(makeTool("minus", "Zoom out", "-", zoomOut)),
                makeTool("home", "The whole picture", "0", home),
                makeTool("actual", "Pixel on pixel", "1", actual),
            ],
            [
                named("blocks", makeTool("blocks", "Blocks", "b", blocks)),
                named("compare", makeTool("compare", "Original", "o", compare), !page.comparison),
            ],
        ],
        keys: {
            "+": zoomIn, "=": zoomIn, "-": zoomOut, "_": zoomOut, 0: home, 1: actual, b: blocks, o: compare,
            ArrowLeft: () => page.move(-1, 0), ArrowRight: () => page.move(1, 0),
            ArrowUp: () => page.move(0, -1), ArrowDown: () => page.move(0, 1),
        },
        told: PICTURE_KEYS.filter(([[name]]) => page.comparison || name !== "o"),
        note: "Scroll, pinch or double-click to zoom; drag to move. Drop a .miner file on the page to open it.",
        hash: page.site.isLocal ? null : () => page.link.hash(),
    });
}
