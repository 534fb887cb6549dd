/* Cross-entropy. */

/* softmax(logits) - onehot(target) in the place of logits [rows, columns]; returns the summed
   -log softmax of the targets, or -infinity for a target that is no column. `space` holds a row.

   With `odds`, logarithms of what is added to each softmax of a target, returns the summed
   -log(softmax + exp(odds)); gradients are of that, and in the place of odds is the softmax's share
   of the sum. */
#define SOFTMAX_GRADIENT(type, dtype)                                                              \
    static double VARIANT(softmax_gradient_##dtype)(type *restrict logits,                         \
                                                    const int64_t *restrict targets,               \
                                                    float *restrict space, float *restrict odds,   \
                                                    int64_t rows,                                  \
                                                    int64_t columns)                               \
    {                                                                                              \
        double nats = 0;                                                                           \
        for (int64_t i = 0; i < rows; i++) {                                                       \
            type *restrict row = logits + i * columns;                                             \
            int64_t target = targets[i];                                                           \
            if (target < 0 || target >= columns) return -INFINITY;                                 \
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
            double lost = log(sum) + ((double)top - VARIANT(load_##dtype)(row[target]));           \
            float share = 1;                                                                       \
            if (odds) {                                                                            \
                double more = lost + odds[i];                                                      \
                double gained = more > 0 ? more + log1p(exp(-more)) : log1p(exp(more));            \
                share = exp(-gained);                                                              \
                lost -= gained;                                                                    \
                odds[i] = share;                                                                   \
            }                                                                                      \
            nats += lost;                                                                          \
            float scale = share / sum;                                                             \
            _Pragma("omp simd") for (int64_t j = 0; j < columns; j++)                              \
                row[j] = VARIANT(store_##dtype)(space[j] * scale);                                 \
            row[target] = VARIANT(store_##dtype)(space[target] * scale - share);                   \
        }                                                                                          \
        return nats;                                                                               \
    }

SOFTMAX_GRADIENT(float, float32)
SOFTMAX_GRADIENT(uint16_t, bfloat16)

#undef SOFTMAX_GRADIENT
