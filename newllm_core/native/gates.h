/* Gates of the mutually gated recurrence (model/mogrifier.py), and what goes back through them.
   What products read and give has `type`; everything else is float32. */

#define GATES(type, dtype)                                                                         \
    /* gated = 2 sigmoid(sum) value, also as products read it */                                   \
    static void VARIANT(gate_##dtype)(const type *restrict sum, const float *restrict value,       \
                                      float *restrict gate, float *restrict gated,                 \
                                      type *restrict narrow, int64_t count)                        \
    {                                                                                              \
        _Pragma("omp simd") for (int64_t i = 0; i < count; i++)                                    \
        {                                                                                          \
            gate[i] = VARIANT(sigmoid)(VARIANT(load_##dtype)(sum[i]));                             \
            gated[i] = 2 * gate[i] * value[i];                                                     \
            narrow[i] = VARIANT(store_##dtype)(gated[i]);                                          \
        }                                                                                          \
    }                                                                                              \
                                                                                                   \
    /* `grad` of the gated value becomes that of the value */                                      \
    static void VARIANT(gate_backward_##dtype)(float *restrict grad, const float *restrict gate,   \
                                               const float *restrict gated,                        \
                                               type *restrict grad_of_sum, int64_t count)          \
    {                                                                                              \
        _Pragma("omp simd") for (int64_t i = 0; i < count; i++)                                    \
        {                                                                                          \
            grad_of_sum[i] = VARIANT(store_##dtype)(grad[i] * gated[i] * (1 - gate[i]));           \
            grad[i] *= 2 * gate[i];                                                                \
        }                                                                                          \
    }                                                                                              \
                                                                                                   \
    /* k, r = sigmoid of two thirds of `of_context` + `of_token`; the last thirds give the         \
       candidate h = tanh(h_x + r h_c); the new context is k c + (1 - k) h */                      \
    static void VARIANT(cell_##dtype)(const type *restrict of_context,                             \
                                      const type *restrict of_token,                               \
                                      const float *restrict context, float *restrict keep_reset,   \
                                      float *restrict candidate, float *restrict updated,          \
                                      type *restrict narrow, int64_t rows, int64_t columns)        \
    {                                                                                              \
        for (int64_t i = 0; i < rows; i++) {                                                       \
            const type *c = of_context + 3 * i * columns, *x = of_token + 3 * i * columns;         \
            float *keep = keep_reset + 2 * i * columns, *reset = keep + columns;                   \
            _Pragma("omp simd") for (int64_t j = 0; j < columns; j++)                              \
            {                                                                                      \
                int64_t at = i * columns + j;                                                      \
                keep[j] = VARIANT(sigmoid)(VARIANT(load_##dtype)(c[j]) +                           \
                                           VARIANT(load_##dtype)(x[j]));                           \
                reset[j] = VARIANT(sigmoid)(VARIANT(load_##dtype)(c[columns + j]) +                \
                                            VARIANT(load_##dtype)(x[columns + j]));                \
                candidate[at] = VARIANT(hyperbolic_tangent)(                                       \
                    VARIANT(load_##dtype)(x[2 * columns + j]) +                                    \
                    reset[j] * VARIANT(load_##dtype)(c[2 * columns + j]));                         \
                updated[at] = candidate[at] + keep[j] * (context[at] - candidate[at]);             \
                narrow[at] = VARIANT(store_##dtype)(updated[at]);                                  \
            }                                                                                      \
        }                                                                                          \
    }                                                                                              \
                                                                                                   \
    /* The gradient of the new context is `grad` + `carried`; `carried` becomes what reaches the   \
       context past the gates */                                                                   \
    static void VARIANT(cell_backward_##dtype)(                                                    \
        const float *restrict grad, float *restrict carried, const type *restrict of_context,      \
        const float *restrict context, const float *restrict keep_reset,                           \
        const float *restrict candidate, type *restrict grad_of_context,                           \
        type *restrict grad_of_token, int64_t rows, int64_t columns)                               \
    {                                                                                              \
        for (int64_t i = 0; i < rows; i++) {                                                       \
            const float *keep = keep_reset + 2 * i * columns, *reset = keep + columns;             \
            const type *from_context = of_context + (3 * i + 2) * columns;                         \
            type *to_c = grad_of_context + 3 * i * columns, *to_x = grad_of_token + 3 * i * columns; \
            _Pragma("omp simd") for (int64_t j = 0; j < columns; j++)                              \
            {                                                                                      \
                int64_t at = i * columns + j;                                                      \
                float g = grad[at] + carried[at], k = keep[j], r = reset[j], h = candidate[at];    \
                float of_candidate = g * (1 - k) * (1 - h * h);                                    \
                type of_keep = VARIANT(store_##dtype)(g * (context[at] - h) * k * (1 - k));        \
                type of_reset = VARIANT(store_##dtype)(                                            \
                    of_candidate * VARIANT(load_##dtype)(from_context[j]) * r * (1 - r));          \
                to_c[j] = to_x[j] = of_keep;                                                       \
                to_c[columns + j] = to_x[columns + j] = of_reset;                                  \
                to_c[2 * columns + j] = VARIANT(store_##dtype)(of_candidate * r);                  \
                to_x[2 * columns + j] = VARIANT(store_##dtype)(of_candidate);                      \
                carried[at] = g * k;                                                               \
            }                                                                                      \
        }                                                                                          \
    }

GATES(float, float32)
GATES(uint16_t, bfloat16)

#undef GATES
