/* The residual update between its matrix products: out = LayerNorm(value + ReLU(update)), and what
   goes back through it. `value` is [rows, columns]; `update` and its gradient are columns of a
   wider matrix, `stride` numbers a row. */

#define LAYER_NORM_EPSILON 1e-5f

/* The result goes to `wide` in float32, or without it to `out`;
   `space` holds a row, and two on the way back. */
#define RESIDUAL(type, dtype)                                                                      \
    static void VARIANT(residual_##dtype)(const type *restrict value, const type *restrict update, \
                                          const float *restrict gain,                              \
                                          const float *restrict shift, type *restrict out,         \
                                          float *restrict wide, float *restrict mean,              \
                                          float *restrict rstd, float *restrict space,             \
                                          int64_t rows, int64_t columns, int64_t stride)           \
    {                                                                                              \
        for (int64_t i = 0; i < rows; i++) {                                                       \
            const type *v = value + i * columns, *u = update + i * stride;                         \
            float sum = 0, squares = 0;                                                            \
            _Pragma("omp simd reduction(+ : sum)") for (int64_t j = 0; j < columns; j++)           \
            {                                                                                      \
                space[j] = VARIANT(load_##dtype)(v[j]) +                                           \
                           VARIANT(relu)(VARIANT(load_##dtype)(u[j]));                             \
                sum += space[j];                                                                   \
            }                                                                                      \
            float center = sum / (float)columns;                                                   \
            _Pragma("omp simd reduction(+ : squares)") for (int64_t j = 0; j < columns; j++)       \
            {                                                                                      \
                space[j] -= center;                                                                \
                squares += space[j] * space[j];                                                    \
            }                                                                                      \
            float scale = 1 / sqrtf(squares / (float)columns + LAYER_NORM_EPSILON);                \
            mean[i] = center;                                                                      \
            rstd[i] = scale;                                                                       \
            if (wide) {                                                                            \
                _Pragma("omp simd") for (int64_t j = 0; j < columns; j++)                          \
                    wide[i * columns + j] = space[j] * scale * gain[j] + shift[j];                 \
            } else {                                                                               \
                _Pragma("omp simd") for (int64_t j = 0; j < columns; j++)                          \
                    out[i * columns + j] =                                                         \
                        VARIANT(store_##dtype)(space[j] * scale * gain[j] + shift[j]);             \
            }                                                                                      \
        }                                                                                          \
    }                                                                                              \
                                                                                                   \
    /* `grad_of_vectors` [3, columns] collects those of gain, shift and the bias in `update` */    \
    static void VARIANT(residual_backward_##dtype)(                                                \
        const type *restrict grad, const float *restrict wide_grad,                                \
        const type *restrict value, const type *restrict update,                                   \
        const float *restrict gain, const float *restrict mean, const float *restrict rstd,        \
        type *restrict grad_of_value, type *restrict grad_of_update,                               \
        float *restrict grad_of_vectors, float *restrict space, int64_t rows, int64_t columns,     \
        int64_t stride, int64_t stride_of_grad)                                                    \
    {                                                                                              \
        float *of_gain = grad_of_vectors, *of_shift = of_gain + columns;                           \
        float *of_bias = of_shift + columns, *given = space + columns;                             \
        for (int64_t j = 0; j < 3 * columns; j++) grad_of_vectors[j] = 0;                          \
        for (int64_t i = 0; i < rows; i++) {                                                       \
            const float *g = wide_grad ? wide_grad + i * columns : given;                          \
            const type *v = value + i * columns, *u = update + i * stride;                         \
            type *to_v = grad_of_value + i * columns, *to_u = grad_of_update + i * stride_of_grad; \
            float along_one = 0, along_normed = 0, center = mean[i], scale = rstd[i];              \
            if (!wide_grad) {                                                                      \
                _Pragma("omp simd") for (int64_t j = 0; j < columns; j++)                          \
                    given[j] = VARIANT(load_##dtype)(grad[i * columns + j]);                       \
            }                                                                                      \
            _Pragma("omp simd reduction(+ : along_one, along_normed)")                             \
            for (int64_t j = 0; j < columns; j++)                                                  \
            {                                                                                      \
                float z = VARIANT(load_##dtype)(v[j]) +                                            \
                          VARIANT(relu)(VARIANT(load_##dtype)(u[j]));                              \
                float normed = (z - center) * scale, inner = g[j] * gain[j];                       \
                space[j] = normed;                                                                 \
                of_gain[j] += g[j] * normed;                                                       \
                of_shift[j] += g[j];                                                               \
                along_one += inner;                                                                \
                along_normed += inner * normed;                                                    \
            }                                                                                      \
            along_one /= (float)columns;                                                           \
            along_normed /= (float)columns;                                                        \
            _Pragma("omp simd") for (int64_t j = 0; j < columns; j++)                              \
            {                                                                                      \
                float d = scale * (g[j] * gain[j] - along_one - space[j] * along_normed);          \
                float passed = VARIANT(load_##dtype)(u[j]) > 0 ? d : 0;                            \
                to_v[j] = VARIANT(store_##dtype)(d);                                               \
                to_u[j] = VARIANT(store_##dtype)(passed);                                          \
                of_bias[j] += passed;                                                              \
            }                                                                                      \
        }                                                                                          \
    }

RESIDUAL(float, float32)
RESIDUAL(uint16_t, bfloat16)

#undef RESIDUAL
#undef LAYER_NORM_EPSILON
