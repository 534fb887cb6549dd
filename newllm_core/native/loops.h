/* Included by kernels.c once for each instruction set: no include guard. */

static inline float VARIANT(load_float32)(float value) { return value; }
static inline float VARIANT(store_float32)(float value) { return value; }

static inline float VARIANT(load_bfloat16)(uint16_t value)
{
    uint32_t bits = (uint32_t)value << 16;
    float wide;
    memcpy(&wide, &bits, sizeof wide);
    return wide;
}

/* To the nearest, ties to even, as torch rounds. */
static inline uint16_t VARIANT(store_bfloat16)(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

/* 2^t for t <= 0, with a relative error below 3e-7 (Taylor series of degree 6 in ln 2 on
   [-1/2, 1/2]); 2^-126, the least normal number, is as small as it gets. NaN stays NaN. */
static inline float VARIANT(power_of_two)(float t)
{
    t = t < -126.0f ? -126.0f : t;
    float whole = rintf(t);
    float part = t - whole;
    float power = 1.5403530e-4f;
    power = fmaf(power, part, 1.3333558e-3f);
    power = fmaf(power, part, 9.6181291e-3f);
    power = fmaf(power, part, 5.5504109e-2f);
    power = fmaf(power, part, 2.4022651e-1f);
    power = fmaf(power, part, 6.9314718e-1f);
    power = fmaf(power, part, 1.0f);
    int32_t bits;
    memcpy(&bits, &power, sizeof bits);
    bits += (int32_t)whole * (1 << 23);
    memcpy(&power, &bits, sizeof power);
    return power;
}

#define LOG2_E 1.44269504088896341f

/* softmax(logits) - onehot(target) in the place of logits [rows, columns]; returns the summed
   -log softmax of the targets, or -1 for a target that is no column (a sum is never negative).
   `space` holds a row. */
#define SOFTMAX_GRADIENT(type, dtype)                                                              \
    static double VARIANT(softmax_gradient_##dtype)(type *restrict logits,                         \
                                                    const int64_t *restrict targets,               \
                                                    float *restrict space, int64_t rows,           \
                                                    int64_t columns)                               \
    {                                                                                              \
        double nats = 0;                                                                           \
        for (int64_t i = 0; i < rows; i++) {                                                       \
            type *restrict row = logits + i * columns;                                             \
            int64_t target = targets[i];                                                           \
            if (target < 0 || target >= columns) return -1;                                        \
            float top = -INFINITY, sum = 0;                                                        \
            _Pragma("omp simd reduction(max : top)") for (int64_t j = 0; j < columns; j++)         \
            {                                                                                      \
                float logit = VARIANT(load_##dtype)(row[j]);                                       \
                top = logit > top ? logit : top;                                                   \
            }                                                                                      \
            _Pragma("omp simd reduction(+ : sum)") for (int64_t j = 0; j < columns; j++)           \
            {                                                                                      \
                float logit = VARIANT(load_##dtype)(row[j]);                                       \
                space[j] = VARIANT(power_of_two)((logit - top) * LOG2_E);                          \
                sum += space[j];                                                                   \
            }                                                                                      \
            nats += log(sum) + ((double)top - VARIANT(load_##dtype)(row[target]));                 \
            float scale = 1 / sum;                                                                 \
            _Pragma("omp simd") for (int64_t j = 0; j < columns; j++)                              \
                row[j] = VARIANT(store_##dtype)(space[j] * scale);                                 \
            row[target] = VARIANT(store_##dtype)(space[target] * scale - 1);                       \
        }                                                                                          \
        return nats;                                                                               \
    }

SOFTMAX_GRADIENT(float, float32)
SOFTMAX_GRADIENT(uint16_t, bfloat16)

/* product [rows] = matrix [rows, columns] vector */
static void VARIANT(matrix_vector)(const float *restrict matrix, const float *restrict vector,
                                   float *restrict product, int64_t rows, int64_t columns)
{
    for (int64_t i = 0; i < rows; i++) {
        const float *row = matrix + i * columns;
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t j = 0; j < columns; j++) sum += row[j] * vector[j];
        product[i] = sum;
    }
}

/* product [columns] = vector [rows] matrix. Processors do not foresee rows while the product is
   written between them: what is needed soon is asked for. */
static void VARIANT(vector_matrix)(const float *restrict vector, const float *restrict matrix,
                                   float *restrict product, int64_t rows, int64_t columns)
{
    for (int64_t j = 0; j < columns; j++) product[j] = 0;
    for (int64_t i = 0; i < rows; i++) {
        const float *row = matrix + i * columns;
        int64_t j = 0;
        for (; j + 16 <= columns; j += 16) {
            __builtin_prefetch(row + j + 3072);
#pragma omp simd
            for (int64_t k = j; k < j + 16; k++) product[k] += vector[i] * row[k];
        }
        for (; j < columns; j++) product[j] += vector[i] * row[j];
    }
}

/* Adam (Kingma & Ba 2015) with the gradient left right^T, and the product of the new matrix and a
   vector, in one pass over matrix and moments. `new_mean` is 1 - beta1, `old_square` beta2, `rate`
   the step over 1 - beta1^t, `root` 1 / sqrt(1 - beta2^t). */
static void VARIANT(adam_outer)(float *restrict matrix, float *restrict mean,
                                float *restrict square, const float *left, const float *right,
                                const float *vector, float *restrict product, int64_t rows,
                                int64_t columns, float new_mean, float old_square,
                                float new_square, float rate, float root, float eps)
{
    for (int64_t i = 0; i < rows; i++) {
        float *w = matrix + i * columns, *m = mean + i * columns, *v = square + i * columns;
        float gradient_of_output = left[i], sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t j = 0; j < columns; j++) {
            float gradient = gradient_of_output * right[j];
            m[j] += new_mean * (gradient - m[j]);
            v[j] = old_square * v[j] + new_square * gradient * gradient;
            w[j] -= rate * m[j] / (sqrtf(v[j]) * root + eps);
            sum += w[j] * vector[j];
        }
        product[i] = sum;
    }
}

#undef SOFTMAX_GRADIENT
#undef LOG2_E
