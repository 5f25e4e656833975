import { FitError } from "../file/format.js";
import { make } from "../page/controls.js";
import { linkTo } from "../page/link.js";
import { hush, say } from "../page/messages.js";
import { counted, inBytes } from "../page/readout.js";
import { Body } from "./body.js";
import { Bricks } from "./bricks.js";
import { Cut } from "./cut.js";
import { Outlines } from "./outlines.js";
import { VolumePanel, makeVolumeTools } from "./panel.js";
import { readPose, writePose } from "./pose.js";
import { Slice } from "./slices.js";
import { Stage, meshOf, unitOf } from "./stage.js";
import { stlOf } from "./stl.js";

const MOST_VOXELS = 2 ** 25; // of the level that is shown at first
const REFRESH = [250, 5000]; // least and most milliseconds from one drawing of new bricks to the next; between them
const SHARE = 5; // times what a drawing takes: without a graphics processor it takes the time of the workers
const NO_SURFACE = "The field is nowhere above 1/2, so it has no surface here. Slices show its values.";

/** The page of a volume; close() takes it away. elements: of the page. */
export async function showVolume(fit, tiles, site, elements) {
    if (!document.createElement("canvas").getContext("webgl2")) {
        throw new FitError("Volumes are drawn by WebGL 2: turn on hardware acceleration, or try another browser.");
    }
    const three = await import("three");
    const { OrbitControls } = await import("three/addons/controls/OrbitControls.js");
    return new VolumePage(fit, tiles, site, elements, { three, OrbitControls });
}

/** The state of the page is what a link tells, of pose.js, and `isFlat`. */
class VolumePage {
    #closers = [];
    #refreshing = null;
    #refreshed = 0; // when

    constructor(fit, tiles, site, elements, { three, OrbitControls }) {
        Object.assign(this, { fit, tiles, site, elements });
        this.levels = [...fit.levels.values()].filter(({ index }) => index >= fit.finest);
        const unit = unitOf(fit.size, fit.header.source.frame);
        this.stage = new Stage(three, OrbitControls, elements.view, unit);
        this.cut = new Cut(this.stage, fit.size);
        this.body = new Body(this.stage, this.cut.planes);
        this.bricks = new Bricks(fit, tiles, () => this.refresh());
        this.outlines = new Outlines(this.stage, fit, this.cut.planes);
        this.slices = [2, 1, 0].map((axis) => new Slice(this.stage, fit, tiles, axis, tellSlice));
        this.state = {
            level: null, opacity: 1, isFlat: false, up: "y", cut: null, slices: [null, null, null], boxes: [],
        };
        this.panel = new VolumePanel(this, elements);
        this.tools = makeVolumeTools(this, elements.tools);
        this.#closers.push(this.tools.close);
        this.#followTheme();
        this.#followPanel(elements.panel);
        this.link = linkTo({
            read: () => ({ ...this.state, camera: this.stage.look }),
            show: (pose) => this.show(pose),
            parse: readPose,
            format: writePose,
        });
        this.stage.controls.addEventListener("change", () => this.link.changed());
        const turn = (event) => this.stage.turnAround(event, this.body.group, this.cut.planes);
        this.stage.canvas.addEventListener("dblclick", turn);
        this.#closers.push(() => this.link.close());
    }

    close() {
        clearTimeout(this.#refreshing);
        for (const close of this.#closers) close();
        for (const part of [this.bricks, ...this.slices, this.stage]) part.close();
    }

    /** Resolves when the surface of the chosen level and the slices are complete and drawn. */
    async settled() {
        const wanted = () => [this.bricks.whenDone, ...this.slices.map((slice) => slice.whenDone)];
        for (let seen = []; wanted().some((promise, i) => promise !== seen[i]); ) {
            seen = wanted();
            await Promise.all(seen);
        }
        this.#showBricks();
        await this.stage.whenDrawn();
    }

    /** Shows what a link tells. */
    show({ camera, level, ...others }) {
        if (camera) this.stage.look = camera;
        const isThere = this.levels.some(({ index }) => index === level);
        this.set({ ...others, level: isThere ? level : this.state.level ?? this.defaultLevel });
    }

    /** Changes the state, and what is seen with it. */
    set(changes) {
        Object.assign(this.state, changes);
        const { level, opacity, isFlat, up, cut, slices, boxes } = this.state;
        this.stage.up = up;
        this.outlines.show(boxes);
        this.state.boxes = this.outlines.on;
        this.cut.show(cut);
        if (this.body.opacity !== opacity) this.body.opacity = opacity;
        if (this.body.isFlat !== isFlat) this.body.isFlat = isFlat;
        this.slices.forEach((slice, axis) => slice.show(level, slices[axis]));
        if (level !== this.bricks.level) this.#build(() => this.bricks.goTo(level));
        this.#openBody();
        this.panel.tell(this.state);
        this.tools.tell(this.state);
        this.link?.changed();
    }

    /** The finest that is there and not too large for a first look. */
    get defaultLevel() {
        const small = this.levels.filter(({ size }) => size.reduce((product, n) => product * n, 1) <= MOST_VOXELS);
        return (small.at(-1) ?? this.levels[0]).index;
    }

    /** start: of making bricks. */
    async #build(start) {
        hush();
        start();
        this.refresh();
        const { whenDone } = this.bricks;
        await whenDone;
        if (whenDone === this.bricks.whenDone) this.#tellResult();
    }

    #tellResult() {
        const { bricks } = this;
        const { failed, level } = bricks;
        if (failed.length) {
            const all = bricks.of(level).length;
            const some = failed.length === all ? "Nothing" : `${all - failed.length} of ${counted(all, "brick")}`;
            say(`${some} of level ${level} could be decoded: ${failed[0].error.message}`,
                { isBad: true, action: ["Try again", () => this.#build(() => bricks.retry())] });
        } else if (![...bricks.visible()].some(({ surface }) => surface.indices.length)) {
            say(NO_SURFACE);
        }
    }

    /** Shows the bricks that are there, soon: drawing each one as it comes would take the time that they need. */
    refresh() {
        const pause = Math.min(Math.max(REFRESH[0], SHARE * this.stage.cost), REFRESH[1]);
        const rest = this.#refreshed + pause - performance.now();
        this.#refreshing ??= setTimeout(() => this.#showBricks(), rest);
    }

    #showBricks() {
        clearTimeout(this.#refreshing);
        this.#refreshing = null;
        this.#refreshed = performance.now();
        this.body.show(this.bricks.visible());
        this.#openBody();
        this.#tell();
    }

    #openBody() {
        this.body.isOpen = this.state.cut !== null || this.bricks.failed.length > 0;
    }

    /** Writes the line of figures. */
    #tell() {
        const { triangles, vertices } = this.body.counts;
        const { megapixels, seconds } = this.tiles.stats;
        const { bytes, requests } = this.tiles.ranges.stats;
        const rate = seconds > 0 ? [`${(megapixels / seconds).toFixed(1)} megavoxels/s`] : [];
        const work = [...rate, `${inBytes(bytes)} of ${inBytes(this.fit.bytes)}`, counted(requests, "request")];
        const field = (text, name = "", title = "") => make("span", { className: `field ${name}`, title }, text);
        const level = field(`level ${this.bricks.level}`, "level", "The level whose surface is shown");
        level.dataset.state = this.bricks.isComplete ? "exact" : "loading";
        this.elements.readout.replaceChildren(
            level,
            field(counted(triangles, "triangle")),
            field(`${vertices.toLocaleString("en")} ${vertices === 1 ? "vertex" : "vertices"}`),
            field(work.join(" · "), "work", "Decoded, and made a surface of, by each worker; read of the file"),
        );
        this.elements.readout.hidden = false;
    }

    /** The surface that is seen, in the unit of its mesh, as a file. */
    download() {
        const { scale, shift } = meshOf(this.fit.size, this.fit.header.source.frame);
        const parts = [...this.bricks.visible()].map(({ level, surface }) => ({
            ...surface,
            scale: scale.map((one) => one * 2 ** level),
            shift: shift.map((one, axis) => one + (scale[axis] * (2 ** level - 1)) / 2),
        }));
        const href = URL.createObjectURL(new Blob([stlOf(parts)], { type: "model/stl" }));
        make("a", { href, download: `${this.fit.name.replace(/\.miner$/, "")}.stl` }).click();
        setTimeout(() => URL.revokeObjectURL(href), 60000);
    }

    /** On a phone the panel lies over the lower part of the view. */
    #followPanel(panel) {
        const observer = new ResizeObserver(() => {
            const { width, height } = panel.getBoundingClientRect();
            this.stage.cover(width === window.innerWidth ? height : 0);
        });
        observer.observe(panel);
        this.#closers.push(() => observer.disconnect());
    }

    #followTheme() {
        const follow = () => {
            this.stage.background = getComputedStyle(document.documentElement).getPropertyValue("--canvas");
        };
        const observer = new MutationObserver(follow);
        observer.observe(document.documentElement, { attributeFilter: ["data-theme"] });
        this.#closers.push(() => observer.disconnect());
        follow();
    }
}

function tellSlice(error) {
    say(`A slice could not be decoded: ${error.message}`, { isBad: true });
}
