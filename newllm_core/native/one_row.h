/* Matrices that a single row passes through. */

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
