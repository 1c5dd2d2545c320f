/*
 * A collection of generators of detector response, written by pidgan.
 *
 *   int @NAME@_choose(const double *columns);
 *   float *@NAME@(float *output, const float *input, const float *noise,
 *                 const double *columns);
 *
 * Columns, in this order:
 *
@COLUMNS@
 *
 * @NAME@_choose returns the number of the generator that serves a row with these
 * columns, or -1 if none does. Columns are whole numbers; others are served by none.
 * @NAME@ calls that generator and returns output, or returns 0 and writes nothing.
 *
 * The generators, by number, with the columns that they serve:
 *
@BUNDLES@
 *
 * Each has the functions of a single generator:
 *
 *   float *GENERATOR(float *output, const float *input, const float *noise);
 *   void GENERATOR_row(float *targets, const float *conditions, const float *noise);
 *   void GENERATOR_batch(float *targets, const float *conditions, const float *noise,
 *                        size_t rows);
 *
 * and the sizes of a row, GENERATOR_n_conditions, _n_noise and _n_targets. Its card is
 * above its functions. The tables @NAME@_generators, @NAME@_n_conditions,
 * @NAME@_n_noise and @NAME@_n_targets have an element for each generator, and
 * @NAME@_n_generators is their number.
 *
 * A row with an input that is not finite gives NaN. There is no state@MEMORY@
 * C99; link with -lm. For speed: -O3 -march=native; never -ffast-math.
 *
 * With -DPIDGAN_SELF_TEST it is a program that returns 0 if its results are right.
 */

#include <math.h>
#include <stddef.h>

enum { ROWS = @ROWS@, LANES = @LANES@, FEW = 2 };
enum { @NAME@_N_GENERATORS = @N_GENERATORS@ };

#ifdef __GNUC__
#define APART __attribute__((noinline))
#else
#define APART
#endif

#ifdef FP_FAST_FMAF
#define MULTIPLY_ADD(a, b, c) fmaf(a, b, c)
#else
#define MULTIPLY_ADD(a, b, c) ((a) * (b) + (c))
#endif

@CONSTANTS@

@FUNCTIONS@
@SECTIONS@
typedef float *(*@NAME@_generator)(float *output, const float *input,
                                   const float *noise);

extern const int @NAME@_n_generators, @NAME@_n_conditions[], @NAME@_n_noise[],
    @NAME@_n_targets[];
extern const @NAME@_generator @NAME@_generators[];
const int @NAME@_n_generators = @NAME@_N_GENERATORS;
const int @NAME@_n_conditions[@NAME@_N_GENERATORS] = {@ALL_CONDITIONS@};
const int @NAME@_n_noise[@NAME@_N_GENERATORS] = {@ALL_NOISE@};
const int @NAME@_n_targets[@NAME@_N_GENERATORS] = {@ALL_TARGETS@};
const @NAME@_generator @NAME@_generators[@NAME@_N_GENERATORS] = {
@GENERATORS@
};

int @NAME@_choose(const double *columns);
float *@NAME@(float *output, const float *input, const float *noise,
              const double *columns);

int @NAME@_choose(const double *columns)
{
    (void)columns; /* There may be one generator for all rows. */
    for (int i = 0; i < @N_COLUMNS@; ++i)
        if (!(columns[i] == floor(columns[i])))
            return -1;
@CHOICES@
    return -1;
}

float *@NAME@(float *output, const float *input, const float *noise,
              const double *columns)
{
    const int number = @NAME@_choose(columns);
    return number < 0 ? NULL : @NAME@_generators[number](output, input, noise);
}

#ifdef PIDGAN_SELF_TEST
#include <stdio.h>

@SELF_TESTS@
int main(void)
{
    int failed = 0;
@CALLS@
    return failed;
}
#endif
