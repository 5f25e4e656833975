/** What was used last is dropped last: values by key, of so many bytes together at most. */
export class Kept {
    bytes = 0;
    #items = new Map(); // key -> { value, bytes }, what was used last at the end

    constructor(most) {
        this.most = most;
    }

    get count() {
        return this.#items.size;
    }

    has(key) {
        return this.#items.has(key);
    }

    get(key) {
        const item = this.#items.get(key);
        if (item) {
            this.#items.delete(key);
            this.#items.set(key, item);
        }
        return item?.value;
    }

    /** @param isNeeded tells of a key whether it must stay, whatever the bound */
    add(key, value, bytes, isNeeded = () => false) {
        this.drop(key);
        this.#items.set(key, { value, bytes });
        this.bytes += bytes;
        for (const other of this.#items.keys()) {
            if (this.bytes <= this.most) break;
            if (!isNeeded(other)) this.drop(other);
        }
    }

    drop(key) {
        this.bytes -= this.#items.get(key)?.bytes ?? 0;
        this.#items.delete(key);
    }
}
