/* Included by kernels.c once for each instruction set: no include guards. */

#include "numbers.h"
#include "softmax.h"
#include "one_row.h"
#include "narrow.h"
#include "gates.h"
#include "residual.h"
