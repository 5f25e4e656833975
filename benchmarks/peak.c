// Multiply-adds over registers alone, as many and as wide as the processor has units for: its peak, compiled as the kernels.

#if defined(__AVX512F__)  // which compilers use by halves on some processors, unless told
#define WIDTH 16
#define WHOLE __attribute__((min_vector_width(512)))
#elif defined(__AVX__)
#define WIDTH 8
#else
#define WIDTH 4
#endif

#if defined(__AVX512F__) || defined(__aarch64__)  // of 32 registers
#define CHAINS 24
#else  // of 16; two hold the factor and the term
#define CHAINS 12
#endif

#ifndef WHOLE
#define WHOLE
#endif

typedef float vector __attribute__((vector_size(4 * WIDTH)));

// One step of every chain. Chains do not wait for each other, so the units never idle.
long operations_per_step(void) { return 2L * WIDTH * CHAINS; }

// The sum is of no use, but without it the compiler would leave all out. Values stay near 1.
WHOLE float multiply_add(long n_steps, float factor, float term) {
  vector chain[CHAINS];
  for (int i = 0; i < CHAINS; i++) chain[i] = (vector){} + (1.0f + i);
  for (long step = 0; step < n_steps; step++) {
#pragma clang loop unroll(full)
    for (int i = 0; i < CHAINS; i++) chain[i] = chain[i] * factor + term;
  }
  float sum = 0;
  for (int i = 0; i < CHAINS; i++)
    for (int j = 0; j < WIDTH; j++) sum += chain[i][j];
  return sum;
}
