import { parametersOf } from "../file/header.js";
import { make } from "./controls.js";

const whole = new Intl.NumberFormat("en");

/** A number of bytes in words. */
export function inBytes(n) {
    const [scale, unit] = n < 1e3 ? [1, "B"] : n < 1e6 ? [1e3, "KB"] : n < 1e9 ? [1e6, "MB"] : [1e9, "GB"];
    const value = n / scale;
    return `${value < 10 && unit !== "B" ? value.toFixed(1) : Math.round(value)} ${unit}`;
}

/** "1 tile", "2,000 tiles". */
export function counted(n, what) {
    return `${whole.format(n)} ${what}${n === 1 ? "" : "s"}`;
}

/** A zoom, screen pixels a pixel of level 0, in percent. */
export function inPercent(zoom) {
    const percent = 100 * zoom;
    return `${percent < 9.95 ? percent.toPrecision(2) : whole.format(Math.round(percent))}%`;
}

/** What a tier is, in words. */
export function tierInWords(tier) {
    if (tier.kind === "overview") {
        return "overview";
    }
    return tier.kind === "enlarged" ? `level ${tier.level}, interpolated` : `level ${tier.level}`;
}

/** What the tiles of a fit took. rate: in what they are counted, millions in a second */
export function workInWords({ stats, ranges, fit }, rate) {
    const speed = stats.seconds > 0 ? [`${(stats.megapixels / stats.seconds).toFixed(1)} ${rate}`] : [];
    const { bytes, requests } = ranges.stats;
    return [...speed, `${inBytes(bytes)} of ${inBytes(fit.bytes)}`, counted(requests, "request")].join(" · ");
}

function blockInWords({ level, row, column }, shape) {
    const place = `level ${level.index}, row ${row}, column ${column}`;
    return shape ? `${place}: ${networkInWords(shape)}` : place;
}

function networkInWords(shape) {
    return shape.kind === "cosines"
        ? `cosines in parts of ${counted(shape.n_hidden, "pixel")}`
        : `${counted(shape.n_hidden, "unit")}, ${counted(parametersOf(shape), "parameter")}`;
}

/** The line that tells where one is, what is there, and what it took. */
export class Readout {
    #last = {};

    constructor(output) {
        this.fields = {};
        const field = (name, title) => (this.fields[name] = make("span", { className: `field ${name}`, title }));
        output.replaceChildren(
            field("zoom", "Screen pixels a pixel, in percent"),
            field("level", "The level of detail that is shown"),
            field("place", "The pixel under the pointer: its column and row in the finest level"),
            field("value", "Its value, in 8 bits of each channel"),
            field("block", "The finest block under the pointer that has a network, of what is shown"),
            field("work", "Decoded by each worker; read of the file"),
        );
        output.hidden = false;
    }

    #write(name, text) {
        if (this.#last[name] !== text) {
            this.#last[name] = text;
            this.fields[name].textContent = text;
        }
    }

    /** isExact: whether all that is in view is there. */
    view(zoom, tier, isExact) {
        this.#write("zoom", inPercent(zoom));
        this.#write("level", tierInWords(tier));
        this.fields.level.dataset.state = isExact ? "exact" : "loading";
        this.fields.level.setAttribute("aria-label", `${tierInWords(tier)}, ${isExact ? "exact" : "loading"}`);
    }

    /** place: [row, column] in level 0, or null off the picture; shape: of the block's network, or null. */
    pointer(place, block, shape) {
        this.#write("place", place ? `${place[1]}, ${place[0]}` : "");
        this.#write("block", block ? blockInWords(block, shape) : "");
        if (!place) {
            this.value(null);
        }
    }

    /** values: of the pixel under the pointer, 0 to 255 a channel, or null. */
    value(values) {
        this.#write("value", values ? [...values].join(" ") : "");
        const colour = values && (values.length < 3 ? [values[0], values[0], values[0]] : [...values].slice(0, 3));
        this.fields.value.style.setProperty("--value", colour ? `rgb(${colour.join(" ")})` : "transparent");
    }

    /** work: those of Tiles; read: those of ranges; nFailed tiles of the view. */
    work(work, read, nBytes, nFailed) {
        const rate = work.seconds > 0 ? [`${(work.megapixels / work.seconds).toFixed(1)} MP/s`] : [];
        const failed = nFailed ? [`${counted(nFailed, "tile")} failed`] : [];
        const requests = counted(read.requests, "request");
        this.#write("work", [...rate, `${inBytes(read.bytes)} of ${inBytes(nBytes)}`, requests, ...failed].join(" · "));
    }
}
