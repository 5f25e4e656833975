/** What a level's entry in the header says of its networks and of their coding, as networks.c and chunks.c want it.
 *
 * header.js has checked the entry but for what its coding needs, which is checked here.
 */

import { formOfNetwork } from "../file/header.js";

const TABLE_TOTAL = 2 ** 14;
const FARTHEST_SCALE = 200;
const MOST_QUANTISED_UNITS = 4096;
const MOST_UNITS = 2 ** 24;
const OUTPUT_NAMES = ["sigmoid", "sine", "linear"]; // numbered as in networks.c

/** The shapes of a level's groups: { isFilters, hasSines, nIn, nOut, nLayers, nHidden, output (by number), omega,
 * centre }. */
export function shapesOf(entry) {
    const shapes = entry.networks.map(shapeOf);
    if (shapes.some((shape) => shape.nHidden > MOST_UNITS)) throw inconsistent(entry);
    return shapes;
}

function shapeOf(network) {
    const { kind, activation, output } = formOfNetwork(network);
    return {
        isFilters: kind === "filters",
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

/** A quantised level's coding: { hasAmplitude, steps, rotation, floors, model, nTensors }. */
export function quantisedOf(entry, shapes) {
    const [first] = shapes;
    const sizes = first.isFilters ? shapes.map(tensorSizes) : [];
    const nSteps = first.isFilters ? sizes[0].length : first.nLayers;
    if (!isConsistent(entry.coding, shapes, nSteps)) throw inconsistent(entry);
    const { steps, floors, rotation, starts, scales } = entry.coding;
    const hasAmplitude = Number(!first.isFilters && first.output === 1);
    const head = first.isFilters ? [0, nSteps, 1] : [first.nLayers, first.nIn, first.nOut];
    const hidden = first.isFilters ? sizes.flat() : shapes.map((shape) => shape.nHidden);
    const { spread, first: ofFirst, difference, base, bias, chroma, out } = scales;
    const model = [shapes.length, ...head, hasAmplitude, spread, ofFirst, difference, ...starts, ...hidden];
    model.push(...chroma, ...out, ...base, ...bias, ...floors);
    return {
        hasAmplitude,
        steps: Float64Array.from(steps),
        rotation: Float64Array.from(rotation.flat()),
        floors: Int32Array.from(floors),
        model: Int32Array.from(model),
        nTensors: first.isFilters ? nSteps : 0,
    };
}

function isConsistent({ steps, floors, rotation, starts, scales }, shapes, nSteps) {
    const [first] = shapes;
    const form = (shape) => JSON.stringify({ ...shape, nHidden: 0 });
    if (shapes.some((shape) => form(shape) !== form(first) || shape.nHidden > MOST_QUANTISED_UNITS)) return false;
    const [nHidden, nRotated] = first.isFilters ? [0, 0] : [first.nLayers - 1, first.nOut];
    const lists = [
        [steps, nSteps], [floors, nHidden], [rotation, nRotated], [starts, shapes.length + 1],
        [scales?.base, nHidden || nSteps], [scales?.bias, nHidden],
        [scales?.chroma, Math.max(0, nRotated - 1)], [scales?.out, nRotated],
    ];
    const isList = ([list, length]) => Array.isArray(list) && list.length === length;
    if (!lists.every(isList) || !rotation.every((row) => isList([row, nRotated]))) return false;
    const { spread, first: ofFirst, difference, base, bias, chroma, out } = scales;
    const whole = [spread, ofFirst, difference, ...floors, ...base, ...bias, ...chroma, ...out];
    const isRising = starts.every((start, i) => Number.isInteger(start) && start >= (i ? starts[i - 1] : 0));
    return whole.every((number) => Number.isInteger(number) && Math.abs(number) <= FARTHEST_SCALE)
        && steps.every((step) => Number.isFinite(step) && step > 0) && rotation.flat().every(Number.isFinite)
        && isRising && starts[0] === 0 && starts.at(-1) === TABLE_TOTAL;
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
