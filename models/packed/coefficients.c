/* Integers of networks of cosines: how they are coded, and which are worth their bits.

How a coefficient is distributed follows from its context: its channel, its band of frequencies, and its activity, which
is how large the coefficients of lower frequencies next to it are, and the same one of the first channel. Blocks are coded on
their own. */

#include "coder.c"

#ifndef WITHOUT_FITTING
#include <math.h>
#include <stdlib.h>
#include <string.h>
#endif

#define NARROWEST (-16)
#define BROADEST 8
#define N_SPREADS (BROADEST - NARROWEST + 1)
#define N_BANDS 9
#define N_ACTIVITIES 12
#define N_CLASSES 3 /* of channels */
#define MOST_ACTIVE 64 /* a sum from 63 on makes no difference */

static Table spreads[N_SPREADS];
static int32_t activity_of[MOST_ACTIVE]; /* of a sum of magnitudes */

/* As `set_tables`, of Laplacian magnitudes. */
void set_spreads(const int32_t *starts) {
    for (Table *table = spreads; table < spreads + N_SPREADS; table++) starts = set_table(table, starts);
    for (int32_t sum = 1; sum < MOST_ACTIVE; sum++) activity_of[sum] = quarters(sum + 1) - 1;
}

static const Table *spread_of(int32_t scale, int *n_low) {
    *n_low = scale > BROADEST ? (scale - BROADEST + 3) / 4 : 0;
    scale -= 4 * *n_low;
    return spreads + (scale < NARROWEST ? NARROWEST : scale) - NARROWEST;
}

/* Networks of one shape. Coefficients are numbered in C order within a part.

after, weight: of coefficient k those from first[k] on are the coefficients whose activity it tells */
typedef struct {
    int32_t n_parts, n_coefficients;
    const int32_t *band, *first, *after, *weight;
} Group;

static const int32_t *group_of(const int32_t *packed, Group *group) {
    group->n_parts = packed[0];
    group->n_coefficients = packed[1];
    group->band = packed + 2;
    group->first = group->band + group->n_coefficients;
    group->after = group->first + group->n_coefficients + 1;
    int32_t n_after = group->first[group->n_coefficients];
    group->weight = group->after + n_after;
    return group->weight + n_after;
}

static int32_t active(int32_t value) {
    if (value < 0) value = -value;
    return value < MOST_ACTIVE ? value : MOST_ACTIVE;
}

/* Of a channel's coefficient k, whose place holds what `tell` has summed: those of the first channel are known. */
static int32_t context_of(const Group *group, int32_t channel, const int32_t *sums, const int32_t *first, int32_t k) {
    int32_t sum = sums[k] + (channel ? active(first[k]) : 0);
    int32_t class = channel < N_CLASSES ? channel : N_CLASSES - 1;
    return (class * N_BANDS + group->band[k]) * N_ACTIVITIES + activity_of[sum < MOST_ACTIVE ? sum : MOST_ACTIVE - 1];
}

/* Coefficient k is known: most are 0, and tell nothing. */
static void tell(const Group *group, int32_t k, int32_t value, int32_t *sums) {
    if (value)
        for (int32_t i = group->first[k]; i < group->first[k + 1]; i++)
            sums[group->after[i]] += group->weight[i] * active(value);
}

/* Of a context, its table. */
typedef struct {
    const Table *table;
    int n_low;
} Spread;

static int32_t read_coefficient(Reader *in, const Spread *spread) {
    uint32_t slot = in->state & (TOTAL - 1), zeros = spread->table->start[1];
    if (spread->n_low || slot >= zeros) return signed_as_read(in, read_from(in, spread->table, spread->n_low));
    in->state = zeros * (in->state >> BITS) + slot;
    refill(in);
    return 0;
}

/* Those of a channel; each place holds its sum until it is read. */
static void read_channel(
    Reader *in, const Group *group, int32_t channel, const Spread *spreads_of, int32_t *out
) {
    const int32_t *first = out - channel * group->n_coefficients;
    for (int32_t k = 0; k < group->n_coefficients; k++) out[k] = 0;
    for (int32_t k = 0; k < group->n_coefficients; k++) {
        out[k] = read_coefficient(in, spreads_of + context_of(group, channel, out, first, k));
        tell(group, k, out[k], out);
    }
}

/* The groups of the active blocks of a chunk and the integers of each block, part by part and channel by channel.

model: numbers of groups and channels, bounds of the groups, scales of the contexts, then each group
Returns how many integers there are, or -1 for data that is not a chunk of this model. */
int64_t decode_coefficients(
    const uint8_t *data, int64_t size, int32_t n_active, const int32_t *model, int32_t *groups, int32_t *values
) {
    Reader in = {data, size, 4, 0, 0};
    int32_t n_groups = model[0], n_channels = model[1], *out = values;
    const int32_t *starts = model + 2, *scales = starts + n_groups + 1;
    Spread of_contexts[N_CLASSES * N_BANDS * N_ACTIVITIES];
    for (int32_t context = 0; context < N_CLASSES * N_BANDS * N_ACTIVITIES; context++)
        of_contexts[context].table = spread_of(scales[context], &of_contexts[context].n_low);
    if (!begin(&in)) return -1;
    for (int32_t block = 0; block < n_active; block++) groups[block] = read_group(&in, starts);
    for (int32_t block = 0; block < n_active && !in.failed; block++) {
        const int32_t *packed = scales + N_CLASSES * N_BANDS * N_ACTIVITIES;
        Group group;
        for (int32_t number = 0; number <= groups[block]; number++) packed = group_of(packed, &group);
        for (int32_t part = 0; part < group.n_parts; part++)
            for (int32_t channel = 0; channel < n_channels; channel++, out += group.n_coefficients)
                read_channel(&in, &group, channel, of_contexts, out);
    }
    return is_at_end(&in) ? out - values : -1;
}

#ifndef WITHOUT_FITTING

/* Those of a channel, the last first; `sums` is room for as many. Returns 0 if `data` is too short. */
static int write_channel(
    Writer *out, const Group *group, int32_t channel, const int32_t *scales, const int32_t *values, int32_t *sums
) {
    const int32_t *first = values - channel * group->n_coefficients;
    memset(sums, 0, group->n_coefficients * sizeof(int32_t));
    for (int32_t k = 0; k < group->n_coefficients; k++) tell(group, k, values[k], sums);
    for (int32_t k = group->n_coefficients - 1; k >= 0; k--) {
        int n_low;
        const Table *table = spread_of(scales[context_of(group, channel, sums, first, k)], &n_low);
        if (out->at < 32) return 0;
        write_value(out, values[k], table, n_low);
    }
    return 1;
}

/* The inverse. `data` is filled from its end; returns where it begins, or -1 if it is too short. */
int64_t encode_coefficients(
    const int32_t *groups, const int32_t *values, int32_t n_active, const int32_t *model, uint8_t *data, int64_t size
) {
    Writer out = {data, size, LEAST};
    int32_t n_groups = model[0], n_channels = model[1];
    const int32_t *starts = model + 2, *scales = starts + n_groups + 1;
    Group of[n_groups];
    const int32_t *packed = scales + N_CLASSES * N_BANDS * N_ACTIVITIES;
    int32_t most = 0;
    for (int32_t number = 0; number < n_groups; number++) {
        packed = group_of(packed, of + number);
        if (of[number].n_coefficients > most) most = of[number].n_coefficients;
    }
    int32_t *sums = malloc(most * sizeof(int32_t)), fits = sums != 0;
    for (int32_t block = 0; block < n_active; block++)
        values += (int64_t)of[groups[block]].n_parts * n_channels * of[groups[block]].n_coefficients;
    for (int32_t block = n_active - 1; block >= 0; block--) {
        const Group *group = of + groups[block];
        for (int32_t part = 0; part < group->n_parts; part++)
            for (int32_t channel = n_channels - 1; channel >= 0 && fits; channel--) {
                values -= group->n_coefficients;
                fits = write_channel(&out, group, channel, scales, values, sums);
            }
    }
    free(sums);
    if (!fits) return -1;
    for (int32_t block = n_active - 1; block >= 0; block--) {
        if (out.at < 32) return -1;
        write_symbol(&out, starts[groups[block]], starts[groups[block] + 1]);
    }
    return end(&out);
}

static float bits_of[N_SPREADS][MOST_SYMBOLS];

/* What each symbol takes; after `set_spreads`. */
void set_bits(void) {
    for (int32_t number = 0; number < N_SPREADS; number++)
        for (int32_t symbol = 0; symbol <= spreads[number].n; symbol++)
            bits_of[number][symbol] =
                BITS - log2f(spreads[number].start[symbol + 1] - spreads[number].start[symbol]);
}

static float bits_for(int32_t magnitude, int32_t scale) {
    int n_low;
    const Table *table = spread_of(scale, &n_low);
    const float *bits = bits_of[table - spreads];
    int32_t high = magnitude >> n_low;
    float all = n_low + (magnitude > 0);
    if (high < table->n) return all + bits[high];
    return all + bits[table->n] + 5 + (31 - __builtin_clz(high - table->n + 1));
}

/* Integers for some blocks of a group, each of which lowers the sum of the squared error and `price` times the bits the most,
when those before it are chosen.

wanted and values: (n_blocks, n_parts, n_channels, n_coefficients); wanted times `per_unit` is in steps
scales: of the contexts; or null, for integers that are rounded towards 0 where they are beyond 1/2 + slack
bits, errors: (n_blocks,), errors in squared steps
counts: of each context how many values it has, how many are not 0, and the sum of what they exceed 1; or null */
void choose(
    const float *wanted, float per_unit, int64_t n_blocks, int32_t n_channels, const int32_t *packed,
    const int32_t *scales, float price, float slack, int32_t *values, double *bits, double *errors, int64_t *counts
) {
    Group group;
    group_of(packed, &group);
    for (int64_t block = 0; block < n_blocks; block++) {
        double all_bits = 0, all_errors = 0;
        for (int32_t part = 0; part < group.n_parts; part++)
            for (int32_t channel = 0; channel < n_channels; channel++) {
                const int32_t *first = values - channel * group.n_coefficients;
                memset(values, 0, group.n_coefficients * sizeof(int32_t)); /* a place holds its sum until it is chosen */
                for (int32_t k = 0; k < group.n_coefficients; k++) {
                    int32_t context = context_of(&group, channel, values, first, k), best = 0;
                    float size = fabsf(wanted[k] * per_unit);
                    if (size > 1 << 27) size = 1 << 27;
                    if (!scales) best = size + 0.5f - slack;
                    else {
                        int32_t near = size + 0.5f, scale = scales[context];
                        float took = bits_for(0, scale), least = size * size + price * took;
                        for (int32_t other = near; other > 0 && other > near - 2; other--) {
                            float own = bits_for(other, scale), cost = (size - other) * (size - other) + price * own;
                            if (cost < least) least = cost, took = own, best = other;
                        }
                        all_bits += took;
                    }
                    all_errors += (size - best) * (size - best);
                    values[k] = wanted[k] < 0 ? -best : best;
                    tell(&group, k, values[k], values);
                    if (counts) {
                        counts[3 * context]++;
                        counts[3 * context + 1] += best > 0;
                        counts[3 * context + 2] += best > 0 ? best - 1 : 0;
                    }
                }
                wanted += group.n_coefficients;
                values += group.n_coefficients;
            }
        bits[block] = all_bits;
        errors[block] = all_errors;
    }
}

#endif
