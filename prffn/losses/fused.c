/* L_contr and its gradients on the CPU: the formulas of streaming.py and pairs.py, region by region, in cache.
 *
 * fused.py compiles it for one number of channels, CHANNELS, and one type of image (DOUBLE: float64). Plain loops that
 * the compiler vectorises: -fassociative-math lets it split sums, -ffinite-math-only maxima. Where an image is not
 * finite, nor is the loss: each pixel is in a positive's score, and no maximum is taken of those.
 * Scores cancel and are in double; what is left of them beside the largest, the weights and short sums of them, needs
 * no more than the image's type.
 */

#include <math.h>
#include <pthread.h>
#include <stdlib.h>

#ifdef DOUBLE
typedef double real;
#else
typedef float real;
#endif

enum { L1, SQUARED, COSINE, DOT, RATIO }; /* in the order of FORMS in fused.py */
enum { HR = 1, SR = 2 };                  /* where negatives come from; their sum: both */

#define LOG_2 0.69314718055994531
#define SHORTEST 1e-6   /* length of a pixel from which on it has a direction, as in contrast.py */
#define NEVER -1e37     /* score of an anchor's own pixel, which is no negative; a float holds it too */
#define NEGLIGIBLE -115 /* 2^-115 is lost in any sum that holds a 1; far smaller ones underflow, which CPUs do slowly */
#define PIECE 512       /* terms of a sum in the image's type, before it goes on in double */

#define CHANNEL _Pragma("GCC unroll 8") for (int k = 0; k < CHANNELS; k++) /* of a pixel */
#define PLANE for (int k = 0; k < CHANNELS; k++)                           /* of all pixels */

typedef struct {
    const real *sr, *hr;     /* (images, CHANNELS, height, width) */
    real *grad_sr, *grad_hr; /* the same, or NULL where not wanted */
    double *losses;          /* of each region, summed over its anchors */
    long images, height, width, side;
    int form, negatives;
    double parameter; /* tau; epsilon of the ratio */
    double scale;     /* of the gradients */
    long next;        /* the region to be taken next */
    int failed;
} Task;

/* A region's S = size anchors and T = count candidates. Pixels are planes, one for each channel, `row` apart. */
typedef struct {
    long size, count, row;
    double *x, *y, *c;            /* anchors, positives, candidates */
    double *to_x, *to_y, *to_c;   /* their gradients */
    double *length_x, *length_y;  /* of the pixels, whose directions x and y are (cosine) */
    double *bias, *score;         /* of a candidate: what it adds to all its scores, its score by one anchor, */
    real *weight, *values;        /* its weight in that anchor's softmax; c, rounded */
    double mean[CHANNELS];        /* what c is taken from, so that small differences are not rounded away beside it */
} Region;

/* 2^t for t <= 0. */
static inline real power_of_two(real t)
{
#ifdef DOUBLE
    return exp2(t);
#else
    t = t > NEGLIGIBLE ? t : NEGLIGIBLE;
    const float whole = rintf(t), f = t - whole; /* f: at most 1/2, and exact. Its Taylor series, to 4e-9: */
    float p = 1.52527338e-5f;
    p = p * f + 1.54035304e-4f;
    p = p * f + 1.33335581e-3f;
    p = p * f + 9.61812911e-3f;
    p = p * f + 5.55041087e-2f;
    p = p * f + 2.40226507e-1f;
    p = p * f + 6.93147181e-1f;
    p = p * f + 1.0f;
    const union { int bits; float number; } power = {((int)whole + 127) << 23};
    return p * power.number;
#endif
}

static inline double sign(double a) { return (a > 0) - (a < 0); }

/* InfoNCE of anchor i, its gradients for the anchor and its positive, and the weights of its candidates.
 * Returns the loss. *share: the factor of a weight in the gradient for its candidate. */
static inline double infonce(Region *r, long i, int form, double tau, double *share)
{
    const long count = r->count, row = r->row;
    const double slope = (form == SQUARED ? 2 : 1) / tau, to_bits = slope / LOG_2; /* scores: exponents of 2 */
    const double *restrict c = r->c, *restrict bias = r->bias;
    const real *restrict values = r->values;
    double *restrict score = r->score, a[CHANNELS], top = NEVER;
    real *restrict weight = r->weight;
    double x[CHANNELS], y[CHANNELS], positive = 0, total = 0, drawn[CHANNELS] = {0};
    CHANNEL {
        x[k] = r->x[k * row + i] - (form == SQUARED ? r->mean[k] : 0);
        y[k] = r->y[k * row + i] - r->mean[k];
        a[k] = form == L1 ? x[k] : to_bits * x[k];
        positive += to_bits * (form == L1 ? -fabs(x[k] - y[k]) : (x[k] - (form == SQUARED ? y[k] / 2 : 0)) * y[k]);
    }
    for (long j = 0; j < count; j++) {
        double s = 0;
        CHANNEL s += form == L1 ? -fabs(a[k] - c[k * row + j]) : a[k] * c[k * row + j];
        s = bias[j] + (form == L1 ? to_bits * s : s);
        score[j] = s;
        top = s > top ? s : top;
    }
    for (long start = 0; start < count; start += PIECE) {
        const long stop = start + PIECE < count ? start + PIECE : count;
        real sum = 0, sums[CHANNELS] = {0};
        for (long j = start; j < stop; j++) {
            const real w = power_of_two(score[j] - top);
            weight[j] = w;
            sum += w;
            CHANNEL {
                const real v = values[k * row + j], here = a[k];
                sums[k] += form == L1 ? (v > here ? w : 0) - (v < here ? w : 0) : w * v;
            }
        }
        total += sum;
        CHANNEL drawn[k] += sums[k];
    }

    const double excess = (top - positive) * LOG_2 + log(total), e = exp(-fabs(excess));
    const double pushed = (excess > 0 ? 1 : e) / (1 + e); /* sigmoid */
    CHANNEL {
        r->to_x[k * row + i] += slope * pushed * (drawn[k] / total - (form == L1 ? sign(y[k] - x[k]) : y[k]));
        const double to_y = form == L1 ? sign(x[k] - y[k]) : form == SQUARED ? x[k] - y[k] : x[k];
        r->to_y[k * row + i] -= slope * pushed * to_y;
    }
    *share = slope * pushed / total;
    return (excess > 0 ? excess : 0) + log1p(e); /* softplus */
}

/* The ratio of anchor i, as above; its candidates all have weight 1, and its own pixel is at distance 0. */
static inline double ratio(Region *r, long i, double epsilon, double *share)
{
    const long count = r->count, row = r->row, negatives = count - count / r->size;
    const real *restrict values = r->values;
    double to_positive[CHANNELS], positive = 0, total = 0, steep[CHANNELS] = {0};
    real a[CHANNELS];
    CHANNEL {
        a[k] = r->x[k * row + i];
        to_positive[k] = sign(r->x[k * row + i] - r->y[k * row + i]);
        positive += fabs(r->x[k * row + i] - r->y[k * row + i]);
    }
    for (long start = 0; start < count; start += PIECE) {
        const long stop = start + PIECE < count ? start + PIECE : count;
        real sums[CHANNELS] = {0}, signs[CHANNELS] = {0};
        for (long j = start; j < stop; j++)
            CHANNEL {
                const real v = values[k * row + j];
                sums[k] += (real)fabs(a[k] - v);
                signs[k] += (a[k] > v ? (real)1 : 0) - (a[k] < v ? (real)1 : 0);
            }
        CHANNEL {
            total += sums[k];
            steep[k] += signs[k];
        }
    }
    const double pull = 1 / (total / negatives + epsilon), push = positive * pull * pull / negatives;
    CHANNEL {
        r->to_x[k * row + i] += pull * to_positive[k] - push * steep[k];
        r->to_y[k * row + i] -= pull * to_positive[k];
    }
    *share = push;
    return positive * pull;
}

/* Adds the gradients of anchor i for its candidates. */
static inline void draw(Region *r, long i, int form, double share)
{
    const real *restrict weight = r->weight;
    PLANE {
        const double x = r->x[k * r->row + i] - (form == SQUARED ? r->mean[k] : 0);
        const double *restrict c = r->c + k * r->row;
        double *restrict to_c = r->to_c + k * r->row;
        for (long j = 0; j < r->count; j++) {
            const double w = share * (form == RATIO ? 1 : weight[j]);
            if (form == L1 || form == RATIO)
                to_c[j] += (x > c[j] ? w : 0) - (x < c[j] ? w : 0);
            else
                to_c[j] += w * (form == SQUARED ? x - c[j] : x);
        }
    }
}

/* Sum of the losses of a region's anchors, and their gradients. Inlined once for each form. */
static inline double all_anchors(const Task *task, Region *r, const int form)
{
    const long size = r->size, count = r->count, row = r->row;
    const int drawing = task->grad_hr || (task->grad_sr && task->negatives & SR);
    double loss = 0, share, kept[2];
    for (long i = 0; i < size; i++) {
        for (long j = i; j < count; j += size) {
            kept[j / size] = r->bias[j];
            r->bias[j] = NEVER;
            if (form == RATIO)
                CHANNEL r->values[k * row + j] = r->c[k * row + j] = r->x[k * row + i];
        }
        loss += form == RATIO ? ratio(r, i, task->parameter, &share) : infonce(r, i, form, task->parameter, &share);
        if (drawing)
            draw(r, i, form, share);
        for (long j = i; j < count; j += size)
            r->bias[j] = kept[j / size];
        if (form == RATIO && task->negatives & HR)
            CHANNEL r->values[k * row + i] = r->c[k * row + i] = r->y[k * row + i];
    }
    return loss;
}

/* Candidates from `start` on: the pixels, from the region's mean. */
static void set_candidates(const Task *task, Region *r, long start, const double *pixels)
{
    const double half = task->form == SQUARED ? 1 / task->parameter / LOG_2 : 0;
    for (long i = 0, j = start; i < r->size; i++, j++) {
        r->bias[j] = 0;
        CHANNEL {
            const double c = pixels[k * r->row + i] - r->mean[k];
            r->values[k * r->row + j] = r->c[k * r->row + j] = c;
            r->to_c[k * r->row + j] = 0;
            r->bias[j] -= half * c * c;
        }
    }
}

/* Reads the pixels of a region, h x w from `image` on; for the cosine, their directions and lengths. */
static void load(const Task *task, const Region *r, const real *image, long h, long w, double *pixels, double *length)
{
    PLANE for (long i = 0; i < h * w; i++)
        pixels[k * r->row + i] = image[(k * task->height + i / w) * task->width + i % w];
    for (long i = 0; task->form == COSINE && i < h * w; i++) {
        double squares = 0;
        CHANNEL squares += pixels[k * r->row + i] * pixels[k * r->row + i];
        length[i] = sqrt(squares);
        CHANNEL pixels[k * r->row + i] /= length[i] < SHORTEST ? SHORTEST : length[i];
    }
}

/* Writes the gradient for the pixels; from those of their directions, for the cosine. */
static void store(const Task *task, const Region *r, real *image, long h, long w, const double *gradient,
                  const double *pixels, const double *length)
{
    for (long i = 0; i < h * w; i++) {
        double scale = task->scale, along = 0;
        if (task->form == COSINE) {
            scale /= length[i] < SHORTEST ? SHORTEST : length[i];
            if (length[i] >= SHORTEST)
                CHANNEL along += gradient[k * r->row + i] * pixels[k * r->row + i];
        }
        CHANNEL image[(k * task->height + i / w) * task->width + i % w] =
            scale * (gradient[k * r->row + i] - along * pixels[k * r->row + i]);
    }
}

static double region(const Task *task, Region *r, long offset, long h, long w)
{
    const long size = r->size = h * w;
    r->count = task->negatives == HR + SR ? 2 * size : size;
    load(task, r, task->sr + offset, h, w, r->x, r->length_x);
    load(task, r, task->hr + offset, h, w, r->y, r->length_y);
    PLANE {
        r->mean[k] = 0;
        for (long i = 0; i < size && task->form != L1 && task->form != RATIO; i++)
            r->mean[k] += r->y[k * r->row + i] / size;
        for (long i = 0; i < size; i++)
            r->to_x[k * r->row + i] = r->to_y[k * r->row + i] = 0;
    }
    if (task->negatives & HR)
        set_candidates(task, r, 0, r->y);
    if (task->negatives & SR)
        set_candidates(task, r, r->count - size, r->x);

    double loss = 0;
    if (size > 1) /* else it has no negatives */
        switch (task->form) {
        case L1: loss = all_anchors(task, r, L1); break;
        case SQUARED: loss = all_anchors(task, r, SQUARED); break;
        case COSINE: /* of directions it is */
        case DOT: loss = all_anchors(task, r, DOT); break;
        case RATIO: loss = all_anchors(task, r, RATIO); break;
        }

    PLANE for (long i = 0; i < size; i++) {
        if (task->negatives & HR)
            r->to_y[k * r->row + i] += r->to_c[k * r->row + i];
        if (task->negatives & SR)
            r->to_x[k * r->row + i] += r->to_c[k * r->row + r->count - size + i];
    }
    if (task->grad_sr)
        store(task, r, task->grad_sr + offset, h, w, r->to_x, r->x, r->length_x);
    if (task->grad_hr)
        store(task, r, task->grad_hr + offset, h, w, r->to_y, r->y, r->length_y);
    return loss;
}

/* Takes regions until none is left. Which thread takes which changes nothing in the result. */
static void *work(void *argument)
{
    Task *task = argument;
    Region r;
    const long side = task->side, height = task->height, width = task->width;
    const long down = (height + side - 1) / side, across = (width + side - 1) / side;
    const long largest = (side < height ? side : height) * (side < width ? side : width);
    r.row = (2 * largest + 15) / 16 * 16; /* whole cache lines */
    const long bytes = (6 * CHANNELS + 4) * sizeof(double) + (CHANNELS + 1) * sizeof(real);
    double *next = aligned_alloc(64, bytes * r.row);
    if (!next) {
        task->failed = 1;
        return NULL;
    }
    void *memory = next;
    double **planes[] = {&r.x, &r.y, &r.to_x, &r.to_y, &r.c, &r.to_c};
    for (int i = 0; i < 6; i++, next += CHANNELS * r.row)
        *planes[i] = next;
    double **rows[] = {&r.length_x, &r.length_y, &r.bias, &r.score};
    for (int i = 0; i < 4; i++, next += r.row)
        *rows[i] = next;
    r.values = (real *)next;
    r.weight = r.values + CHANNELS * r.row;

    for (;;) {
        const long n = __atomic_fetch_add(&task->next, 1, __ATOMIC_RELAXED);
        if (n >= task->images * down * across)
            break;
        const long image = n / (down * across), top = n / across % down * side, left = n % across * side;
        const long h = height - top < side ? height - top : side, w = width - left < side ? width - left : side;
        task->losses[n] = region(task, &r, (image * CHANNELS * height + top) * width + left, h, w);
    }
    free(memory);
    return NULL;
}

/* Everything, by that many threads. Returns 0, or 1 where memory does not suffice. */
int contrast(const real *sr, const real *hr, real *grad_sr, real *grad_hr, double *losses, long images, long height,
             long width, long side, int form, int negatives, double parameter, double scale, int threads)
{
    Task task = {.sr = sr, .hr = hr, .grad_sr = grad_sr, .grad_hr = grad_hr, .losses = losses, .images = images,
                 .height = height, .width = width, .side = side, .form = form, .negatives = negatives,
                 .parameter = parameter, .scale = scale};
    pthread_t *others = malloc(threads * sizeof(pthread_t));
    int started = 0;
    while (others && started < threads - 1 && !pthread_create(&others[started], NULL, work, &task))
        started++;
    work(&task);
    while (started)
        pthread_join(others[--started], NULL);
    free(others);
    return task.failed;
}
