#include <stdlib.h>

void @NAME@_row(float *restrict targets, const float *restrict conditions,
                const float *restrict noise)
{
    @NAME@_batch(targets, conditions, noise, 1);
}

void @NAME@_batch(float *restrict targets, const float *restrict conditions,
                  const float *restrict noise, size_t rows)
{
    void *scratch = malloc(@NAME@_scratch);
    if (scratch)
        @NAME@_batch_in(targets, conditions, noise, rows, scratch);
    else
        for (size_t i = 0; i < rows * @PRE@N_TARGETS; ++i)
            targets[i] = NAN;
    free(scratch);
}
