import { make } from "../page/controls.js";
import { linkTo } from "../page/link.js";
import { hush, say } from "../page/messages.js";
import { Readout, counted } from "../page/readout.js";
import { Blocks, finestBlock } from "./blocks.js";
import { Comparison } from "./compare.js";
import { PicturePanel, makePictureTools } from "./panel.js";
import { readPlace, writePlace } from "./place.js";
import { pixelUnder } from "./probe.js";
import { Jobs, LEAST_RATIO, sourceOf, tiersOf } from "./source.js";
import { snap, steer, wantedTier, zoomOf } from "./steering.js";

const MOST_ZOOM = 64; // screen pixels a pixel
const LEAST_HOME = 0.6; // of the zoom that shows the whole picture
const [LEAST_NAVIGATOR, MOST_NAVIGATOR] = [40, 168]; // pixels of the small picture of the whole along an axis
const ARROW = 0.15; // of the view that an arrow moves it

/** The page of a picture; close() takes it away. elements: of the page. */
export async function showPicture(fit, tiles, site, elements) {
    const page = new PicturePage(fit, tiles, site, elements);
    await page.open();
    return page;
}

class PicturePage {
    #closers = [];
    #pointer = null; // where it is, in pixels of the view
    #isStale = true; // the readout

    constructor(fit, tiles, site, elements) {
        Object.assign(this, { fit, tiles, site, elements });
        this.levels = [...fit.levels.values()];
        this.tiers = tiersOf(fit);
        this.jobs = new Jobs();
        this.readout = new Readout(elements.readout);
    }

    /** Down to somewhat less than the whole picture, or a pixel on each of the screen where that is smaller. */
    #allowZoom() {
        const { viewport } = this.viewer;
        const actual = this.item.imageToViewportZoom(1 / OpenSeadragon.pixelDensityRatio);
        viewport.minZoomLevel = Math.min(LEAST_HOME * viewport.getHomeZoom(), actual);
    }

    async open() {
        this.viewer = makeViewer(this.elements.view, this.fit.size);
        this.item = await addFit(this.viewer, sourceOf(this.fit, this.tiers, this.tiles, this.jobs));
        const [height, width] = this.fit.size;
        this.item.setClip(new OpenSeadragon.Rect(0, 0, width, height)); // pixels of coarser levels reach beyond
        steer(this.item, (level) => this.isWanted(level));
        const { viewer } = this;
        this.#allowZoom();
        this.blocks = new Blocks(this.item, this.levels);
        const tell = (text) => say(text, { isBad: true });
        this.comparison = this.site.original
            ? new Comparison(viewer, this.site.original, this.fit.hasAlpha, tell)
            : null;
        this.panel = new PicturePanel(this, this.elements);
        this.#closers.push(makePictureTools(this, this.elements.tools));
        this.#listen();
        this.link = linkTo({
            read: () => this.state, show: (state) => this.show(state), parse: readPlace, format: writePlace,
        });
        this.#closers.push(() => this.link.close());
        this.#tick();
    }

    close() {
        for (const close of this.#closers) {
            close();
        }
        this.viewer.destroy();
    }

    /** Whether tiles of a tier are asked for: those that the zoom needs, and on the way to them what comes cheaply. */
    isWanted(level) {
        const wanted = wantedTier(this.item, this.tiers);
        return level === wanted || (level < wanted && this.tiers[level].isQuick);
    }

    /** Whether all that is in view is there and drawn, at the tier that the zoom needs. */
    get isExact() {
        const { item } = this;
        return item._providesCoverage(item.coverage, wantedTier(item, this.tiers));
    }

    /** Resolves when the view rests and nothing more is to come: all is drawn, or has failed. */
    async settled() {
        const isStill = () => {
            const { world } = this.viewer;
            const items = Array.from({ length: world.getItemCount() }, (_, k) => world.getItemAt(k))
                .filter((item) => item.getOpacity() > 0); // what is hidden loads nothing
            const isDrawn = (item) => !item.needsDraw() || item._lastDrawn.length === 0; // of one out of view
            return !this.viewer.isAnimating() && !this.jobs.nWaiting && !this.comparison?.isOpening
                && items.every((item) => item.getFullyLoaded() && isDrawn(item));
        };
        for (let frames = 0; frames < 3; frames = isStill() ? frames + 1 : 0) {
            await new Promise((resolve) => window.requestAnimationFrame(resolve));
        }
    }

    get state() {
        const { viewport } = this.viewer;
        const { x, y } = viewport.getCenter();
        return { zoom: viewport.getZoom(), x, y, blocks: this.blocks.on, compare: this.comparison?.mode ?? "off" };
    }

    show({ zoom, x, y, blocks, compare }) {
        const { viewport } = this.viewer;
        if (zoom > 0) {
            viewport.zoomTo(zoom, null, true);
        }
        if (x !== undefined && y !== undefined) {
            viewport.panTo(new OpenSeadragon.Point(x, y), true);
        }
        viewport.applyConstraints(true);
        snap(this.item);
        this.showBlocks(blocks);
        this.compare(compare);
    }

    showBlocks(indices) {
        this.blocks.show(indices);
        this.#changed();
    }

    compare(mode) {
        this.comparison?.set(mode);
        this.#changed();
    }

    switchBlocks() {
        const some = this.levels.filter(({ nActive }) => nActive).map(({ index }) => index);
        this.showBlocks(this.blocks.on.length ? [] : some);
    }

    switchComparison() {
        if (this.comparison) {
            const names = this.comparison.modes.map(([name]) => name);
            this.compare(names[(names.indexOf(this.comparison.mode) + 1) % names.length]);
        }
    }

    #changed() {
        this.panel.show(this.state);
        this.#isStale = true;
        this.link?.changed();
    }

    zoomBy(factor) {
        this.viewer.viewport.zoomBy(factor);
        this.viewer.viewport.applyConstraints();
    }

    move(x, y) {
        const { viewport } = this.viewer;
        const { width, height } = viewport.getBounds();
        viewport.panBy(new OpenSeadragon.Point(x * ARROW * width, y * ARROW * height));
        viewport.applyConstraints();
    }

    actualSize() {
        this.viewer.viewport.zoomTo(this.item.imageToViewportZoom(1 / OpenSeadragon.pixelDensityRatio));
        this.viewer.viewport.applyConstraints();
    }

    #listen() {
        const { viewer } = this;
        viewer.addHandler("update-level", ({ tiledImage, currenttime }) => { tiledImage.updatedAt = currenttime; });
        viewer.addHandler("update-viewport", () => {
            this.blocks.draw();
            this.#isStale = true;
            this.jobs.keepOnly((tile) => tile.tiledImage !== this.item
                || (this.isWanted(tile.level) && tile.lastTouchTime >= this.item.updatedAt));
        });
        viewer.addHandler("resize", () => this.#allowZoom());
        viewer.addHandler("animation-finish", () => {
            snap(this.item);
            this.link?.changed();
        });
        viewer.addHandler("tile-load-failed", ({ tiledImage, message }) => {
            if (tiledImage === this.item) {
                this.#tellFailure(message);
            }
        });
        const point = ({ clientX, clientY }) => {
            const { left, top } = viewer.container.getBoundingClientRect();
            this.#pointer = new OpenSeadragon.Point(clientX - left, clientY - top);
            this.#isStale = true;
        };
        viewer.container.addEventListener("pointermove", point);
        viewer.container.addEventListener("pointerdown", point);
        viewer.container.addEventListener("pointerleave", (event) => {
            if (event.pointerType === "mouse") {
                this.#pointer = null;
                this.#isStale = true;
            }
        });
    }

    #tellFailure(message) {
        const retry = () => {
            hush();
            this.jobs.retry();
            this.item.update(true);
        };
        say(`${counted(this.jobs.failed.size, "tile")} could not be shown: ${message}`,
            { isBad: true, action: ["Try again", retry] });
    }

    /** Writes the readout, once a frame where something has changed. */
    #tick() {
        let frame = null;
        const loop = () => {
            if (this.#isStale || this.jobs.nWaiting) {
                this.#isStale = false;
                this.#tell();
            }
            frame = window.requestAnimationFrame(loop);
        };
        loop();
        this.#closers.push(() => window.cancelAnimationFrame(frame));
    }

    #tell() {
        const wanted = this.tiers[wantedTier(this.item, this.tiers)];
        this.readout.view(zoomOf(this.item, true), wanted, this.isExact);
        this.readout.work(this.tiles.stats, this.tiles.ranges.stats, this.fit.bytes, this.jobs.failed.size);
        const place = this.#pointer && this.#placeOf(this.#pointer);
        const shown = place && finestBlock(this.levels.filter(({ index }) => index >= this.#sourceOf(wanted)), place);
        this.blocks.point(shown);
        this.readout.pointer(place, shown, shown && this.tiles.shapeOf(shown.level.index, shown.number));
        if (place) {
            this.readout.value(pixelUnder(this.item, this.tiers, place, this.fit.nChannels));
        }
    }

    /** The finest level whose networks make what a tier shows. */
    #sourceOf({ kind, level }) {
        if (kind === "overview") {
            return this.levels[0].index;
        }
        const { finest } = this.fit;
        const whole = this.levels.find(({ index, isWhole }) => isWhole && index <= level && index >= finest);
        return whole?.index ?? finest;
    }

    #placeOf(pixel) {
        const { x, y } = this.item.viewerElementToImageCoordinates(pixel);
        const [height, width] = this.fit.size;
        return x >= 0 && y >= 0 && x < width && y < height ? [Math.floor(y), Math.floor(x)] : null;
    }
}

function makeViewer(element, size) {
    const isCalm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    const navigatorElement = element.parentElement.appendChild(make("div", { id: "navigator" }));
    const [height, width] = size.map((n) => Math.max(LEAST_NAVIGATOR, MOST_NAVIGATOR * n / Math.max(...size)));
    Object.assign(navigatorElement.style, { width: `${width}px`, height: `${height}px` });
    const viewer = OpenSeadragon({
        element,
        drawer: "canvas",
        showNavigationControl: false,
        showNavigator: true,
        navigatorElement,
        navigatorOpacity: 1,
        keyboardNavEnabled: false,
        gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
        animationTime: isCalm ? 0 : 0.4,
        blendTime: isCalm ? 0 : 0.12,
        springStiffness: 8,
        zoomPerScroll: 1.25,
        visibilityRatio: 0.4,
        maxZoomPixelRatio: MOST_ZOOM,
        minPixelRatio: LEAST_RATIO,
        smoothTileEdgesMinZoom: Infinity,
        preserveImageSizeOnResize: true,
        maxTilesPerFrame: 32,
        imageLoaderLimit: 0, // Tiles has its own queue
        timeout: 2 ** 31 - 1,
        maxImageCacheCount: 400,
    });
    viewer.drawer.minimumOverlapRequired = () => false; // it would stretch tiles by a pixel
    viewer.canvas.setAttribute("aria-label", "The picture; drag to move, scroll or pinch to zoom");
    viewer.canvas.setAttribute("role", "application");
    viewer.canvas.focus = () => document.activeElement.blur(); // by a press: keys need no focus, nor a ring around it
    return viewer;
}

/** Opens the fit as the first image of a viewer; the navigator shows it alone, by what comes cheaply. */
function addFit(viewer, source) {
    return new Promise((resolve, reject) => {
        const { navigator } = viewer;
        navigator.world.addHandler("add-item", ({ item }) => {
            steer(item, (level) => level === 0);
            navigator.addTiledImage = () => {};
        });
        viewer.addOnceHandler("open", () => resolve(viewer.world.getItemAt(0)));
        viewer.addOnceHandler("open-failed", ({ message }) => reject(new Error(message)));
        viewer.open(source);
    });
}
