/* Products of matrices with few rows, and functions of many numbers at once.

   All arrays are dense, row by row. Nothing here may assume that numbers are finite: what is not a
   number must come out as that. */

#ifndef RECURRENT_RL_NUMBERS_H
#define RECURRENT_RL_NUMBERS_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Numbers in a vector, and vectors of columns whose sums fit into registers, for four rows. */
#if defined(__AVX512F__)
#define LANES 16
#define WIDE 4
#elif defined(__AVX__)
#define LANES 8
#define WIDE 2
#elif defined(__aarch64__)
#define LANES 4
#define WIDE 4
#else
#define LANES 4
#define WIDE 2
#endif

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

static inline vec load(const float *p) { return *(const vec *)p; }
static inline void store(float *p, vec v) { *(vec *)p = v; }

static inline float lanes_sum(vec v)
{
    float sum = 0.0f;
    for (int lane = 0; lane < LANES; lane++)
        sum += v[lane];
    return sum;
}

/* --- products ---------------------------------------------------------------------------------- */

/* sum[r][c] = out[r, c] + sum_k x[r * row + k * step] w[k, c], in registers: R rows, C vectors of
   columns. x [R, K] has a step of 1, and x^T [K, R] a row of 1. */
#define DEFINE_PRODUCT(NAME, R, C)                                                                 \
    static inline void NAME(float *out, const float *x, ptrdiff_t row, ptrdiff_t step,             \
                            const float *w, int K, int J)                                          \
    {                                                                                              \
        vec sum[R][C];                                                                             \
        for (int r = 0; r < R; r++)                                                                \
            for (int c = 0; c < C; c++)                                                            \
                sum[r][c] = load(out + (ptrdiff_t)r * J + c * LANES);                              \
        for (int k = 0; k < K; k++, w += J, x += step)                                             \
            for (int c = 0; c < C; c++) {                                                          \
                vec column = load(w + c * LANES);                                                  \
                for (int r = 0; r < R; r++)                                                        \
                    sum[r][c] += x[r * row] * column;                                              \
            }                                                                                      \
        for (int r = 0; r < R; r++)                                                                \
            for (int c = 0; c < C; c++)                                                            \
                store(out + (ptrdiff_t)r * J + c * LANES, sum[r][c]);                              \
    }

DEFINE_PRODUCT(four_rows, 4, WIDE)
DEFINE_PRODUCT(two_rows, 2, WIDE)
DEFINE_PRODUCT(one_row, 1, WIDE)
DEFINE_PRODUCT(four_rows_of_a_vector, 4, 1)
DEFINE_PRODUCT(one_row_of_a_vector, 1, 1)

/* out [B, J] += x w [K, J], but for the last J % LANES columns; see above for row and step.
   Columns outside, so that a panel of w stays in the cache. Returns the columns that were done. */
static inline int add_whole_vectors(float *out, const float *x, ptrdiff_t row, ptrdiff_t step,
                                    const float *w, int B, int K, int J)
{
    int j = 0;
    for (; j + WIDE * LANES <= J; j += WIDE * LANES) {
        int b = 0;
        for (; b + 4 <= B; b += 4)
            four_rows(out + (ptrdiff_t)b * J + j, x + b * row, row, step, w + j, K, J);
        for (; b + 2 <= B; b += 2)
            two_rows(out + (ptrdiff_t)b * J + j, x + b * row, row, step, w + j, K, J);
        if (b < B)
            one_row(out + (ptrdiff_t)b * J + j, x + b * row, row, step, w + j, K, J);
    }
    for (; j + LANES <= J; j += LANES) {
        int b = 0;
        for (; b + 4 <= B; b += 4)
            four_rows_of_a_vector(out + (ptrdiff_t)b * J + j, x + b * row, row, step, w + j, K, J);
        for (; b < B; b++)
            one_row_of_a_vector(out + (ptrdiff_t)b * J + j, x + b * row, row, step, w + j, K, J);
    }
    return j;
}

/* out [B, J] += x [B, K] w [K, J] */
static inline void add_product(float *out, const float *x, const float *w, int B, int K, int J)
{
    for (int j = add_whole_vectors(out, x, K, 1, w, B, K, J); j < J; j++)
        for (int b = 0; b < B; b++) {
            float sum = out[(ptrdiff_t)b * J + j];
            for (int k = 0; k < K; k++)
                sum += x[(ptrdiff_t)b * K + k] * w[(ptrdiff_t)k * J + j];
            out[(ptrdiff_t)b * J + j] = sum;
        }
}

/* out [B, J] += y [K, B]^T x [K, J], in blocks of K that stay in the cache. */
static inline void add_outer_product(float *out, const float *y, const float *x, int B, int K, int J)
{
    const int block = 256;
    for (int first = 0; first < K; first += block) {
        const int some = K - first < block ? K - first : block;
        const float *ys = y + (ptrdiff_t)first * B, *xs = x + (ptrdiff_t)first * J;
        for (int j = add_whole_vectors(out, ys, 1, B, xs, B, some, J); j < J; j++) {
            int b = 0;
            for (; b + LANES <= B; b += LANES) { /* the other way round: vectors of rows */
                vec sum = {0};
                for (int k = 0; k < some; k++)
                    sum += xs[(ptrdiff_t)k * J + j] * load(ys + (ptrdiff_t)k * B + b);
                for (int lane = 0; lane < LANES; lane++)
                    out[(ptrdiff_t)(b + lane) * J + j] += sum[lane];
            }
            for (; b < B; b++) {
                float sum = 0.0f;
                for (int k = 0; k < some; k++)
                    sum += xs[(ptrdiff_t)k * J + j] * ys[(ptrdiff_t)k * B + b];
                out[(ptrdiff_t)b * J + j] += sum;
            }
        }
    }
}

static inline float dot(const float *a, const float *b, int n)
{
    vec sums = {0};
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        sums += load(a + i) * load(b + i);
    float sum = lanes_sum(sums);
    for (; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

/* to [J, K] = from [K, J]^T, in blocks that stay in the cache */
static inline void transpose(float *restrict to, const float *restrict from, int K, int J)
{
    for (int first = 0; first < K; first += 16)
        for (int j = 0; j < J; j++)
            for (int k = first; k < K && k < first + 16; k++)
                to[(ptrdiff_t)j * K + k] = from[(ptrdiff_t)k * J + j];
}

/* --- functions of numbers, which compilers turn into ones of vectors --------------------------- */

/* To 2e-7 of its value (the polynomial is Cephes' expf, S. Moshier); what is not a number stays. */
static inline float exponential(float x)
{
    x = x < -87.0f ? -87.0f : x;
    x = x > 87.0f ? 87.0f : x;
    /* Near 1.5 * 2^23 floats are the whole numbers, which stand in the last bits. No conversion to an
       int: that of what is not a number is undefined. */
    const float shift = 12582912.0f, shifted = x * 1.44269504088896341f + shift, k = shifted - shift;
    float r = x - k * 0.693359375f + k * 2.12194440e-4f;
    float y = 1.9875691500e-4f;
    y = y * r + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * (r * r) + r + 1.0f;
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 127) << 23; /* 2 to the k-th */
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    return y * scale;
}

static inline float sigmoid(float x) { return 1.0f / (1.0f + exponential(-x)); }
static inline float tangent(float x) { return 2.0f / (1.0f + exponential(-2.0f * x)) - 1.0f; }

#endif
