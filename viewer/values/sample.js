const MOST_SAMPLED = 2 ** 17; // values: more tell nothing else
const OTSU_BINS = 256;

/** How often which numbers occur, by some of them, evenly spread. */
export class Sample {
    #sorted;
    #otsu = null;

    constructor(numbers) {
        const step = Math.ceil(numbers.length / MOST_SAMPLED);
        const length = Math.ceil(numbers.length / step);
        this.#sorted = Float32Array.from({ length }, (_, i) => numbers[i * step]).sort();
    }

    /** The number that a part of them, 0 to 1, do not exceed. */
    quantile(part) {
        return this.#sorted[Math.round(part * (this.#sorted.length - 1))];
    }

    /** How many lie in each of n equal parts of a range; those beyond its ends count nowhere. */
    counts(low, high, n) {
        const counts = new Uint32Array(n);
        for (const number of this.#sorted) {
            const part = (number - low) / (high - low);
            if (part >= 0 && part <= 1) counts[Math.min(Math.floor(n * part), n - 1)]++;
        }
        return counts;
    }

    /** The threshold between two classes that differ most (Otsu, IEEE Trans. SMC 9, 1979). */
    get otsu() {
        return (this.#otsu ??= this.#foundOtsu());
    }

    #foundOtsu() {
        const [low, high] = [this.quantile(0), this.quantile(1)];
        if (low === high) return low;
        const counts = this.counts(low, high, OTSU_BINS);
        const total = counts.reduce((sum, count, i) => sum + count * i, 0);
        let [best, first, last, below, belowTotal] = [-1, 0, 0, 0, 0];
        for (let i = 0; i < OTSU_BINS - 1; i++) {
            below += counts[i];
            belowTotal += counts[i] * i;
            const above = this.#sorted.length - below;
            const variance = below * above * (belowTotal / below - (total - belowTotal) / above) ** 2;
            if (variance > best) [best, first] = [variance, i + 1];
            if (variance === best) last = i + 1; // between the classes there may be a gap
        }
        return low + ((first + last) / 2 / OTSU_BINS) * (high - low);
    }
}
