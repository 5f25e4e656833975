import { colourOf, primariesOf } from "../page/colours.js";

const OUTLINED = 6; // screen pixels of a block, from which on it is drawn as an outline
const LARGE = 150; // screen pixels of a block, from which on the one under the pointer is not filled

/** Row and column, in the grid of a level, of the block at a pixel of level 0, or null beyond the picture. */
function blockAt(level, [row, column]) {
    const at = [row, column].map((k, axis) => Math.floor(k / 2 ** level.index / level.patch[axis]));
    return at.every((k, axis) => k >= 0 && k < level.grid[axis]) ? at : null;
}

/** The finest block with a network at a pixel of level 0, of the levels given: {level, row, column, number} or null. */
export function finestBlock(levels, place) {
    for (const level of levels.toSorted((a, b) => a.index - b.index)) {
        const at = blockAt(level, place);
        const number = at && at[0] * level.grid[1] + at[1];
        if (at && level.isActive(number)) {
            return { level, row: at[0], column: at[1], number };
        }
    }
    return null;
}

/** The blocks of a level as an image with a pixel for each; made once. */
function maskOf(level) {
    const [rows, columns] = level.grid;
    const image = new ImageData(columns, rows);
    const pixels = new Uint32Array(image.data.buffer);
    const [red, green, blue] = primariesOf(level.index);
    const colour = new Uint32Array(new Uint8Array([red, green, blue, 255]).buffer)[0];
    for (let number = 0; number < pixels.length; number++) {
        if (level.isActive(number)) {
            pixels[number] = colour;
        }
    }
    const canvas = document.createElement("canvas");
    [canvas.height, canvas.width] = level.grid;
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas;
}

/** The blocks of the levels that are on, drawn over a picture. */
export class Blocks {
    #masks = new Map(); // level -> canvas
    #on = new Set(); // indices
    #pointed = null;

    /** item: OpenSeadragon's TiledImage, whose image coordinates are pixels of level 0. */
    constructor(item, levels) {
        this.item = item;
        this.levels = levels;
        this.canvas = document.createElement("canvas");
        this.canvas.className = "blocks";
        item.viewer.canvas.append(this.canvas);
    }

    get on() {
        return [...this.#on].sort((a, b) => a - b);
    }

    /** Shows the levels of these indices, and no others. */
    show(indices) {
        this.#on = new Set(indices.filter((index) => this.levels.some((level) => level.index === index)));
        this.draw();
    }

    /** Draws a block more strongly: what finestBlock() gave, or null. */
    point(block) {
        if (block?.number !== this.#pointed?.number || block?.level !== this.#pointed?.level) {
            this.#pointed = block;
            this.draw();
        }
    }

    draw() {
        const { viewer } = this.item;
        const density = OpenSeadragon.pixelDensityRatio;
        const size = viewer.viewport.getContainerSize().times(density);
        if (this.canvas.width !== size.x || this.canvas.height !== size.y) {
            [this.canvas.width, this.canvas.height] = [size.x, size.y];
        }
        const context = this.canvas.getContext("2d");
        context.clearRect(0, 0, size.x, size.y);
        if (!this.#on.size) {
            return;
        }
        const { viewport } = viewer;
        const corner = viewport.pixelFromPoint(this.item.imageToViewportCoordinates(0, 0), true).times(density);
        const zoom = this.item.viewportToImageZoom(viewport.getZoom(true)) * density;
        const view = { context, corner: [corner.y, corner.x], zoom, size: [size.y, size.x], density };
        for (const level of this.levels.filter(({ index }) => this.#on.has(index))) { // coarse to fine
            this.#drawLevel(view, level);
        }
        if (this.#pointed && this.#on.has(this.#pointed.level.index)) {
            this.#drawPointed(view, this.#pointed);
        }
    }

    #drawLevel(view, level) {
        const { context, zoom, density } = view;
        const block = level.patch.map((n) => n * 2 ** level.index * zoom); // in pixels of the canvas
        const range = visible(view, level, block);
        context.save();
        clipTo(view, level);
        if (Math.min(...block) < OUTLINED * density) {
            this.#drawMask(view, level, block, range);
        } else {
            drawOutlines(view, level, block, range);
        }
        context.restore();
    }

    #drawMask({ context, corner }, level, block, [[top, bottom], [left, right]]) {
        if (!this.#masks.has(level)) {
            this.#masks.set(level, maskOf(level));
        }
        context.globalAlpha = 0.45;
        context.imageSmoothingQuality = "high";
        context.drawImage(
            this.#masks.get(level), left, top, right - left, bottom - top, corner[1] + left * block[1],
            corner[0] + top * block[0], (right - left) * block[1], (bottom - top) * block[0],
        );
    }

    #drawPointed({ context, corner, zoom, density }, { level, row, column }) {
        const [height, width] = level.patch.map((n) => n * 2 ** level.index * zoom);
        context.fillStyle = colourOf(level.index, 0.25);
        context.strokeStyle = colourOf(level.index);
        context.lineWidth = 2.5 * density;
        context.beginPath();
        context.rect(corner[1] + column * width, corner[0] + row * height, width, height);
        if (Math.max(height, width) < LARGE * density) {
            context.fill();
        }
        context.stroke();
    }
}

/** The blocks of a level that are on the screen: [[top, bottom], [left, right]] in its grid. */
function visible({ corner, size }, level, block) {
    return [0, 1].map((axis) => [
        Math.max(0, Math.floor(-corner[axis] / block[axis])),
        Math.min(level.grid[axis], Math.ceil((size[axis] - corner[axis]) / block[axis])),
    ]);
}

/** Blocks reach beyond the level; what is drawn of them does not. */
function clipTo({ context, corner, zoom }, level) {
    const [height, width] = level.size.map((n) => n * 2 ** level.index * zoom);
    context.beginPath();
    context.rect(corner[1] - 1, corner[0] - 1, width + 2, height + 2);
    context.clip();
}

/** Outlines on whole pixels of the canvas: a line between two blocks is drawn once. */
function drawOutlines({ context, corner, density }, level, block, [[top, bottom], [left, right]]) {
    const width = Math.round(density * (Math.min(...block) < 8 * OUTLINED * density ? 1 : 2));
    const at = (axis, k) => Math.round(corner[axis] + k * block[axis]) - (width >> 1);
    context.fillStyle = colourOf(level.index, 0.85);
    const isActive = (row, column) => row >= 0 && column >= 0 && row < level.grid[0] && column < level.grid[1]
        && level.isActive(row * level.grid[1] + column);
    for (let row = top; row <= bottom; row++) {
        for (let column = left; column <= right; column++) {
            const here = isActive(row, column);
            const [x, y] = [at(1, column), at(0, row)];
            if (here || isActive(row - 1, column)) {
                context.fillRect(x, y, at(1, column + 1) - x + width, width);
            }
            if (here || isActive(row, column - 1)) {
                context.fillRect(x, y, width, at(0, row + 1) - y + width);
            }
        }
    }
}
