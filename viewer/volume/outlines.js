import { colourOf } from "../page/colours.js";

/**
 * The edges of the blocks of a level that have a network, each once, in voxels of level 0; they end with the volume.
 *
 * @param size of level 0
 * @returns Float32Array, x, y, z of both ends of each edge
 */
export function edgesOf(level, size) {
    const corners = level.grid.map((n) => n + 1);
    const strides = [3 * corners[1] * corners[2], 3 * corners[2], 3];
    const isEdge = markEdges(level, strides, 3 * corners[0] * corners[1] * corners[2]);
    const places = corners.map((n, axis) => {
        const length = level.patch[axis] * 2 ** level.index;
        return Array.from({ length: n }, (_, k) => Math.min(k * length, size[axis]) - 0.5);
    });
    const ends = [];
    for (let at = isEdge.indexOf(1); at >= 0; at = isEdge.indexOf(1, at + 1)) {
        const corner = strides.map((stride, axis) => Math.floor(at / stride) % corners[axis]);
        for (const step of [0, 1]) {
            const end = corner.map((k, axis) => places[axis][k + (axis === at % 3 ? step : 0)]);
            ends.push(...end.reverse());
        }
    }
    return Float32Array.from(ends);
}

/** 1 for each edge of a block: it is numbered by the corner from which it leads on, and its axis. */
function markEdges(level, strides, count) {
    const isEdge = new Uint8Array(count);
    const [depth, height, width] = level.grid;
    for (let number = 0; number < depth * height * width; number++) {
        if (!level.isActive(number)) continue;
        const block = [Math.floor(number / (height * width)), Math.floor(number / width) % height, number % width];
        const corner = block.reduce((sum, k, axis) => sum + k * strides[axis], 0);
        for (let axis = 0; axis < 3; axis++) {
            const [one, other] = [strides[(axis + 1) % 3], strides[(axis + 2) % 3]];
            for (const across of [0, one, other, one + other]) isEdge[corner + across + axis] = 1;
        }
    }
    return isEdge;
}

/** The blocks of each level as boxes; those of a level are made when they are first shown. */
export class Outlines {
    #lines = new Map(); // by level

    constructor(stage, fit, planes) {
        Object.assign(this, { stage, fit, planes });
    }

    get on() {
        return [...this.#lines].filter(([, lines]) => lines.visible).map(([index]) => index).sort((a, b) => a - b);
    }

    /** Shows those of these levels, and no others. */
    show(indices) {
        for (const index of indices) {
            if (this.fit.levels.has(index) && !this.#lines.has(index)) this.#lines.set(index, this.#make(index));
        }
        for (const [index, lines] of this.#lines) lines.visible = indices.includes(index);
        this.stage.draw();
    }

    #make(index) {
        const { three, voxels } = this.stage;
        const geometry = new three.BufferGeometry();
        const ends = edgesOf(this.fit.levels.get(index), this.fit.size);
        geometry.setAttribute("position", new three.BufferAttribute(ends, 3));
        const look = { color: this.stage.colour(colourOf(index)), clippingPlanes: this.planes };
        const lines = new three.LineSegments(geometry, new three.LineBasicMaterial(look));
        lines.renderOrder = -index; // of two in one place, the finer one is seen
        voxels.add(lines);
        return lines;
    }
}
