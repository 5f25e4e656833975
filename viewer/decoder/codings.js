/** What a level's entry in the header says of its networks and of their coding, as networks.c and chunks.c want it.
 *
 * header.js has checked the entry but for what its coding needs, which is checked here.
 */

import { formOfNetwork } from "../file/header.js";
import { contextsOf } from "./contexts.js";

const TABLE_TOTAL = 2 ** 14;
const FARTHEST_SCALE = 200;
const MOST_QUANTISED_UNITS = 4096;
const MOST_UNITS = 2 ** 24;
const OUTPUT_NAMES = ["sigmoid", "sine", "linear"]; // numbered as in networks.c
const KIND_NAMES = ["mlp", "filters", "cosines"]; // likewise
const FILTERS = KIND_NAMES.indexOf("filters");
const COSINES = KIND_NAMES.indexOf("cosines");
const N_CONTEXTS = 3 * 9 * 12;
const SCALES_OF_COEFFICIENTS = [-16, 72];

/** The shapes of a level's groups: { kind (by number), hasSines, nIn, nOut, nLayers, nHidden, output (by number), omega,
 * centre }. */
export function shapesOf(entry) {
    const shapes = entry.networks.map(shapeOf);
    if (shapes.some((shape) => shape.nHidden > MOST_UNITS)) throw inconsistent(entry);
    return shapes;
}

function shapeOf(network) {
    const { kind, activation, output } = formOfNetwork(network);
    return {
        kind: KIND_NAMES.indexOf(kind),
        hasSines: activation === "sine",
        nIn: network.n_in,
        nOut: network.n_out,
        nLayers: network.n_layers,
        nHidden: network.n_hidden,
        output: OUTPUT_NAMES.indexOf(output),
        omega: network.omega ?? 0,
        centre: network.centre ?? 0,
    };
}

/** (n + 1, n) cosines of a part of n pixels, each at all pixels, and zeros; nothing for networks of another kind. */
export function cosinesOf({ kind, nHidden: n }) {
    if (kind !== COSINES) return new Float32Array(0);
    const at = (f, i) => Math.sqrt((f ? 2 : 1) / n) * Math.cos((Math.PI * f * (2 * i + 1)) / (2 * n));
    return Float32Array.from({ length: (n + 1) * n }, (_, k) => (k < n * n ? at(Math.floor(k / n), k % n) : 0));
}

/** The coding of a level whose chunks hold integers: { kind, hasAmplitude, steps, rotation, floors, model, nTensors };
 * null for one without loss. */
export function integersOf(entry, shapes) {
    const { name } = entry.coding;
    if (name === "float32") return null;
    return name === "coefficients" ? coefficientsOf(entry, shapes) : quantisedOf(entry, shapes);
}

function coefficientsOf(entry, shapes) {
    const { step, rotation, starts, scales } = entry.coding;
    const { nIn, nOut } = shapes[0];
    const [least, most] = SCALES_OF_COEFFICIENTS;
    const isScale = (scale) => Number.isInteger(scale) && scale >= least && scale <= most;
    const isConsistent = shapes.every(({ kind }) => kind === COSINES) && Number.isFinite(step) && step > 0
        && isMatrix(rotation, nOut) && areStarts(starts, shapes.length)
        && isList(scales, N_CONTEXTS) && scales.every(isScale);
    if (!isConsistent) throw inconsistent(entry);
    const nParts = (n) => entry.patch_size.reduce((count, length) => count * (length / n), 1);
    const groups = shapes.map(({ nHidden }) => contextsOf(nHidden, nIn, nParts(nHidden)));
    return {
        kind: COSINES,
        hasAmplitude: 0,
        steps: Float64Array.of(step),
        rotation: Float64Array.from(rotation.flat()),
        floors: new Int32Array(0),
        model: Int32Array.from([shapes.length, nOut, ...starts, ...scales].concat(...groups)),
        nTensors: 0,
    };
}

function quantisedOf(entry, shapes) {
    const [first] = shapes;
    const isFilters = first.kind === FILTERS;
    const sizes = isFilters ? shapes.map(tensorSizes) : [];
    const nSteps = isFilters ? sizes[0].length : first.nLayers;
    if (!isConsistent(entry.coding, shapes, nSteps)) throw inconsistent(entry);
    const { steps, floors, rotation, starts, scales } = entry.coding;
    const hasAmplitude = Number(!isFilters && first.output === 1);
    const head = isFilters ? [0, nSteps, 1] : [first.nLayers, first.nIn, first.nOut];
    const hidden = isFilters ? sizes.flat() : shapes.map((shape) => shape.nHidden);
    const { spread, first: ofFirst, difference, base, bias, chroma, out } = scales;
    const model = [shapes.length, ...head, hasAmplitude, spread, ofFirst, difference, ...starts, ...hidden];
    model.push(...chroma, ...out, ...base, ...bias, ...floors);
    return {
        kind: first.kind,
        hasAmplitude,
        steps: Float64Array.from(steps),
        rotation: Float64Array.from(rotation.flat()),
        floors: Int32Array.from(floors),
        model: Int32Array.from(model),
        nTensors: isFilters ? nSteps : 0,
    };
}

function isConsistent({ steps, floors, rotation, starts, scales }, shapes, nSteps) {
    const [first] = shapes;
    const form = (shape) => JSON.stringify({ ...shape, nHidden: 0 });
    if (shapes.some((shape) => form(shape) !== form(first) || shape.nHidden > MOST_QUANTISED_UNITS)) return false;
    if (first.kind === COSINES) return false;
    const [nHidden, nRotated] = first.kind === FILTERS ? [0, 0] : [first.nLayers - 1, first.nOut];
    const lists = [
        [steps, nSteps], [floors, nHidden],
        [scales?.base, nHidden || nSteps], [scales?.bias, nHidden],
        [scales?.chroma, Math.max(0, nRotated - 1)], [scales?.out, nRotated],
    ];
    if (!lists.every(([list, length]) => isList(list, length)) || !isMatrix(rotation, nRotated)) return false;
    const { spread, first: ofFirst, difference, base, bias, chroma, out } = scales;
    const whole = [spread, ofFirst, difference, ...floors, ...base, ...bias, ...chroma, ...out];
    return whole.every((number) => Number.isInteger(number) && Math.abs(number) <= FARTHEST_SCALE)
        && steps.every((step) => Number.isFinite(step) && step > 0) && areStarts(starts, shapes.length);
}

function isList(list, length) {
    return Array.isArray(list) && list.length === length;
}

function isMatrix(rows, n) {
    return isList(rows, n) && rows.every((row) => isList(row, n) && row.every(Number.isFinite));
}

/** Bounds of so many groups. */
function areStarts(starts, nGroups) {
    return isList(starts, nGroups + 1) && starts[0] === 0 && starts.at(-1) === TABLE_TOTAL
        && starts.every((start, i) => Number.isInteger(start) && start >= (i ? starts[i - 1] : 0));
}

/** Numbers of each tensor of a filter network but its amplitude. */
function tensorSizes({ nIn, nOut, nLayers, nHidden }) {
    const last = nLayers - 1;
    const many = (size) => Array(last).fill(size);
    const linear = (size) => [...many(size * nHidden).slice(1), size * nOut];
    return [
        ...linear(nHidden), ...many(nHidden).slice(1), nOut,
        ...many(nIn * nHidden), ...many(nHidden), ...many(nIn * nHidden), ...many(nHidden),
    ];
}

function inconsistent(entry) {
    return new Error(`level ${entry.level} has networks that are not consistent; pack the fit again`);
}
