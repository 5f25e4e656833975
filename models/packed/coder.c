/* Entropy coding of the integers of a chunk: rANS (Duda, arXiv 1311.2540) with the tables of docs/format.md.

A value is a magnitude of a table, its low bits where the scale is beyond the widest table, and a sign. The decoder
knows the scale of a value from what it has decoded before; the encoder is told. */

#include <stdint.h>

#define LEAST (1u << 16) /* of the state */
#define BITS 14
#define TOTAL (1u << BITS)
#define LOWEST (-8)
#define WIDEST 12
#define N_TABLES (WIDEST - LOWEST + 1)
#define MOST_SYMBOLS 128
#define FARTHEST (1 << 28)

/* of one scale: `n` magnitudes, and an escape after them */
typedef struct {
    int32_t n;
    int32_t start[MOST_SYMBOLS + 1];
    uint8_t symbol_at[TOTAL];
} Table;

static Table tables[N_TABLES];

/* `starts` holds n and the n + 2 bounds of its symbols; returns what follows them. */
static const int32_t *set_table(Table *table, const int32_t *starts) {
    table->n = *starts++;
    for (int symbol = 0; symbol <= table->n; symbol++) {
        table->start[symbol] = starts[symbol];
        for (int32_t slot = starts[symbol]; slot < starts[symbol + 1]; slot++) table->symbol_at[slot] = symbol;
    }
    table->start[table->n + 1] = TOTAL;
    return starts + table->n + 2;
}

/* `starts` is as for `set_table`, table by table. */
void set_tables(const int32_t *starts) {
    for (Table *table = tables; table < tables + N_TABLES; table++) starts = set_table(table, starts);
}

/* The table of a scale, and how many low bits are apart. */
static const Table *table_of(int32_t scale, int *n_low) {
    *n_low = scale > WIDEST ? (scale - WIDEST + 3) / 4 : 0;
    scale -= 4 * *n_low;
    return tables + (scale < LOWEST ? LOWEST : scale) - LOWEST;
}

typedef struct {
    const uint8_t *data;
    int64_t size, at;
    uint32_t state;
    int failed;
} Reader;

static void refill(Reader *in) {
    if (in->state >= LEAST) return;
    if (in->at + 2 > in->size) {
        in->failed = 1;
        in->state = LEAST;
        return;
    }
    in->state = in->state << 16 | in->data[in->at] | in->data[in->at + 1] << 8;
    in->at += 2;
}

static uint32_t read_bits(Reader *in, int n) {
    uint32_t value = in->state & ((1u << n) - 1);
    in->state >>= n;
    refill(in);
    return value;
}

static int read_symbol(Reader *in, const int32_t *start, const uint8_t *symbol_at) {
    uint32_t slot = in->state & (TOTAL - 1);
    int symbol = symbol_at[slot];
    uint32_t count = start[symbol + 1] - start[symbol];
    in->state = count * (in->state >> BITS) + slot - start[symbol];
    refill(in);
    return symbol;
}

static int32_t read_from(Reader *in, const Table *table, int n_low) {
    int64_t value = read_symbol(in, table->start, table->symbol_at);
    if (n_low > 16) in->failed = 1, n_low = 16;
    if (value == table->n) {
        int n = read_bits(in, 5);
        if (n > 28) in->failed = 1, n = 0;
        uint32_t low = read_bits(in, n < 14 ? n : 14);
        if (n > 14) low |= read_bits(in, n - 14) << 14;
        value += (1u << n) - 1 + low;
    }
    if (n_low) value = value << n_low | read_bits(in, n_low);
    if (value > FARTHEST) in->failed = 1, value = 0;
    return value;
}

static int32_t read_magnitude(Reader *in, int32_t scale) {
    int n_low;
    const Table *table = table_of(scale, &n_low);
    return read_from(in, table, n_low);
}

static int32_t signed_as_read(Reader *in, int32_t magnitude) {
    return magnitude && read_bits(in, 1) ? -magnitude : magnitude;
}

static int32_t read_value(Reader *in, int32_t scale) {
    return signed_as_read(in, read_magnitude(in, scale));
}

/* floor(2 log2 n), of n >= 1 */
static int32_t quarters(uint64_t n) {
    int high = 63 - __builtin_clzll(n);
    uint64_t mantissa = high > 15 ? n >> (high - 15) : n << (15 - high);
    return 2 * high + (mantissa >= 46341);
}

/* What is the same for all blocks of a level; the order is that of `Model` in slow_coder.py. No layers: plain. */
typedef struct {
    int32_t n_groups, n_layers, n_in, n_out, has_amplitude, spread, first, difference;
    const int32_t *starts;  /* n_groups + 1 */
    const int32_t *hidden;  /* n_groups */
    const int32_t *chroma;  /* n_out - 1 */
    const int32_t *out;     /* n_out */
    const int32_t *base;    /* n_layers - 1 */
    const int32_t *bias;    /* n_layers - 1 */
    const int32_t *floors;  /* n_layers - 1 */
} Model;

static Model model_of(const int32_t *packed) {
    Model m = {packed[0], packed[1], packed[2], packed[3], packed[4], packed[5], packed[6], packed[7],
               0, 0, 0, 0, 0, 0, 0};
    m.starts = packed + 8;
    m.hidden = m.starts + m.n_groups + 1;
    m.chroma = m.hidden + m.n_groups;
    m.out = m.chroma + m.n_out - 1;
    m.base = m.out + m.n_out;
    m.bias = m.base + m.n_layers - 1;
    m.floors = m.bias + m.n_layers - 1;
    return m;
}

/* The last layer: its units in the order of their first channel, which falls; energy (n) of each. */
static int32_t *read_last(Reader *in, const Model *m, int32_t n, int32_t *out, uint64_t *energy) {
    int32_t most = 0, before = 0, scale = 0, chroma[m->n_out];
    for (int32_t channel = 1; channel < m->n_out; channel++)
        chroma[channel] = m->chroma[channel - 1] + read_value(in, m->spread);
    for (int32_t unit = 0; unit < n; unit++) {
        int32_t value = 0;
        if (unit == 0) {
            value = most = read_magnitude(in, m->first);
            if (most) scale = m->difference + quarters((uint64_t)most * most) - quarters((uint64_t)n * n);
        } else if (most) {
            value = before - read_magnitude(in, scale);
            if (value < 0) in->failed = 1, value = 0;
        }
        before = value;
        uint64_t sum = (uint64_t)value * value;
        *out++ = value && read_bits(in, 1) ? -value : value;
        for (int32_t channel = 1; channel < m->n_out; channel++) {
            int64_t other = *out++ = read_value(in, chroma[channel]);
            sum += other * other;
        }
        energy[unit] = sum;
    }
    for (int32_t channel = 0; channel < m->n_out; channel++) *out++ = read_value(in, m->out[channel]);
    return out;
}

/* A hidden layer, unit by unit: its weights, then its bias. */
static int32_t *read_hidden(Reader *in, const Model *m, int32_t layer, int32_t n, int32_t *out, uint64_t *energy) {
    int32_t n_in = layer ? n : m->n_in, base = m->base[layer] + read_value(in, m->spread);
    uint64_t before[layer ? n : 1];
    for (int32_t row = 0; layer && row < n; row++) before[row] = 0;
    for (int32_t unit = 0; unit < n; unit++) {
        int32_t lift = energy[unit] ? quarters(energy[unit]) : 0;
        if (lift < m->floors[layer]) lift = m->floors[layer];
        for (int32_t row = 0; row < n_in; row++) {
            int64_t value = *out++ = energy[unit] ? read_value(in, base + lift) : 0;
            if (layer) before[row] += value * value;
        }
        *out++ = energy[unit] ? read_magnitude(in, base + lift + m->bias[layer]) : 0;
    }
    for (int32_t row = 0; layer && row < n; row++) energy[row] = before[row];
    return out;
}

static int32_t *read_mlp(Reader *in, const Model *m, int32_t n, int32_t *out) {
    uint64_t energy[n];
    if (m->has_amplitude) *out++ = read_bits(in, 11);
    out = read_last(in, m, n, out, energy);
    for (int32_t layer = m->n_layers - 2; layer >= 0; layer--) out = read_hidden(in, m, layer, n, out, energy);
    return out;
}

/* Networks that are coded tensor by tensor: `n_in` of them, whose sizes are in `hidden`, group by group. */
static int32_t *read_plain(Reader *in, const Model *m, int32_t group, int32_t *out) {
    const int32_t *sizes = m->hidden + group * m->n_in, *bases = m->hidden + m->n_groups * m->n_in;
    for (int32_t tensor = 0; tensor < m->n_in; tensor++) {
        int32_t scale = bases[tensor] + read_value(in, m->spread);
        for (int32_t left = sizes[tensor]; left; left--) *out++ = read_value(in, scale);
    }
    return out;
}

static int begin(Reader *in) {
    if (in->size < 4) return 0;
    in->state = in->data[0] | in->data[1] << 8 | in->data[2] << 16 | (uint32_t)in->data[3] << 24;
    return in->state >= LEAST;
}

static int32_t read_group(Reader *in, const int32_t *starts) {
    uint32_t slot = in->state & (TOTAL - 1);
    int32_t group = 0;
    while (slot >= (uint32_t)starts[group + 1]) group++;
    in->state = (starts[group + 1] - starts[group]) * (in->state >> BITS) + slot - starts[group];
    refill(in);
    return group;
}

static int is_at_end(const Reader *in) {
    return !in->failed && in->state == LEAST && in->at == in->size;
}

/* The groups of the active blocks of a chunk, and the integers of each block, one after another.

Returns how many integers there are, or -1 for data that is not a chunk of this model. */
int64_t decode_chunk(
    const uint8_t *data, int64_t size, int32_t n_active, const int32_t *packed, int32_t *groups, int32_t *values
) {
    Reader in = {data, size, 4, 0, 0};
    if (!begin(&in)) return -1;
    Model m = model_of(packed);
    int32_t *out = values;
    for (int32_t block = 0; block < n_active; block++) groups[block] = read_group(&in, m.starts);
    for (int32_t block = 0; block < n_active && !in.failed; block++) {
        int32_t group = groups[block];
        out = m.n_layers ? read_mlp(&in, &m, m.hidden[group], out) : read_plain(&in, &m, group, out);
    }
    return is_at_end(&in) ? out - values : -1;
}

typedef struct {
    uint8_t *data;
    int64_t at; /* the last byte that is written; it is filled from its end */
    uint32_t state;
} Writer;

static void emit(Writer *out) {
    out->data[--out->at] = out->state >> 8;
    out->data[--out->at] = out->state;
    out->state >>= 16;
}

static void write_bits(Writer *out, uint32_t value, int n) {
    if (n && out->state >> (32 - n)) emit(out);
    out->state = out->state << n | value;
}

static void write_symbol(Writer *out, uint32_t start, uint32_t stop) {
    uint32_t count = stop - start;
    if (out->state >= (uint64_t)count << 18) emit(out);
    out->state = (out->state / count << BITS) + out->state % count + start;
}

static void write_to(Writer *out, uint32_t value, const Table *table, int n_low) {
    if (n_low) write_bits(out, value & ((1u << n_low) - 1), n_low);
    value >>= n_low;
    if (value >= (uint32_t)table->n) {
        uint32_t rest = value - table->n + 1;
        int n = 31 - __builtin_clz(rest);
        uint32_t low = rest - (1u << n);
        if (n > 14) write_bits(out, low >> 14, n - 14);
        write_bits(out, low & ((1u << 14) - 1), n < 14 ? n : 14);
        write_bits(out, n, 5);
        value = table->n;
    }
    write_symbol(out, table->start[value], table->start[value + 1]);
}

static void write_magnitude(Writer *out, uint32_t value, int32_t scale) {
    int n_low;
    const Table *table = table_of(scale, &n_low);
    write_to(out, value, table, n_low);
}

static void write_value(Writer *out, int32_t value, const Table *table, int n_low) {
    if (value) write_bits(out, value < 0, 1);
    write_to(out, value < 0 ? -value : value, table, n_low);
}

/* The state, in front of all that was written; returns where it begins. */
static int64_t end(Writer *out) {
    for (int byte = 3; byte >= 0; byte--) out->data[--out->at] = out->state >> 8 * byte;
    return out->at;
}

/* Values of kinds 0 signed, 1 magnitude, 2 `scale` bits, 3 a symbol of `starts`; others are skipped.

`data` is filled from its end; returns where it begins, or -1 if it is too short. */
int64_t encode_values(
    const int32_t *values, const int32_t *scales, const uint8_t *kinds, int64_t n, const int32_t *starts,
    uint8_t *data, int64_t size
) {
    Writer out = {data, size, LEAST};
    while (n-- > 0) {
        if (out.at < 32) return -1;
        int32_t value = values[n], scale = scales[n];
        if (kinds[n] == 0) {
            int n_low;
            const Table *table = table_of(scale, &n_low);
            write_value(&out, value, table, n_low);
        } else if (kinds[n] == 1) {
            write_magnitude(&out, value, scale);
        } else if (kinds[n] == 2) {
            write_bits(&out, value, scale);
        } else if (kinds[n] == 3) {
            write_symbol(&out, starts[value], starts[value + 1]);
        }
    }
    return end(&out);
}
