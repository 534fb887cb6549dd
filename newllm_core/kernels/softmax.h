/* Cross-entropy. */

/* softmax(logits) - onehot(target) in the place of logits [rows, columns], and -log softmax of the
   targets in `nats` [rows]; returns 0, or 1 for a target that is no column. `space` holds a row. */
#define SOFTMAX_GRADIENT(type, dtype)                                                              \
    static int VARIANT(softmax_gradient_##dtype)(type *restrict logits,                            \
                                                 const int64_t *restrict targets,                  \
                                                 float *restrict space, float *restrict nats,      \
                                                 int64_t rows, int64_t columns)                    \
    {                                                                                              \
        for (int64_t i = 0; i < rows; i++) {                                                       \
            type *restrict row = logits + i * columns;                                             \
            int64_t target = targets[i];                                                           \
            if (target < 0 || target >= columns) return 1;                                         \
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
            nats[i] = log(sum) + ((double)top - VARIANT(load_##dtype)(row[target]));               \
            float scale = 1 / sum;                                                                 \
            _Pragma("omp simd") for (int64_t j = 0; j < columns; j++)                              \
                row[j] = VARIANT(store_##dtype)(space[j] * scale);                                 \
            row[target] = VARIANT(store_##dtype)(space[target] * scale - 1);                       \
        }                                                                                          \
        return 0;                                                                                  \
    }

SOFTMAX_GRADIENT(float, float32)
SOFTMAX_GRADIENT(uint16_t, bfloat16)

#undef SOFTMAX_GRADIENT
