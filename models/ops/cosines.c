/* Evaluate networks of cosines at the points of a box, axis by axis. A value is a sum in the order of the frequencies, so
   that it has the same bits in whichever box it is computed. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Replace axis a of (outer, length, inner) by its points: out (outer, points, inner). Most of `in` is 0, and so is a cosine
   outside its part: from `bounds[2 k]` to `bounds[2 k + 1]` it is not. */
static void along_axis(
    const float *in, int64_t outer, int64_t length, int64_t inner, int64_t points, const float *cosines,
    const int32_t *bounds, float *out
) {
    memset(out, 0, outer * points * inner * sizeof(float));
    for (int64_t o = 0; o < outer; o++, out += points * inner)
        for (int64_t k = 0; k < length; k++, in += inner) {
            int32_t first = bounds[2 * k], last = bounds[2 * k + 1];
            const float *cosine = cosines + k * points;
            if (inner == 1) {
                float weight = *in;
                if (weight == 0) continue;
                for (int32_t p = first; p < last; p++) out[p] += weight * cosine[p];
                continue;
            }
            int64_t i = 0;
            while (i < inner && in[i] == 0) i++;
            if (i == inner) continue;
            for (int32_t p = first; p < last; p++) {
                float factor = cosine[p], *row = out + p * inner;
                for (int64_t j = 0; j < inner; j++) row[j] += factor * in[j];
            }
        }
}

/* Blocks `first` to `last` - 1.

weight: (n_blocks, n_cosines, n_out); cosines: of each axis (length, points); bounds: of each axis (length, 2)
out: (n_blocks, n_points, n_out). Returns 1 where there is no memory. */
int predict(
    const float *weight, int32_t n_axes, const int32_t *lengths, const int32_t *points, int32_t n_out,
    const float *const *cosines, const int32_t *const *bounds, float *out, int64_t first, int64_t last
) {
    int64_t n_cosines = 1, n_points = 1, most = 1;
    for (int32_t a = 0; a < n_axes; a++) {
        n_cosines *= lengths[a];
        n_points *= points[a];
        most *= lengths[a] > points[a] ? lengths[a] : points[a];
    }
    float *buffers = malloc(2 * most * sizeof(float));
    if (!buffers) return 1;
    for (int64_t block = first; block < last; block++)
        for (int32_t channel = 0; channel < n_out; channel++) {
            float *in = buffers, *to = buffers + most;
            for (int64_t k = 0; k < n_cosines; k++) in[k] = weight[(block * n_cosines + k) * n_out + channel];
            int64_t outer = n_cosines, inner = 1;
            for (int32_t a = n_axes - 1; a >= 0; a--) {
                outer /= lengths[a];
                along_axis(in, outer, lengths[a], inner, points[a], cosines[a], bounds[a], to);
                inner *= points[a];
                float *other = in;
                in = to;
                to = other;
            }
            for (int64_t p = 0; p < n_points; p++) out[(block * n_points + p) * n_out + channel] = in[p];
        }
    free(buffers);
    return 0;
}
