/* Loops that torch has no single operation for. `__init__.py` calls them; plain torch code beside
   every call does the same where this file was not compiled.

   Each function exists once per instruction set and is chosen when the library is loaded. */

#include <math.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#define LOG2_E 1.44269504088896341f

#if defined(__x86_64__)
#if !defined(__GNUC__) || defined(__clang__) || __GNUC__ < 12
#error "for this processor GCC 12 or newer is needed: newllm works without this library"
#endif

#pragma GCC push_options
#pragma GCC target("arch=x86-64-v3")
#define VARIANT(name) name##_v3
#include "loops.h"
#undef VARIANT
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("arch=x86-64-v4,prefer-vector-width=512")
#define VARIANT(name) name##_v4
#include "loops.h"
#undef VARIANT
#pragma GCC pop_options

/* The plain loops are slower than torch where a processor has no AVX2. */
int newllm_usable(void) { return __builtin_cpu_supports("x86-64-v3") != 0; }
#define CHOOSE(name) (__builtin_cpu_supports("x86-64-v4") ? name##_v4 : name##_v3)
#else

#define VARIANT(name) name##_plain
#include "loops.h"
#undef VARIANT

int newllm_usable(void) { return 1; }
#define CHOOSE(name) name##_plain
#endif

#define EXPORT(type, dtype)                                                                        \
    double newllm_softmax_gradient_##dtype(type *logits, const int64_t *targets, float *space,     \
                                           int64_t rows, int64_t columns)                          \
    {                                                                                              \
        return CHOOSE(softmax_gradient_##dtype)(logits, targets, space, rows, columns);            \
    }                                                                                              \
                                                                                                   \
    void newllm_gate_##dtype(const type *sum, const float *value, float *gate, float *gated,       \
                             type *narrow, int64_t count)                                          \
    {                                                                                              \
        CHOOSE(gate_##dtype)(sum, value, gate, gated, narrow, count);                              \
    }                                                                                              \
                                                                                                   \
    void newllm_gate_backward_##dtype(float *grad, const float *gate, const float *gated,          \
                                      type *grad_of_sum, int64_t count)                            \
    {                                                                                              \
        CHOOSE(gate_backward_##dtype)(grad, gate, gated, grad_of_sum, count);                      \
    }                                                                                              \
                                                                                                   \
    void newllm_cell_##dtype(const type *of_context, const type *of_token, const float *context,   \
                             float *keep_reset, float *candidate, float *updated, type *narrow,    \
                             int64_t rows, int64_t columns)                                        \
    {                                                                                              \
        CHOOSE(cell_##dtype)                                                                       \
        (of_context, of_token, context, keep_reset, candidate, updated, narrow, rows, columns);    \
    }                                                                                              \
                                                                                                   \
    void newllm_cell_backward_##dtype(const float *grad, float *carried, const type *of_context,   \
                                      const float *context, const float *keep_reset,               \
                                      const float *candidate, type *grad_of_context,               \
                                      type *grad_of_token, int64_t rows, int64_t columns)          \
    {                                                                                              \
        CHOOSE(cell_backward_##dtype)                                                              \
        (grad, carried, of_context, context, keep_reset, candidate, grad_of_context,               \
         grad_of_token, rows, columns);                                                            \
    }                                                                                              \
                                                                                                   \
    void newllm_residual_##dtype(const type *value, const type *update, const float *gain,         \
                                 const float *shift, type *out, float *wide, float *mean,          \
                                 float *rstd, float *space, int64_t rows, int64_t columns,         \
                                 int64_t stride)                                                   \
    {                                                                                              \
        CHOOSE(residual_##dtype)                                                                   \
        (value, update, gain, shift, out, wide, mean, rstd, space, rows, columns, stride);         \
    }                                                                                              \
                                                                                                   \
    void newllm_residual_backward_##dtype(                                                         \
        const type *grad, const float *wide_grad, const type *value, const type *update,           \
        const float *gain, const float *mean, const float *rstd, type *grad_of_value,              \
        type *grad_of_update, float *grad_of_vectors, float *space, int64_t rows, int64_t columns, \
        int64_t stride, int64_t stride_of_grad)                                                    \
    {                                                                                              \
        CHOOSE(residual_backward_##dtype)                                                          \
        (grad, wide_grad, value, update, gain, mean, rstd, grad_of_value, grad_of_update,          \
         grad_of_vectors, space, rows, columns, stride, stride_of_grad);                           \
    }

EXPORT(float, float32)
EXPORT(uint16_t, bfloat16)

/* Return when *number is not `seen` any more, or so many nanoseconds are over. */
void newllm_look_out(const int64_t *number, int64_t seen, int64_t nanoseconds)
{
    struct timespec begin, now;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (int64_t turn = 1; __atomic_load_n(number, __ATOMIC_ACQUIRE) == seen; turn++) {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
        if (turn % 32) continue;
        clock_gettime(CLOCK_MONOTONIC, &now);
        if ((now.tv_sec - begin.tv_sec) * 1000000000LL + now.tv_nsec - begin.tv_nsec > nanoseconds)
            return;
    }
}

void newllm_matrix_vector(const float *matrix, const float *vector, float *product, int64_t rows,
                          int64_t columns)
{
    CHOOSE(matrix_vector)(matrix, vector, product, rows, columns);
}

void newllm_vector_matrix(const float *vector, const float *matrix, float *product, int64_t rows,
                          int64_t columns)
{
    CHOOSE(vector_matrix)(vector, matrix, product, rows, columns);
}

void newllm_adam_outer(float *matrix, float *mean, float *square, const float *left,
                       const float *right, const float *vector, float *product, int64_t rows,
                       int64_t columns, double beta1, double beta2, double rate, double root,
                       double eps)
{
    /* The shares of new values in float64: 1 - 0.999 would lose half its digits in float32. */
    CHOOSE(adam_outer)
    (matrix, mean, square, left, right, vector, product, rows, columns, 1 - beta1, beta2, 1 - beta2,
     rate, root, eps);
}

double newllm_sum_of_squares(const uint16_t *values, int64_t count)
{
    return CHOOSE(sum_of_squares)(values, count);
}

void newllm_adam_narrow(float *matrix, float *mean, float *square, const uint16_t *gradients,
                        uint16_t *copy, int64_t count, double scale, double beta1, double beta2,
                        double rate, double root, double eps)
{
    CHOOSE(adam_narrow)
    (matrix, mean, square, gradients, copy, count, scale, 1 - beta1, beta2, 1 - beta2, rate, root,
     eps);
}
