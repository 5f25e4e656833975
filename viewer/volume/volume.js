import { FitError } from "../file/format.js";
import { make } from "../page/controls.js";
import { linkTo } from "../page/link.js";
import { say } from "../page/messages.js";
import { counted, workInWords } from "../page/readout.js";
import { Cut } from "./cut.js";
import { Outlines } from "./outlines.js";
import { VolumePanel, makeVolumeTools } from "./panel.js";
import { readPose, writePose } from "./pose.js";
import { Shell, firstLevel } from "./shell.js";
import { Slice } from "./slices.js";
import { Stage, followTheme, meshOf, unitOf } from "./stage.js";

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

    constructor(fit, tiles, site, elements, { three, OrbitControls }) {
        Object.assign(this, { fit, tiles, site, elements });
        this.levels = [...fit.levels.values()].filter(({ index }) => index >= fit.finest);
        const unit = unitOf(fit.size, fit.header.source.frame);
        this.stage = new Stage(three, OrbitControls, elements.view, unit);
        this.cut = new Cut(this.stage, fit.size);
        const onShown = () => {
            this.#openBody();
            this.#tell();
        };
        this.shell = new Shell(this.stage, fit, tiles, { planes: this.cut.planes, onShown, nothing: NO_SURFACE });
        this.body = this.shell.body;
        this.bricks = this.shell.bricks;
        this.outlines = new Outlines(this.stage, fit, this.cut.planes);
        this.slices = [2, 1, 0].map((axis) => new Slice(this.stage, fit, tiles, axis, tellSlice));
        this.state = {
            level: null, opacity: 1, isFlat: false, up: "y", cut: null, slices: [null, null, null], boxes: [],
        };
        this.panel = new VolumePanel(this, elements);
        this.tools = makeVolumeTools(this, elements.tools);
        this.#closers.push(this.tools.close);
        this.#closers.push(followTheme(this.stage));
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
        for (const close of this.#closers) close();
        for (const part of [this.shell, ...this.slices, this.stage]) part.close();
    }

    /** Resolves when the surface of the chosen level and the slices are complete and drawn. */
    async settled() {
        const wanted = () => [this.bricks.whenDone, ...this.slices.map((slice) => slice.whenDone)];
        for (let seen = []; wanted().some((promise, i) => promise !== seen[i]); ) {
            seen = wanted();
            await Promise.all(seen);
        }
        this.shell.show();
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
        if (level !== this.bricks.level) this.shell.goTo(level);
        this.#openBody();
        this.panel.tell(this.state);
        this.tools.tell(this.state);
        this.link?.changed();
    }

    get defaultLevel() {
        return firstLevel(this.levels);
    }

    #openBody() {
        this.body.isOpen = this.state.cut !== null || this.bricks.failed.length > 0;
    }

    /** Writes the line of figures. */
    #tell() {
        const { triangles, vertices } = this.body.counts;
        const work = workInWords(this.tiles, "megavoxels/s");
        const field = (text, name = "", title = "") => make("span", { className: `field ${name}`, title }, text);
        const level = field(`level ${this.bricks.level}`, "level", "The level whose surface is shown");
        level.dataset.state = this.bricks.isComplete ? "exact" : "loading";
        this.elements.readout.replaceChildren(
            level,
            field(counted(triangles, "triangle")),
            field(`${vertices.toLocaleString("en")} ${vertices === 1 ? "vertex" : "vertices"}`),
            field(work, "work", "Decoded, and made a surface of, by each worker; read of the file"),
        );
        this.elements.readout.hidden = false;
    }

    /** The surface that is seen, in the unit of its mesh, as a file. */
    download() {
        const { scale, shift } = meshOf(this.fit.size, this.fit.header.source.frame);
        const rows = scale.map((one, axis) => [0, 0, 0, shift[axis]].with(axis, one));
        this.shell.download(this.fit.name, rows);
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
}

function tellSlice(error) {
    say(`A slice could not be decoded: ${error.message}`, { isBad: true });
}
