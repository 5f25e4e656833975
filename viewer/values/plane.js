import { make } from "../page/controls.js";
import { pictureOf } from "./shading.js";
import { Slicer } from "./slicer.js";

const NOTCH = 50; // of a wheel, in pixels: a notch, which is a slice, has more
const GAP = 10; // pixels of the crosshair around its middle that are not drawn
const [LEFT, RIGHT] = [0, 2]; // buttons
const SIDES = ["left", "right", "top", "bottom"];

/** A slice across one axis: its picture, the crosshair, and the slider that moves it. */
export class PlaneView {
    #frame = null;
    #picture = document.createElement("canvas");
    #isStale = true; // the picture
    #rolled = 0; // of a wheel, what makes no slice yet
    #pulled = null; // where a drag of the window is
    #fingers = new Map(); // that touch it, by their numbers: [x, y]

    /** @param page whose `state` it shows, and whose move(), pull() and point() it calls */
    constructor(page, plane) {
        Object.assign(this, { page, plane });
        this.canvas = make("canvas", { tabIndex: -1 });
        this.canvas.setAttribute("aria-label", `${plane.name} slice; click for a place, scroll for a slice`);
        this.label = make("span", {});
        const { n } = plane.across;
        this.slider = make("input", { type: "range", min: 0, max: n - 1, "aria-label": `${plane.name} slice` });
        this.slider.addEventListener("input", () => page.move(plane.across.axis, this.slider.valueAsNumber));
        const letters = (plane.ends ?? []).map((letter, i) => make("span", { className: `end ${SIDES[i]}` }, letter));
        const caption = make("figcaption", {}, make("b", {}, plane.name), this.slider, this.label);
        this.element = make("figure", { className: `plane ${plane.key}` }, this.canvas, ...letters, caption);
        this.element.style.setProperty("--plane", `var(--plane-${plane.across.axis})`);
        const fail = (error) => page.tellFailure(error);
        this.slicer = new Slicer(page.fit, page.tiles, plane.across.axis, () => this.#renew(), fail);
        this.#listen();
    }

    get isShown() {
        return !this.element.hidden;
    }

    close() {
        this.slicer.close();
        cancelAnimationFrame(this.#frame);
    }

    /** Pixels of the screen that a unit of space may have, so that the whole slice is seen. */
    get room() {
        const { right, down } = this.plane;
        const { clientWidth: width, clientHeight: height } = this.canvas;
        return Math.min(width / (right.n * right.spacing), height / (down.n * down.spacing));
    }

    /** Shows the state of the page. scale: pixels of CSS a unit of space */
    show(scale) {
        if (!this.isShown || !(scale > 0)) return;
        this.scale = scale;
        const { across, right, down } = this.plane;
        const voxel = this.page.state.at[across.axis];
        this.slider.value = voxel;
        this.label.textContent = voxel;
        this.slicer.show(voxel, scale * Math.max(right.spacing, down.spacing) * window.devicePixelRatio);
        this.draw();
    }

    #renew() {
        this.reshade();
        this.page.tell();
    }

    /** Draws it anew, after a change of the window or the channel. */
    reshade() {
        this.#isStale = true;
        this.draw();
    }

    draw() {
        this.#frame ??= requestAnimationFrame(() => {
            this.#frame = null;
            if (this.isShown) this.#draw();
        });
    }

    /** Where a place along the axis to the right or down lies on the canvas; edges of voxels are whole numbers. */
    #onScreen(side, edge) {
        const { axis, isFlipped, n, spacing } = side;
        const { zoom, focus } = this.page.state;
        const middle = zoom > 1 ? focus[axis] + 0.5 : n / 2;
        const sign = isFlipped ? -1 : 1;
        const { clientWidth: width, clientHeight: height } = this.canvas;
        return (side === this.plane.right ? width : height) / 2 + sign * (edge - middle) * spacing * this.scale;
    }

    /** The voxel under a point of the canvas, along x, y, z, or null off the volume. */
    voxelAt({ offsetX, offsetY }, isClamped = false) {
        const { right, down } = this.plane;
        const voxel = [...this.page.state.at];
        for (const [side, point] of [[right, offsetX], [down, offsetY]]) {
            const [low, high] = [this.#onScreen(side, 0), this.#onScreen(side, side.n)];
            const at = Math.floor((side.n * (point - low)) / (high - low));
            if (!isClamped && (at < 0 || at >= side.n)) return null;
            voxel[side.axis] = Math.min(Math.max(at, 0), side.n - 1);
        }
        return voxel;
    }

    /** The numbers of a channel, or of the first three for null, at a voxel of its plane; null while none is there. */
    numbersAt(voxel, channel) {
        const { slice } = this.slicer;
        if (!slice || slice.voxel !== voxel[this.plane.across.axis]) return null;
        const { values, level, size: [rows, columns] } = slice;
        const at = voxel.toSpliced(this.plane.across.axis, 1);
        const [column, row] = at.map((one) => one >> level.index);
        return (channel === null ? [0, 1, 2] : [channel]).map((c) => values[(c * rows + row) * columns + column]);
    }

    #draw() {
        const { canvas, slicer: { slice } } = this;
        const density = window.devicePixelRatio;
        const [width, height] = [canvas.clientWidth, canvas.clientHeight].map((length) => Math.round(length * density));
        if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
        const context = canvas.getContext("2d", { alpha: false });
        context.setTransform(1, 0, 0, 1, 0, 0);
        context.fillRect(0, 0, width, height);
        if (!slice) return;
        if (this.#isStale) this.#shade(slice);
        this.#drawPicture(context, density, slice.level.index);
        context.setTransform(density, 0, 0, density, 0, 0);
        if (this.page.state.hasCross) this.#drawCross(context);
    }

    #shade(slice) {
        [this.#picture.height, this.#picture.width] = slice.size;
        const { shades, colourChannel } = this.page;
        this.#picture.getContext("2d").putImageData(pictureOf(slice, shades, colourChannel), 0, 0);
        this.#isStale = false;
    }

    /** Its columns go along the first axis that it is not across, its rows along the other. */
    #drawPicture(context, density, level) {
        const { right, down } = this.plane;
        const isTurned = right.axis > down.axis;
        const [x, y] = [right, down].map((side) => {
            const [low, high] = [0, side.n].map((edge) => density * this.#onScreen(side, edge));
            return { low, length: high - low, step: ((high - low) / side.n) * 2 ** level };
        });
        context.save();
        context.beginPath();
        context.rect(x.low, y.low, x.length, y.length); // coarser levels reach beyond
        context.clip();
        context.setTransform(...(isTurned ? [0, y.step, x.step, 0] : [x.step, 0, 0, y.step]), x.low, y.low);
        context.imageSmoothingEnabled = true;
        context.drawImage(this.#picture, 0, 0);
        context.restore();
    }

    /** In the colours of the planes that it stands for. */
    #drawCross(context) {
        const { right, down } = this.plane;
        const { at } = this.page.state;
        const { clientWidth: width, clientHeight: height } = this.canvas;
        const [x, y] = [right, down].map((side) => Math.round(this.#onScreen(side, at[side.axis] + 0.5) - 0.5) + 0.5);
        const style = getComputedStyle(this.element);
        const line = (axis, ...ends) => {
            context.strokeStyle = style.getPropertyValue(`--plane-${axis}`);
            context.beginPath();
            for (const [from, to] of ends) {
                context.moveTo(...from);
                context.lineTo(...to);
            }
            context.stroke();
        };
        context.lineWidth = 1;
        context.globalAlpha = 0.75;
        line(right.axis, [[x, 0], [x, y - GAP]], [[x, y + GAP], [x, height]]);
        line(down.axis, [[0, y], [x - GAP, y]], [[x + GAP, y], [width, y]]);
        context.globalAlpha = 1;
    }

    #listen() {
        const { canvas, page } = this;
        canvas.addEventListener("pointerdown", (event) => this.#press(event));
        canvas.addEventListener("pointermove", (event) => this.#drag(event));
        for (const end of ["pointerup", "pointercancel"]) {
            canvas.addEventListener(end, ({ pointerId }) => this.#fingers.delete(pointerId));
        }
        canvas.addEventListener("pointerleave", () => page.point(null, this));
        canvas.addEventListener("contextmenu", (event) => event.preventDefault());
        canvas.addEventListener("dblclick", () => page.switchView(this.plane.key));
        canvas.addEventListener("wheel", (event) => this.#roll(event), { passive: false });
    }

    #press(event) {
        this.page.activate(this);
        document.activeElement?.blur(); // keys are for the page again
        this.canvas.setPointerCapture(event.pointerId);
        if (event.pointerType === "touch") this.#fingers.set(event.pointerId, [event.clientX, event.clientY]);
        if (this.#fingers.size > 1) return;
        if (event.button === LEFT) this.page.set({ at: this.voxelAt(event, true) });
        if (event.button === RIGHT) this.#pulled = [event.clientX, event.clientY];
    }

    #drag(event) {
        if (this.#fingers.size > 1) {
            this.#pinch(event);
            return;
        }
        if (event.buttons & 1) {
            this.page.set({ at: this.voxelAt(event, true) });
        } else if (event.buttons & 2 && this.#pulled) {
            const point = [event.clientX, event.clientY];
            this.page.pull(...point.map((to, axis) => to - this.#pulled[axis]));
            this.#pulled = point;
        }
        this.page.point(this.voxelAt(event), this);
    }

    /** Zooms to where the first finger is. */
    #pinch({ pointerId, clientX, clientY }) {
        const apart = () => {
            const [[x, y], [otherX, otherY]] = this.#fingers.values();
            return Math.max(Math.hypot(x - otherX, y - otherY), 1);
        };
        const before = apart();
        this.#fingers.set(pointerId, [clientX, clientY]);
        this.page.zoom(apart() / before);
    }

    #roll(event) {
        event.preventDefault();
        this.page.activate(this);
        if (event.ctrlKey) {
            this.page.zoom(Math.exp(-event.deltaY / 100), this.voxelAt(event, true));
            return;
        }
        const way = event.deltaMode === WheelEvent.DOM_DELTA_PIXEL ? event.deltaY : event.deltaY * NOTCH;
        this.#rolled += Math.min(Math.max(way, -NOTCH), NOTCH);
        const steps = Math.trunc(this.#rolled / NOTCH);
        this.#rolled -= steps * NOTCH;
        if (steps) this.step(steps);
        this.page.point(this.voxelAt(event), this);
    }

    /** Goes on by slices, the way that a patient is looked through: from the top, the front or the right. */
    step(slices) {
        const { axis, isFlipped } = this.plane.across;
        this.page.move(axis, this.page.state.at[axis] + (isFlipped ? -slices : slices));
    }
}
