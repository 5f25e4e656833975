/* The numbers of the networks of a chunk, block by block, from either coding. */

/* of a level whose chunks hold integers, of networks of a kind */
typedef struct {
    int32_t kind, has_amplitude;
    const double *steps, *rotation;
    const int32_t *floors, *model; /* of coder.c, or of coefficients.c */
    int32_t n_tensors;
} Quantised;

/* a chunk that is read block by block: `integers`, or byte planes of `n` numbers, those of a group together */
typedef struct {
    const int32_t *integers;
    const uint8_t *planes;
    uint32_t n, first[128], count[128], taken[128];
} Chunk;

/* The integers of a network, as a double, which does not overflow. */
static double n_integers(const Quantised *coding, const Shape *shape, const Positions *at) {
    if (coding->kind != MLP) return n_numbers(shape, at) - 1;
    double n = shape->n_hidden;
    return coding->has_amplitude + (n + 1) * at->n_out + (shape->n_layers - 2) * (n + 1) * n + (at->n_in + 1) * n;
}

/* 2^(n / 32) */
static double root_of_power(int32_t n) {
    union { uint64_t bits; double value; } power = {(uint64_t)(1023 + (n >> 5)) << 52};
    double value = power.value, root = 2;
    for (int32_t bit = 16; bit; bit >>= 1) {
        root = __builtin_sqrt(root);
        if (n & bit) value *= root;
    }
    return value;
}

/* A row of rotated channels, turned back. */
static void turn_back(const int32_t *channels, const Quantised *coding, int32_t n_out, double step, float *out) {
    for (int32_t o = 0; o < n_out; o++) {
        double sum = 0;
        for (int32_t channel = 0; channel < n_out; channel++)
            sum += channels[channel] * coding->rotation[channel * n_out + o];
        out[o] = sum * step;
    }
}

/* A hidden layer: of each unit its weights, then its bias. `energy` is of its units, and `before` becomes that of what
leads to it. */
static const int32_t *hidden_numbers(
    const int32_t *in, int32_t n_in, int32_t n, double step, int32_t floor, uint64_t *energy, uint64_t *before,
    float *weights, float *bias
) {
    for (int32_t row = 0; row < n_in; row++) before[row] = 0;
    for (int32_t unit = 0; unit < n; unit++) {
        int32_t lift = energy[unit] ? quarters(energy[unit]) : 0;
        double own = step * root_of_power(-8 * (lift < floor ? floor : lift));
        for (int32_t row = 0; row < n_in; row++) {
            int64_t value = *in++;
            before[row] += value * value;
            weights[row * n + unit] = value * own;
        }
        bias[unit] = *in++ * own;
    }
    return in;
}

/* The tensors of an MLP; returns the integers that follow. `energies` has room for twice its widest layer. */
static const int32_t *quantised_mlp(
    const int32_t *in, const Quantised *coding, const Shape *shape, const Positions *at, uint64_t *energies, float *out
) {
    int32_t n = shape->n_hidden, n_out = at->n_out, last = shape->n_layers - 1;
    float *weights = out + 1 + at->n_in * n + (last - 1) * n * n, *biases = weights + n * n_out;
    uint64_t *energy = energies, *before = energies + (n > at->n_in ? n : at->n_in);
    double amplitude = coding->has_amplitude ? root_of_power(*in++ - 1024) : 1, step = coding->steps[last] / amplitude;
    *out = amplitude;
    for (int32_t unit = 0; unit < n; unit++, in += n_out) {
        energy[unit] = 0;
        for (int32_t channel = 0; channel < n_out; channel++) energy[unit] += (int64_t)in[channel] * in[channel];
        turn_back(in, coding, n_out, step, weights + unit * n_out);
    }
    turn_back(in, coding, n_out, step, biases + last * n);
    in += n_out;
    for (int32_t layer = last - 1; layer >= 0; layer--) {
        int32_t n_in = layer ? n : at->n_in;
        weights -= n_in * n;
        in = hidden_numbers(in, n_in, n, coding->steps[layer], coding->floors[layer], energy, before, weights,
                            biases + layer * n);
        uint64_t *free = energy;
        energy = before, before = free;
    }
    float *a = biases + last * n + n_out;
    for (int32_t left = (shape->has_sines ? 0 : last) + (shape->output == SINE); left; left--) *a++ = 1;
    return in;
}

/* Those of a filter network; returns the integers that follow. */
static const int32_t *quantised_tensors(
    const int32_t *in, const Quantised *coding, int32_t group, float *out
) {
    const int32_t *sizes = model_of(coding->model).hidden + group * coding->n_tensors;
    *out++ = 1;
    for (int32_t tensor = 0; tensor < coding->n_tensors; tensor++)
        for (int32_t left = sizes[tensor]; left; left--) *out++ = *in++ * coding->steps[tensor];
    return in;
}

/* Those of a network of cosines, which are integers part by part and channel by channel; returns the integers that
follow. */
static const int32_t *quantised_cosines(
    const int32_t *in, const Quantised *coding, const Shape *shape, const Positions *at, float *out
) {
    int32_t n[3], parts[3], n_out = at->n_out, channels[n_out];
    for (int axis = 0; axis < 3; axis++) {
        n[axis] = shape->n_hidden < at->patch[axis] ? shape->n_hidden : at->patch[axis];
        parts[axis] = at->patch[axis] / n[axis];
    }
    int32_t n_parts = parts[0] * parts[1] * parts[2], count = n[0] * n[1] * n[2];
    *out++ = 1;
    for (int32_t part = 0; part < n_parts; part++, in += n_out * count) {
        int32_t z = part / (parts[1] * parts[2]) * n[0], y = part / parts[2] % parts[1] * n[1];
        int32_t x = part % parts[2] * n[2];
        float *to = out;
        for (int32_t k = 0; k < count; k++, to += n_out) {
            int32_t line = k / n[2], row = (z + line / n[1]) * at->patch[1] + y + line % n[1], any = 0;
            if (line * n[2] == k) to = out + (row * at->patch[2] + x) * n_out;
            for (int32_t channel = 0; channel < n_out; channel++) any |= channels[channel] = in[channel * count + k];
            if (any) turn_back(channels, coding, n_out, *coding->steps, to);
            else for (int32_t channel = 0; channel < n_out; channel++) to[channel] = 0;
        }
    }
    return in;
}

static float number_at(const uint8_t *planes, uint32_t n, uint32_t i) {
    union { uint32_t bits; float value; } number;
    number.bits = planes[i] | planes[n + i] << 8 | planes[2 * n + i] << 16 | (uint32_t)planes[3 * n + i] << 24;
    return number.value;
}

/* The tensors of a network, in order: so many of a size, one after another. */
typedef struct { int32_t many, size; } Tensors;

static int tensors_of(const Shape *shape, const Positions *at, Tensors *of) {
    int32_t n = shape->n_hidden, n_out = at->n_out, last = shape->n_layers - 1;
    Tensors *end = of;
    *end++ = (Tensors){1, 1};
    if (shape->kind == COSINES) {
        *end++ = (Tensors){1, n_numbers(shape, at) - 1};
        return end - of;
    }
    if (shape->kind == MLP) *end++ = (Tensors){1, at->n_in * n};
    *end++ = (Tensors){last - 1, n * n};
    *end++ = (Tensors){1, n * n_out};
    *end++ = (Tensors){shape->kind == FILTERS ? last - 1 : last, n};
    *end++ = (Tensors){1, n_out};
    if (shape->kind == FILTERS)
        for (int twice = 0; twice < 2; twice++) *end++ = (Tensors){last, at->n_in * n}, *end++ = (Tensors){last, n};
    else *end++ = (Tensors){(shape->has_sines ? 0 : last) + (shape->output == SINE), 1};
    return end - of;
}

/* The tensors of the next block of a group. */
static void float32_numbers(Chunk *chunk, int32_t group, const Shape *shape, const Positions *at, float *out) {
    Tensors tensors[16];
    uint32_t first = chunk->first[group], block = chunk->taken[group]++;
    int kinds = tensors_of(shape, at, tensors);
    for (int kind = 0; kind < kinds; kind++)
        for (int32_t left = tensors[kind].many; left; left--) {
            uint32_t size = tensors[kind].size;
            for (uint32_t i = 0; i < size; i++) *out++ = number_at(chunk->planes, chunk->n, first + block * size + i);
            first += chunk->count[group] * size;
        }
}

static int are_finite(const float *numbers, int32_t n) {
    int finite = 1;
    for (int32_t i = 0; i < n; i++) finite &= __builtin_fabsf(numbers[i]) <= __FLT_MAX__;
    return finite;
}
