/* The networks of blocks, evaluated a row of pixels at a time.

What comes first in a network is affine in the input: z = input weight + bias, of each unit. Each number of the input is
a function of the row, one of the column, or a sum of products of the two. So z is a number of the row, plus a vector
that all rows share, plus numbers of the row times vectors that all blocks share (the mixed ones, of volumes alone).
Entries list the products of which all that consists; whoever makes them knows the encoding. */

#define MOST_WIDE 4 /* vectors of a map, and sums of a product, that are kept in registers */
#define MOST_SUMS 8

enum { SIGMOID, SINE, LINEAR };
enum { MLP, FILTERS, COSINES };

/* of the networks of a group */
typedef struct {
    int32_t kind, n_layers, n_hidden, output, has_sines;
    float omega, centre;
    const float *cosines; /* (n_hidden + 1, n_hidden): each at the pixels of a part along an axis, then zeros */
} Shape;

/* of the pixels of a block; the input n_in is the square of its length */
typedef struct {
    int32_t n_in, n_out;
    int32_t patch[3]; /* depth, height, width of a block */
    int32_t width, n_rows; /* columns, with some that do not count up to a multiple of WIDE; rows, of all planes */
    int32_t n_row_entries; /* numbers of a row: to the one `target`, 0 or 1 + that of a mixed vector, */
    const int32_t *row_inputs, *row_targets; /* goes the weight of `input` times a factor, (n_rows, n_row_entries) */
    const float *row_factors;
    int32_t n_column_entries; /* the vector of all rows: the weight of `input` times (n_column_entries, width) */
    const int32_t *column_inputs;
    const float *column_factors;
    int32_t n_mixed;
    const float *mixed; /* (n_mixed, width) */
} Positions;

/* one that is ready to be evaluated; `units` is n_hidden, up to a multiple of WIDE */
typedef struct {
    const Shape *shape;
    const Positions *at;
    int32_t units;
    float amplitude;
    float *maps;   /* of each: weights (n_in + 1, units), bias (units), the vectors of all rows (n_hidden, width) */
    float *layers; /* of each linear layer that follows: weights (n_hidden, n_out), bias (n_out) */
    float *row;    /* (1 + n_mixed, units) */
    float *values[4], *out; /* (n_hidden, width), (n_out, width) */
    float *envelope;        /* (n_in + 2, n_hidden), while a filter is made ready */
} Network;

/* Of all its rows, as a double, which does not overflow. */
static double values_of_block(const Positions *at) { return (double)at->n_rows * at->n_out * at->width; }

/* Maps: of a filter network the exponent and the phase of each filter. */
static int32_t n_maps(const Shape *shape) { return shape->kind == FILTERS ? 2 * (shape->n_layers - 1) : 1; }

static int32_t map_floats(const Network *net) {
    return (net->at->n_in + 2) * net->units + net->shape->n_hidden * net->at->width;
}

static float *layer_of(const Network *net, int32_t layer) {
    return net->layers + layer * (net->shape->n_hidden + 1) * net->shape->n_hidden;
}

static Network network_in(float *work, const Shape *shape, const Positions *at) {
    Network net = {shape, at, (shape->n_hidden + WIDE - 1) / WIDE * WIDE, 1, work, 0, 0, {0, 0, 0, 0}, 0, 0};
    net.layers = net.maps + n_maps(shape) * map_floats(&net);
    net.row = layer_of(&net, shape->n_layers - 2) + (shape->n_hidden + 1) * at->n_out;
    float *free = net.row + (1 + at->n_mixed) * net.units;
    for (int i = 0; i < 4; i++, free += shape->n_hidden * at->width) net.values[i] = free;
    net.out = free, net.envelope = free + at->n_out * at->width;
    return net;
}

/* Floats of work that a network takes, as a double, which does not overflow. */
static double work_floats(const Shape *shape, const Positions *at) {
    if (shape->kind == COSINES) return 2 * values_of_block(at);
    double hidden = shape->n_hidden, units = hidden + WIDE, width = at->width;
    return n_maps(shape) * ((at->n_in + 2.0) * units + hidden * width) + (shape->n_layers - 2.0) * (hidden + 1) * hidden
         + (hidden + 1) * at->n_out + (1.0 + at->n_mixed) * units + (4 * hidden + at->n_out) * width
         + (at->n_in + 2.0) * hidden;
}

/* A map of weights (n_in, n_hidden), of the square of the input's length, if `square`, and a bias, times `scale`. */
static void set_map(
    const Network *net, int32_t number, const float *weights, const float *square, const float *bias, float scale
) {
    const Positions *at = net->at;
    int32_t n = net->shape->n_hidden, units = net->units;
    float *map = net->maps + number * map_floats(net), *columns = map + (at->n_in + 2) * units;
    for (int32_t row = 0; row < at->n_in + 2; row++) {
        const float *from = row < at->n_in ? weights + row * n : row == at->n_in ? square : bias;
        for (int32_t unit = 0; unit < units; unit++)
            map[row * units + unit] = from && unit < n ? from[unit] * scale : 0;
    }
    for (int32_t unit = 0; unit < n; unit++, columns += at->width) {
        for (int32_t x = 0; x < at->width; x += WIDE) {
            Floats sum = all(0);
            for (int32_t entry = 0; entry < at->n_column_entries; entry++)
                sum += load(at->column_factors + entry * at->width + x) * map[at->column_inputs[entry] * units + unit];
            store(columns + x, sum);
        }
    }
}

/* A linear layer of weights (n_hidden, n_out) and a bias, times `scale`. */
static void set_layer(
    const Network *net, int32_t layer, int32_t n_out, const float *weights, const float *bias, float scale
) {
    float *to = layer_of(net, layer);
    int32_t n = net->shape->n_hidden * n_out;
    for (int32_t i = 0; i < n; i++) to[i] = weights[i] * scale;
    for (int32_t i = 0; i < n_out; i++) to[n + i] = bias[i] * scale;
}

/* Numbers of the tensors of a network, in the order of docs/format.md. */
static double n_numbers(const Shape *shape, const Positions *at) {
    if (shape->kind == COSINES) return 1 + (double)at->n_rows * at->patch[2] * at->n_out;
    double n = shape->n_hidden, last = shape->n_layers - 1, linear = (last - 1) * (n + 1) * n + (n + 1) * at->n_out;
    if (shape->kind == FILTERS) return 1 + linear + last * 2 * (at->n_in + 1.0) * n;
    return 1 + linear + (at->n_in + 1.0) * n + (shape->has_sines ? 0 : last) + (shape->output == SINE);
}

/* The activation's argument is the sum times this: exp(-z^2 / (2 a^2)) = 2^-(scale z)^2. */
static float scale_of(const Shape *shape, float a) { return shape->has_sines ? shape->omega : 0.849321800f / a; }

static void set_mlp(const Network *net, const float *numbers) {
    const Shape *shape = net->shape;
    int32_t n = shape->n_hidden, n_out = net->at->n_out, last = shape->n_layers - 1;
    const float *weights = numbers + 1, *biases = weights + net->at->n_in * n + (last - 1) * n * n + n * n_out;
    const float *a = biases + last * n + n_out;
    set_map(net, 0, weights, 0, biases, scale_of(shape, *a));
    weights += net->at->n_in * n;
    for (int32_t layer = 1; layer < last; layer++, weights += n * n)
        set_layer(net, layer - 1, n, weights, biases + layer * n, scale_of(shape, a[layer]));
    float scale = shape->output == SINE ? a[shape->has_sines ? 0 : last] : shape->output == SIGMOID ? -1.44269504f : 1;
    set_layer(net, last - 1, n_out, weights, biases + last * n, scale);
}

/* The exponent of a filter, -|gamma| / 2 |x - mu|^2, is affine in x and |x|^2. */
static void set_filter(
    const Network *net, int32_t filter, const float *omega, const float *phi, const float *mu, const float *gamma
) {
    int32_t n = net->shape->n_hidden, n_in = net->at->n_in;
    float *weights = net->envelope, *rate = weights + n_in * n, *bias = rate + n;
    for (int32_t unit = 0; unit < n; unit++) {
        rate[unit] = __builtin_fabsf(gamma[unit]) / -2, bias[unit] = 0;
        for (int32_t input = 0; input < n_in; input++) {
            float centre = mu[input * n + unit];
            weights[input * n + unit] = -2 * rate[unit] * centre;
            bias[unit] += rate[unit] * centre * centre;
        }
    }
    set_map(net, 2 * filter, weights, rate, bias, 1.44269504f);
    set_map(net, 2 * filter + 1, omega, 0, phi, 1);
}

static void set_filters(const Network *net, const float *numbers) {
    int32_t n = net->shape->n_hidden, n_in = net->at->n_in, n_out = net->at->n_out, last = net->shape->n_layers - 1;
    const float *weights = numbers + 1, *biases = weights + (last - 1) * n * n + n * n_out;
    const float *omega = biases + (last - 1) * n + n_out, *phi = omega + last * n_in * n;
    const float *mu = phi + last * n, *gamma = mu + last * n_in * n;
    for (int32_t i = 0; i < last; i++) {
        set_layer(net, i, i < last - 1 ? n : n_out, weights + i * n * n, biases + i * n, 1);
        set_filter(net, i, omega + i * n_in * n, phi + i * n, mu + i * n_in * n, gamma + i * n);
    }
}

enum { NOTHING, GAUSSIAN, SINES };

INLINE Floats activated(Floats z, int activation, float centre) {
    if (activation == GAUSSIAN) return power_of_half(least(z * z, all(126))) - centre;
    return activation == SINES ? sin_of(z) : z;
}

/* The numbers of a row of a map, and of the vectors that are mixed: (1 + n_mixed, units). */
static void set_row(const Network *net, const float *map, int32_t row) {
    const Positions *at = net->at;
    const float *factors = at->row_factors + row * at->n_row_entries, *bias = map + (at->n_in + 1) * net->units;
    for (int32_t i = 0; i < (1 + at->n_mixed) * net->units; i += WIDE)
        store(net->row + i, i < net->units ? load(bias + i) : all(0));
    for (int32_t entry = 0; entry < at->n_row_entries; entry++) {
        float *target = net->row + at->row_targets[entry] * net->units;
        const float *weights = map + at->row_inputs[entry] * net->units;
        for (int32_t unit = 0; unit < net->units; unit += WIDE)
            store(target + unit, load(target + unit) + load(weights + unit) * factors[entry]);
    }
}

/* A map at some columns of a row, `n_wide` vectors that the compiler keeps in registers. */
INLINE void map_tile(
    const Network *net, const float *columns, const float *row, int32_t x, float *out, int n_wide, int activation
) {
    Floats sums[MOST_WIDE];
    for (int v = 0; v < n_wide; v++) sums[v] = load(columns + v * WIDE) + row[0];
    const float *mixed = net->at->mixed + x;
    for (int32_t i = 0; i < net->at->n_mixed; i++, mixed += net->at->width) {
        row += net->units;
        for (int v = 0; v < n_wide; v++) sums[v] += load(mixed + v * WIDE) * row[0];
    }
    for (int v = 0; v < n_wide; v++) store(out + v * WIDE, activated(sums[v], activation, net->shape->centre));
}

/* A map at the pixels of a row, activated: (n_hidden, width). */
INLINE void apply_map(const Network *net, int32_t number, int32_t row, float *out, int activation) {
    int32_t width = net->at->width;
    const float *map = net->maps + number * map_floats(net), *columns = map + (net->at->n_in + 2) * net->units;
    set_row(net, map, row);
    for (int32_t unit = 0; unit < net->shape->n_hidden; unit++, columns += width, out += width) {
        int32_t x = 0;
        for (; x + MOST_WIDE * WIDE <= width; x += MOST_WIDE * WIDE)
            map_tile(net, columns + x, net->row + unit, x, out + x, MOST_WIDE, activation);
        for (; x < width; x += WIDE) map_tile(net, columns + x, net->row + unit, x, out + x, 1, activation);
    }
}

/* Some outputs of a linear layer at some columns, which the compiler keeps in registers. */
INLINE void product_tile(
    const float *in, int32_t n_in, const float *layer, int32_t n_out, int32_t width, float *out, int n_some, int n_wide
) {
    Floats sums[MOST_SUMS];
    for (int o = 0; o < n_some; o++)
        for (int v = 0; v < n_wide; v++) sums[o * n_wide + v] = all(layer[n_in * n_out + o]);
    for (int32_t i = 0; i < n_in; i++)
        for (int v = 0; v < n_wide; v++) {
            Floats values = load(in + i * width + v * WIDE);
            for (int o = 0; o < n_some; o++) sums[o * n_wide + v] += values * layer[i * n_out + o];
        }
    for (int o = 0; o < n_some; o++)
        for (int v = 0; v < n_wide; v++) store(out + o * width + v * WIDE, sums[o * n_wide + v]);
}

INLINE void product_rows(
    const float *in, int32_t n_in, const float *layer, int32_t n_out, int32_t width, float *out, int n_some, int n_wide
) {
    int32_t x = 0;
    for (; x + n_wide * WIDE <= width; x += n_wide * WIDE)
        product_tile(in + x, n_in, layer, n_out, width, out + x, n_some, n_wide);
    for (; x < width; x += WIDE) product_tile(in + x, n_in, layer, n_out, width, out + x, n_some, 1);
}

/* (n_in, width) times weights (n_in, n_out), plus the bias that follows them: (n_out, width). */
static void product(const float *in, int32_t n_in, const float *layer, int32_t n_out, int32_t width, float *out) {
    int32_t o = 0;
    for (; o + 4 <= n_out; o += 4) product_rows(in, n_in, layer + o, n_out, width, out + o * width, 4, 2);
    if (n_out - o == 3) product_rows(in, n_in, layer + o, n_out, width, out + o * width, 3, 2);
    if (n_out - o == 2) product_rows(in, n_in, layer + o, n_out, width, out + o * width, 2, 4);
    if (n_out - o == 1) product_rows(in, n_in, layer + o, n_out, width, out + o * width, 1, 8);
}

static void activate(const Shape *shape, float *values, int32_t n) {
    if (shape->has_sines)
        for (int32_t i = 0; i < n; i += WIDE) store(values + i, activated(load(values + i), SINES, 0));
    else
        for (int32_t i = 0; i < n; i += WIDE) store(values + i, activated(load(values + i), GAUSSIAN, shape->centre));
}

static void evaluate_mlp(const Network *net, int32_t row) {
    const Shape *shape = net->shape;
    int32_t n = shape->n_hidden, width = net->at->width, last = shape->n_layers - 1, n_out = net->at->n_out;
    float *values = net->values[0], *next = net->values[1], *out = net->out;
    if (shape->has_sines) apply_map(net, 0, row, values, SINES);
    else apply_map(net, 0, row, values, GAUSSIAN);
    for (int32_t layer = 1; layer < last; layer++) {
        product(values, n, layer_of(net, layer - 1), n, width, next);
        activate(shape, next, n * width);
        float *before = values;
        values = next, next = before;
    }
    product(values, n, layer_of(net, last - 1), n_out, width, out);
    if (shape->output == SIGMOID)
        for (int32_t i = 0; i < n_out * width; i += WIDE) store(out + i, 1.0f / (1.0f + exp2_of(load(out + i))));
    if (shape->output == SINE)
        for (int32_t i = 0; i < n_out * width; i += WIDE) store(out + i, net->amplitude * sin_of(load(out + i)));
}

static void evaluate_filters(const Network *net, int32_t row) {
    int32_t n = net->shape->n_hidden, width = net->at->width, last = net->shape->n_layers - 1;
    float *z = net->values[0], *next = net->values[1], *exponent = net->values[2], *phase = net->values[3];
    for (int32_t filter = 0; filter < last; filter++) {
        apply_map(net, 2 * filter, row, exponent, NOTHING);
        apply_map(net, 2 * filter + 1, row, phase, SINES);
        if (filter) product(z, n, layer_of(net, filter - 1), n, width, next);
        for (int32_t i = 0; i < n * width; i += WIDE) {
            Floats value = exp2_of(load(exponent + i)) * load(phase + i);
            store(z + i, filter ? load(next + i) * value : value);
        }
    }
    product(z, n, layer_of(net, last - 1), net->at->n_out, width, net->out);
}

/* A network of cosines: axis by axis, the last one first, cosines become pixels, in the order (n_rows, n_out, width). */

/* The last axis of all rows, from the weights (n_rows, columns, n_out), most of which are 0. */
static void set_rows(const Shape *shape, const Positions *at, const float *weights, float *out) {
    int32_t n = shape->n_hidden, n_out = at->n_out;
    for (int32_t row = 0; row < at->n_rows; row++, out += n_out * at->width) {
        for (int32_t i = 0; i < n_out * at->width; i++) out[i] = 0;
        for (int32_t column = 0; column < at->patch[2]; column++, weights += n_out) {
            const float *cosine = shape->cosines + column % n * n;
            for (int32_t channel = 0; channel < n_out; channel++) {
                float weight = weights[channel], *part = out + channel * at->width + column / n * n;
                if (weight == 0) continue;
                for (int32_t x = 0; x < n; x++) part[x] += weight * cosine[x];
            }
        }
    }
}

/* Another axis: each of its places has so many values, and so many axes of it lie one after another. */
static void set_axis(const Shape *shape, int32_t many, int32_t length, int32_t values, const float *in, float *out) {
    int32_t n = shape->n_hidden, parts = many * (length / n);
    for (int32_t part = 0; part < parts; part++, in += n * values, out += n * values)
        product(in, n, shape->cosines, n, values, out);
}

/* All pixels, at net->out. */
static void set_cosines(Network *net, const float *numbers) {
    const Positions *at = net->at;
    const int32_t *patch = at->patch;
    int32_t row = at->n_out * at->width;
    float *from = net->values[0], *to = net->values[1];
    set_rows(net->shape, at, numbers + 1, from);
    if (patch[1] > 1) {
        set_axis(net->shape, patch[0], patch[1], row, from, to);
        net->out = to, to = from, from = net->out;
    }
    if (patch[0] > 1) set_axis(net->shape, 1, patch[0], patch[1] * row, from, to), from = to;
    net->out = from;
}

/* The network of a block, from the numbers of its tensors. */
static Network network_of(const float *numbers, float *work, const Shape *shape, const Positions *at) {
    if (shape->kind == COSINES) {
        Network net = {.shape = shape, .at = at, .values = {work, work + (int32_t)values_of_block(at)}};
        set_cosines(&net, numbers);
        return net;
    }
    Network net = network_in(work, shape, at);
    net.amplitude = numbers[0];
    if (shape->kind == FILTERS) set_filters(&net, numbers);
    else set_mlp(&net, numbers);
    return net;
}

/* Its prediction at the pixels of a row, (n_out, width). */
static const float *evaluate(const Network *net, int32_t row) {
    if (net->shape->kind == COSINES) return net->out + row * net->at->n_out * net->at->width;
    if (net->shape->kind == FILTERS) evaluate_filters(net, row);
    else evaluate_mlp(net, row);
    return net->out;
}
