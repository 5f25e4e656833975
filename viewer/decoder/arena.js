/** Memory of the WebAssembly decoder, taken from its end and given back in turn. */

export const MOST_ARENA = 2 ** 30; // bytes
const PAGE_BYTES = 2 ** 16;

export class Arena {
    constructor({ memory, __heap_base }) {
        this.memory = memory;
        this.top = __heap_base.value;
    }

    /** Where room for `count` entries of an array `Type` begins; at multiples of 16. */
    take(Type, count) {
        const start = Math.ceil(this.top / 16) * 16;
        const end = start + count * Type.BYTES_PER_ELEMENT;
        if (!(end <= MOST_ARENA) || !this.#reaches(end)) {
            throw new Error("this part of the fit takes more memory than the viewer has");
        }
        this.top = end;
        return start;
    }

    /** Where a copy of a typed array begins. */
    put(array) {
        const start = this.take(array.constructor, array.length);
        this.view(array.constructor, start, array.length).set(array);
        return start;
    }

    /** Of memory, until more is taken. */
    view(Type, start, count) {
        return new Type(this.memory.buffer, start, count);
    }

    /** What `work` returns; what it has taken is given back. */
    within(work) {
        const { top } = this;
        try {
            return work();
        } finally {
            this.top = top;
        }
    }

    #reaches(end) {
        const missing = end - this.memory.buffer.byteLength;
        try {
            if (missing > 0) this.memory.grow(Math.ceil(missing / PAGE_BYTES));
            return true;
        } catch {
            return false;
        }
    }
}
