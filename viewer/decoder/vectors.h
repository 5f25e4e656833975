/* Four floats at a time: WebAssembly has vectors of 128 bits. */

#include <stdint.h>

#define WIDE 4
#define INLINE static inline __attribute__((always_inline))

typedef float Floats __attribute__((vector_size(16), aligned(4)));
typedef int32_t Words __attribute__((vector_size(16), aligned(4)));

#define MAGIC 12582912.0f /* 1.5 * 2^23: what is added to it is rounded to an integer, halves to even */

INLINE Floats load(const float *from) { return *(const Floats *)from; }
INLINE void store(float *to, Floats values) { *(Floats *)to = values; }
INLINE Floats all(float value) { return (Floats){value, value, value, value}; }
INLINE Floats least(Floats a, Floats b) { return __builtin_wasm_pmin_f32x4(a, b); }
INLINE Floats most(Floats a, Floats b) { return __builtin_wasm_pmax_f32x4(a, b); }
INLINE Floats clamped(Floats values) { return least(most(values, all(0)), all(1)); }

/* 2^-x for x in [-127, 126], to 10^-7 of it: a minimax polynomial around the next integer. */
INLINE Floats power_of_half(Floats x) {
    Floats shifted = x + MAGIC, t = x - (shifted - MAGIC);
    Floats value = 1.0f + t * (-0.693146978f + t * (0.240222421f + t * (-0.0555073374f
                   + t * (0.00967151264f + t * -0.00132647271f))));
    return (Floats)((Words)value - ((Words)shifted << 23));
}

INLINE Floats exp2_of(Floats x) { return power_of_half(least(most(-x, all(-127)), all(126))); }

/* sin x, to some 10^-8 for |x| of thousands: x less a whole number of pi, which is subtracted in three parts. */
INLINE Floats sin_of(Floats x) {
    Floats shifted = x * 0.318309886f + MAGIC, n = shifted - MAGIC;
    Floats t = ((x - n * 3.140625f) - n * 9.67502593994140625e-4f) - n * 1.509957990978376432e-7f, square = t * t;
    Floats value = t + t * square * (-0.166666571f + square * (0.00833301729f
                   + square * (-0.000198066152f + square * 2.60005477e-06f)));
    return (Floats)((Words)value ^ ((Words)shifted << 31));
}
