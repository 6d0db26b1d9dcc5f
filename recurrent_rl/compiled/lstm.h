/* One LSTM layer over sequences of different lengths.

   The steps of all sequences lie in M slots: first the first step of each, the longest sequence
   first, then the second of each that has one, and so on. Those of step t are slots begin[t] to
   begin[t + 1] - 1, and the b-th of them goes on from the b-th of step t - 1.

   Letters: L steps, S sequences, M slots, H units, G = 4 H: gates i, f, n and o, as PyTorch orders
   them. */

#ifndef RECURRENT_RL_LSTM_H
#define RECURRENT_RL_LSTM_H

#include "numbers.h"

/* gates  [M, G]      in: what inputs and biases give; out: behind the activations
   first_h, first_c [S, H]  the state before the first step
   w      [H, G]      what gates read of h
   before_h, before_c [M, H]  out: the state before each step
   h, c   [M, H]      out: after it
   squash [M, H]      out: tanh of c */
static inline void lstm_forward(int L, const int *begin, int H, float *restrict gates,
                                const float *first_h, const float *first_c,
                                const float *restrict w, float *before_h, float *before_c, float *h,
                                float *c, float *restrict squash)
{
    const int G = 4 * H;
    for (int t = 0; t < L; t++) {
        const int rows = begin[t + 1] - begin[t];
        const ptrdiff_t at = (ptrdiff_t)begin[t] * H, last = t ? (ptrdiff_t)begin[t - 1] * H : 0;
        const size_t bytes = sizeof(float) * (size_t)rows * (size_t)H;
        memcpy(before_h + at, t ? h + last : first_h, bytes);
        memcpy(before_c + at, t ? c + last : first_c, bytes);
        add_product(gates + 4 * at, before_h + at, w, rows, H, G);
        for (int b = 0; b < rows; b++) {
            const ptrdiff_t row = at + (ptrdiff_t)b * H;
            float *restrict g = gates + 4 * row, *restrict squashed = squash + row;
            const float *restrict kept = before_c + row;
            float *restrict cell = c + row, *restrict given = h + row;
            for (int j = 0; j < 2 * H; j++)
                g[j] = sigmoid(g[j]);
            for (int j = 2 * H; j < 3 * H; j++)
                g[j] = tangent(g[j]);
            for (int j = 3 * H; j < G; j++)
                g[j] = sigmoid(g[j]);
            for (int j = 0; j < H; j++) {
                cell[j] = g[H + j] * kept[j] + g[j] * g[2 * H + j];
                squashed[j] = tangent(cell[j]);
                given[j] = g[3 * H + j] * squashed[j];
            }
        }
    }
}

/* gates, before_c, squash   what lstm_forward gave
   w      [G, H]
   of_h   [M, H]      in: gradients by each h from outside; out: those by all ways
   of_c   [S, H]      in: gradients by the last c of each; out: by the first
   of_gates [M, G]    out: gradients by what stood in front of the activations */
static inline void lstm_backward(int L, const int *begin, int H, const float *restrict gates,
                                 const float *restrict before_c, const float *restrict squash,
                                 const float *restrict w, float *of_h, float *restrict of_c,
                                 float *restrict of_gates)
{
    const int G = 4 * H;
    for (int t = L - 1; t >= 0; t--) {
        const int rows = begin[t + 1] - begin[t];
        const ptrdiff_t at = (ptrdiff_t)begin[t] * H;
        for (int b = 0; b < rows; b++) {
            const ptrdiff_t row = at + (ptrdiff_t)b * H;
            const float *restrict g = gates + 4 * row, *restrict y = squash + row;
            const float *restrict kept = before_c + row, *restrict of_given = of_h + row;
            float *restrict of_cell = of_c + (ptrdiff_t)b * H, *restrict to = of_gates + 4 * row;
            for (int j = 0; j < H; j++) {
                float i = g[j], f = g[H + j], n = g[2 * H + j], o = g[3 * H + j];
                float d = of_cell[j] + of_given[j] * o * (1.0f - y[j] * y[j]);
                to[j] = d * n * i * (1.0f - i);
                to[H + j] = d * kept[j] * f * (1.0f - f);
                to[2 * H + j] = d * i * (1.0f - n * n);
                to[3 * H + j] = of_given[j] * y[j] * o * (1.0f - o);
                of_cell[j] = d * f;
            }
        }
        if (t)
            add_product(of_h + (ptrdiff_t)begin[t - 1] * H, of_gates + 4 * at, w, rows, G, H);
    }
}

#endif
