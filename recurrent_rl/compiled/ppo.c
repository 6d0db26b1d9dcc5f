/* One minibatch of PPO: gathered, run forwards and backwards through trunks, heads and losses, in
   one call. structures.py has the same structures for Python.

   Letters: S sequences, L the longest, M slots (steps of all sequences, see lstm.h), A active ones,
   T * N steps of the rollout, D features, F extra inputs, H units, P outputs of the actor. */

#include "gru.h"
#include "lstm.h"

enum { TANH, RELU };
enum { LSTM = 4, GRU = 3 }; /* by their gates */

struct linear { /* y = W x + b; gradients are written, not added */
    int inputs, outputs;
    const float *w, *b; /* [outputs, inputs], [outputs] */
    float *of_w, *of_b;
};

struct mlp { /* an activation between layers, and behind the last if it ends on one */
    int count, activation, ends_on_activation;
    const struct linear *layers;
};

struct cell { /* one layer, with PyTorch's weights */
    int gates, inputs, units;
    const float *w_ih, *w_hh, *b_ih, *b_hh;
    float *of_ih, *of_hh, *of_b_ih, *of_b_hh;
};

struct trunk {
    int features, extras, outputs, count;
    const float *x;       /* [*, D] */
    const int64_t *where; /* which row of x each step sees, [T * N]; NULL: its own */
    const float *extra;   /* [T * N, F] */
    struct mlp front;
    const struct cell *cells; /* `count` of them on top of each other, all of the same width */
    const float *h, *c;       /* stored states, [chunks * N, count, H]; a GRU has no c */
};

struct rollout {
    int64_t rows;                      /* N */
    const int64_t *order;              /* the existing steps, row by row */
    const int64_t *first, *length, *row, *chunk; /* of each sequence */
    const unsigned char *fresh;        /* likewise: it begins from zeros */
    const unsigned char *active;       /* of each of `order`; NULL: all */
    const float *actions;              /* Gaussian: [T * N, P] */
    const int64_t *choices;            /* Categorical: [T * N] */
    const unsigned char *mask;         /* allowed ones, [T * N, P]; NULL: all */
    const float *log_prob, *value, *advantage, *returns; /* [T * N] */
};

struct policy {
    int trunk_count;
    const struct trunk *trunks; /* the actor's and the critic's, or one for both */
    struct mlp actor, critic;
    const float *log_std; /* [P]; NULL: Categorical */
    float *of_log_std;
    float least_log_std;
};

struct coefficients {
    float clip, clip_value, value, entropy; /* clip_value < 0: none */
    float share; /* 1 / active steps of the minibatch on all ranks */
};

/* Sums over the active steps. */
struct record {
    double policy_loss, value_loss, entropy, kl;
    int64_t clipped, active;
};

/* --- memory ------------------------------------------------------------------------------------ */

/* The caller's: what is taken anew for each minibatch is given back to the system, and comes back
   page by page. */
struct memory {
    char *next, *end;
    int failed;
};

static void *take(struct memory *memory, size_t bytes)
{
    char *block = memory->next;
    const size_t room = (bytes + 63) / 64 * 64; /* a cache line, and a vector's width */
    if (room > (size_t)(memory->end - block)) {
        memory->failed = 1;
        return NULL;
    }
    memory->next = block + room;
    return block;
}

static float *floats(struct memory *memory, ptrdiff_t rows, ptrdiff_t columns)
{
    return take(memory, sizeof(float) * (size_t)(rows * columns));
}

static void clear(float *x, ptrdiff_t n) { memset(x, 0, sizeof(float) * (size_t)n); }

/* --- where the steps are ----------------------------------------------------------------------- */

struct slots {
    int L, S, M, A;
    int *begin;       /* [L + 1], see lstm.h */
    int64_t *which;   /* the sequences, the longest first, [S] */
    int64_t *step;    /* of each slot, [M] */
    int *slot;        /* of each active step, [A] */
    int64_t *decided; /* that step, [A] */
};

static int lay_out(struct memory *memory, struct slots *slots, const struct rollout *rollout,
                   const int64_t *which, int S)
{
    int64_t longest = 0, M = 0;
    for (int s = 0; s < S; s++) {
        const int64_t length = rollout->length[which[s]];
        longest = length > longest ? length : longest;
        M += length;
    }
    const int L = (int)longest;
    slots->L = L, slots->S = S, slots->M = (int)M, slots->A = 0;
    slots->begin = take(memory, sizeof(int) * (size_t)(L + 1));
    slots->which = take(memory, sizeof(int64_t) * (size_t)S);
    slots->step = take(memory, sizeof(int64_t) * (size_t)M);
    slots->slot = take(memory, sizeof(int) * (size_t)M);
    slots->decided = take(memory, sizeof(int64_t) * (size_t)M);
    int *longer = take(memory, sizeof(int) * (size_t)(L + 1)); /* how many have more than t steps */
    if (memory->failed)
        return -1;
    memset(longer, 0, sizeof(int) * (size_t)(L + 1));
    for (int s = 0; s < S; s++)
        longer[rollout->length[which[s]] - 1]++;
    for (int t = L - 2; t >= 0; t--)
        longer[t] += longer[t + 1];
    slots->begin[0] = 0;
    for (int t = 0; t < L; t++)
        slots->begin[t + 1] = slots->begin[t] + longer[t];
    for (int s = 0; s < S; s++) { /* behind those that are longer, longer[length] */
        const int64_t length = rollout->length[which[s]];
        slots->which[longer[length]++] = which[s];
    }
    for (int t = 0; t < L; t++)
        for (int i = slots->begin[t]; i < slots->begin[t + 1]; i++) {
            const int64_t at = rollout->first[slots->which[i - slots->begin[t]]] + t;
            slots->step[i] = rollout->order[at];
            if (!rollout->active || rollout->active[at]) {
                slots->decided[slots->A] = rollout->order[at];
                slots->slot[slots->A++] = i;
            }
        }
    return 0;
}

/* --- layers ------------------------------------------------------------------------------------ */

/* y [M, outputs] = x [M, inputs] W^T + b */
static void linear_forward(struct memory *memory, const struct linear *layer, const float *x, int M,
                           float *y)
{
    const int inputs = layer->inputs, outputs = layer->outputs;
    if (outputs < LANES) {
        for (ptrdiff_t m = 0; m < M; m++)
            for (int o = 0; o < outputs; o++)
                y[m * outputs + o] =
                    layer->b[o] + dot(x + m * inputs, layer->w + (ptrdiff_t)o * inputs, inputs);
        return;
    }
    float *w = floats(memory, inputs, outputs);
    if (!w)
        return;
    transpose(w, layer->w, outputs, inputs);
    for (ptrdiff_t m = 0; m < M; m++)
        memcpy(y + m * outputs, layer->b, sizeof(float) * (size_t)outputs);
    add_product(y, x, w, M, inputs, outputs);
}

/* to [n] = sum over rows of y [M, n] */
static void sum_rows(float *restrict to, const float *restrict y, int M, int n)
{
    clear(to, n);
    for (ptrdiff_t m = 0; m < M; m++)
        for (int i = 0; i < n; i++)
            to[i] += y[m * n + i];
}

/* The gradients of W and b by that of y. */
static void linear_gradients(const struct linear *layer, const float *x, const float *of_y, int M)
{
    clear(layer->of_w, (ptrdiff_t)layer->inputs * layer->outputs);
    add_outer_product(layer->of_w, of_y, x, layer->outputs, M, layer->inputs);
    sum_rows(layer->of_b, of_y, M, layer->outputs);
}

static void activate(float *restrict y, ptrdiff_t n, int activation)
{
    if (activation == TANH)
        for (ptrdiff_t i = 0; i < n; i++)
            y[i] = tangent(y[i]);
    else
        for (ptrdiff_t i = 0; i < n; i++)
            y[i] = y[i] <= 0.0f ? 0.0f : y[i]; /* what is not a number stays */
}

/* Of what stands in front of an activation, in place, from what it gave. */
static void deactivate(float *restrict of_y, const float *restrict y, ptrdiff_t n, int activation)
{
    if (activation == TANH)
        for (ptrdiff_t i = 0; i < n; i++)
            of_y[i] *= 1.0f - y[i] * y[i];
    else
        for (ptrdiff_t i = 0; i < n; i++)
            of_y[i] = y[i] <= 0.0f ? 0.0f : of_y[i];
}

/* Returns what each layer gives, [count] of [M, outputs]. */
static float **mlp_forward(struct memory *memory, const struct mlp *mlp, const float *x, int M)
{
    float **y = take(memory, sizeof(float *) * (size_t)(mlp->count + 1));
    for (int k = 0; k < mlp->count && !memory->failed; k++) {
        const struct linear *layer = mlp->layers + k;
        if (!(y[k] = floats(memory, M, layer->outputs)))
            break;
        linear_forward(memory, layer, k ? y[k - 1] : x, M, y[k]);
        if (k + 1 < mlp->count || mlp->ends_on_activation)
            activate(y[k], (ptrdiff_t)M * layer->outputs, mlp->activation);
    }
    return y;
}

/* of_y [M, outputs] is that of the last layer, and spoiled; of_x [M, inputs] is added to, or NULL. */
static void mlp_backward(struct memory *memory, const struct mlp *mlp, const float *x, float **y,
                         float *of_y, int M, float *of_x)
{
    for (int k = mlp->count - 1; k >= 0; k--) {
        const struct linear *layer = mlp->layers + k;
        if (k + 1 < mlp->count || mlp->ends_on_activation)
            deactivate(of_y, y[k], (ptrdiff_t)M * layer->outputs, mlp->activation);
        linear_gradients(layer, k ? y[k - 1] : x, of_y, M);
        float *below = of_x;
        if (k) {
            if (!(below = floats(memory, M, layer->inputs)))
                return;
            clear(below, (ptrdiff_t)M * layer->inputs);
        }
        if (below)
            add_product(below, of_y, layer->w, M, layer->outputs, layer->inputs);
        of_y = below;
    }
}

/* --- trunks ------------------------------------------------------------------------------------ */

struct pass { /* of one cell, see lstm.h and gru.h */
    float *gates, *before_h, *h;
    float *before_c, *c, *squash; /* of an LSTM */
    float *memory;                /* of a GRU */
};

struct unrolled {
    float *seen, **front, *read; /* [M, D], see mlp_forward, and what the first cell reads */
    struct pass *passes;
    float *given; /* what the trunk gives, [M, outputs] */
};

static void gather(float *to, const float *from, const int64_t *which, int count, int width)
{
    for (ptrdiff_t i = 0; i < count; i++)
        memcpy(to + i * width, from + (ptrdiff_t)which[i] * width, sizeof(float) * (size_t)width);
}

/* The state that each sequence's k-th cell begins from, [S, H]. */
static void stored_state(float *to, const float *stored, const struct slots *slots,
                         const struct rollout *rollout, int count, int k, int H)
{
    for (int s = 0; s < slots->S; s++) {
        const int64_t which = slots->which[s];
        const int64_t at = rollout->chunk[which] * rollout->rows + rollout->row[which];
        if (rollout->fresh[which])
            clear(to + (ptrdiff_t)s * H, H);
        else
            memcpy(to + (ptrdiff_t)s * H, stored + ((ptrdiff_t)at * count + k) * H,
                   sizeof(float) * (size_t)H);
    }
}

static void cell_forward(struct memory *memory, const struct trunk *trunk, int k,
                         const struct slots *slots, const struct rollout *rollout, const float *x,
                         struct pass *pass)
{
    const struct cell *cell = trunk->cells + k;
    const int H = cell->units, G = cell->gates * H, M = slots->M, is_lstm = cell->gates == LSTM;
    struct linear inputs = {cell->inputs, G, cell->w_ih, cell->b_ih, NULL, NULL};
    float *bias = floats(memory, 1, G), *w = floats(memory, H, G);
    float *first_h = floats(memory, slots->S, H), *first_c = floats(memory, slots->S, H);
    pass->gates = floats(memory, M, G);
    pass->before_h = floats(memory, M, H), pass->h = floats(memory, M, H);
    if (is_lstm) {
        pass->before_c = floats(memory, M, H), pass->c = floats(memory, M, H);
        pass->squash = floats(memory, M, H);
    } else
        pass->memory = floats(memory, M, G);
    if (memory->failed)
        return;
    if (is_lstm) { /* an LSTM's biases are always added up */
        for (int j = 0; j < G; j++)
            bias[j] = cell->b_ih[j] + cell->b_hh[j];
        inputs.b = bias;
    }
    linear_forward(memory, &inputs, x, M, pass->gates);
    transpose(w, cell->w_hh, G, H);
    stored_state(first_h, trunk->h, slots, rollout, trunk->count, k, H);
    if (is_lstm) {
        stored_state(first_c, trunk->c, slots, rollout, trunk->count, k, H);
        lstm_forward(slots->L, slots->begin, H, pass->gates, first_h, first_c, w, pass->before_h,
                     pass->before_c, pass->h, pass->c, pass->squash);
    } else
        gru_forward(slots->L, slots->begin, H, pass->gates, first_h, w, cell->b_hh, pass->before_h,
                    pass->h, pass->memory);
}

/* Joins what the front gives, [M, width], with the extra inputs. */
static float *with_extra(struct memory *memory, const struct trunk *trunk, const struct slots *slots,
                         const float *x, int width)
{
    const int F = trunk->extras;
    float *joined = floats(memory, slots->M, width + F);
    for (ptrdiff_t i = 0; joined && i < slots->M; i++) {
        memcpy(joined + i * (width + F), x + i * width, sizeof(float) * (size_t)width);
        memcpy(joined + i * (width + F) + width, trunk->extra + (ptrdiff_t)slots->step[i] * F,
               sizeof(float) * (size_t)F);
    }
    return joined;
}

static int front_width(const struct trunk *trunk)
{
    const struct mlp *front = &trunk->front;
    return front->count ? front->layers[front->count - 1].outputs : trunk->features;
}

static struct unrolled trunk_forward(struct memory *memory, const struct trunk *trunk,
                                     const struct slots *slots, const struct rollout *rollout)
{
    const int M = slots->M, D = trunk->features;
    struct unrolled u = {floats(memory, M, D), NULL, NULL, NULL, NULL};
    int64_t *rows = slots->step;
    if (trunk->where) {
        rows = take(memory, sizeof(int64_t) * (size_t)M);
        for (int i = 0; rows && i < M; i++)
            rows[i] = trunk->where[slots->step[i]];
    }
    u.passes = take(memory, sizeof(struct pass) * (size_t)(trunk->count + 1));
    if (memory->failed)
        return u;
    gather(u.seen, trunk->x, rows, M, D);
    /* Without memory the extra inputs join in front of the layers, else behind them. */
    if (trunk->extras && !trunk->count)
        u.seen = with_extra(memory, trunk, slots, u.seen, D);
    if (memory->failed)
        return u;
    u.front = mlp_forward(memory, &trunk->front, u.seen, M);
    if (memory->failed)
        return u;
    u.read = trunk->front.count ? u.front[trunk->front.count - 1] : u.seen;
    if (trunk->extras && trunk->count)
        u.read = with_extra(memory, trunk, slots, u.read, front_width(trunk));
    u.given = u.read;
    for (int k = 0; k < trunk->count && !memory->failed; k++) {
        cell_forward(memory, trunk, k, slots, rollout, u.given, u.passes + k);
        u.given = u.passes[k].h;
    }
    return u;
}

/* of_h [M, H] from outside, spoiled; of_x [M, inputs] is set, or NULL. */
static void cell_backward(struct memory *memory, const struct cell *cell, const struct slots *slots,
                          const struct pass *pass, const float *x, float *of_h, float *of_x)
{
    const int H = cell->units, G = cell->gates * H, M = slots->M, is_lstm = cell->gates == LSTM;
    float *of_c = floats(memory, slots->S, H), *of_gates = floats(memory, M, G);
    float *of_memory = is_lstm ? of_gates : floats(memory, M, G);
    if (memory->failed)
        return;
    if (is_lstm) {
        clear(of_c, (ptrdiff_t)slots->S * H);
        lstm_backward(slots->L, slots->begin, H, pass->gates, pass->before_c, pass->squash,
                      cell->w_hh, of_h, of_c, of_gates);
    } else
        gru_backward(slots->L, slots->begin, H, pass->gates, pass->before_h, pass->memory,
                     cell->w_hh, of_h, of_gates, of_memory);
    clear(cell->of_ih, (ptrdiff_t)G * cell->inputs);
    add_outer_product(cell->of_ih, of_gates, x, G, M, cell->inputs);
    clear(cell->of_hh, (ptrdiff_t)G * H);
    add_outer_product(cell->of_hh, of_memory, pass->before_h, G, M, H);
    sum_rows(cell->of_b_ih, of_gates, M, G);
    sum_rows(cell->of_b_hh, of_memory, M, G);
    if (of_x) {
        clear(of_x, (ptrdiff_t)M * cell->inputs);
        add_product(of_x, of_gates, cell->w_ih, M, G, cell->inputs);
    }
}

/* of_given [M, outputs] is spoiled. */
static void trunk_backward(struct memory *memory, const struct trunk *trunk,
                           const struct slots *slots, const struct unrolled *u, float *of_given)
{
    const int M = slots->M, count = trunk->front.count, width = front_width(trunk);
    for (int k = trunk->count - 1; k >= 0; k--) {
        float *of_x = k || count ? floats(memory, M, trunk->cells[k].inputs) : NULL;
        if (memory->failed)
            return;
        cell_backward(memory, trunk->cells + k, slots, u->passes + k, k ? u->passes[k - 1].h : u->read,
                      of_given, of_x);
        of_given = of_x;
    }
    if (!count)
        return;
    if (trunk->count && trunk->extras) { /* only the front's part has something below it */
        for (ptrdiff_t i = 0; i < M; i++)
            memmove(of_given + i * width, of_given + i * (width + trunk->extras),
                    sizeof(float) * (size_t)width);
    }
    mlp_backward(memory, &trunk->front, u->seen, u->front, of_given, M, NULL);
}

/* --- losses ------------------------------------------------------------------------------------ */

/* The clipped surrogate (Schulman et al. 2017, eq. 7) of one step: returns its derivative by the
   log-probability. */
static float surrogate(float log_ratio, float advantage, float clip, struct record *record)
{
    const float ratio = expf(log_ratio), gain = ratio * advantage;
    const float bound = advantage + clip * fabsf(advantage);
    record->policy_loss -= gain > bound ? bound : gain;
    record->kl += (ratio - 1.0f) - log_ratio;
    record->clipped += fabsf(ratio - 1.0f) > clip;
    return gain > bound ? 0.0f : -gain;
}

/* Half the squared error of one step's value; returns its derivative. */
static float value_error(float value, float returns, float old, float clip, struct record *record)
{
    float error = value - returns, term = error * error;
    if (clip >= 0.0f) {
        const float change = value - old;
        const float near = old + (change < -clip ? -clip : change > clip ? clip : change) - returns;
        if (near * near > term) {
            term = near * near;
            error = fabsf(change) <= clip ? error : 0.0f;
        }
    }
    record->value_loss += 0.5f * term;
    return error;
}

static const double LOG_2_PI = 1.8378770664093453;

/* of_outputs [A, P] */
static void gaussian(const struct policy *policy, const struct rollout *rollout,
                     const struct slots *slots, const struct coefficients *now,
                     const float *outputs, int P, float *of_outputs, float *precision,
                     double *sums, struct record *record)
{
    double total = 0.0;
    for (int a = 0; a < P; a++) {
        const float own = policy->log_std[a], least = policy->least_log_std;
        const float log_std = own < least ? least : own;
        precision[a] = expf(-log_std);
        total += log_std;
        sums[a] = 0.0;
    }
    for (int m = 0; m < slots->A; m++) {
        const int64_t step = slots->decided[m];
        const float *mean = outputs + (ptrdiff_t)m * P, *action = rollout->actions + step * P;
        float *of_mean = of_outputs + (ptrdiff_t)m * P, squares = 0.0f;
        for (int a = 0; a < P; a++) {
            of_mean[a] = (action[a] - mean[a]) * precision[a];
            squares += of_mean[a] * of_mean[a];
        }
        const float log_prob = (float)(-0.5 * squares - total - 0.5 * P * LOG_2_PI);
        const float of = now->share * surrogate(log_prob - rollout->log_prob[step],
                                                rollout->advantage[step], now->clip, record);
        for (int a = 0; a < P; a++) {
            const float z = of_mean[a];
            sums[a] += of * (z * z - 1.0f);
            of_mean[a] = of * z * precision[a];
        }
    }
    record->entropy = slots->A * (total + 0.5 * P * (1.0 + LOG_2_PI));
    for (int a = 0; a < P; a++) {
        const float of = (float)(sums[a] - (double)now->entropy * now->share * slots->A);
        /* What has sunk below the least may come back. */
        policy->of_log_std[a] = policy->log_std[a] < policy->least_log_std && of > 0.0f ? 0.0f : of;
    }
}

static void categorical(const struct rollout *rollout, const struct slots *slots,
                        const struct coefficients *now, float *outputs, int P, float *of_outputs,
                        struct record *record)
{
    const float floor = -3.4028235e38f / 2; /* finite, see networks/distributions.py */
    for (int m = 0; m < slots->A; m++) {
        const int64_t step = slots->decided[m], chosen = rollout->choices[step];
        const unsigned char *mask = rollout->mask ? rollout->mask + step * P : NULL;
        float *x = outputs + (ptrdiff_t)m * P, *of = of_outputs + (ptrdiff_t)m * P;
        float most = -INFINITY;
        for (int i = 0; i < P; i++) {
            x[i] = mask && !mask[i] ? floor : x[i];
            most = x[i] > most || x[i] != x[i] ? x[i] : most;
        }
        double sum = 0.0;
        for (int i = 0; i < P; i++)
            sum += expf(x[i] - most);
        const float log_sum = (float)log(sum);
        float entropy = 0.0f;
        for (int i = 0; i < P; i++) { /* x becomes log p, of becomes p */
            x[i] = x[i] - most - log_sum;
            of[i] = expf(x[i]);
            entropy -= of[i] * x[i];
        }
        const float of_log_prob = now->share * surrogate(x[chosen] - rollout->log_prob[step],
                                                         rollout->advantage[step], now->clip, record);
        const float of_entropy = -now->entropy * now->share;
        for (int i = 0; i < P; i++)
            of[i] *= -of_log_prob - of_entropy * (x[i] + entropy);
        of[chosen] += of_log_prob;
        for (int i = 0; mask && i < P; i++)
            of[i] = mask[i] ? of[i] : 0.0f;
        record->entropy += entropy;
    }
}

/* Writes all gradients of the loss's share, and the actor's outputs [M, P] as the density reads
   them (of which the first A rows are meant). Returns 0, or -1 where memory is short. */
int ppo_gradient(const struct policy *policy, const struct rollout *rollout,
                 const struct coefficients *now, const int64_t *which, int S, float *outputs,
                 struct record *record, char *room, size_t bytes)
{
    struct memory memory = {room, room + bytes, 0};
    struct slots slots;
    struct unrolled unrolled[2];
    float *features[2] = {NULL, NULL}, *of_features[2] = {NULL, NULL};
    const int trunks = policy->trunk_count, last = trunks - 1;
    memset(record, 0, sizeof *record);
    if (lay_out(&memory, &slots, rollout, which, S))
        return -1;
    const int A = slots.A, P = policy->actor.layers[policy->actor.count - 1].outputs;
    for (int i = 0; i < trunks; i++) {
        const int width = policy->trunks[i].outputs;
        unrolled[i] = trunk_forward(&memory, policy->trunks + i, &slots, rollout);
        features[i] = floats(&memory, A, width), of_features[i] = floats(&memory, A, width);
        if (memory.failed)
            return -1;
        for (ptrdiff_t m = 0; m < A; m++)
            memcpy(features[i] + m * width, unrolled[i].given + (ptrdiff_t)slots.slot[m] * width,
                   sizeof(float) * (size_t)width);
        clear(of_features[i], (ptrdiff_t)A * width);
    }
    float **actor = mlp_forward(&memory, &policy->actor, features[0], A);
    float **critic = mlp_forward(&memory, &policy->critic, features[last], A);
    float *of_outputs = floats(&memory, A, P), *of_values = floats(&memory, A, 1);
    float *precision = floats(&memory, 1, P);
    double *sums = take(&memory, sizeof(double) * (size_t)P);
    if (memory.failed)
        return -1;
    float *given = actor[policy->actor.count - 1];
    const float *values = critic[policy->critic.count - 1];
    if (policy->log_std)
        gaussian(policy, rollout, &slots, now, given, P, of_outputs, precision, sums, record);
    else
        categorical(rollout, &slots, now, given, P, of_outputs, record);
    for (int m = 0; m < A; m++) {
        const int64_t step = slots.decided[m];
        of_values[m] = now->share * now->value *
                       value_error(values[m], rollout->returns[step], rollout->value[step],
                                   now->clip_value, record);
    }
    memcpy(outputs, given, sizeof(float) * (size_t)A * (size_t)P);
    mlp_backward(&memory, &policy->actor, features[0], actor, of_outputs, A, of_features[0]);
    mlp_backward(&memory, &policy->critic, features[last], critic, of_values, A, of_features[last]);
    for (int i = 0; i < trunks && !memory.failed; i++) {
        const int width = policy->trunks[i].outputs;
        float *of_given = floats(&memory, slots.M, width);
        if (!of_given)
            break;
        clear(of_given, (ptrdiff_t)slots.M * width);
        for (ptrdiff_t m = 0; m < A; m++)
            memcpy(of_given + (ptrdiff_t)slots.slot[m] * width, of_features[i] + m * width,
                   sizeof(float) * (size_t)width);
        trunk_backward(&memory, policy->trunks + i, &slots, unrolled + i, of_given);
    }
    record->active = A;
    return memory.failed ? -1 : 0;
}
