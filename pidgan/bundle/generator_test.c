@TEST_ARRAYS@

/* Rows that differ: rounding may carry a few across the edge of a discrete choice. If
 * few cells of showers do, a cell is compared with the energy of its shower. */
static int @PRE@differing(const float *got)
{
    int rows = 0, moved = 0;
    for (int i = 0; i < @PRE@test_rows * @PRE@N_TARGETS; ++i) {
        const double y = @PRE@test_targets[i];
        moved += !(fabs(got[i] - y) <= @PRE@test_tolerance * fmax(1.0, fabs(y)));
    }
    const int few = moved <= @PRE@test_moved * @PRE@test_rows * @PRE@N_TARGETS;
    for (int row = 0; row < @PRE@test_rows; ++row) {
        const int start = row * @PRE@N_TARGETS;
        double total = 0;
        int same = 1;
        for (int i = start; @PRE@test_cells && few && i < start + @PRE@N_TARGETS; ++i)
            total += @PRE@test_targets[i];
        for (int i = start; i < start + @PRE@N_TARGETS; ++i) {
            const double y = @PRE@test_targets[i];
            const double unit = fmax(fmax(1.0, fabs(total)), fabs(y));
            same &= fabs(got[i] - y) <= @PRE@test_tolerance * unit;
        }
        rows += !same;
    }
    return rows;
}

static int @PRE@self_test(void)
{
    static float batch[@PRE@test_rows * @PRE@N_TARGETS];
    static float single[@PRE@test_rows * @PRE@N_TARGETS];
    @NAME@_batch(batch, @PRE@test_conditions, @PRE@test_noise, @PRE@test_rows);
    for (int row = 0; row < @PRE@test_rows; ++row)
        @NAME@(single + row * @PRE@N_TARGETS,
               @PRE@test_conditions + row * @PRE@N_CONDITIONS,
               @PRE@test_noise + row * @PRE@N_NOISE);
    const int many = @PRE@differing(batch), one = @PRE@differing(single);
    printf("@NAME@: of %d rows, %d differ in the batch function and %d in the one-row "
           "function; at most %d may\n",
           @PRE@test_rows, many, one, @PRE@test_excused);
    return many > @PRE@test_excused || one > @PRE@test_excused;
}
