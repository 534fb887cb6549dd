/* Matrices whose products are made in bfloat16: gradients come in it, and copies go out in it. */

/* In float32 lanes of 4,096 numbers, summed in float64. */
static double VARIANT(sum_of_squares)(const uint16_t *restrict values, int64_t count)
{
    double total = 0;
    for (int64_t begin = 0; begin < count; begin += 4096) {
        int64_t end = begin + 4096 < count ? begin + 4096 : count;
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = begin; i < end; i++) {
            float value = VARIANT(load_bfloat16)(values[i]);
            sum += value * value;
        }
        total += sum;
    }
    return total;
}

/* Adam (Kingma & Ba 2015) with a gradient in bfloat16, and the new matrix in bfloat16 as well. */
static void VARIANT(adam_narrow)(float *restrict matrix, float *restrict mean,
                                 float *restrict square, const uint16_t *restrict gradients,
                                 uint16_t *restrict copy, int64_t count, float scale,
                                 float new_mean, float old_square, float new_square, float rate,
                                 float root, float eps)
{
#pragma omp simd
    for (int64_t i = 0; i < count; i++) {
        float gradient = scale * VARIANT(load_bfloat16)(gradients[i]);
        mean[i] += new_mean * (gradient - mean[i]);
        square[i] = old_square * square[i] + new_square * gradient * gradient;
        matrix[i] -= rate * mean[i] / (sqrtf(square[i]) * root + eps);
        copy[i] = VARIANT(store_bfloat16)(matrix[i]);
    }
}
