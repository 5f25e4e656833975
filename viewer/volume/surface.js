/**
 * The surface where a field is 1/2, or another value: marching cubes (Lorensen and Cline, SIGGRAPH 1987).
 *
 * Its triangles are derived, not listed. On each face of a cell the crossed edges are joined by a rule that knows the
 * signs of that face's corners alone, so two cells agree on the face that they share and no hole is left. The lines on
 * a cell's faces close to loops, which are cut into triangles.
 */

const HALF = 0.5;
const OFF = 2 ** -11; // values are moved so far off the threshold that no two vertices lie on one sample

// Corner c of a cell lies at x = c & 1, y = c >> 1 & 1, z = c >> 2. An edge is its lower corner and its axis: x, y, z.
const EDGES = [0, 1, 2].flatMap((axis) =>
    [0, 1, 2, 3, 4, 5, 6, 7].filter((corner) => !(corner & (1 << axis))).map((corner) => ({ corner, axis }))
);
const FACES = [0, 1, 2].flatMap((axis) => [0, 1].map((side) => faceCorners(axis, side)));
const TRIANGLES = Array.from({ length: 256 }, (_, inside) => loopsOf(inside).flatMap(cutLoop));

/** The corners of a face, counter-clockwise as seen from outside the cell. */
function faceCorners(axis, side) {
    const [u, v] = [1 << (axis + 1) % 3, 1 << (axis + 2) % 3];
    const round = [0, u, u | v, v].map((corner) => corner | (side << axis));
    return side ? round : round.reverse();
}

function edgeBetween(one, other) {
    return EDGES.findIndex(({ corner, axis }) => corner === (one & other) && 1 << axis === (one ^ other));
}

/**
 * Closed loops of crossed edges. Around a face, each run of corners inside is cut off by a line from where the run is
 * entered to where it is left; corners inside that lie across from each other are two runs. A crossed edge belongs to
 * two faces, which go along it in opposite directions: so one line begins there, and one ends.
 *
 * @param inside bit c tells whether corner c is inside
 */
function loopsOf(inside) {
    const isInside = (corner) => (inside >> corner) & 1;
    const next = new Map();
    for (const face of FACES) {
        for (let i = 0; i < 4; i++) {
            if (isInside(face[i]) || !isInside(face[(i + 1) % 4])) continue;
            let last = i + 1;
            while (isInside(face[(last + 1) % 4])) last++;
            next.set(edgeBetween(face[i], face[(i + 1) % 4]), edgeBetween(face[last % 4], face[(last + 1) % 4]));
        }
    }
    const loops = [];
    while (next.size) {
        const loop = [];
        for (let edge = next.keys().next().value; next.has(edge); ) {
            loop.push(edge);
            const following = next.get(edge);
            next.delete(edge);
            edge = following;
        }
        loops.push(loop);
    }
    return loops;
}

/** A fan of triangles. None of its inner lines lies in a face, where it could meet one of the next cell. */
function cutLoop(loop) {
    const fans = loop.map((_, start) => [...loop.slice(start), ...loop.slice(0, start)]);
    const fan = fans.find(([first, ...rest]) => !rest.slice(1, -1).some((edge) => shareFace(first, edge)));
    return fan.slice(2).flatMap((edge, i) => [fan[0], fan[i + 1], edge]);
}

function shareFace(one, other) {
    const ends = [one, other].flatMap((edge) => [EDGES[edge].corner, EDGES[edge].corner | (1 << EDGES[edge].axis)]);
    return FACES.some((face) => ends.every((corner) => face.includes(corner)));
}

/**
 * The surface in a box of cells. A cell lies between eight samples; those beyond the window count as 0, so a surface is
 * closed where it meets the box.
 *
 * @param values Float32Array, samples of the window in C order
 * @param window [[start, stop], ...] along z, y, x: for normals that do not depend on the cut it reaches, where there
 *     are samples, 1 before the cells and 2 beyond them
 * @param cells [[start, stop], ...]: of their lower corners, so -1 is a cell at the lower edge of a field
 * @param threshold of the surface; inside, values are above it
 * @returns {{ positions: Float32Array, normals: Float32Array, indices: Uint32Array }} x, y, z of vertices, in samples;
 *     normals of unit length, outward; triangles, counter-clockwise seen from outside
 */
export function surfaceOf(values, window, cells, threshold = HALF) {
    const { field, size } = withZeros(values, window, cells);
    const [depth, height, width] = size;
    const strides = [1, width, width * height]; // along x, y, z
    const steps = [0, 1, 2, 3, 4, 5, 6, 7].map((corner) => stepTo(corner, strides));
    const edges = EDGES.map(({ corner, axis }) => ({ step: steps[corner] * 3 + axis, corner: steps[corner], axis }));
    const vertexOf = new Int32Array(3 * field.length).fill(-1); // of the edge that leaves a sample along each axis
    const vertices = new Vertices(field, size, cells, threshold);
    const indices = [];
    for (let z = 1; z < depth - 2; z++) {
        for (let y = 1; y < height - 2; y++) {
            const row = (z * height + y) * width;
            let inside = 0;
            for (let at = row; at < row + width - 2; at++) {
                inside = (inside >> 1) & 0b01010101; // what was ahead along x
                for (const corner of [1, 3, 5, 7]) inside |= (field[at + steps[corner]] > threshold) << corner;
                if (at === row) continue;
                if (inside === 0 || inside === 255) continue;
                for (const number of TRIANGLES[inside]) {
                    const { step, corner, axis } = edges[number];
                    const place = 3 * at + step;
                    if (vertexOf[place] < 0) vertexOf[place] = vertices.add(at + corner, axis);
                    indices.push(vertexOf[place]);
                }
            }
        }
    }
    return { ...vertices.arrays(), indices: Uint32Array.from(indices) };
}

const stepTo = (corner, strides) => strides.reduce((sum, stride, axis) => sum + stride * ((corner >> axis) & 1), 0);

/** The samples of the cells and around them, 1 before and 1 beyond, with zeros where the window has none. */
function withZeros(values, window, cells) {
    const size = cells.map(([start, stop]) => stop - start + 3);
    const field = new Float32Array(size[0] * size[1] * size[2]);
    const [from, to] = [cells.map(([start]) => start - 1), cells.map(([, stop]) => stop + 2)];
    const [low, high] = [0, 1].map((end) =>
        window.map((along, axis) => (end ? Math.min(along[1], to[axis]) : Math.max(along[0], from[axis])))
    );
    const [height, width] = [window[1][1] - window[1][0], window[2][1] - window[2][0]];
    for (let z = low[0]; z < high[0]; z++) {
        for (let y = low[1]; y < high[1]; y++) {
            const row = ((z - window[0][0]) * height + y - window[1][0]) * width - window[2][0];
            const target = ((z - from[0]) * size[1] + y - from[1]) * size[2] + low[2] - from[2];
            field.set(values.subarray(row + low[2], row + Math.max(low[2], high[2])), target);
        }
    }
    return { field, size };
}

/** The vertices of a surface, each on an edge between two samples. */
class Vertices {
    constructor(field, [, height, width], cells, threshold) {
        Object.assign(this, { field, height, width, threshold, strides: [1, width, width * height] });
        this.origin = cells.map(([start]) => start - 1).reverse();
        this.positions = [];
        this.normals = [];
    }

    /** The vertex on the edge that leaves sample `at` along an axis: its number. */
    add(at, axis) {
        const to = at + this.strides[axis];
        const { threshold } = this;
        const [here, there] = [this.field[at], this.field[to]].map((value) => movedOff(value, threshold));
        const part = (threshold - here) / (there - here);
        const [x, y] = [at % this.width, Math.floor(at / this.width)];
        this.place(axis, part, [x, y % this.height, Math.floor(y / this.height)]);
        this.turn(axis, part, at, to);
        return this.positions.length / 3 - 1;
    }

    place(axis, part, sample) {
        for (let k = 0; k < 3; k++) {
            this.positions.push(this.origin[k] + sample[k] + (k === axis ? part : 0));
        }
    }

    /** Its normal: against the gradient, of central differences at both ends of the edge. */
    turn(axis, part, at, to) {
        const normal = [0, 0, 0];
        for (let k = 0; k < 3; k++) {
            normal[k] = (part - 1) * this.slope(at, this.strides[k]) - part * this.slope(to, this.strides[k]);
        }
        const length = Math.hypot(normal[0], normal[1], normal[2]);
        if (length === 0) normal[axis] = this.field[at] > this.field[to] ? 1 : -1;
        for (let k = 0; k < 3; k++) this.normals.push(normal[k] / (length || 1));
    }

    slope(at, stride) {
        return this.field[at + stride] - this.field[at - stride];
    }

    arrays() {
        return { positions: Float32Array.from(this.positions), normals: Float32Array.from(this.normals) };
    }
}

const movedOff = (value, from) => (value > from ? Math.max(value, from + OFF) : Math.min(value, from - OFF));
