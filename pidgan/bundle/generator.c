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
 * card below. A row with an input that is not finite gives NaN. There is no state@MEMORY@
 * C99; link with -lm. For speed: -O3 -march=native; never -ffast-math.
 *
 * With -DPIDGAN_SELF_TEST it is a program that returns 0 if its results are right.
 *
@CARD@
 */

#include <math.h>
#include <stddef.h>

enum { ROWS = @ROWS@, LANES = @LANES@, FEW = 2 };

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
@BUNDLE@
#ifdef PIDGAN_SELF_TEST
#include <stdio.h>

@SELF_TEST@
int main(void)
{
    return self_test();
}
#endif
