/** What the header of a file says, checked: nothing that follows from it can ask for what makes no sense. */

const MOST_SCALES = 64;
const MOST_CHANNELS = 2 ** 10;
const MOST_LENGTH = 2 ** 30;
const MOST_LAYERS = 2 ** 10;
const MOST_GROUPS = 127;
const MOST_FREQUENCIES = 2 ** 10;
const DIRECTIONS = { 2: 2, 3: 21 }; // of the encoding, by the number of axes
const MOST_COSINES = 2 ** 14; // of a block
const CODINGS = ["float32", "quantised", "coefficients"];
const ACTIVATIONS = { mlp: ["gaussian", "sine"], filters: ["gabor"], cosines: ["cosine"] };
const TRANSFERS = ["linear", "log", "pq"];
const OUTPUTS = { mlp: ["sigmoid", "sine", "linear"], filters: ["linear"], cosines: ["linear"] };

/** A name that a newer program may have written. */
export class UnknownName extends Error {}

/**
 * The header, an object as docs/format.md describes it.
 *
 * @param {string} text
 * @throws {UnknownName} for a coding or a kind of network that is not known here
 * @throws {Error} in a few words for what is not consistent
 */
export function parseHeader(text) {
    const header = JSON.parse(text);
    mustBe(isObject(header), "a header that is no object");
    const { n_scales, n_channels, size, source, options, chunk, levels } = header;
    mustBe(isWhole(n_scales, 1, MOST_SCALES), "a number of levels that is none");
    mustBe(isWhole(n_channels, 1, MOST_CHANNELS), "a number of channels that is none");
    mustBe(isSize(size, 2) || isSize(size, 3), "a size that is none");
    mustBe(isSize(chunk, size.length), "chunks of no size");
    mustBe(isObject(source) && isObject(options), "options or a source that are no object");
    const isMesh = size.length === 3 && !holdsValues(header);
    mustBe(isMesh || [8, 16].includes(source.bits), "bits of a channel that are neither 8 nor 16");
    mustBe(size.length === 2 || source.frame == null || isFrame(source.frame), "a frame that is none");
    mustBe(!isMesh || n_channels === 1, "the grid of a mesh in several channels");
    if (holdsValues(header)) checkValues(source);
    mustBe(Array.isArray(levels) && levels.length > 0 && levels.length <= n_scales, "no levels");
    levels.forEach((entry, i) => checkLevel(entry, n_scales - 1 - i, header));
    checkOverview(header);
    return header;
}

/**
 * The size of a level.
 *
 * @param {number[]} size of level 0
 */
function levelSize(size, level) {
    return size.map((length) => Math.ceil(length / 2 ** level));
}

/** How many numbers a network of a header has, without its amplitude; of cosines, at most: most are 0. */
export function parametersOf(network) {
    const { n_in, n_out, n_layers, n_hidden } = network;
    const { kind, activation, output } = formOfNetwork(network);
    if (kind === "cosines") return network.lengths.reduce((count, length) => count * length, n_out);
    if (kind === "filters") {
        const linear = (n_layers - 2) * (n_hidden + 1) * n_hidden + (n_hidden + 1) * n_out;
        return linear + (n_layers - 1) * (2 * n_in + 2) * n_hidden;
    }
    const linear = (n_in + 1) * n_hidden + (n_layers - 2) * (n_hidden + 1) * n_hidden + (n_hidden + 1) * n_out;
    return linear + (activation === "gaussian" ? n_layers - 1 : 0) + (output === "sine" ? 1 : 0);
}

/** Its kind, activation and output by name, which a header leaves out where they follow from others. */
export function formOfNetwork(network) {
    const { kind = "mlp", output = "sigmoid", omega = null } = network;
    if ("activation" in network) return { kind, activation: network.activation, output };
    if (output === "gabor") return { kind: "filters", activation: "gabor", output: "linear" };
    return { kind, activation: omega === null ? "gaussian" : "sine", output };
}

function checkLevel(entry, index, { size, n_channels }) {
    mustBe(isObject(entry) && entry.level === index, "levels that do not follow each other from the coarsest on");
    const here = levelSize(size, index);
    mustBe(
        isSize(entry.size, size.length) && here.every((length, axis) => length === entry.size[axis]),
        `a size of level ${index} that is not that of the pyramid`
    );
    mustBe(isSize(entry.patch_size, size.length), `blocks of level ${index} without a size`);
    const { frequencies } = entry;
    mustBe(frequencies === null || areFrequencies(frequencies), `frequencies of level ${index} that are none`);
    mustBe(typeof entry.residual === "boolean" && typeof entry.is_whole === "boolean", `level ${index} is not told`);
    mustBe(["spline", "lanczos"].includes(entry.fill), `a fill of level ${index} that is not known`);
    const { networks } = entry;
    mustBe(
        Array.isArray(networks) && networks.length > 0 && networks.length <= MOST_GROUPS,
        `networks of level ${index} in no group, or in too many`
    );
    const nIn = frequencies === null ? size.length : 2 * DIRECTIONS[size.length] * frequencies.length;
    networks.forEach((network) => checkNetwork(network, nIn, n_channels, entry));
    const counts = entry.blocks_by_group;
    mustBe(
        Array.isArray(counts) && counts.length === networks.length && counts.every((n) => isWhole(n, 0)),
        `blocks of level ${index} that are not those of its groups`
    );
    const total = networks.reduce((sum, network, group) => sum + counts[group] * parametersOf(network), 0);
    const isSparse = formOfNetwork(networks[0]).kind === "cosines";
    mustBe(isWhole(entry.parameters, isSparse ? 0 : total, total), `${entry.parameters} parameters, which are not those of the networks`);
    checkCoding(entry.coding);
}

function checkNetwork(network, nIn, nOut, { patch_size, frequencies }) {
    mustBe(isObject(network), "a network that is no object");
    const { kind, activation, output } = formOfNetwork(network);
    mustBeKnown(Object.keys(ACTIVATIONS), kind, "the kind of network");
    mustBeKnown(ACTIVATIONS[kind], activation, "the activation");
    mustBeKnown(OUTPUTS[kind], output, "the output");
    const { n_in, n_out, n_layers, n_hidden, omega = null, centre = 0 } = network;
    mustBe(n_in === nIn && n_out === nOut, `a network of ${n_in} inputs and ${n_out} outputs`);
    mustBe(isWhole(n_layers, kind === "cosines" ? 1 : 2, MOST_LAYERS) && isWhole(n_hidden, 1), "a network of no size");
    if (kind === "cosines") {
        const { lengths } = network;
        const areThose = isSize(lengths, nIn) && patch_size.every((length, axis) => length === lengths[axis]);
        mustBe(n_layers === 1 && frequencies === null && areThose, "cosines of other blocks");
        mustBe(lengths.every((length) => length % n_hidden === 0), "blocks that are not cut into parts");
        mustBe(lengths.reduce((count, length) => count * length, 1) <= MOST_COSINES, "too many cosines");
    }
    mustBe(omega === null ? activation !== "sine" : Number.isFinite(omega) && omega > 0, "an omega that is none");
    mustBe(Number.isFinite(centre) && centre >= 0 && centre < 1, "a centre outside the range of a Gaussian");
}

/** What a coding needs besides its name is checked by the decoder, which alone reads it. */
function checkCoding(coding) {
    mustBe(isObject(coding), "a coding that is no object");
    mustBeKnown(CODINGS, coding.name, "the coding");
}

function checkOverview({ overview, size }) {
    if (overview === null) return;
    mustBe(isObject(overview) && size.length === 2, "an overview that is none");
    const { tile, pictures } = overview;
    mustBe(isWhole(tile, 1, MOST_LENGTH), "an overview in tiles of no size");
    mustBe(Array.isArray(pictures) && pictures.every((picture) => isSize(picture, 2)), "an overview of no size");
}

function mustBe(condition, complaint) {
    if (!condition) throw new Error(complaint);
}

function mustBeKnown(names, name, what) {
    mustBe(typeof name === "string", `${what}, which has no name`);
    if (!names.includes(name)) throw new UnknownName(`${what} "${name.slice(0, 40)}" is not known here`);
}

function isObject(value) {
    return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isWhole(value, least, most = Number.MAX_SAFE_INTEGER) {
    return Number.isSafeInteger(value) && value >= least && value <= most;
}

function isSize(value, nAxes) {
    return Array.isArray(value) && value.length === nAxes && value.every((length) => isWhole(length, 1, MOST_LENGTH));
}

function areNumbers(value) {
    return Array.isArray(value) && value.every(Number.isFinite);
}

function areFrequencies(value) {
    return areNumbers(value) && value.length > 0 && value.length <= MOST_FREQUENCIES;
}

function isFrame(frame) {
    return (
        isObject(frame) &&
        [frame.centre, frame.half_extents].every((one) => areNumbers(one) && one.length === 3) &&
        frame.half_extents.every((extent) => extent > 0)
    );
}

function checkValues({ affine = null, unit = null, scaling = null, transfer = null }) {
    const isRow = (row) => areNumbers(row) && row.length === 4;
    const isAffine = Array.isArray(affine) && affine.length === 4 && affine.every(isRow);
    mustBe(affine === null || isAffine, "an affine that is none");
    mustBe(unit === null || (typeof unit === "string" && unit.length < 40), "a unit that is none");
    mustBe(scaling === null || (areNumbers(scaling) && scaling.length === 2), "a scaling that is none");
    if (transfer === null) return;
    const { kind, low, high, dtype } = transfer;
    mustBeKnown(TRANSFERS, kind, "the transfer");
    mustBe(areNumbers([low, high]) && low < high && typeof dtype === "string", "a transfer over no range");
}

/** Whether it is a volume of values, which are to be looked at as they are, and not the grid of a mesh. */
export function holdsValues({ size, source }) {
    return size.length === 3 && "bits" in source;
}

/** Whether the fourth channel is alpha: four channels may also be measurements. */
export function hasAlphaIn({ n_channels: nChannels, source }) {
    return nChannels === 4 && !source.spectral;
}
