enum {
    @PRE@N_CONDITIONS = @N_CONDITIONS@,
    @PRE@N_NOISE = @N_NOISE@,
    @PRE@N_TARGETS = @N_TARGETS@
};

/* Sizes of a row, for whoever calls this file from another. */
extern const int @NAME@_n_conditions, @NAME@_n_noise, @NAME@_n_targets;
const int @NAME@_n_conditions = @PRE@N_CONDITIONS;
const int @NAME@_n_noise = @PRE@N_NOISE;
const int @NAME@_n_targets = @PRE@N_TARGETS;

@CELLS@float *@NAME@(float *output, const float *input, const float *noise);
void @NAME@_row(float *restrict targets, const float *restrict conditions,
                const float *restrict noise);
void @NAME@_batch(float *restrict targets, const float *restrict conditions,
                  const float *restrict noise, size_t rows);
@SCRATCH_HEAD@
@PARTS@
@BLOCK@static void @PRE@evaluate_row(float *restrict targets, const float *restrict conditions,
                         const float *restrict noise@PARAMETER@)
{
    (void)conditions, (void)noise; /* One may do for a graph. */
@ROW@
}

static int @PRE@all_finite(const float *conditions, const float *noise)
{
    int finite = 1;
    for (int i = 0; i < @PRE@N_CONDITIONS; ++i)
        finite &= !!isfinite(conditions[i]);
    for (int i = 0; i < @PRE@N_NOISE; ++i)
        finite &= !!isfinite(noise[i]);
    return finite;
}

void @NAME@_row@IN@(float *restrict targets, const float *restrict conditions,
                const float *restrict noise@PARAMETER@)
{
    @PRE@evaluate_row(targets, conditions, noise@ARGUMENT@);
    if (!@PRE@all_finite(conditions, noise))
        for (int i = 0; i < @PRE@N_TARGETS; ++i)
            targets[i] = NAN;
}

float *@NAME@(float *output, const float *input, const float *noise)
{
    @NAME@_row(output, input, noise);
    return output;
}

void @NAME@_batch@IN@(float *restrict targets, const float *restrict conditions,
                  const float *restrict noise, size_t rows@PARAMETER@)
{
@BATCH@
}
@SCRATCH_CALLS@
