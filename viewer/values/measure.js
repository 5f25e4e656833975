/** What the numbers of a fit, in [0, 1], are in its file: docs/format.md, `transfer` and `scaling` of a source. */

const MU = 5000;
const [M1, M2] = [2610 / 2 ** 14, 2523 / 2 ** 5]; // of SMPTE ST 2084, as are the next ones
const [C1, C2, C3] = [3424 / 2 ** 12, 2413 / 2 ** 7, 2392 / 2 ** 7];
const [LEAST_DECIMALS, MOST_DECIMALS] = [0, 6];

/** By kind of a transfer: from a number to a part of the range, and back. */
const TRANSFER_CURVES = {
    linear: [(x) => x, (part) => part],
    log: [(x) => Math.expm1(x * Math.log1p(MU)) / MU, (part) => Math.log1p(MU * part) / Math.log1p(MU)],
    pq: [
        (x) => (Math.max(x ** (1 / M2) - C1, 0) / (C2 - C3 * x ** (1 / M2))) ** (1 / M1),
        (part) => ((C1 + C2 * part ** M1) / (1 + C3 * part ** M1)) ** M2,
    ],
};

/**
 * low, high: the least and the greatest value that the file could hold
 * isFalling: whether greater numbers are less; isWhole: whether values are whole numbers
 */
export class Measure {
    #curve;
    #range;
    #scaling;
    #isStoredWhole;
    #decimals;

    /** @param source of a header: `bits`, and `transfer` and `scaling` where there are */
    constructor({ bits, transfer, scaling }) {
        const { kind, low, high, dtype } = transfer ?? { kind: "linear", low: 0, high: 2 ** bits - 1, dtype: "uint" };
        this.#curve = TRANSFER_CURVES[kind];
        this.#range = [low, high - low];
        this.#scaling = scaling?.[0] ? scaling : [1, 0];
        this.#isStoredWhole = !dtype.startsWith("float");
        this.isFalling = this.#scaling[0] < 0;
        [this.low, this.high] = [this.valueOf(0), this.valueOf(1)].sort((a, b) => a - b);
        this.isWhole = this.#isStoredWhole && this.#scaling.every(Number.isInteger);
        const decimals = 3 - Math.floor(Math.log10(this.high - this.low));
        this.#decimals = this.isWhole ? 0 : Math.max(decimals, LEAST_DECIMALS);
    }

    valueOf(number) {
        return this.#scaled(this.#range[0] + this.#curve[0](number) * this.#range[1]);
    }

    numberOf(value) {
        const stored = (value - this.#scaling[1]) / this.#scaling[0];
        const part = Math.min(Math.max((stored - this.#range[0]) / this.#range[1], 0), 1);
        return this.#curve[1](part);
    }

    #scaled(stored) {
        return stored * this.#scaling[0] + this.#scaling[1];
    }

    /** A value in words, as exact as its range lets one read. */
    inWords(value) {
        const text = this.#decimals > MOST_DECIMALS ? value.toExponential(3) : value.toFixed(this.#decimals);
        return text.replace(/^-(0(?:\.0*)?)$/, "$1");
    }

    /** What the file would hold for a number, in words: of whole numbers a whole one. */
    read(number) {
        const stored = this.#range[0] + this.#curve[0](number) * this.#range[1];
        return this.inWords(this.#scaled(this.#isStoredWhole ? Math.round(stored) : stored));
    }
}
