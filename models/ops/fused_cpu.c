/* Train and evaluate the block MLPs of one shape on a CPU, as reference.py and BlockMLP.forward do, fused.

   Compiled for one network: N_IN, N_HIDDEN, N_OUT, N_LAYERS are constants; SINE or LINEAR select the output, which is
   else a sigmoid; with OMEGA hidden layers are sin(OMEGA x), else Gaussians of width a, minus CENTRE.
   A block is computed on its own, so threads may share the blocks in any way. Points lie along vectors, and products
   keep a tile of outputs in registers. The gradients of a batch are scaled by the block's loss when it is complete.

   Packed parameters of a block: weight (n_in, n_out) and bias (n_out) of each layer, then the widths a. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__AVX512F__)
#define LANES 16
#define STRIP 4   /* vectors of a register tile along the points */
#define OUTPUTS 6 /* outputs of a register tile, at most */
#define TILE 5    /* a side of the register tile of a weight gradient */
#elif defined(__AVX2__)
#define LANES 8
#define STRIP 2
#define OUTPUTS 5
#define TILE 3
#else
#define LANES 4
#define STRIP 2
#define OUTPUTS 5
#define TILE 3
#endif

#define UNROLL _Pragma("clang loop unroll(full)")
#define INLINE static inline __attribute__((always_inline))

#define STEP (STRIP * LANES)       /* points of a strip */
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
#define GROUP 8 /* blocks that share a tile of coordinates while it is in cache */

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));
typedef float vec4 __attribute__((vector_size(16)));

typedef struct {
    float x[N_IN][ROW] __attribute__((aligned(64)));
    float h[N_LAYERS - 1][N_HIDDEN][ROW];
    float z[N_LAYERS - 1][N_HIDDEN][ROW]; /* before the activation, or its slope; then the gradient */
    float y[N_OUT][ROW];                  /* target; then the gradient before the last activation */
    float mask[ROW];                      /* 1 where there is a point */
} Tile;

typedef struct {
    float parameter[PADDED] __attribute__((aligned(64))), first[PADDED], second[PADDED], gradient[PADDED];
    float squares; /* sum of squared errors of the batch */
    double loss;   /* of the epoch */
} Block;

INLINE vec load(const float *from) { return *(const vec *)from; }
INLINE void store(float *to, vec value) { *(vec *)to = value; }
INLINE vec choose(ivec which, vec yes, vec no) { return (vec)(((ivec)yes & which) | ((ivec)no & ~which)); }
INLINE vec splat(float value) { return value - (vec){0}; }

/* Sums of four vectors. */
INLINE vec4 sum4(vec a, vec b, vec c, vec d)
{
    vec in[4] = {a, b, c, d};
    vec4 part[4];
    UNROLL for (int i = 0; i < 4; i++) {
        vec4 piece[LANES / 4];
        memcpy(piece, &in[i], sizeof piece);
#if LANES == 16
        part[i] = (piece[0] + piece[1]) + (piece[2] + piece[3]);
#elif LANES == 8
        part[i] = piece[0] + piece[1];
#else
        part[i] = piece[0];
#endif
    }
    vec4 ab = __builtin_shufflevector(part[0], part[1], 0, 4, 1, 5) + __builtin_shufflevector(part[0], part[1], 2, 6, 3, 7);
    vec4 cd = __builtin_shufflevector(part[2], part[3], 0, 4, 1, 5) + __builtin_shufflevector(part[2], part[3], 2, 6, 3, 7);
    return __builtin_shufflevector(ab, cd, 0, 1, 4, 5) + __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
}

INLINE float sum(vec a)
{
    vec zero = {0};
    return sum4(a, zero, zero, zero)[0];
}

/* e^x to 2 ulp, never less than the smallest normal number. Cody and Waite's reduction, Cephes' polynomial. */
INLINE vec exponential(vec x)
{
    x = choose(x < -87.0f, splat(-87.0f), x);
    x = choose(x > 88.0f, splat(88.0f), x);
    vec shifted = x * 1.44269504f + 12582912.0f; /* rounds to a whole number, which its low bits hold */
    vec n = shifted - 12582912.0f;
    vec r = x - n * 0.693359375f + n * 2.12194440e-4f;
    vec p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    return (vec)((ivec)p + ((ivec)shifted << 23));
}

/* sin and cos to 2 ulp for |x| up to a few thousand. Cody and Waite's reduction by pi / 2, Cephes' polynomials. */
INLINE void sine_and_cosine(vec x, vec *sine, vec *cosine)
{
    vec shifted = x * 0.636619772f + 12582912.0f;
    vec n = shifted - 12582912.0f;
    vec r = x - n * 1.5703125f;
    r -= n * 4.837512969970703125e-4f;
    r -= n * 7.54978995489188216e-8f;
    ivec quadrant = (ivec)shifted;
    vec r2 = r * r;
    vec s = ((r2 * -1.9515295891e-4f + 8.3321608736e-3f) * r2 - 1.6666654611e-1f) * r2 * r + r;
    vec c = ((r2 * 2.443315711809948e-5f - 1.388731625493765e-3f) * r2 + 4.166664568298827e-2f) * r2 * r2 - r2 * 0.5f + 1.0f;
    ivec odd = (quadrant & 1) != 0;
    vec a = choose(odd, c, s), b = choose(odd, s, c);
    *sine = (vec)((ivec)a ^ ((quadrant & 2) << 30));
    *cosine = (vec)((ivec)b ^ (((quadrant + 1) & 2) << 30));
}

/* total[i][v] += sum over k of weight[k * along_k + i * along_i] * x[k][v], for a tile of `rows` outputs. */
INLINE void multiply(const int rows, const int n_k, const float *weight, const int along_k, const int along_i,
                     const float *x, vec total[OUTPUTS][STRIP])
{
    for (int k = 0; k < n_k; k++) {
        vec value[STRIP];
        UNROLL for (int v = 0; v < STRIP; v++) value[v] = load(x + k * ROW + v * LANES);
        UNROLL for (int i = 0; i < rows; i++) {
            vec w = splat(weight[k * along_k + i * along_i]);
            UNROLL for (int v = 0; v < STRIP; v++) total[i][v] += w * value[v];
        }
    }
}

/* Some units of a hidden layer: z before the activation (for a sine, its slope), h after it. */
INLINE void forward_rows(const int rows, const int n_k, const int n_outputs, const float *weight, const float *bias,
                         const float *x, float scale, float *z, float *h)
{
    vec total[OUTPUTS][STRIP];
    UNROLL for (int i = 0; i < rows; i++) UNROLL for (int v = 0; v < STRIP; v++) total[i][v] = splat(bias[i]);
    multiply(rows, n_k, weight, n_outputs, 1, x, total);
    UNROLL for (int i = 0; i < rows; i++) UNROLL for (int v = 0; v < STRIP; v++) {
        vec value = total[i][v];
#ifdef OMEGA
        vec sine, cosine;
        sine_and_cosine(value * OMEGA, &sine, &cosine);
        store(z + i * ROW + v * LANES, cosine * OMEGA);
        store(h + i * ROW + v * LANES, sine);
#else
        store(z + i * ROW + v * LANES, value);
        store(h + i * ROW + v * LANES, exponential(value * value * scale) - CENTRE);
#endif
    }
}

/* The widest tile that leaves the fewest outputs over. */
#define WIDTH(n, most) (((n) + ((n) + (most) - 1) / (most) - 1) / (((n) + (most) - 1) / (most)))

INLINE void forward_layer(const int n_k, const int n_outputs, const float *weight, const float *x, float scale,
                          float *z, float *h)
{
    const int rows = WIDTH(n_outputs, OUTPUTS);
    const float *bias = weight + n_k * n_outputs;
    int i = 0;
    for (; i + rows <= n_outputs; i += rows)
        forward_rows(rows, n_k, n_outputs, weight + i, bias + i, x, scale, z + i * ROW, h + i * ROW);
    if (n_outputs % rows)
        forward_rows(n_outputs % rows, n_k, n_outputs, weight + i, bias + i, x, scale, z + i * ROW, h + i * ROW);
}

/* Gradients before the activations of some units of a hidden layer, from those of the next layer's outputs. */
INLINE void backward_rows(const int rows, const int n_outputs, const float *weight, const float *next, float scale,
                          float *z, const float *h, vec *width, vec *bias)
{
    vec total[OUTPUTS][STRIP];
    UNROLL for (int i = 0; i < rows; i++) UNROLL for (int v = 0; v < STRIP; v++) total[i][v] = (vec){0};
    multiply(rows, n_outputs, weight, 1, n_outputs, next, total);
    UNROLL for (int i = 0; i < rows; i++) {
        vec all = {0};
        UNROLL for (int v = 0; v < STRIP; v++) {
            vec before = load(z + i * ROW + v * LANES);
#ifdef OMEGA
            vec q = total[i][v] * before;
#else
            vec q = total[i][v] * (load(h + i * ROW + v * LANES) + CENTRE) * before;
            *width += q * before;
            q *= 2 * scale;
#endif
            all += q;
            store(z + i * ROW + v * LANES, q);
        }
        bias[i] += all;
    }
}

INLINE void backward_layer(const int n_units, const int n_outputs, const float *weight, const float *next, float scale,
                           float *z, const float *h, vec *width, vec *bias)
{
    const int rows = WIDTH(n_units, OUTPUTS);
    int i = 0;
    for (; i + rows <= n_units; i += rows)
        backward_rows(rows, n_outputs, weight + i * n_outputs, next, scale, z + i * ROW, h + i * ROW, width, bias + i);
    if (n_units % rows)
        backward_rows(n_units % rows, n_outputs, weight + i * n_outputs, next, scale, z + i * ROW, h + i * ROW, width,
                      bias + i);
}

/* gradient[k][i] += sum over the points of x[k] * d[i], for a tile of them. */
INLINE void outer_tile(const int n_k, const int n_i, const float *x, const float *d, int n_points, float *gradient,
                       const int n_outputs)
{
    vec total[TILE * TILE + 3];
    UNROLL for (int j = 0; j < n_k * n_i; j++) total[j] = (vec){0};
    for (int p = 0; p < n_points; p += LANES) {
        vec value[TILE];
        UNROLL for (int i = 0; i < n_i; i++) value[i] = load(d + i * ROW + p);
        UNROLL for (int k = 0; k < n_k; k++) {
            vec factor = load(x + k * ROW + p);
            UNROLL for (int i = 0; i < n_i; i++) total[k * n_i + i] += factor * value[i];
        }
    }
    total[n_k * n_i] = total[n_k * n_i + 1] = total[n_k * n_i + 2] = (vec){0};
    UNROLL for (int j = 0; j < n_k * n_i; j += 4) {
        vec4 sums = sum4(total[j], total[j + 1], total[j + 2], total[j + 3]);
        UNROLL for (int s = 0; s < 4; s++)
            if (j + s < n_k * n_i) gradient[(j + s) / n_i * n_outputs + (j + s) % n_i] += sums[s];
    }
}

INLINE void outer_rows(const int n_k, const int n_outputs, const float *x, const float *d, int n_points, float *gradient)
{
    const int columns = WIDTH(n_outputs, TILE);
    int i = 0;
    for (; i + columns <= n_outputs; i += columns)
        outer_tile(n_k, columns, x, d + i * ROW, n_points, gradient + i, n_outputs);
    if (n_outputs % columns)
        outer_tile(n_k, n_outputs % columns, x, d + i * ROW, n_points, gradient + i, n_outputs);
}

INLINE void outer_layer(const int n_inputs, const int n_outputs, const float *x, const float *d, int n_points,
                        float *gradient)
{
    const int rows = WIDTH(n_inputs, TILE);
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
INLINE void forward_strip(Tile *tile, const float *parameter, const float *scale, int p, vec out[N_OUT][STRIP])
{
    const float *last = parameter + weight_at(N_LAYERS - 1);
    forward_layer(N_IN, N_HIDDEN, parameter, &tile->x[0][p], scale[0], &tile->z[0][0][p], &tile->h[0][0][p]);
    for (int l = 1; l < N_LAYERS - 1; l++)
        forward_layer(N_HIDDEN, N_HIDDEN, parameter + weight_at(l), &tile->h[l - 1][0][p], scale[l], &tile->z[l][0][p],
                      &tile->h[l][0][p]);
    for (int i = 0; i < N_OUT; i++) {
        UNROLL for (int v = 0; v < STRIP; v++) out[i][v] = splat(last[N_HIDDEN * N_OUT + i]);
        for (int k = 0; k < N_HIDDEN; k++) UNROLL for (int v = 0; v < STRIP; v++)
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
    *prediction = 1.0f / (1.0f + exponential(-z));
    *slope = *prediction * (1.0f - *prediction);
#endif
}

/* Adds the gradients of a tile of n points (padded to whole strips) to those of a block, and its squared errors. */
static void tile_gradients(Tile *tile, Block *block, float amplitude, int n)
{
    const float *parameter = block->parameter;
    float *gradient = block->gradient;
    const float *last = parameter + weight_at(N_LAYERS - 1), last_width = parameter[N_PARAMETERS - 1];
    float scale[N_LAYERS - 1];
    hidden_scales(parameter, scale);
    vec bias[N_LAYERS - 1][N_HIDDEN] = {{{0}}}, last_bias[N_OUT] = {{0}}, width[N_LAYERS] = {{0}}, squares = {0};
    for (int p = 0; p < n; p += STEP) {
        vec out[N_OUT][STRIP];
        forward_strip(tile, parameter, scale, p, out);
        for (int i = 0; i < N_OUT; i++) UNROLL for (int v = 0; v < STRIP; v++) {
            float *y = &tile->y[i][p + v * LANES];
            vec prediction, slope;
            activate(out[i][v], last_width, amplitude, &prediction, &slope);
            vec error = (prediction - load(y)) * load(&tile->mask[p + v * LANES]);
            squares += error * error;
            error *= slope;
#if SINE
            width[N_LAYERS - 1] += error * out[i][v];
            error *= last_width;
#endif
            last_bias[i] += error;
            store(y, error);
        }
        backward_layer(N_HIDDEN, N_OUT, last, &tile->y[0][p], scale[N_LAYERS - 2], &tile->z[N_LAYERS - 2][0][p],
                       &tile->h[N_LAYERS - 2][0][p], &width[N_LAYERS - 2], bias[N_LAYERS - 2]);
        for (int l = N_LAYERS - 2; l > 0; l--)
            backward_layer(N_HIDDEN, N_HIDDEN, parameter + weight_at(l), &tile->z[l][0][p], scale[l - 1],
                           &tile->z[l - 1][0][p], &tile->h[l - 1][0][p], &width[l - 1], bias[l - 1]);
    }
    outer_layer(N_IN, N_HIDDEN, &tile->x[0][0], &tile->z[0][0][0], n, gradient);
    for (int l = 1; l < N_LAYERS - 1; l++)
        outer_layer(N_HIDDEN, N_HIDDEN, &tile->h[l - 1][0][0], &tile->z[l][0][0], n, gradient + weight_at(l));
    outer_layer(N_HIDDEN, N_OUT, &tile->h[N_LAYERS - 2][0][0], &tile->y[0][0], n, gradient + weight_at(N_LAYERS - 1));
    for (int l = 0; l < N_LAYERS - 1; l++) {
        const int n_k = l ? N_HIDDEN : N_IN;
        for (int i = 0; i < N_HIDDEN; i++) gradient[weight_at(l) + n_k * N_HIDDEN + i] += sum(bias[l][i]);
#ifndef OMEGA
        gradient[WIDTHS_AT + l] += sum(width[l]) * (-2 * scale[l] / parameter[WIDTHS_AT + l]);
#endif
    }
    for (int i = 0; i < N_OUT; i++) gradient[weight_at(N_LAYERS - 1) + N_HIDDEN * N_OUT + i] += sum(last_bias[i]);
#if SINE
    gradient[N_PARAMETERS - 1] += sum(width[N_LAYERS - 1]);
#endif
    block->squares += sum(squares);
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
        if (rate[1] != 0) {
            vec root;
            for (int lane = 0; lane < LANES; lane++) root[lane] = __builtin_sqrtf(second[lane]);
            step = step * rate[1] / (root + rate[2]);
        }
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

INLINE int min(int a, int b) { return a < b ? a : b; }

/* Masks out the points past n, up to a whole strip; returns where that ends. */
INLINE int begin_tile(Tile *tile, int n)
{
    const int padded = (n + STEP - 1) / STEP * STEP;
    for (int p = 0; p < padded; p++) tile->mask[p] = p < n;
    return padded;
}

/* Memory for a tile and a group of blocks, aligned to cache lines; NULL if there is none. */
typedef struct {
    void *memory;
    Tile *tile;
    Block *blocks;
} Work;

static Work begin_work(void)
{
    Work work = {malloc(sizeof(Tile) + sizeof(Block) * GROUP + 64), NULL, NULL};
    work.tile = (Tile *)(((uintptr_t)work.memory + 63) / 64 * 64);
    work.blocks = (Block *)(work.tile + 1);
    if (work.memory) memset(work.tile, 0, sizeof(Tile) + sizeof(Block) * GROUP);
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
    Work work = begin_work();
    if (!work.memory) return 1;
    const unsigned mode = flush_denormals();
    Tile *tile = work.tile;
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
            for (int b = 0; b < n_group; b++) blocks[b].loss = 0;
            for (int batch = 0; batch < n_points; batch += batch_size, rate += 3) {
                const int n_batch = min(batch_size, n_points - batch);
                for (int done = 0; done < n_batch; done += POINTS) {
                    const int32_t *chosen = order + (int64_t)epoch * n_points + batch + done;
                    const int n = min(POINTS, n_batch - done), padded = begin_tile(tile, n);
                    for (int k = 0; k < N_IN; k++)
                        for (int p = 0; p < n; p++) tile->x[k][p] = coords[(int64_t)k * n_points + chosen[p]];
                    for (int b = 0; b < n_group; b++) {
                        const float *values = target + (start + b) * n_points * N_OUT;
                        for (int p = 0; p < n; p++)
                            for (int i = 0; i < N_OUT; i++) tile->y[i][p] = values[(int64_t)chosen[p] * N_OUT + i];
                        for (int p = n; p < padded; p++) /* what another block left may be NaN */
                            for (int i = 0; i < N_OUT; i++) tile->y[i][p] = 0;
                        tile_gradients(tile, &blocks[b], amplitude[start + b], padded);
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

/* The last layer of a block from its hidden units at the n points of a tile, whose y holds the target. */
static void fit_tile(Tile *tile, float *parameter, float amplitude, int n, int padded)
{
    float(*h)[ROW] = tile->h[N_LAYERS - 2], scale[N_LAYERS - 1], *weight = parameter + weight_at(N_LAYERS - 1);
    float products[N_HIDDEN * N_HIDDEN] = {0}, with_target[N_HIDDEN * N_OUT] = {0}, mean_h[N_HIDDEN], mean_y[N_OUT];
    double gram[N_HIDDEN][N_HIDDEN], right[N_HIDDEN][N_OUT], trace = 0;
    vec unused[N_OUT][STRIP];
    hidden_scales(parameter, scale);
    for (int p = 0; p < padded; p += STEP) forward_strip(tile, parameter, scale, p, unused);
    for (int i = 0; i < N_OUT; i++) {
        vec all = {0};
        for (int p = 0; p < padded; p++)
            tile->y[i][p] = p < n ? before_output(tile->y[i][p], parameter[N_PARAMETERS - 1], amplitude) : 0;
        for (int p = 0; p < padded; p += LANES) all += load(&tile->y[i][p]);
        mean_y[i] = sum(all) / n;
        for (int p = 0; p < n; p++) tile->y[i][p] -= mean_y[i];
    }
    for (int k = 0; k < N_HIDDEN; k++) {
        vec all = {0};
        for (int p = n; p < padded; p++) h[k][p] = 0;
        for (int p = 0; p < padded; p += LANES) all += load(&h[k][p]);
        mean_h[k] = sum(all) / n;
        for (int p = 0; p < n; p++) h[k][p] -= mean_h[k];
    }
    outer_layer(N_HIDDEN, N_HIDDEN, h[0], h[0], padded, products);
    outer_layer(N_HIDDEN, N_OUT, h[0], tile->y[0], padded, with_target);
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
    Work work = begin_work();
    if (!work.memory) return 1;
    const unsigned mode = flush_denormals();
    Tile *tile = work.tile;
    const int padded = begin_tile(tile, n_points);
    for (int k = 0; k < N_IN; k++) memcpy(tile->x[k], coords + (int64_t)k * n_points, n_points * sizeof(float));
    for (int64_t block = first; block < last; block++) {
        float *parameter = work.blocks[0].parameter;
        unpack(parameters, block, parameter);
        for (int p = 0; p < n_points; p++)
            for (int i = 0; i < N_OUT; i++) tile->y[i][p] = target[(block * n_points + p) * N_OUT + i];
        fit_tile(tile, parameter, amplitude[block], n_points, padded);
        pack(parameters, block, parameter);
    }
    free(work.memory);
    restore_mode(mode);
    return 0;
}

/* Evaluate blocks first..last-1 at coords (N_IN, n_points): out (n_blocks, n_points, N_OUT). Returns as fit does. */
int predict(float *const *parameters, const float *amplitude, const float *coords, float *out, int64_t first,
            int64_t last, int64_t n_points)
{
    Work work = begin_work();
    if (!work.memory) return 1;
    const unsigned mode = flush_denormals();
    Tile *tile = work.tile;
    for (int64_t start = first; start < last; start += GROUP) {
        const int n_group = min(GROUP, (int)(last - start));
        for (int b = 0; b < n_group; b++) unpack(parameters, start + b, work.blocks[b].parameter);
        for (int64_t done = 0; done < n_points; done += POINTS) {
            const int n = n_points - done < POINTS ? (int)(n_points - done) : POINTS;
            for (int k = 0; k < N_IN; k++) memcpy(tile->x[k], coords + k * n_points + done, n * sizeof(float));
            for (int b = 0; b < n_group; b++) {
                const float *parameter = work.blocks[b].parameter;
                float *into = out + ((start + b) * n_points + done) * N_OUT, scale[N_LAYERS - 1];
                hidden_scales(parameter, scale);
                for (int p = 0; p < n; p += STEP) {
                    vec z[N_OUT][STRIP], slope;
                    float value[N_OUT][STEP];
                    forward_strip(tile, parameter, scale, p, z);
                    for (int i = 0; i < N_OUT; i++) UNROLL for (int v = 0; v < STRIP; v++) {
                        activate(z[i][v], parameter[N_PARAMETERS - 1], amplitude[start + b], &z[i][v], &slope);
                        memcpy(value[i] + v * LANES, &z[i][v], sizeof(vec));
                    }
                    for (int q = 0; q < min(STEP, n - p); q++)
                        for (int i = 0; i < N_OUT; i++) into[(p + q) * N_OUT + i] = value[i][q];
                }
            }
        }
    }
    free(work.memory);
    restore_mode(mode);
    return 0;
}
