/* What learners of all kinds use: an LSTM layer for PyTorch, and Adam's step. */

#include "lstm.h"

/* As lstm_forward, of S sequences of L steps each: M = L * S. */
void lstm_layer_forward(int L, int H, const int *begin, float *gates, const float *first_h,
                        const float *first_c, const float *w, float *before_h, float *before_c,
                        float *h, float *c, float *squash)
{
    lstm_forward(L, begin, H, gates, first_h, first_c, w, before_h, before_c, h, c, squash);
}

/* As lstm_backward; of_first_h [S, H] out: gradients by the first h. */
void lstm_layer_backward(int L, int H, const int *begin, const float *gates, const float *before_c,
                         const float *squash, const float *w, float *of_h, float *of_c,
                         float *of_gates, float *of_first_h)
{
    lstm_backward(L, begin, H, gates, before_c, squash, w, of_h, of_c, of_gates);
    memset(of_first_h, 0, sizeof(float) * (size_t)begin[1] * (size_t)H);
    add_product(of_first_h, of_gates, w, begin[1], 4 * H, H);
}

float square_sum(ptrdiff_t n, const float *restrict x)
{
    vec sums[4] = {{0}, {0}, {0}, {0}};
    ptrdiff_t i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES)
        for (int c = 0; c < 4; c++) {
            vec v = load(x + i + c * LANES);
            sums[c] += v * v;
        }
    float sum = lanes_sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
    for (; i < n; i++)
        sum += x[i] * x[i];
    return sum;
}

/* One step of Adam (Kingma and Ba 2015, algorithm 1) by scale * g.

   p, m, v [n]     parameters and moments, in place
   g       [n]     gradient; in place it becomes what the step was taken by
   step            lr / (1 - beta1^t)
   root            sqrt(1 - beta2^t) */
void adam(ptrdiff_t n, float *restrict p, float *restrict g, float *restrict m, float *restrict v,
          float scale, double beta1, double beta2, float step, float root, float eps)
{
    /* 1 - beta2 by floats is off by more than a hundred roundings. */
    const float fresh1 = (float)(1.0 - beta1), fresh2 = (float)(1.0 - beta2), kept = (float)beta2;
    for (ptrdiff_t i = 0; i < n; i++) {
        float x = g[i] * scale;
        g[i] = x;
        m[i] += fresh1 * (x - m[i]);
        v[i] = kept * v[i] + fresh2 * x * x;
        p[i] -= step * m[i] / (sqrtf(v[i]) / root + eps);
    }
}
