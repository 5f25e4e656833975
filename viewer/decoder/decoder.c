/* Tiles of the levels of a fit, as docs/format.md says: the networks of a chunk, added to the upsampled coarser level.

Whoever calls gives all memory, which begins at __heap_base, and checks sizes before. */

#define WITHOUT_FITTING
#include "../../models/packed/coefficients.c"
#include "vectors.h"
#include "networks.c"
#include "chunks.c"
#include "resample.c"

#define EXPORTED __attribute__((visibility("default")))
#define ROUND 32768.0f /* steps of a coarser level that is built on */

static const uint32_t ratios[N_TABLES] = {
    1440801,    15004422,   78665070,   253857248,  581260615,  1044178424, 1580030169, 2117713904, 2605029347,
    3015876649, 3344923893, 3599040369, 3790295335, 3931635878, 4034748382, 4109287957, 4162825044, 4201101925,
    4228380000, 4247775344, 4261543595,
};

#define MOST_MAGNITUDES 15
static const uint32_t zeros_and_ratios[N_SPREADS][2] = {
    {4294319902, 483},        {4292341693, 6163},       {4286445224, 52418},      {4272031750, 317125},
    {4242236523, 1440801},    {4188774636, 5145013},    {4103650747, 15004422},   {3981108382, 36905875},
    {3819071355, 78665070},   {3619619976, 148652826},  {3388491525, 253857248},  {3133927343, 398132550},
    {2865296878, 581260615},  {2591854073, 799036310},  {2321826706, 1044178424}, {2061891250, 1307656790},
    {1816986729, 1580030169}, {1590375719, 1852521207}, {1383855085, 2117713904}, {1198035171, 2369882518},
    {1032629868, 2605029347}, {886722532, 2820730047},  {758990523, 3015876649},  {647883229, 3190386796},
    {551755765, 3344923893},
};

/* n and the n + 2 bounds of the symbols of the table of a ratio; returns what follows them. */
static int32_t *bounds_of(uint64_t ratio, int32_t *out) {
    uint64_t weights[MOST_SYMBOLS] = {1u << 31}, weight = 1ull << 32, q = ratio, sum = weights[0];
    int32_t n = 1;
    for (; (weight = weight * q >> 32) >= 1 << 17; n++) {
        sum += weights[n] = weight;
        q = (q * ratio >> 32) * ratio >> 32;
    }
    int32_t left = TOTAL - 4;
    for (int32_t k = 0; k < n; k++) left -= 1 + weights[k] * (TOTAL - 4 - n) / sum;
    int32_t bound = left;
    *out++ = n, *out++ = 0;
    for (int32_t k = 0; k < n; k++) *out++ = bound += 1 + weights[k] * (TOTAL - 4 - n) / sum;
    *out++ = TOTAL;
    return out;
}

/* The same of the magnitudes of a coefficient, the `zero` / 2^32 of which are 0. */
static int32_t *coefficient_bounds_of(uint64_t zero, uint64_t ratio, int32_t *out) {
    uint64_t weights[MOST_MAGNITUDES], left = (1ull << 32) - zero, weight;
    int32_t n = 0, first = TOTAL;
    while (n < MOST_MAGNITUDES - 1 && (weight = left * ((1ull << 32) - ratio) >> 32) >= 1 << 17)
        weights[n++] = weight, left -= weight;
    weights[n] = left;
    for (int32_t k = 0; k <= n; k++) first -= 1 + (weights[k] * (TOTAL - 2 - n) >> 32);
    *out++ = n + 1, *out++ = 0, *out++ = first;
    for (int32_t k = 0; k <= n; k++) *out++ = first += 1 + (weights[k] * (TOTAL - 2 - n) >> 32);
    return out;
}

/* Once, before any chunk is read. */
EXPORTED void start(void) {
    static int32_t bounds[N_TABLES * (MOST_SYMBOLS + 2)];
    int32_t *end = bounds;
    for (int table = 0; table < N_TABLES; table++) end = bounds_of(ratios[table], end);
    set_tables(bounds);
    end = bounds;
    for (int table = 0; table < N_SPREADS; table++)
        end = coefficient_bounds_of(zeros_and_ratios[table][0], zeros_and_ratios[table][1], end);
    set_spreads(bounds);
}

typedef struct {
    Positions at;
    int32_t residual;
    const Shape *shapes;        /* of each group */
    Quantised coding;
} Level;

EXPORTED double floats_of_network(const Level *level, int32_t group) {
    return work_floats(level->shapes + group, &level->at);
}

EXPORTED double numbers_of_network(const Level *level, int32_t group) {
    return n_numbers(level->shapes + group, &level->at);
}

EXPORTED double integers_of_network(const Level *level, int32_t group) {
    return n_integers(&level->coding, level->shapes + group, &level->at);
}

/* The groups of `n_active` blocks, and all their integers; 0 if the chunk is damaged. */
EXPORTED int32_t read_integers(
    const Level *level, const uint8_t *data, int32_t size, int32_t n_active, int32_t *groups, int32_t *integers
) {
    const int32_t *model = level->coding.model;
    if (level->coding.kind == COSINES) return decode_coefficients(data, size, n_active, model, groups, integers) >= 0;
    return decode_chunk(data, size, n_active, model, groups, integers) >= 0;
}

/* A window of a level that begins where its first block does; the last blocks may reach beyond it. */
typedef struct {
    int32_t size[3], blocks[3]; /* pixels and blocks along each axis */
    const uint8_t *active;      /* of each block */
    const float *base;          /* (channels, *size) what networks add to */
    float *out;                 /* likewise, what is shown where there is none, and then all */
} Tile;

/* The values of a row of a block, at an offset of the tile's arrays. */
static void write_row(const Level *level, const Tile *tile, const float *values, int64_t offset, int32_t n) {
    int64_t plane = (int64_t)tile->size[0] * tile->size[1] * tile->size[2];
    for (int32_t channel = 0; channel < level->at.n_out; channel++, values += level->at.width) {
        const float *base = tile->base + channel * plane + offset;
        float *out = tile->out + channel * plane + offset;
        int32_t x = 0;
        for (; x + WIDE <= n; x += WIDE)
            store(out + x, clamped(level->residual ? load(values + x) + load(base + x) : load(values + x)));
        for (; x < n; x++) out[x] = clamped(all(level->residual ? values[x] + base[x] : values[x]))[0];
    }
}

/* All of a block that lies inside the tile, where (z, y, x) is its place among the blocks. */
static void write_block(const Level *level, const Tile *tile, const Network *net, const int32_t *place) {
    int32_t begin[3], n[3];
    for (int axis = 0; axis < 3; axis++) {
        begin[axis] = place[axis] * level->at.patch[axis];
        int32_t left = tile->size[axis] - begin[axis];
        n[axis] = left < level->at.patch[axis] ? left : level->at.patch[axis];
    }
    for (int32_t z = 0; z < n[0]; z++)
        for (int32_t y = 0; y < n[1]; y++) {
            const float *values = evaluate(net, z * level->at.patch[1] + y);
            int64_t line = (int64_t)(begin[0] + z) * tile->size[1] + begin[1] + y;
            write_row(level, tile, values, line * tile->size[2] + begin[2], n[2]);
        }
}

/* The numbers of the next block's network; 0 if they are not finite. */
static int next_numbers(const Level *level, Chunk *chunk, int32_t group, float *numbers, float *work) {
    const Shape *shape = level->shapes + group;
    const Quantised *coding = &level->coding;
    if (!chunk->integers)
        float32_numbers(chunk, group, shape, &level->at, numbers);
    else if (coding->kind == COSINES)
        chunk->integers = quantised_cosines(chunk->integers, coding, shape, &level->at, numbers);
    else if (coding->kind == MLP)
        chunk->integers = quantised_mlp(chunk->integers, coding, shape, &level->at, (uint64_t *)work, numbers);
    else
        chunk->integers = quantised_tensors(chunk->integers, coding, group, numbers);
    return are_finite(numbers, n_numbers(shape, &level->at));
}

/* The networks of a chunk, evaluated; 0 if some number is not finite.

Inputs
    groups: of each active block
    integers: of `read_integers`; or null, and then `n` numbers as byte planes
    numbers, work: room for those of the largest network; `work` lies at a multiple of 8 */
EXPORTED int32_t refine(
    const Level *level, const Tile *tile, const int32_t *groups, const int32_t *integers, const uint8_t *planes,
    uint32_t n, float *numbers, float *work
) {
    Chunk chunk = {integers, planes, n, {0}, {0}, {0}};
    const int32_t *blocks = tile->blocks;
    int32_t n_active = 0;
    for (int32_t block = 0; block < blocks[0] * blocks[1] * blocks[2]; block++)
        if (tile->active[block]) chunk.count[groups[n_active++]]++;
    for (int32_t group = 0; group < 127; group++)
        chunk.first[group + 1] = chunk.first[group]
            + (chunk.count[group] ? chunk.count[group] * (uint32_t)n_numbers(level->shapes + group, &level->at) : 0);
    for (int32_t block = 0; block < blocks[0] * blocks[1] * blocks[2]; block++) {
        if (!tile->active[block]) continue;
        int32_t group = *groups++;
        if (!next_numbers(level, &chunk, group, numbers, work)) return 0;
        Network net = network_of(numbers, work, level->shapes + group, &level->at);
        int32_t place[3] = {block / (blocks[1] * blocks[2]), block / blocks[2] % blocks[1], block % blocks[2]};
        write_block(level, tile, &net, place);
    }
    return 1;
}

/* Values of a level, as finer ones build on them. */
EXPORTED void round_values(float *values, int32_t n) {
    for (int32_t i = 0; i < n; i++) values[i] = (values[i] * ROUND + MAGIC - MAGIC) / ROUND;
}

EXPORTED void clamp_values(float *values, int32_t n) {
    for (int32_t i = 0; i < n; i++) values[i] = clamped(all(values[i]))[0];
}

/* (outer, n_in, inner) along its middle axis, or (outer, n_in) where `inner` is 1; `line` is room for a padded row. */
EXPORTED void resample(const Taps *taps, int32_t outer, int32_t inner, const float *in, float *out, float *line) {
    if (inner > 1) resample_outer(taps, outer, inner, in, out);
    else resample_inner(taps, outer, in, out, line);
}
