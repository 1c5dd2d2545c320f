/*
 * A generator of detector response, written by pidgan from a bundle.
 *
 *   float *@NAME@(float *output, const float *input, const float *noise);
 *   void @NAME@_row(float *targets, const float *conditions, const float *noise);
 *   void @NAME@_batch(float *targets, const float *conditions, const float *noise,
 *                     size_t rows);
 *
 * A row has @N_CONDITIONS@ conditions, @N_NOISE@ independent standard normal numbers
 * and @N_TARGETS@ targets; rows follow one another in memory. Names and units are in the
 * card below. A row with an input that is not finite gives NaN. There is no state, and
 * nothing is allocated. C99; link with -lm. For speed: -O3 -march=native; never
 * -ffast-math.
 *
 * With -DPIDGAN_SELF_TEST it is a program that returns 0 if its results are right.
 *
@CARD@
 */

#include <math.h>
#include <stddef.h>

enum {
    ROWS = @ROWS@,
    N_CONDITIONS = @N_CONDITIONS@,
    N_NOISE = @N_NOISE@,
    N_TARGETS = @N_TARGETS@
};

/* Sizes of a row, for whoever calls this file from another. */
extern const int @NAME@_n_conditions, @NAME@_n_noise, @NAME@_n_targets;
const int @NAME@_n_conditions = N_CONDITIONS;
const int @NAME@_n_noise = N_NOISE;
const int @NAME@_n_targets = N_TARGETS;

float *@NAME@(float *output, const float *input, const float *noise);
void @NAME@_row(float *restrict targets, const float *restrict conditions,
                const float *restrict noise);
void @NAME@_batch(float *restrict targets, const float *restrict conditions,
                  const float *restrict noise, size_t rows);

#ifdef FP_FAST_FMAF
#define MULTIPLY_ADD(a, b, c) fmaf(a, b, c)
#else
#define MULTIPLY_ADD(a, b, c) ((a) * (b) + (c))
#endif

@CONSTANTS@

@FUNCTIONS@
/* A block of rows: number i of row r lies at [i * ROWS + r]. */
static void evaluate_block(float *restrict targets, const float *restrict conditions,
                           const float *restrict noise)
{
    (void)conditions, (void)noise; /* One may do for a graph. */
@BLOCK@
}

static void evaluate_row(float *restrict targets, const float *restrict conditions,
                         const float *restrict noise)
{
    (void)conditions, (void)noise; /* One may do for a graph. */
@ROW@
}

static int all_finite(const float *conditions, const float *noise)
{
    int finite = 1;
    for (int i = 0; i < N_CONDITIONS; ++i)
        finite &= !!isfinite(conditions[i]);
    for (int i = 0; i < N_NOISE; ++i)
        finite &= !!isfinite(noise[i]);
    return finite;
}

void @NAME@_row(float *restrict targets, const float *restrict conditions,
                const float *restrict noise)
{
    evaluate_row(targets, conditions, noise);
    if (!all_finite(conditions, noise))
        for (int i = 0; i < N_TARGETS; ++i)
            targets[i] = NAN;
}

float *@NAME@(float *output, const float *input, const float *noise)
{
    @NAME@_row(output, input, noise);
    return output;
}

void @NAME@_batch(float *restrict targets, const float *restrict conditions,
                  const float *restrict noise, size_t rows)
{
    float x[N_CONDITIONS * ROWS], z[N_NOISE * ROWS], y[N_TARGETS * ROWS];
    for (size_t first = 0; first < rows; first += ROWS) {
        const size_t count = rows - first < ROWS ? rows - first : ROWS;
        for (size_t r = 0; r < ROWS; ++r) {
            /* The last block is filled up with its last row. */
            const size_t row = first + (r < count ? r : count - 1);
            for (size_t i = 0; i < N_CONDITIONS; ++i)
                x[i * ROWS + r] = conditions[row * N_CONDITIONS + i];
            for (size_t i = 0; i < N_NOISE; ++i)
                z[i * ROWS + r] = noise[row * N_NOISE + i];
        }
        evaluate_block(y, x, z);
        for (size_t r = 0; r < count; ++r) {
            const size_t row = first + r;
            const int finite = all_finite(conditions + row * N_CONDITIONS,
                                          noise + row * N_NOISE);
            for (size_t i = 0; i < N_TARGETS; ++i)
                targets[row * N_TARGETS + i] = finite ? y[i * ROWS + r] : NAN;
        }
    }
}

#ifdef PIDGAN_SELF_TEST
#include <stdio.h>

@SELF_TEST@

/* Rows that differ: rounding may carry a few across the edge of a discrete choice. */
static int differing(const float *got)
{
    int rows = 0;
    for (int row = 0; row < test_rows; ++row) {
        int same = 1;
        for (int i = row * N_TARGETS; i < (row + 1) * N_TARGETS; ++i) {
            const double y = test_targets[i];
            same &= fabs(got[i] - y) <= test_tolerance * fmax(1.0, fabs(y));
        }
        rows += !same;
    }
    return rows;
}

int main(void)
{
    static float batch[test_rows * N_TARGETS], single[test_rows * N_TARGETS];
    @NAME@_batch(batch, test_conditions, test_noise, test_rows);
    for (int row = 0; row < test_rows; ++row)
        @NAME@(single + row * N_TARGETS, test_conditions + row * N_CONDITIONS,
               test_noise + row * N_NOISE);
    printf("@NAME@: of %d rows, %d differ in the batch function and %d in the one-row "
           "function; at most %d may\n",
           test_rows, differing(batch), differing(single), test_excused);
    return differing(batch) > test_excused || differing(single) > test_excused;
}
#endif
