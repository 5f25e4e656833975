import { make } from "../page/controls.js";
import { steer, zoomOf } from "./steering.js";

const COMPARISONS = [["off", "Off"], ["split", "Split"], ["difference", "Difference"]];
export const GAINS = [1, 4, 16, 64];
const CRISP = 2; // screen pixels a pixel, beyond which the original's pixels are shown as squares
const STEP = 0.02; // of the view's width, by which a key moves the handle

/** The original over a fit: hidden, right of a handle, or as the absolute difference to the fit, amplified. */
export class Comparison {
    mode = "off";
    #gain = 4;
    #share = 0.5; // of the view's width that is left of the handle
    #item = null; // OpenSeadragon's TiledImage of the original, once there
    #isOpening = false;

    /** original: {kind, url} of the site; hasAlpha: of the fit; onError: told in words what is wrong. */
    constructor(viewer, original, hasAlpha, onError) {
        this.modes = hasAlpha ? COMPARISONS.slice(0, 2) : COMPARISONS; // blending alpha gives no difference
        this.viewer = viewer;
        this.original = original;
        this.onError = onError;
        this.#makeHandle();
        viewer.addHandler("viewport-change", () => this.#place());
        viewer.addHandler("resize", () => this.#place());
        viewer.addHandler("tile-drawing", ({ tiledImage, context }) => {
            if (tiledImage === this.#item && zoomOf(tiledImage, true) > CRISP) {
                context.imageSmoothingEnabled = false;
            }
        });
    }

    set(mode) {
        this.mode = this.modes.some(([name]) => name === mode) ? mode : "off";
        if (this.mode !== "off" && !this.#isOpening) {
            this.#open();
        }
        this.#place();
    }

    /** Whether the original was asked for and is not there yet. */
    get isOpening() {
        return this.#isOpening && !this.#item;
    }

    get gain() {
        return this.#gain;
    }

    set gain(gain) {
        this.#gain = gain;
        this.#place();
    }

    #open() {
        this.#isOpening = true;
        const { kind, url } = this.original;
        this.viewer.addTiledImage({
            tileSource: kind === "iiif" ? url : { type: "image", url },
            x: 0,
            y: 0,
            width: 1,
            opacity: 0,
            success: ({ item }) => {
                this.#item = item;
                steer(item);
                this.#place();
            },
            error: () => {
                this.#isOpening = false;
                this.onError(`The original, ${url}, cannot be read.`);
            },
        });
    }

    /** Shows the original as the mode, the handle and the view ask for. */
    #place() {
        const { canvas } = this.viewer.drawer;
        const isSplit = this.mode === "split";
        this.handle.hidden = !isSplit;
        const filter = this.mode === "difference" && this.#item ? `brightness(${this.#gain})` : "";
        if (canvas.style.filter !== filter) {
            canvas.style.filter = filter;
        }
        const width = this.viewer.viewport.getContainerSize().x;
        const edge = Math.round(this.#share * width);
        this.handle.style.left = `${edge}px`;
        this.handle.setAttribute("aria-valuenow", Math.round(100 * this.#share));
        if (!this.#item) {
            return;
        }
        const clip = isSplit ? this.#clipRightOf(edge) : null;
        const isSeen = this.mode !== "off" && (!clip || clip.width > 0);
        this.#item.setOpacity(isSeen ? 1 : 0);
        this.#item.setCompositeOperation(this.mode === "difference" ? "difference" : null);
        const before = this.#item.getClip();
        if (isSeen && (clip ? !before?.equals(clip) : before)) {
            this.#item.setClip(clip);
        }
    }

    #clipRightOf(edge) {
        const { x: width, y: height } = this.#item.getContentSize();
        const point = this.viewer.viewport.pointFromPixel(new OpenSeadragon.Point(edge, 0), true);
        const left = Math.max(0, this.#item.viewportToImageCoordinates(point, true).x);
        return new OpenSeadragon.Rect(left, 0, width - left, height);
    }

    #makeHandle() {
        this.handle = make("div", {
            className: "handle", role: "slider", tabIndex: 0, "aria-label": "Where the original begins",
            "aria-valuemin": 0, "aria-valuemax": 100, hidden: true,
        }, make("span", { className: "left" }, "Fit"), make("span", { className: "right" }, "Original"));
        const move = (share) => {
            this.#share = Math.min(Math.max(share, 0), 1);
            this.#place();
        };
        this.handle.addEventListener("pointerdown", (event) => {
            this.handle.setPointerCapture(event.pointerId);
            event.stopPropagation();
        });
        this.handle.addEventListener("pointermove", (event) => {
            if (this.handle.hasPointerCapture(event.pointerId)) {
                const { left, width } = this.viewer.container.getBoundingClientRect();
                move((event.clientX - left) / width);
            }
        });
        this.handle.addEventListener("keydown", (event) => {
            const direction = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
            if (direction) {
                event.preventDefault();
                event.stopPropagation();
                move(this.#share + direction * STEP);
            }
        });
        this.viewer.container.append(this.handle);
    }
}
