/* Samples between pixels, an axis at a time: `factor` of them a pixel, whose weights repeat.

Arrays are planar, (channels, depth, height, width); a picture has the depth 1. */

#define MOST_TAPS 6

/* along one axis: which of `n_in` pixels `n_out` samples are made of; for others, the nearest of these is taken */
typedef struct {
    int32_t n_in, n_out, factor, n_taps;
    const int32_t *firsts; /* (factor) the first pixel of each of the first samples */
    const float *weights;  /* (factor, n_taps) */
} Taps;

static int32_t inside(int32_t pixel, const Taps *taps) {
    return pixel < 0 ? 0 : pixel < taps->n_in ? pixel : taps->n_in - 1;
}

/* An axis that others follow, of `inner` values at each place. */
static void resample_outer(const Taps *taps, int32_t outer, int32_t inner, const float *in, float *out) {
    for (int32_t plane = 0; plane < outer; plane++, in += taps->n_in * inner)
        for (int32_t sample = 0; sample < taps->n_out; sample++, out += inner) {
            int32_t phase = sample % taps->factor, pixel = taps->firsts[phase] + sample / taps->factor;
            const float *weights = taps->weights + phase * taps->n_taps;
            const float *rows[MOST_TAPS];
            for (int32_t tap = 0; tap < taps->n_taps; tap++) rows[tap] = in + inside(pixel + tap, taps) * inner;
            int32_t x = 0;
            for (; x + WIDE <= inner; x += WIDE) {
                Floats sum = load(rows[0] + x) * weights[0];
                for (int32_t tap = 1; tap < taps->n_taps; tap++) sum += load(rows[tap] + x) * weights[tap];
                store(out + x, sum);
            }
            for (; x < inner; x++) {
                out[x] = rows[0][x] * weights[0];
                for (int32_t tap = 1; tap < taps->n_taps; tap++) out[x] += rows[tap][x] * weights[tap];
            }
        }
}

/* The last axis: samples of one phase are made of consecutive pixels. `line` holds n_in + 2 n_taps + 2 WIDE floats. */
static void resample_inner(const Taps *taps, int32_t outer, const float *in, float *out, float *line) {
    int32_t before = taps->n_taps + WIDE, n_line = taps->n_in + 2 * before;
    for (int32_t row = 0; row < outer; row++, in += taps->n_in, out += taps->n_out) {
        for (int32_t i = 0; i < n_line; i++) line[i] = in[inside(i - before, taps)];
        for (int32_t phase = 0; phase < taps->factor && phase < taps->n_out; phase++) {
            const float *weights = taps->weights + phase * taps->n_taps, *from = line + before + taps->firsts[phase];
            for (int32_t x = phase; x < taps->n_out; x += WIDE * taps->factor, from += WIDE) {
                Floats sum = load(from) * weights[0];
                for (int32_t tap = 1; tap < taps->n_taps; tap++) sum += load(from + tap) * weights[tap];
                for (int32_t lane = 0, at = x; lane < WIDE && at < taps->n_out; lane++, at += taps->factor)
                    out[at] = sum[lane];
            }
        }
    }
}
