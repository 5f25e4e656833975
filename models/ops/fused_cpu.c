/* Train and evaluate the block MLPs of one shape on a CPU, as reference.py and BlockMLP.forward do, fused.

   Compiled for one network: N_IN, N_HIDDEN, N_OUT, N_LAYERS are constants; SINE or LINEAR select the output, which is
   else a sigmoid; with OMEGA hidden layers are sin(OMEGA x), else Gaussians of width a, minus CENTRE.
   Targets beyond BOUND / 2 are bounds, utils/bounds.py.
   A block is computed on its own, so threads may share the blocks in any way. Points lie along vectors, and products
   keep a tile of outputs in registers. The gradients of a batch are scaled by the block's loss when it is complete.

   Packed parameters of a block: weight (n_in, n_out) and bias (n_out) of each layer, then the widths a. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* What is computed in registers at once: STRIP vectors of LANES points for OUTPUTS units, at most; of a weight's gradient
   WEIGHTS of them, COLUMNS in a row, at most. */
#if defined(__AVX512F__)
#include <immintrin.h>
#define LANES 16
#if N_HIDDEN > 6 && N_HIDDEN <= 12 /* all units at once, so that coordinates come from the second cache but once */
#define STRIP 2
#define OUTPUTS 12
#else
#define STRIP 4
#define OUTPUTS 6
#endif
#define COLUMNS (N_HIDDEN <= 8 ? 8 : 4)
#define WEIGHTS 16
#elif defined(__ARM_NEON)
#define LANES 4
#define STRIP 4
#define OUTPUTS 6
#define COLUMNS 4
#define WEIGHTS 16
#else
#if defined(__AVX2__)
#define LANES 8
#else
#define LANES 4
#endif
#define STRIP 2
#define OUTPUTS 5
#define COLUMNS 3
#define WEIGHTS 9
#endif

#define LOG2_E 1.44269504f
#define UNROLL _Pragma("clang loop unroll(full)")
#define INLINE static inline __attribute__((always_inline))

#define HALF (STRIP / 2)           /* of a strip, for the last points */
#define POINTS 256                 /* points of a tile: activations of a tile stay in cache */
#define ROW (POINTS + 16)          /* padded: strides of a power of two would compete for the same cache sets */
#ifdef OMEGA
#define N_WIDTHS SINE
#else
#define N_WIDTHS (N_LAYERS - 1 + SINE)
#endif
#define N_PARAMETERS \
    (N_IN * N_HIDDEN + N_HIDDEN + (N_LAYERS - 2) * (N_HIDDEN * N_HIDDEN + N_HIDDEN) + N_HIDDEN * N_OUT + N_OUT + N_WIDTHS)
#define PADDED ((N_PARAMETERS + LANES - 1) / LANES * LANES)
#define N_TENSORS (2 * N_LAYERS + N_WIDTHS)
#define GROUP (N_IN > 64 ? 32 : 16) /* blocks that share coordinates while they are in cache */

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));

typedef struct {
    float h[N_LAYERS - 1][N_HIDDEN + 1][ROW] __attribute__((aligned(64))); /* the last row as that of Points */
    float z[N_LAYERS - 1][N_HIDDEN][ROW]; /* before the activation, or its slope; then the gradient */
    float y[N_OUT][ROW];                  /* target; then the gradient before the last activation */
} Tile;

typedef struct {
    float x[N_IN + 1][ROW] __attribute__((aligned(64))); /* coordinates; the last row is 1 where there is a point, else 0 */
    int n;                                               /* points */
} Points;

typedef struct {
    float parameter[PADDED] __attribute__((aligned(64))), first[PADDED], second[PADDED], gradient[PADDED];
    float squares; /* sum of squared errors of the batch */
    double loss;   /* of the epoch */
} Block;

INLINE int min(int a, int b) { return a < b ? a : b; }
INLINE int padded(int n) { return (n + HALF * LANES - 1) / (HALF * LANES) * (HALF * LANES); }
INLINE vec load(const float *from) { return *(const vec *)from; }
INLINE void store(float *to, vec value) { *(vec *)to = value; }
INLINE vec choose(ivec which, vec yes, vec no) { return (vec)(((ivec)yes & which) | ((ivec)no & ~which)); }
INLINE vec splat(float value) { return value - (vec){0}; }

/* Lanes of two vectors: of either those that keep their place, and those that swap it, so that both sums end in one. */
#define KEEP(lane, distance) ((lane) + ((lane) & (distance) ? LANES : 0))
#define SWAP(lane, distance) (KEEP(lane, distance) ^ (distance))
#define FOUR(index, lane, d) index(lane, d), index(lane + 1, d), index(lane + 2, d), index(lane + 3, d)
#if LANES == 16
#define ALL(index, d) FOUR(index, 0, d), FOUR(index, 4, d), FOUR(index, 8, d), FOUR(index, 12, d)
#elif LANES == 8
#define ALL(index, d) FOUR(index, 0, d), FOUR(index, 4, d)
#else
#define ALL(index, d) FOUR(index, 0, d)
#endif
#define FOLD(d) \
    UNROLL for (int j = 0; j < d; j++) \
        v[j] = __builtin_shufflevector(v[j], v[j + d], ALL(KEEP, d)) + __builtin_shufflevector(v[j], v[j + d], ALL(SWAP, d));

/* Lane j is the sum of v[j], which is lost. Each fold halves the vectors, and the lanes over which a sum is spread. */
INLINE vec sums(vec v[LANES])
{
#if LANES > 8
    FOLD(8)
#endif
#if LANES > 4
    FOLD(4)
#endif
    FOLD(2)
    FOLD(1)
    return v[0];
}

INLINE float sum(vec a)
{
    vec v[LANES] = {a};
    return sums(v)[0];
}

INLINE vec least(vec a, vec b) { return choose(a < b, a, b); }
INLINE vec most(vec a, vec b) { return choose(a > b, a, b); }

/* 2^x to 2 ulp; 0 or very large beyond the range of numbers. A minimax polynomial for the fraction of x. */
INLINE vec power_of_two(vec x)
{
#if defined(__AVX512F__)
    vec r = (vec)_mm512_reduce_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT);
#else
    x = most(least(x, splat(126)), splat(-126));
    vec shifted = x + 12582912.0f; /* rounds to a whole number, which its low bits hold */
    vec r = x - (shifted - 12582912.0f);
#endif
    vec p = r * 1.325460243e-3f + 9.671999181e-3f;
    p = p * r + 5.550779325e-2f;
    p = p * r + 2.402223191e-1f;
    p = p * r + 6.931469302e-1f;
    p = p * r + 1.0f;
#if defined(__AVX512F__)
    return (vec)_mm512_scalef_ps((__m512)p, (__m512)(x - r));
#else
    return (vec)((ivec)p + ((ivec)shifted << 23));
#endif
}

/* sin and cos to 2 ulp of 1 for |x| up to a few thousand. Cody and Waite's reduction by pi, minimax polynomials. */
INLINE void sine_and_cosine(vec x, vec *sine, vec *cosine)
{
    vec shifted = x * 0.318309886f + 12582912.0f;
    vec n = shifted - 12582912.0f;
    vec r = x - n * 3.140625f;
    r -= n * 9.67502593994140625e-4f;
    r -= n * 1.509957990978376432e-7f;
    ivec odd = (ivec)shifted << 31;
    vec r2 = r * r;
    vec s = ((r2 * 2.649319558e-6f - 1.982993977e-4f) * r2 + 8.333331175e-3f) * r2 - 1.666666667e-1f;
    vec c = ((r2 * 2.317913717e-5f - 1.385516173e-3f) * r2 + 4.166386974e-2f) * r2 - 4.999992659e-1f;
    *sine = (vec)((ivec)(s * (r2 * r) + r) ^ odd);
    *cosine = (vec)((ivec)(c * r2 + 1.0f) ^ odd);
}

/* total[i][v] += sum over k of weight[k * along_k + i * along_i] * x[k][v], for a tile of `rows` outputs. */
INLINE void multiply(const int rows, const int strip, const int n_k, const float *weight, const int along_k,
                     const int along_i, const float *x, vec total[OUTPUTS][STRIP])
{
    for (int k = 0; k < n_k; k++) {
        vec value[STRIP];
        UNROLL for (int v = 0; v < strip; v++) value[v] = load(x + k * ROW + v * LANES);
        UNROLL for (int i = 0; i < rows; i++) {
            vec w = splat(weight[k * along_k + i * along_i]);
            UNROLL for (int v = 0; v < strip; v++) total[i][v] += w * value[v];
        }
    }
}

/* Some units of a hidden layer: z before the activation (for a sine, its slope), h after it. */
INLINE void forward_rows(const int rows, const int strip, const int n_k, const int n_outputs, const float *weight,
                         const float *bias, const float *x, float scale, float *z, float *h)
{
    vec total[OUTPUTS][STRIP];
    UNROLL for (int i = 0; i < rows; i++) UNROLL for (int v = 0; v < strip; v++) total[i][v] = splat(bias[i]);
    multiply(rows, strip, n_k, weight, n_outputs, 1, x, total);
    UNROLL for (int i = 0; i < rows; i++) UNROLL for (int v = 0; v < strip; v++) {
        vec value = total[i][v];
#ifdef OMEGA
        vec sine, cosine;
        sine_and_cosine(value * OMEGA, &sine, &cosine);
        store(z + i * ROW + v * LANES, cosine * OMEGA);
        store(h + i * ROW + v * LANES, sine);
#else
        store(z + i * ROW + v * LANES, value);
        store(h + i * ROW + v * LANES, power_of_two(value * value * (scale * LOG2_E)) - CENTRE);
#endif
    }
}

/* The widest tile that leaves the fewest outputs over. */
#define WIDTH(n, most) (((n) + ((n) + (most) - 1) / (most) - 1) / (((n) + (most) - 1) / (most)))

INLINE void forward_layer(const int strip, const int n_k, const int n_outputs, const float *weight, const float *x,
                          float scale, float *z, float *h)
{
    const int rows = WIDTH(n_outputs, OUTPUTS);
    const float *bias = weight + n_k * n_outputs;
    int i = 0;
    for (; i + rows <= n_outputs; i += rows)
        forward_rows(rows, strip, n_k, n_outputs, weight + i, bias + i, x, scale, z + i * ROW, h + i * ROW);
    if (n_outputs % rows)
        forward_rows(n_outputs % rows, strip, n_k, n_outputs, weight + i, bias + i, x, scale, z + i * ROW, h + i * ROW);
}

/* Gradients before the activations of some units of a hidden layer, from those of the next layer's outputs. */
INLINE void backward_rows(const int rows, const int strip, const int n_outputs, const float *weight, const float *next,
                          float scale, float *z, const float *h, vec *width)
{
    vec total[OUTPUTS][STRIP];
    UNROLL for (int i = 0; i < rows; i++) UNROLL for (int v = 0; v < strip; v++) total[i][v] = (vec){0};
    multiply(rows, strip, n_outputs, weight, 1, n_outputs, next, total);
    UNROLL for (int i = 0; i < rows; i++) UNROLL for (int v = 0; v < strip; v++) {
        vec before = load(z + i * ROW + v * LANES);
#ifdef OMEGA
        vec q = total[i][v] * before;
#else
        vec q = total[i][v] * (load(h + i * ROW + v * LANES) + CENTRE) * before;
        *width += q * before;
        q *= 2 * scale;
#endif
        store(z + i * ROW + v * LANES, q);
    }
}

INLINE void backward_layer(const int strip, const int n_units, const int n_outputs, const float *weight,
                           const float *next, float scale, float *z, const float *h, vec *width)
{
    const int rows = WIDTH(n_units, OUTPUTS);
    int i = 0;
    for (; i + rows <= n_units; i += rows)
        backward_rows(rows, strip, n_outputs, weight + i * n_outputs, next, scale, z + i * ROW, h + i * ROW, width);
    if (n_units % rows)
        backward_rows(n_units % rows, strip, n_outputs, weight + i * n_outputs, next, scale, z + i * ROW, h + i * ROW,
                      width);
}

/* gradient[k][i] += sum over the points of x[k] * d[i], for a tile of them. */
INLINE void outer_tile(const int n_k, const int n_i, const float *x, const float *d, int n_points, float *gradient,
                       const int n_outputs)
{
    vec total[WEIGHTS + LANES];
    float all[WEIGHTS + LANES] __attribute__((aligned(64)));
    UNROLL for (int j = 0; j < WEIGHTS + LANES; j++) total[j] = (vec){0};
    for (int p = 0; p < n_points; p += LANES) {
        vec value[COLUMNS];
        UNROLL for (int i = 0; i < n_i; i++) value[i] = load(d + i * ROW + p);
        UNROLL for (int k = 0; k < n_k; k++) {
            vec factor = load(x + k * ROW + p);
            UNROLL for (int i = 0; i < n_i; i++) total[k * n_i + i] += factor * value[i];
        }
    }
    UNROLL for (int j = 0; j < n_k * n_i; j += LANES) store(all + j, sums(total + j));
    UNROLL for (int k = 0; k < n_k; k++)
        UNROLL for (int i = 0; i < n_i; i++) gradient[k * n_outputs + i] += all[k * n_i + i];
}

INLINE void outer_rows(const int n_k, const int n_outputs, const float *x, const float *d, int n_points, float *gradient)
{
    const int columns = WIDTH(n_outputs, COLUMNS);
    int i = 0;
    for (; i + columns <= n_outputs; i += columns)
        outer_tile(n_k, columns, x, d + i * ROW, n_points, gradient + i, n_outputs);
    if (n_outputs % columns)
        outer_tile(n_k, n_outputs % columns, x, d + i * ROW, n_points, gradient + i, n_outputs);
}

INLINE void outer_layer(const int n_inputs, const int n_outputs, const float *x, const float *d, int n_points,
                        float *gradient)
{
    const int rows = WIDTH(n_inputs, WEIGHTS / WIDTH(n_outputs, COLUMNS));
    int k = 0;
    for (; k + rows <= n_inputs; k += rows)
        outer_rows(rows, n_outputs, x + k * ROW, d, n_points, gradient + k * n_outputs);
    if (n_inputs % rows) outer_rows(n_inputs % rows, n_outputs, x + k * ROW, d, n_points, gradient + k * n_outputs);
}

/* Where a layer's weight begins among the packed parameters; its bias follows it. */
INLINE int weight_at(int layer)
{
    return layer == 0 ? 0 : (N_IN + 1) * N_HIDDEN + (layer - 1) * (N_HIDDEN + 1) * N_HIDDEN;
}
#define WIDTHS_AT (N_PARAMETERS - N_WIDTHS)

/* -1 / (2 a^2) of each Gaussian hidden layer. */
INLINE void hidden_scales(const float *parameter, float scale[N_LAYERS - 1])
{
    for (int l = 0; l < N_LAYERS - 1; l++) {
#ifdef OMEGA
        scale[l] = 0;
#else
        float a = parameter[WIDTHS_AT + l];
        scale[l] = -0.5f / (a * a);
#endif
    }
}

/* A strip of points through all layers; out is what the last activation takes. */
INLINE void forward_strip(const int strip, const float *x, Tile *tile, const float *parameter, const float *scale, int p,
                          vec out[N_OUT][STRIP])
{
    const float *last = parameter + weight_at(N_LAYERS - 1);
    forward_layer(strip, N_IN, N_HIDDEN, parameter, x + p, scale[0], &tile->z[0][0][p], &tile->h[0][0][p]);
    for (int l = 1; l < N_LAYERS - 1; l++)
        forward_layer(strip, N_HIDDEN, N_HIDDEN, parameter + weight_at(l), &tile->h[l - 1][0][p], scale[l],
                      &tile->z[l][0][p], &tile->h[l][0][p]);
    for (int i = 0; i < N_OUT; i++) {
        UNROLL for (int v = 0; v < strip; v++) out[i][v] = splat(last[N_HIDDEN * N_OUT + i]);
        for (int k = 0; k < N_HIDDEN; k++) UNROLL for (int v = 0; v < strip; v++)
            out[i][v] += splat(last[k * N_OUT + i]) * load(&tile->h[N_LAYERS - 2][k][p + v * LANES]);
    }
}

/* The last activation and its slope; `a` is the width of a sine. */
INLINE void activate(vec z, float a, float amplitude, vec *prediction, vec *slope)
{
#if SINE
    sine_and_cosine(z * a, prediction, slope);
    *prediction *= amplitude;
    *slope *= amplitude;
#elif LINEAR
    *prediction = z;
    *slope = splat(1);
#else
    *prediction = 1.0f / (1.0f + power_of_two(z * -LOG2_E));
    *slope = *prediction * (1.0f - *prediction);
#endif
}

/* Prediction less target; 0 beyond a target that is a bound, utils/bounds.py. */
INLINE vec misfit(vec prediction, vec target)
{
    vec error = prediction - target, above = error + BOUND, below = error - BOUND;
    ivec is_least = target > BOUND / 2, is_most = target < -BOUND / 2;
    ivec bounded = (is_least & (above < 0) & (ivec)above) | (is_most & (below > 0) & (ivec)below);
    return (vec)(bounded | (~(is_least | is_most) & (ivec)error));
}

/* Forward and backward over a strip of points: leaves gradients before the activations, adds to those of the widths. */
INLINE void strip_gradients(const int strip, const float *x, Tile *tile, const float *parameter, const float *scale,
                            float amplitude, int p, vec width[N_LAYERS], vec *squares)
{
    const float *last = parameter + weight_at(N_LAYERS - 1), last_width = parameter[N_PARAMETERS - 1];
    vec out[N_OUT][STRIP];
    forward_strip(strip, x, tile, parameter, scale, p, out);
    for (int i = 0; i < N_OUT; i++) UNROLL for (int v = 0; v < strip; v++) {
        float *y = &tile->y[i][p + v * LANES];
        vec prediction, slope;
        activate(out[i][v], last_width, amplitude, &prediction, &slope);
        vec error = misfit(prediction, load(y)) * load(x + N_IN * ROW + p + v * LANES);
        *squares += error * error;
        error *= slope;
#if SINE
        width[N_LAYERS - 1] += error * out[i][v];
        error *= last_width;
#endif
        store(y, error);
    }
    backward_layer(strip, N_HIDDEN, N_OUT, last, &tile->y[0][p], scale[N_LAYERS - 2], &tile->z[N_LAYERS - 2][0][p],
                   &tile->h[N_LAYERS - 2][0][p], &width[N_LAYERS - 2]);
    for (int l = N_LAYERS - 2; l > 0; l--)
        backward_layer(strip, N_HIDDEN, N_HIDDEN, parameter + weight_at(l), &tile->z[l][0][p], scale[l - 1],
                       &tile->z[l - 1][0][p], &tile->h[l - 1][0][p], &width[l - 1]);
}

/* Adds the gradients of some points to those of a block, and its squared errors. */
static void tile_gradients(const Points *points, Tile *tile, Block *block, float amplitude)
{
    const float *parameter = block->parameter, *x = &points->x[0][0];
    const int n = points->n, whole = padded(n);
    float *gradient = block->gradient;
    float scale[N_LAYERS - 1];
    hidden_scales(parameter, scale);
    vec width[N_LAYERS] = {{0}}, squares = {0};
    int p = 0;
    for (; n - p > HALF * LANES; p += STRIP * LANES)
        strip_gradients(STRIP, x, tile, parameter, scale, amplitude, p, width, &squares);
    if (p < n) strip_gradients(HALF, x, tile, parameter, scale, amplitude, p, width, &squares);
    outer_layer(N_IN + 1, N_HIDDEN, x, &tile->z[0][0][0], whole, gradient);
    for (int l = 1; l < N_LAYERS - 1; l++)
        outer_layer(N_HIDDEN + 1, N_HIDDEN, &tile->h[l - 1][0][0], &tile->z[l][0][0], whole, gradient + weight_at(l));
    outer_layer(N_HIDDEN + 1, N_OUT, &tile->h[N_LAYERS - 2][0][0], &tile->y[0][0], whole, gradient + weight_at(N_LAYERS - 1));
#ifndef OMEGA
    for (int l = 0; l < N_LAYERS - 1; l++)
        gradient[WIDTHS_AT + l] += sum(width[l]) * (-2 * scale[l] / parameter[WIDTHS_AT + l]);
#endif
#if SINE
    gradient[N_PARAMETERS - 1] += sum(width[N_LAYERS - 1]);
#endif
    block->squares += sum(squares);
}

/* 1 / (sqrt(x) + eps) to 3 ulp, for x that is 0 or a normal number. */
INLINE vec inverse_root(vec x, float eps)
{
#if defined(__AVX512F__)
    x = most(x, splat(1.2e-38f)); /* one of Newton's steps each from estimates of 14 bits, since division is slow */
    vec y = (vec)_mm512_rsqrt14_ps((__m512)x), root = x * y;
    root += (x - root * root) * (y * 0.5f);
    root += eps;
    y = (vec)_mm512_rcp14_ps((__m512)root);
    return y + y * (1.0f - root * y);
#else
    vec root;
    for (int lane = 0; lane < LANES; lane++) root[lane] = __builtin_sqrtf(x[lane]);
    return 1.0f / (root + eps);
#endif
}

/* One step, by optimizers.step_rates: parameter -= rate[0] * m * rate[1] / (sqrt(v) + rate[2]), or where rate[1] is 0
   parameter -= rate[0] * m; m is the first moment, moved by the fraction lookahead of the way to the gradient. */
INLINE void take_step(Block *block, float scale, const float *rate, double beta1, double beta2, float lookahead)
{
    const float gain1 = (float)(1 - beta1), keep2 = (float)beta2, gain2 = (float)(1 - beta2);
    for (int j = 0; j < PADDED; j += LANES) {
        vec gradient = load(block->gradient + j) * scale;
        vec first = load(block->first + j), second = load(block->second + j);
        first += (gradient - first) * gain1;
        second = second * keep2 + gradient * gradient * gain2;
        vec step = (first + (gradient - first) * lookahead) * rate[0];
        if (rate[1] != 0) step *= rate[1] * inverse_root(second, rate[2]);
        store(block->first + j, first);
        store(block->second + j, second);
        store(block->parameter + j, load(block->parameter + j) - step);
        store(block->gradient + j, (vec){0});
    }
}

INLINE int tensor_size(int tensor)
{
    if (tensor >= 2 * N_LAYERS) return 1;
    const int layer = tensor / 2, n_k = layer ? N_HIDDEN : N_IN, n_i = layer == N_LAYERS - 1 ? N_OUT : N_HIDDEN;
    return tensor % 2 ? n_i : n_k * n_i;
}

/* Copy a block's tensors, each (n_blocks, size), to or from its packed parameters. */
INLINE void unpack(float *const *tensors, int64_t block, float *packed)
{
    for (int t = 0; t < N_TENSORS; packed += tensor_size(t), t++)
        memcpy(packed, tensors[t] + block * tensor_size(t), tensor_size(t) * sizeof(float));
}

INLINE void pack(float *const *tensors, int64_t block, const float *packed)
{
    for (int t = 0; t < N_TENSORS; packed += tensor_size(t), t++)
        memcpy(tensors[t] + block * tensor_size(t), packed, tensor_size(t) * sizeof(float));
}

/* n points of coords (N_IN, n_points), padded to whole vectors; chosen tells which, NULL for the first ones. */
INLINE void take_points(Points *points, const float *coords, const int32_t *chosen, int64_t n_points, int n)
{
    points->n = n;
    for (int k = 0; k < N_IN; k++, coords += n_points)
        if (chosen)
            for (int p = 0; p < n; p++) points->x[k][p] = coords[chosen[p]];
        else
            memcpy(points->x[k], coords, n * sizeof(float));
    for (int p = 0; p < padded(n); p++) points->x[N_IN][p] = p < n;
}

/* The target of a block, (n_points, N_OUT), at these points, and 0 past them: what another block left may be NaN. */
INLINE void take_target(Tile *tile, const Points *points, const float *target, const int32_t *chosen)
{
    const int n = points->n;
    for (int p = 0; p < n; p++)
        for (int i = 0; i < N_OUT; i++) tile->y[i][p] = target[(int64_t)(chosen ? chosen[p] : p) * N_OUT + i];
    for (int i = 0; i < N_OUT; i++)
        for (int p = n; p < padded(n); p++) tile->y[i][p] = 0;
    for (int l = 0; l < N_LAYERS - 1; l++) memcpy(tile->h[l][N_HIDDEN], points->x[N_IN], padded(n) * sizeof(float));
}

/* Memory for what is computed at once of so many blocks, aligned to cache lines; NULL if there is none. */
typedef struct {
    void *memory;
    Tile *tile;
    Points *points;
    Block *blocks;
} Work;

static Work begin_work(int64_t n_blocks)
{
    const size_t size = sizeof(Tile) + sizeof(Points) + (n_blocks < GROUP ? n_blocks : GROUP) * sizeof(Block);
    Work work = {malloc(size + 64), NULL, NULL, NULL};
    work.tile = (Tile *)(((uintptr_t)work.memory + 63) / 64 * 64);
    work.points = (Points *)(work.tile + 1);
    work.blocks = (Block *)(work.points + 1);
    if (work.memory) memset(work.tile, 0, size);
    return work;
}

/* Denormal numbers count as 0, as everywhere in training: they are slow. Returns the mode before. */
INLINE unsigned flush_denormals(void)
{
#ifdef __SSE__
    unsigned mode = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(mode | 0x8040);
    return mode;
#else
    return 0;
#endif
}

INLINE void restore_mode(unsigned mode)
{
#ifdef __SSE__
    __builtin_ia32_ldmxcsr(mode);
#else
    (void)mode;
#endif
}

/* Train blocks first..last-1.
     parameters, firsts, seconds: N_TENSORS tensors (n_blocks, size) each, and the moments of each
     coords (N_IN, n_points); target (n_blocks, n_points, N_OUT); order (n_epochs, n_points)
     rates (n_steps, 3), as in take_step; loss (n_epochs, n_blocks), the mean over the points of each epoch
   Returns 0, or 1 if there is no memory. */
int fit(float *const *parameters, float *const *firsts, float *const *seconds, const float *amplitude,
        const float *coords, const float *target, const int32_t *order, const float *rates, float *loss,
        int64_t n_blocks, int64_t first, int64_t last, int32_t n_points, int32_t n_epochs, int32_t batch_size,
        double beta1, double beta2, float lookahead, float loss_eps, float loss_scale)
{
    Work work = begin_work(last - first);
    if (!work.memory) return 1;
    const unsigned mode = flush_denormals();
    for (int64_t start = first; start < last; start += GROUP) {
        const int n_group = min(GROUP, (int)(last - start));
        Block *blocks = work.blocks;
        for (int b = 0; b < n_group; b++) {
            unpack(parameters, start + b, blocks[b].parameter);
            unpack(firsts, start + b, blocks[b].first);
            unpack(seconds, start + b, blocks[b].second);
        }
        const float *rate = rates;
        for (int epoch = 0; epoch < n_epochs; epoch++) {
            const int32_t *chosen = order + (int64_t)epoch * n_points;
            for (int b = 0; b < n_group; b++) blocks[b].loss = 0;
            for (int batch = 0; batch < n_points; batch += batch_size, rate += 3) {
                const int n_batch = min(batch_size, n_points - batch);
                for (int done = 0; done < n_batch; done += POINTS) {
                    const int32_t *these = chosen + batch + done;
                    take_points(work.points, coords, these, n_points, min(POINTS, n_batch - done));
                    for (int b = 0; b < n_group; b++) {
                        take_target(work.tile, work.points, target + (start + b) * n_points * N_OUT, these);
                        tile_gradients(work.points, work.tile, &blocks[b], amplitude[start + b]);
                    }
                }
                const float count = (float)n_batch * N_OUT;
                for (int b = 0; b < n_group; b++) {
                    const float mean = blocks[b].squares / count;
                    take_step(&blocks[b], 2 / count / (mean + loss_eps) / loss_scale, rate, beta1, beta2, lookahead);
                    blocks[b].loss += (double)mean * n_batch / n_points;
                    blocks[b].squares = 0;
                }
            }
            for (int b = 0; b < n_group; b++) loss[epoch * n_blocks + start + b] = (float)blocks[b].loss;
        }
        for (int b = 0; b < n_group; b++) {
            pack(parameters, start + b, blocks[b].parameter);
            pack(firsts, start + b, blocks[b].first);
            pack(seconds, start + b, blocks[b].second);
        }
    }
    free(work.memory);
    restore_mode(mode);
    return 0;
}

/* What the last linear layer should give for a value of the target. */
INLINE float before_output(float y, float width, float amplitude)
{
#if SINE
    return y / (width * amplitude);
#elif LINEAR
    return y;
#else
    y = y < LEAST ? LEAST : y > 1 - LEAST ? 1 - LEAST : y;
    return __builtin_logf(y / (1 - y));
#endif
}

/* Solves (gram + lambda) x = right for the columns of `right`, in place; gram is symmetric and its lower half is used. */
INLINE void solve(double gram[N_HIDDEN][N_HIDDEN], double right[N_HIDDEN][N_OUT], double lambda)
{
    for (int i = 0; i < N_HIDDEN; i++) gram[i][i] += lambda;
    for (int j = 0; j < N_HIDDEN; j++) { /* Cholesky's decomposition */
        for (int k = 0; k < j; k++) gram[j][j] -= gram[j][k] * gram[j][k];
        gram[j][j] = __builtin_sqrt(gram[j][j]);
        for (int i = j + 1; i < N_HIDDEN; i++) {
            for (int k = 0; k < j; k++) gram[i][j] -= gram[i][k] * gram[j][k];
            gram[i][j] /= gram[j][j];
        }
    }
    for (int c = 0; c < N_OUT; c++) {
        for (int i = 0; i < N_HIDDEN; i++) {
            for (int k = 0; k < i; k++) right[i][c] -= gram[i][k] * right[k][c];
            right[i][c] /= gram[i][i];
        }
        for (int i = N_HIDDEN - 1; i >= 0; i--) {
            for (int k = i + 1; k < N_HIDDEN; k++) right[i][c] -= gram[k][i] * right[k][c];
            right[i][c] /= gram[i][i];
        }
    }
}

/* The last layer of a block from its hidden units at some points, where tile->y holds the target. */
static void fit_tile(const Points *points, Tile *tile, float *parameter, float amplitude)
{
    float(*h)[ROW] = tile->h[N_LAYERS - 2], scale[N_LAYERS - 1], *weight = parameter + weight_at(N_LAYERS - 1);
    float products[N_HIDDEN * N_HIDDEN] = {0}, with_target[N_HIDDEN * N_OUT] = {0}, mean_h[N_HIDDEN], mean_y[N_OUT];
    double gram[N_HIDDEN][N_HIDDEN], right[N_HIDDEN][N_OUT], trace = 0;
    const int n = points->n, whole = padded(n);
    hidden_scales(parameter, scale);
    for (int p = 0; p < whole; p += HALF * LANES) {
        vec unused[N_OUT][STRIP];
        forward_strip(HALF, &points->x[0][0], tile, parameter, scale, p, unused);
    }
    for (int i = 0; i < N_OUT; i++) {
        vec all = {0};
        for (int p = 0; p < whole; p++)
            tile->y[i][p] = p < n ? before_output(tile->y[i][p], parameter[N_PARAMETERS - 1], amplitude) : 0;
        for (int p = 0; p < whole; p += LANES) all += load(&tile->y[i][p]);
        mean_y[i] = sum(all) / n;
        for (int p = 0; p < n; p++) tile->y[i][p] -= mean_y[i];
    }
    for (int k = 0; k < N_HIDDEN; k++) {
        vec all = {0};
        for (int p = n; p < whole; p++) h[k][p] = 0;
        for (int p = 0; p < whole; p += LANES) all += load(&h[k][p]);
        mean_h[k] = sum(all) / n;
        for (int p = 0; p < n; p++) h[k][p] -= mean_h[k];
    }
    outer_layer(N_HIDDEN, N_HIDDEN, h[0], h[0], whole, products);
    outer_layer(N_HIDDEN, N_OUT, h[0], tile->y[0], whole, with_target);
    for (int i = 0; i < N_HIDDEN; i++) {
        for (int j = 0; j < N_HIDDEN; j++) gram[i][j] = products[i * N_HIDDEN + j];
        for (int c = 0; c < N_OUT; c++) right[i][c] = with_target[i * N_OUT + c];
        trace += gram[i][i];
    }
    if (!(trace > STILL * N_HIDDEN * n)) return; /* the hidden units are constant, or no numbers */
    solve(gram, right, RIDGE * trace / N_HIDDEN);
    for (int c = 0; c < N_OUT; c++) {
        double bias = mean_y[c];
        for (int i = 0; i < N_HIDDEN; i++) {
            weight[i * N_OUT + c] = (float)right[i][c];
            bias -= mean_h[i] * right[i][c];
        }
        weight[N_HIDDEN * N_OUT + c] = (float)bias;
    }
}

/* Fit the last layers of blocks first..last-1 to target (n_blocks, n_points, N_OUT) at coords (N_IN, n_points), of at most
   POINTS points. Returns as fit does. */
int fit_last_layer(float *const *parameters, const float *amplitude, const float *coords, const float *target,
                   int64_t first, int64_t last, int32_t n_points)
{
    Work work = begin_work(last - first);
    if (!work.memory) return 1;
    const unsigned mode = flush_denormals();
    take_points(work.points, coords, NULL, n_points, n_points);
    for (int64_t block = first; block < last; block++) {
        float *parameter = work.blocks[0].parameter;
        unpack(parameters, block, parameter);
        take_target(work.tile, work.points, target + block * n_points * N_OUT, NULL);
        fit_tile(work.points, work.tile, parameter, amplitude[block]);
        pack(parameters, block, parameter);
    }
    free(work.memory);
    restore_mode(mode);
    return 0;
}

/* What a block gives at some points, into out (n, N_OUT). */
static void predict_tile(const Points *points, Tile *tile, const float *parameter, float amplitude, float *out)
{
    float scale[N_LAYERS - 1], value[N_OUT][STRIP * LANES];
    hidden_scales(parameter, scale);
    for (int p = 0; p < points->n; p += STRIP * LANES) {
        vec z[N_OUT][STRIP], prediction, slope;
        forward_strip(STRIP, &points->x[0][0], tile, parameter, scale, p, z);
        for (int i = 0; i < N_OUT; i++) UNROLL for (int v = 0; v < STRIP; v++) {
            activate(z[i][v], parameter[N_PARAMETERS - 1], amplitude, &prediction, &slope);
            memcpy(value[i] + v * LANES, &prediction, sizeof prediction);
        }
        for (int q = 0; q < min(STRIP * LANES, points->n - p); q++)
            for (int i = 0; i < N_OUT; i++) out[(p + q) * N_OUT + i] = value[i][q];
    }
}

/* Evaluate blocks first..last-1 at coords (N_IN, n_points): out (n_blocks, n_points, N_OUT). Returns as fit does. */
int predict(float *const *parameters, const float *amplitude, const float *coords, float *out, int64_t first,
            int64_t last, int64_t n_points)
{
    Work work = begin_work(last - first);
    if (!work.memory) return 1;
    const unsigned mode = flush_denormals();
    for (int64_t start = first; start < last; start += GROUP) {
        const int n_group = min(GROUP, (int)(last - start));
        for (int b = 0; b < n_group; b++) unpack(parameters, start + b, work.blocks[b].parameter);
        for (int64_t done = 0; done < n_points; done += POINTS) {
            const int n = n_points - done < POINTS ? (int)(n_points - done) : POINTS;
            take_points(work.points, coords + done, NULL, n_points, n);
            for (int b = 0; b < n_group; b++)
                predict_tile(work.points, work.tile, work.blocks[b].parameter, amplitude[start + b],
                             out + ((start + b) * n_points + done) * N_OUT);
        }
    }
    free(work.memory);
    restore_mode(mode);
    return 0;
}
