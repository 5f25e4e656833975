/** The inputs of networks at the pixels of a block, split into what depends on the row and on the column.
 *
 * sin(p + q) = sin p cos q + cos p sin q, p of the row and q of the column, and the like of cosines. docs/format.md has
 * the encoding, networks.c the use.
 */

const DIRECTIONS_OF_VOLUMES = [
    [0, 0.525731087, 0.850650787], [0, 0.525731087, -0.850650787], [0.850650787, 0, 0.525731087],
    [0.850650787, 0, -0.525731087], [0.525731087, 0.850650787, 0], [0.525731087, -0.850650787, 0],
    [0, 0, 1], [0.5, 0.309017003, 0.809017003], [0.309017003, 0.809017003, 0.5],
    [0.5, 0.309017003, -0.809017003], [0.309017003, 0.809017003, -0.5], [0.5, -0.309017003, 0.809017003],
    [0.309017003, -0.809017003, 0.5], [0.5, -0.309017003, -0.809017003], [0.309017003, -0.809017003, -0.5],
    [1, 0, 0], [0.809017003, 0.5, 0.309017003], [0.809017003, -0.5, 0.309017003],
    [0.809017003, 0.5, -0.309017003], [0.809017003, -0.5, -0.309017003], [0, 1, 0],
];
const DIRECTIONS_OF_PICTURES = [[1, 0], [0, 1]];
const MOST_FACTORS = 2 ** 24;

/** Entries of a block of `patch` pixels, as networks.c wants them: typed arrays, and `width`, `nRows`, `nMixed`. */
export function positionsOf(patch, frequencies) {
    const width = Math.ceil(patch.at(-1) / 4) * 4;
    const { rowEntries, columnEntries, mixed } =
        frequencies === null ? plainEntries(patch.length) : encodedEntries(directionsOf(patch.length), frequencies);
    const nRows = patch.slice(0, -1).reduce((count, length) => count * length, 1);
    const total = nRows * rowEntries.length + width * (columnEntries.length + mixed.length);
    if (!(total <= MOST_FACTORS)) throw new Error("the blocks of this fit are too large for the viewer");
    const columns = centresOf(patch.at(-1));
    const padded = Float64Array.from({ length: width }, (_, i) => columns[Math.min(i, columns.length - 1)]);
    return {
        width,
        nRows,
        rowInputs: Int32Array.from(rowEntries, (entry) => entry.input),
        rowTargets: Int32Array.from(rowEntries, (entry) => entry.target),
        rowFactors: rowFactorsOf(patch, rowEntries, nRows),
        columnInputs: Int32Array.from(columnEntries, (entry) => entry.input),
        columnFactors: tableOf(columnEntries.map((entry) => entry.factor), padded),
        nMixed: mixed.length,
        mixed: tableOf(mixed, padded),
    };
}

function directionsOf(nAxes) {
    return nAxes === 3 ? DIRECTIONS_OF_VOLUMES : DIRECTIONS_OF_PICTURES;
}

function centresOf(length) {
    return Array.from({ length }, (_, i) => Math.fround((2 * i + 1) / length - 1));
}

function tableOf(functions, places) {
    const table = new Float32Array(functions.length * places.length);
    functions.forEach((of, index) => table.set(Float32Array.from(places, of), index * places.length));
    return table;
}

function rowFactorsOf(patch, entries, nRows) {
    const factors = new Float32Array(nRows * entries.length);
    const axes = patch.slice(0, -1).map(centresOf);
    for (let row = 0; row < nRows; row++) {
        const place = axes.length === 2
            ? [axes[0][Math.floor(row / patch[1])], axes[1][row % patch[1]]]
            : [axes[0][row]];
        entries.forEach(({ factor }, index) => (factors[row * entries.length + index] = factor(place)));
    }
    return factors;
}

/** The coordinates themselves, and the square of their length. */
function plainEntries(nAxes) {
    const last = nAxes - 1;
    const coordinate = (axis) => ({ input: axis, target: 0, factor: (row) => row[axis] });
    const square = { input: nAxes, target: 0, factor: (row) => row.reduce((sum, x) => sum + x * x, 0) };
    const rowEntries = [...Array(last).keys()].map(coordinate).concat(square);
    const columnEntries = [{ input: last, factor: (x) => x }, { input: nAxes, factor: (x) => x * x }];
    return { rowEntries, columnEntries, mixed: [] };
}

/** Sines, then cosines, of the phases along each direction; the square of the length of all is half their number. */
function encodedEntries(directions, frequencies) {
    const half = directions.length * frequencies.length;
    const rowEntries = [{ input: 2 * half, target: 0, factor: () => half }];
    const columnEntries = [];
    const mixed = [];
    const mixedAt = new Map();
    frequencies.forEach((frequency, index) => {
        directions.forEach((direction, number) => {
            const sine = index * directions.length + number;
            const cosine = half + sine;
            const along = direction.at(-1);
            const row = phaseOf(frequency, (place) => place.reduce((sum, x, axis) => sum + direction[axis] * x, 0));
            const [sin, cos] = [(place) => Math.sin(row(place)), (place) => Math.cos(row(place))];
            if (along === 0) {
                rowEntries.push({ input: sine, target: 0, factor: sin }, { input: cosine, target: 0, factor: cos });
                return;
            }
            const column = phaseOf(frequency, (x) => Math.abs(along) * x);
            const vectors = [(x) => Math.sin(column(x)), (x) => Math.cos(column(x))];
            if (Math.abs(along) === 1) {
                columnEntries.push({ input: sine, factor: vectors[0] }, { input: cosine, factor: vectors[1] });
                return;
            }
            const key = `${index} ${Math.abs(along)}`;
            if (!mixedAt.has(key)) mixedAt.set(key, mixed.push(...vectors) - 1);
            const [ofSine, ofCosine, sign] = [mixedAt.get(key), mixedAt.get(key) + 1, Math.sign(along)];
            rowEntries.push(
                { input: sine, target: ofCosine, factor: sin },
                { input: sine, target: ofSine, factor: (place) => sign * cos(place) },
                { input: cosine, target: ofCosine, factor: cos },
                { input: cosine, target: ofSine, factor: (place) => -sign * sin(place) },
            );
        });
    });
    return { rowEntries, columnEntries, mixed };
}

/** float32, as networks were fitted to them. */
function phaseOf(frequency, along) {
    return (place) => Math.fround(Math.fround(frequency) * Math.fround(along(place)));
}
