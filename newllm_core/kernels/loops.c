/* The loop that torch has no single operation for. `compiled.py` calls it.

   The function exists once per instruction set and is chosen when it is called. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#define LOG2_E 1.44269504088896341f

#if defined(__x86_64__)
#if !defined(__GNUC__) || defined(__clang__) || __GNUC__ < 12
#error "for this processor GCC 12 or newer is needed: newllm works without this library"
#endif

#pragma GCC push_options
#pragma GCC target("arch=x86-64-v3")
#define VARIANT(name) name##_v3
#include "numbers.h"
#include "softmax.h"
#undef VARIANT
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("arch=x86-64-v4,prefer-vector-width=512")
#define VARIANT(name) name##_v4
#include "numbers.h"
#include "softmax.h"
#undef VARIANT
#pragma GCC pop_options

/* The plain loops are slower than torch where a processor has no AVX2. */
int newllm_usable(void) { return __builtin_cpu_supports("x86-64-v3") != 0; }
#define CHOOSE(name) (__builtin_cpu_supports("x86-64-v4") ? name##_v4 : name##_v3)
#else

#define VARIANT(name) name##_plain
#include "numbers.h"
#include "softmax.h"
#undef VARIANT

int newllm_usable(void) { return 1; }
#define CHOOSE(name) name##_plain
#endif

#define EXPORT(type, dtype)                                                                        \
    int newllm_softmax_gradient_##dtype(type *logits, const int64_t *targets, float *space,        \
                                        float *nats, int64_t rows, int64_t columns)                \
    {                                                                                              \
        return CHOOSE(softmax_gradient_##dtype)(logits, targets, space, nats, rows, columns);      \
    }

EXPORT(float, float32)
EXPORT(uint16_t, bfloat16)
