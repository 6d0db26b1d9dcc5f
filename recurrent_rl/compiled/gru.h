/* One GRU layer over sequences of different lengths, whose slots are as in lstm.h.

   Letters: L steps, S sequences, M slots, H units, G = 3 H: gates r, z and n, as PyTorch orders
   them. */

#ifndef RECURRENT_RL_GRU_H
#define RECURRENT_RL_GRU_H

#include "numbers.h"

/* gates  [M, G]      in: what inputs and their biases give; out: behind the activations
   first_h [S, H]     the state before the first step
   w      [H, G]      what gates read of h
   bias   [G]         of that
   before_h [M, H]    out: the state before each step
   h      [M, H]      out: after it
   memory [M, G]      out: what gates have read of the state; of n it is what r multiplies */
static inline void gru_forward(int L, const int *begin, int H, float *restrict gates,
                               const float *first_h, const float *restrict w,
                               const float *restrict bias, float *before_h, float *h, float *memory)
{
    const int G = 3 * H;
    for (int t = 0; t < L; t++) {
        const int rows = begin[t + 1] - begin[t];
        const ptrdiff_t at = (ptrdiff_t)begin[t] * H, last = t ? (ptrdiff_t)begin[t - 1] * H : 0;
        memcpy(before_h + at, t ? h + last : first_h, sizeof(float) * (size_t)rows * (size_t)H);
        for (int b = 0; b < rows; b++)
            memcpy(memory + 3 * at + (ptrdiff_t)b * G, bias, sizeof(float) * (size_t)G);
        add_product(memory + 3 * at, before_h + at, w, rows, H, G);
        for (int b = 0; b < rows; b++) {
            const ptrdiff_t row = at + (ptrdiff_t)b * H;
            float *restrict g = gates + 3 * row, *restrict given = h + row;
            const float *restrict read = memory + 3 * row, *restrict kept = before_h + row;
            for (int j = 0; j < 2 * H; j++)
                g[j] = sigmoid(g[j] + read[j]);
            for (int j = 0; j < H; j++) {
                const float n = tangent(g[2 * H + j] + g[j] * read[2 * H + j]);
                g[2 * H + j] = n;
                given[j] = n + g[H + j] * (kept[j] - n);
            }
        }
    }
}

/* gates, before_h, memory   what gru_forward gave
   w      [G, H]
   of_h   [M, H]      in: gradients by each h from outside; out: those by all ways
   of_gates [M, G]    out: gradients by what inputs gave to the gates
   of_memory [M, G]   out: by what the state gave to them */
static inline void gru_backward(int L, const int *begin, int H, const float *restrict gates,
                                const float *restrict before_h, const float *restrict memory,
                                const float *restrict w, float *of_h, float *restrict of_gates,
                                float *restrict of_memory)
{
    const int G = 3 * H;
    for (int t = L - 1; t >= 0; t--) {
        const int rows = begin[t + 1] - begin[t];
        const ptrdiff_t at = (ptrdiff_t)begin[t] * H;
        for (int b = 0; b < rows; b++) {
            const ptrdiff_t row = at + (ptrdiff_t)b * H;
            const float *restrict g = gates + 3 * row, *restrict read = memory + 3 * row;
            const float *restrict kept = before_h + row, *restrict of_given = of_h + row;
            float *restrict to = of_gates + 3 * row, *restrict back = of_memory + 3 * row;
            for (int j = 0; j < H; j++) {
                const float r = g[j], z = g[H + j], n = g[2 * H + j], d = of_given[j];
                const float of_n = d * (1.0f - z) * (1.0f - n * n);
                to[j] = back[j] = of_n * read[2 * H + j] * r * (1.0f - r);
                to[H + j] = back[H + j] = d * (kept[j] - n) * z * (1.0f - z);
                to[2 * H + j] = of_n;
                back[2 * H + j] = of_n * r;
            }
        }
        if (t) {
            float *before = of_h + (ptrdiff_t)begin[t - 1] * H;
            const float *of_given = of_h + at;
            for (int b = 0; b < rows; b++)
                for (int j = 0; j < H; j++)
                    before[(ptrdiff_t)b * H + j] +=
                        of_given[(ptrdiff_t)b * H + j] * gates[3 * at + (ptrdiff_t)b * G + H + j];
            add_product(before, of_memory + 3 * at, w, rows, G, H);
        }
    }
}

#endif
